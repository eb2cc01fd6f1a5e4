"""How long steps at paper scale are expected to take, so that the longest chain goes first and the display can tell.

Smaller scales name their durations themselves (`Scale.hint_seconds`, measured); at paper scale the cost model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replication.cost.shapes import SHAPES
from replication.cost.step_costs import GPUS_PER_TRAINING, CostModel
from replication.needs import backbone_of
from replication.steps import Step


def with_expected_seconds(steps: Sequence[Step], gpus_per_training: int = GPUS_PER_TRAINING) -> list[Step]:
    """Return the steps, with `hint_seconds` of the cost model where a backbone at paper scale has none.

    A step stays the same one: the hint is no part of its identity.
    """
    models = {name: CostModel(shape=shape, gpus_per_training=gpus_per_training) for name, shape in SHAPES.items()}
    found = []
    for step in steps:
        model = None if step.hint_seconds else backbone_of(step)
        known = None if model is None else models.get(model.name)
        found.append(step if known is None else replace(step, hint_seconds=known.cost(step).seconds))
    return found
