"""How much a program may use. The same numbers hold on every kind of isolation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one isolated tree of processes.

    Wall time is not among them: whoever talks to the tree sets a deadline for each answer and kills it when that
    passes. `processes` counts threads too; `output_bytes` bounds one message of the tree, the next is not read.
    """

    memory_mib: int = 2048
    processes: int = 64
    cpu_seconds: int = 90
    file_mib: int = 64
    scratch_mib: int = 64
    open_files: int = 256
    output_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"limit {name} is {getattr(self, name)}; it must be positive")
        if self.memory_mib < 64 or self.processes < 4:
            raise ValueError("an interpreter needs memory_mib >= 64 and processes >= 4")
