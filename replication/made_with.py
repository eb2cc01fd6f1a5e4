"""What a result file was made with: model, scale, seed, limits, settings; and in what two files differ.

A setting that only one of two files names is no difference: it came with another version of the suite, at a value that
left results as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from baselines.settings import TrainingSettings

Content = Mapping[str, Any]
_FREE = frozenset(f.name for f in fields(TrainingSettings) if not f.metadata.get("identity", True))
"""Settings of how a training is carried out, which change no result beyond rounding; so do all of a vLLM engine's."""


def made_with(content: Content) -> dict[str, Any]:
    """Return scale, model and settings of a result file as dotted names and plain values."""
    settings = (content.get("provenance") or {}).get("settings") or {}
    named = {key: content.get(key) for key in ("model", "scale")}
    return named | {name: value for name, value in _dotted("", settings)
                    if name.rpartition(".")[2] not in _FREE and not name.startswith("engine.")}


def _dotted(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _dotted(f"{prefix}.{key}".removeprefix(".").removeprefix("configuration."), entry)
    else:
        yield prefix, _as_read(value)


def _as_read(value: Any) -> Any:
    """JSON knows no tuples: what is about to be written is compared with what was read."""
    return [_as_read(entry) for entry in value] if isinstance(value, list | tuple) else value


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names at which both have a value and not the same."""
    return [name for name, value in one.items() if name in other and other[name] != value]


def text(value: Any) -> str:
    """Word a value: `none` for one that is not set."""
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value)) or "none"
    return "none" if value is None else str(value)
