"""The child program of `worker.py`: parses and compares LaTeX leaves with math-verify's parser and SymPy.

It is run by file name, never imported by the suite: everything heavy stays in it. Layout: a "zygote" imports and warms
up once, then forks the server that answers requests; the parent kills a server that is late, and the zygote, which
holds no request, forks the next one in milliseconds. Parsed expressions are never printed: printing alone can hang.

Protocol, JSON lines on inherited pipes: `{"ready": pid}` from each new server; request `{"op", "gold", "answer"}`;
`{"stage": name}` before each step; `{"status": name}` at its end.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

DIGITS = 30  # leading digits of a difference that must be knowable
MAX_DIGITS = 1500  # precision up to which a difference of constants is searched for a non-zero digit
POINT_DIGITS = 120  # the same at a test point, where the sides' own constants were chosen by nobody
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_DEGREES = re.compile(r"(\d+)\s*°")
# The first use of each kind of expression loads parts of SymPy: paid at the start, not by the first answer.
_WARM_UP_PAIRS = ((r"\sqrt{2}", "6+9i"), ("4", r"\sin 2x"), (r"\frac{1}{2}", "e^{2x}"), ("a^b", "x^2-1"))
_WARM_UP = (r"\frac{11+9a}{20}", r"3\sqrt[3]{2}+\sqrt{13}", r"(a+5)(b+2)", r"e^{i\pi}-\cot x", r"\log_2 8+\ln 2", r"5!",
            r"x^5-x^4+2\cdot 3", r"\sin^2 x+\arcsin(y)", r"|x|-\pi r^2", r"6-5i", r"\binom{5}{2}", r"x_1^2+f(x)")


@lru_cache(maxsize=64)  # one gold meets many answers
def parse(text: str) -> Any:
    """Return the SymPy form of a LaTeX leaf; decimals become exact fractions and `i` the imaginary unit."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    if "'" in text:
        raise ValueError("the parser drops primes")
    text = _DECIMAL.sub(lambda m: f"{{\\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}}}", text)
    text = _DEGREES.sub(r"{\\frac{\1 \\pi}{180}}", text)
    parsed = latex2sympy(text, is_real=None, normalization_config=None,
                         conversion_config=ConversionConfig(lowercase_symbols=False))
    if not isinstance(parsed, sympy.Basic | sympy.MatrixBase):
        raise ValueError("not an expression")
    if isinstance(parsed, sympy.Expr):
        names = {symbol: sympy.I if symbol.name == "i" else sympy.Symbol(symbol.name) for symbol in parsed.free_symbols}
        parsed = parsed.xreplace(names)
    return parsed


def parse_equation(text: str) -> Any:
    """Return left minus right of `EQ left = right`."""
    left, right = text.removeprefix("EQ ").split("=", 1)
    difference = parse(left) - parse(right)
    if not difference.free_symbols:
        raise ValueError("an equation without unknowns")
    return difference


def same_equation(gold: Any, answer: Any) -> bool:
    """Say whether two equations are multiples of each other by a constant."""
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=lambda symbol: symbol.name)
    if gold.free_symbols != answer.free_symbols:
        return False
    at = {symbol: _point(index, 0) for index, symbol in enumerate(symbols)}
    factor_gold, factor_answer = gold.subs(at), answer.subs(at)
    if not (_comparable(factor_gold) and _comparable(factor_answer)) or is_zero(factor_answer) is not False:
        return False
    return equal_expressions(gold * factor_answer, answer * factor_gold)


def compare(gold_text: str, answer_text: str, stage: Callable[[str], None]) -> str:
    """Return equal, different, unparsed_gold or unparsed_answer."""
    import sympy
    from math_verify import verify
    from sympy.core.function import AppliedUndef

    parsed = []
    for name, text in (("gold", gold_text), ("answer", answer_text)):
        stage(name)
        try:
            parsed.append(parse_equation(text) if text.startswith("EQ ") else parse(text))
        except MemoryError:
            raise
        except Exception:
            return f"unparsed_{name}"
    gold, answer = parsed
    stage("compare")
    if gold_text.startswith("EQ "):
        return "equal" if same_equation(gold, answer) else "different"
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and not (
            gold.has(AppliedUndef) or answer.has(AppliedUndef)):
        return "equal" if equal_expressions(gold, answer) else "different"
    # Sets, relations, unknown functions: math-verify's own rules, both ways round, since they are not symmetric.
    same = all(verify(first, second, float_rounding=15, numeric_precision=50, timeout_seconds=None)
               for first, second in ((gold, answer), (answer, gold)))
    return "equal" if same else "different"


