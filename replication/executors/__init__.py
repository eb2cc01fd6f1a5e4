"""What runs steps, apart from what decides which is next (`replication.run`): processes here, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from replication.steps import Step
from replication.worker import Message


class Executor(Protocol):
    """Runs steps that are ready; the same messages come back whoever runs them."""

    width: int
    """About how many steps run at a time, for the display and its estimate."""

    def start(self, ready: Sequence[Step]) -> list[Step]:
        """Start those of the ready steps, most urgent first, that there is room for; return them."""

    def events(self, seconds: float) -> Iterable[tuple[Step, Message]]:
        """Wait at most so long and return what the started steps told; Done, Failed and Lost end a step."""

    def hopeless(self, step: Step) -> str | None:
        """Return why a step can never be started as things are, None where waiting may help."""

    def close(self) -> None:
        """End everything; a step that still runs must not publish."""


OpenExecutor = Callable[[Sequence[Step]], Executor]
"""Gets the steps that are to run, and may refuse them all before anything starts."""
