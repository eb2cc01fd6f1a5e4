"""How a method's setting is declared: its default, and what a reader wants to know of it.

A module of its own because nested settings (settings.py, selection.py) are declared the same way and must not import
the interface. What is declared here is what `python -m baselines list` prints and what tests hold against the paper.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from foundation.errors import InputError

SCALING = ("learning_rate", "global_batch", "pool", "length")


def setting(default: Any, *, place: str = "", paper: str = "", ambiguity: str = "", options: tuple[str, ...] = (),
            scales_with: str = "", silent_base: Any = None, prolongs: bool = False, identity: bool = True) -> Any:
    """Declare a method's setting: its default is the paper's value, `place` where the paper prints it.

    Args:
        default: the value at the paper's scale.
        place: section of the paper, for the list of methods.
        paper: name of that value among the paper's hyperparameters (`python -m replication.paper`), e.g. `spin.beta`.
        ambiguity: id A-nn of the open question that this setting answers.
        options: other readings, as on the command line, where the type does not list them.
        scales_with: `learning_rate`, `global_batch`, `pool` or `length`: at other scales the default keeps its ratio
            to the shared protocol's value.
        silent_base: the value for a backbone whose base cannot write verifiable answers (E.6, Gemma).
        prolongs: True for what only adds trainings after the same first ones.
        identity: False for what cannot change a result.

    Raises:
        InputError: `scales_with` names nothing that scales.
    """
    if scales_with not in ("", *SCALING):
        raise InputError(f"a setting scales with {scales_with!r}; choose one of: {', '.join(SCALING)}")
    return field(default=default, metadata={"place": place, "paper": paper, "ambiguity": ambiguity, "options": options,
                                            "scales_with": scales_with, "silent_base": silent_base,
                                            "prolongs": prolongs, "identity": identity})
