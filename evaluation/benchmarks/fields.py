"""Reading a row's fields: the value as text, or the reason why the row cannot be used."""

from __future__ import annotations

from typing import Any

from evaluation.problem import CHOICE_LETTERS


def text_field(row: dict[str, Any], *names: str) -> str:
    """Return the first of these fields that the row has, as text without surrounding white space.

    Raises:
        ValueError: none is there, or it is neither text nor a number.
    """
    for name in names:
        if name in row:
            value = row[name]
            if isinstance(value, str):
                return value.strip()
            if isinstance(value, int | float) and not isinstance(value, bool):
                return repr(value)
            raise ValueError(f"field {name!r} should be text, found {type(value).__name__}")
    raise ValueError(f"has no field {' or '.join(repr(name) for name in names)} (it has {', '.join(sorted(row))})")


def code_field(row: dict[str, Any], name: str) -> str:
    r"""Return a field that holds code: unstripped, since its indentation counts, and with `\n` for every line end.

    Raises:
        ValueError: it is not there, or not text.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} should be text, found {type(value).__name__}")
    return value.replace("\r\n", "\n")


def option_texts(listed: Any) -> tuple[str, ...]:
    """Return a row's options as plain texts.

    Raises:
        ValueError: it is not a list of two to ten non-empty texts.
    """
    if not isinstance(listed, list) or not all(isinstance(option, str) and option.strip() for option in listed):
        raise ValueError(f"its options are not a list of texts: {str(listed)[:80]}")
    if not 2 <= len(listed) <= len(CHOICE_LETTERS):
        raise ValueError(f"has {len(listed)} options, 2 to {len(CHOICE_LETTERS)} can be lettered")
    return tuple(option.strip() for option in listed)


def letter_at(index: Any, options: tuple[str, ...]) -> str:
    """Return the letter of an option given by its index from 0.

    Raises:
        ValueError: it is no index of an option.
    """
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise ValueError(f"gold index {index!r} is not one of the {len(options)} options")
    return CHOICE_LETTERS[index]
