"""Backends that generate answers, by name; imported when they are used."""

from __future__ import annotations

import importlib
from typing import cast

from evaluation.backends.interface import Backend
from foundation.errors import InputError

BACKENDS: dict[str, str] = {"hf": "evaluation.backends.hf"}


def backend(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        InputError: there is none of that name; the valid ones are listed.
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is unknown; choose one of: {', '.join(BACKENDS)}")
    return cast(Backend, importlib.import_module(BACKENDS[name]))
