"""Values written as text (`--set section.field=value`), read by their field's type."""

from __future__ import annotations

import math
import types
from typing import Any, Literal, Union, get_args, get_origin

from foundation.errors import InputError


def parsed(hint: Any, text: str, name: str) -> Any:
    """Return the value that `text` stands for.

    Args:
        hint: the field's type: a Literal, bool, int, float, str, or one of these or None.
        text: as on the command line.
        name: of the setting, for the message.

    Raises:
        InputError: the text is none of the allowed values, or not a finite number.
    """
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return None if text.lower() == "none" else parsed(options[0], text, name)
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint)}
        if text not in choices:
            raise InputError(f"{name} is {text!r}; choose one of: {', '.join(choices)}")
        return choices[text]
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{name} is {text!r}; choose true or false")
        return text.lower() == "true"
    if hint not in (int, float, str):
        raise InputError(f"{name} cannot be set from the command line (it is a {getattr(hint, '__name__', hint)})")
    try:
        value = hint(text)
    except ValueError as error:
        raise InputError(f"{name} is {text!r}; expected {hint.__name__}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}; it must be a finite number")
    return value
