"""How numbers are written on the page. Rounding happens here and nowhere before."""

from __future__ import annotations

from typing import Any

MINUS = "−"
_DEFAULT_DIGITS = {"%": 1, "s": 0, "points": 1}


def value_text(value: float, unit: str = "", digits: int | None = None, *, sign: bool = False) -> str:
    """Return a value with `digits` decimals (default by unit; three significant figures where there is none)."""
    digits = _DEFAULT_DIGITS.get(unit) if digits is None else int(digits)
    plus = "+" if sign else ""
    if digits is None:
        text = f"{value:{plus},.0f}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:{plus}.3g}"
    else:
        text = f"{value:{plus},.{digits}f}"
    zero = not any(character in "123456789" for character in text.partition("e")[0])
    return text.replace("-", "" if zero and not sign else MINUS)


def interval_text(pair: list[float] | None, unit: str = "", digits: int | None = None, *, sign: bool = False) -> str:
    """Return `[low, high]`, or nothing where there is no interval."""
    if not pair:
        return ""
    return f"[{value_text(pair[0], unit, digits, sign=sign)}, {value_text(pair[1], unit, digits, sign=sign)}]"


def p_text(p: float | None) -> str:
    """Return a p value to two significant figures, small ones as a bound."""
    if p is None:
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return `1 table` or `3 tables`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def digits_of(cell: dict[str, Any]) -> int | None:
    """Return the decimals a cell asks for."""
    digits: int | None = cell.get("digits")
    return digits
