"""The methods, behind one interface. `METHODS` is the registry: one line a method."""

from __future__ import annotations

from baselines.dpo import DPO
from baselines.interface import Method
from baselines.neftune import NEFTune
from baselines.sft import SFT
from baselines.spin import SPIN
from baselines.ssb import SSB
from baselines.undial import UNDIAL
from baselines.wmss import WMSS
from foundation.errors import InputError

METHODS: dict[str, type[Method]] = {
    "sft": SFT,
    "undial": UNDIAL,
    "neftune": NEFTune,
    "spin": SPIN,
    "ssb": SSB,
    "dpo": DPO,
    "wmss": WMSS,
}


def method_class(name: str) -> type[Method]:
    """Return the method registered as `name`.

    Raises:
        InputError: no such method; the message lists the known ones.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r} is unknown; choose from: {', '.join(METHODS)}")
    return METHODS[name]