def equal_expressions(gold: Any, answer: Any) -> bool:
    """Compare scalar expressions exactly: constants by their difference, others at rational points."""
    import sympy

    if gold == answer:
        return True
    if gold.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan) or answer.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan):
        return False
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=lambda symbol: symbol.name)
    if not symbols:
        return is_zero(gold - answer) is True
    agreed = 0
    for point in range(6):
        values = {symbol: _point(index, point) for index, symbol in enumerate(symbols)}
        at_gold, at_answer = gold.subs(values), answer.subs(values)
        if not _comparable(at_gold):
            continue  # outside gold's domain
        if not _comparable(at_answer) or is_zero(at_gold - at_answer, POINT_DIGITS) is not True:
            return False
        agreed += 1
    return agreed >= 2


def _point(index: int, point: int) -> Any:
    """Return the value of symbol number `index` at test point `point`: positive, negative and mixed signs."""
    import sympy

    sign = (-1) ** (point + (index if point > 3 else 0))
    return sympy.Rational(sign * (137 + 41 * index + 29 * point), 101 + 7 * point)


def _comparable(value: Any) -> bool:
    import sympy

    if value.has(sympy.zoo, sympy.nan, sympy.oo):
        return False
    number = sympy.N(value, 15)
    if not number.is_number or not number.is_finite:
        return False
    return value.has(sympy.I) or abs(sympy.im(number)) < 1e-12


def is_zero(difference: Any, digits: int = MAX_DIGITS) -> bool | None:
    """Say whether a constant is zero: by exact arithmetic, or by a digit that differs within so many."""
    from sympy.core.evalf import PrecisionExhausted

    if difference.is_Rational:
        return bool(difference == 0)
    try:
        # Cheap first look: nearly every wrong answer differs in the leading digits.
        value = difference.evalf(DIGITS, strict=True)
    except PrecisionExhausted:
        try:
            value = difference.evalf(2, maxn=digits, strict=True)
        except PrecisionExhausted:
            return True  # no digit differs
    if not value.is_number or value.is_finite is False:
        return None
    return bool(value == 0)


def serve(requests: int, replies: int) -> None:
    """Answer requests until the parent closes the pipe."""
    def send(message: dict[str, Any]) -> None:
        os.write(replies, b"\n" + json.dumps(message).encode() + b"\n")

    send({"ready": os.getpid()})
    pending = b""
    while True:
        while b"\n" not in pending:
            data = os.read(requests, 65536)
            if not data:
                return
            pending += data
        line, pending = pending.split(b"\n", 1)
        request = json.loads(line)
        try:
            if request["op"] == "parse":
                send({"stage": "gold"})
                parse(request["gold"])
                status = "parsed"
            else:
                status = compare(request["gold"], request["answer"], lambda name: send({"stage": name}))
        except MemoryError:
            status = "memory"
        except RecursionError:
            status = "unparsed_answer"
        except Exception:
            status = "unparsed_gold" if request["op"] == "parse" else "error"
        send({"status": status})


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it was gone before the call
        os._exit(0)


def main() -> None:
    """Run the zygote: `symbolic.py PARENT_PID REQUEST_FD REPLY_FD MEMORY_MIB`."""
    parent, requests, replies, memory_mib = (int(argument) for argument in sys.argv[1:5])
    _die_with_parent(parent)
    for text in _WARM_UP:
        compare(text, text + "+1", lambda name: None)
    zygote = os.getpid()
    while True:
        child = os.fork()
        if child == 0:
            _die_with_parent(zygote)
            resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
            serve(requests, replies)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    main()
