r"""LaTeX as text: one spelling for what is written in many, splitting at the top level, bounds on size.

Nothing here evaluates anything, so nothing here can hang: all patterns are linear, and sizes are checked first.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 4096
MAX_NESTING = 64
MAX_DIGIT_RUN = 256
MAX_NODES = 512
MAX_EXPONENT = 10_000

_UNICODE = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ",
    "°": r"^\circ ", "º": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∅": r"\emptyset ", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}",
    "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2002": " ", "\u2003": " ",
    "\u200b": "", "\ufeff": "", "，": ",", "。": ".", "ℝ": r"\mathbb{R}", "“": '"', "”": '"', "’": "'", "′": "'",
    **{chr(0xFF01 + i): chr(0x21 + i) for i in range(94)},
})
_RADICAL = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[a-zA-Z]))")
_SPACING = re.compile(r"\\\\|,\\!\s*|\\[,;:!> ]|\\(?:quad|qquad|thinspace|enspace|displaystyle|textstyle|limits"
                      r"|nolimits)(?![a-zA-Z])|~|\\(?:phantom|hspace|vspace)\*?\{[^{}]*\}")
_SIZED = re.compile(r"\\(?:left|right)\s*\.|\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])")
_DELIMITERS = re.compile(r"\\[()]|\\\[|\\\]|(?<!\\)\$|\\\$|[€£₹¥]")
_FONT = re.compile(r"\\(?:mathrm|mathit|mathbf|mathsf|boldsymbol|operatorname|textbf|textit|textrm|textnormal|text|mbox"
                   r"|hbox|emph|underline)\*?\s*\{([^{}]*)\}")
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")
_OLD_FONT = re.compile(r"\{\\(?:rm|bf|it)\s+([^{}]*)\}")
_OPERATORS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh",
                        "log", "ln", "exp", "gcd", "lcm", "max", "min", "det"))
_PLAIN_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z{])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln)(?=[\s(^\\\d])")
_PLAIN_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+))")
_WORDS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "varnothing": "emptyset", "geq": "ge", "leq": "le", "neq": "ne",
    "geqslant": "ge", "leqslant": "le", "lt": "<!", "gt": ">!", "lbrace": "{", "rbrace": "}", "infin": "infty",
    "imath": "i!", "cdotp": "cdot", "degree": "deg!", "dots": "ldots", "cdots": "ldots",
    "approxeq": "approx", "lor": "or!", "vee": "or!", "land": "and!", "wedge": "and!", "thickapprox": "approx",
    "doteq": "approx", "colon": ":!",
    "lbrack": "[!", "rbrack": "]!", "lvert": "|!", "rvert": "|!", "ast": "*!",
}
_BARE = {"<!": "<", ">!": ">", "i!": "i", "deg!": "^{\\circ}", "or!": " or ", "and!": " and ", ":!": ":", "[!": "[",
         "]!": "]", "|!": "|", "*!": "*"}
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_ARRAY = re.compile(r"\\begin\{array\}\s*(?:\{[clr|]*\})?")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)|(\{[^{}]*\}))\s*(?:(\d)|(\{[^{}]*\}))")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))")
_DIGIT_GAP = re.compile(r"(?<=[\d,]) +(?=[\d.])")
LONG_RUN = re.compile(rf"\d{{{MAX_DIGIT_RUN + 1}}}")
_TOKEN = re.compile(r"\\[a-zA-Z]+|\d+(?:\.\d+)?|[a-zA-Z]|[^\s{}]")
_NESTED_POWER = re.compile(r"\^\s*(?:\{\s*[({]*\s*[\d.]+\s*[)}]*\s*\^|\d\s*\^|\(\s*[\d.]+\s*\^)")
_POWER_OF_POWER = re.compile(r"\^\s*\{?\s*\d{2,}\s*\}?\s*[)}\]]+\s*\^\s*\{?\s*\d{2,}")
_LARGE_EXPONENT = re.compile(r"\^\s*\{?\s*[-+(]*\s*(\d{5,})")
_FACTORIAL = re.compile(r"(\d+)\s*!|[)}\]!]\s*!")


def normalise(text: str) -> str:
    """Return one spelling of a LaTeX answer: no sizing, fonts, thin spaces, dollar signs or closing full stop."""
    if not text.isascii():
        text = text.translate(_UNICODE)
        text = _RADICAL.sub(lambda m: f"\\sqrt{{{m[1] or m[2] or m[3]}}}", text)
    text = " ".join(text.split())
    if "**" in text:  # bold in Markdown, a power inside a formula
        text = text.removeprefix("**").removesuffix("**").replace("**", "^")
    if "\\" in text:
        text = _commands(text)
    text = text.replace("$", "").replace("{,}", ",")
    text = _PLAIN_ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2] or m[3]}}}", text)
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text)
    text = re.sub(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi ", text)
    text = re.sub(r"(?<![\\a-zA-Z])(?:infinity|inf)(?![a-zA-Z])", r"\\infty ", text)
    text = _DEGREES.sub("°", text).replace("\\%", "%").replace("+\\infty", "\\infty").replace("<=", "\\le ")
    return _strip(text.replace(">=", "\\ge "))


def _commands(text: str) -> str:
    if "array" in text:
        text = _ARRAY.sub(r"\\begin{matrix}", text).replace("\\end{array}", "\\end{matrix}")
    text = _SPACING.sub(_space, _SIZED.sub("", text))
    text = _DELIMITERS.sub("", text)
    text = _OLD_FONT.sub(r"\\text{\1}", text)
    if "color" in text:
        text = _COLOUR.sub("", text)
    text = _COMMAND.sub(_command, text)
    text = _FONT.sub(_font, text)
    for _ in range(4):  # shorthand nested in shorthand
        shorter = _SHORT_FRACTION.sub(
            lambda m: f"\\frac{m[2] or '{' + m[1] + '}'}{m[4] or '{' + m[3] + '}'}", text)
        shorter = _SHORT_ROOT.sub(r"\\sqrt{\1}", shorter)
        if shorter == text:
            break
        text = shorter
    return text


def _space(match: re.Match[str]) -> str:
    token = match[0]
    if token == "\\\\":
        return token
    if token.startswith(",\\!"):
        return ","
    return "" if token == "\\!" else " "


def _command(match: re.Match[str]) -> str:
    word = _WORDS.get(match[1])
    if word is None:
        return match[0]
    return _BARE[word] if word in _BARE else "\\" + word


def _font(match: re.Match[str]) -> str:
    content = match[1].strip()
    if len(content) == 1 or (content and all(not char.isalpha() for char in content)):
        return content
    if content in _OPERATORS:
        return f"\\{content} "
    if content.lower() in ("and", "or"):
        return f" {content.lower()} "
    return f"\\text{{{content}}}" if content else " "


def _strip(text: str) -> str:
    for _ in range(MAX_NESTING):
        previous = text
        text = text.strip().rstrip(".,;:`") if not text.endswith("\\ldots") else text.strip()
        text = text.strip("*`\"").strip() if text[:1] in "*`\"" or text[-1:] in "*`\"" else text
        if text.startswith("{") and text.endswith("}") and closing(text, 0) == len(text) - 1:
            text = text[1:-1]
        if text == previous:
            break
    return text


def compact(text: str) -> str:
    """Return the text without spaces, except before digits where joining would make another number."""
    return _DIGIT_GAP.sub("\x00", text).replace(" ", "").replace("\x00", " ")


def closing(text: str, start: int) -> int:
    """Return where the bracket at `start` closes, or -1."""
    depth, index = 0, start
    while index < len(text):
        char = text[index]
        if char == "\\" and text[index + 1:index + 2] in ("{", "}"):
            depth += 1 if text[index + 1] == "{" else -1
            index += 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if depth == 0 and index > start - 1:
            return index
        index += 1
    return -1


def split_top(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Split at the matches of `pattern` that stand outside every bracket."""
    parts, depth, start, index = [], 0, 0, 0
    while index < len(text):
        char = text[index]
        if char == "\\" and text[index + 1:index + 2] in ("{", "}"):
            depth += 1 if text[index + 1] == "{" else -1
            index += 2
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and (match := pattern.match(text, index)) and match.end() > index:
            parts.append(text[start:index].strip())
            start = index = match.end()
            continue
        index += 1
    return [*parts, text[start:].strip()]


def oversize(text: str) -> str | None:
    """Say which bound an expression exceeds, or None: what is refused here is never handed to a parser."""
    if len(text) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    if LONG_RUN.search(text):
        return f"a run of more than {MAX_DIGIT_RUN} digits"
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    if sum(1 for _ in _TOKEN.finditer(text)) > MAX_NODES:
        return f"more than {MAX_NODES} symbols"
    return _explosive(text)


def _explosive(text: str) -> str | None:
    if _NESTED_POWER.search(text) or _POWER_OF_POWER.search(text):
        return "nested numeric exponents"
    if _LARGE_EXPONENT.search(text):
        return f"an exponent above {MAX_EXPONENT}"
    for match in _FACTORIAL.finditer(text):
        numeric = any(char.isdigit() for char in text[:match.start() + 1])
        if match[1] is None and numeric and "!" in text[:match.end() - 1]:
            return "a factorial of a factorial"
        if match[1] is not None and int(match[1]) > MAX_EXPONENT:
            return f"a factorial above {MAX_EXPONENT}"
    return None
