"""One of several processes that train a case together; started by tests/test_distributed.py through torchrun.

Reads a job file (checkpoints, rows, cases) and writes, for every case, its losses and the exported checkpoint.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from baselines import distributed
from baselines.branches import BranchedModel, is_tied, load_causal_lm, untie
from baselines.settings import JointTraining, TrainingSettings
from baselines.sft import SFT
from baselines.trainer import train
from baselines.wmss import WMSS
from replication.actions.torch_setup import save_checkpoint


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training: SFT, or WD-JT when `joint` is given."""

    name: str
    training: dict[str, Any]
    joint: dict[str, Any] | None = None
    reduction: str = "token_mean"
    untied: bool = False
    stop_after: int | None = None
    """Die after so many losses of the first attempt, then resume."""
    partitioned: bool = True
    """Under ZeRO-3: load partitioned (or let the engine partition)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the processes train on, and where the results go."""

    strong: str
    weak: str
    rows: list[dict[str, Any]] = field(repr=False)
    output: str

    def run(self, case: Case) -> list[float]:
        """Train a case; leave losses.json and both branches' checkpoints under output/name."""
        torch.set_num_threads(1)
        training = TrainingSettings(**case.training)
        joint = None if case.joint is None else JointTraining(**case.joint)
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.strong, local_files_only=True)
        folder = Path(self.output) / case.name
        model = self._model(case, training, joint)
        if case.stop_after is not None:
            self._die(model, training, tokenizer, folder, case.stop_after)
            model = self._model(case, training, joint)
        log = train(model, self.rows, tokenizer, training, seed=5, work=folder / "work", joint=joint)
        for name, branch in (("strong", model.strong), ("weak", model.weak)):
            if branch is not None:
                assert is_tied(branch) != case.untied
                save_checkpoint(branch, tokenizer, folder / name, [tokenizer.eos_token_id])
        if distributed.is_main():
            (folder / "losses.json").write_text(json.dumps(log.losses), encoding="utf-8")
        return log.losses

    def _model(self, case, training, joint):
        def load(checkpoint):
            model = load_causal_lm(checkpoint, training.param_dtype)
            if case.untied:
                untie(model)
            return model

        def branches():
            return load(self.strong), None if joint is None else load(self.weak)

        if case.partitioned:
            with distributed.partitioned_loading(training):
                strong, weak = branches()
        else:
            strong, weak = branches()
        method = SFT() if joint is None else WMSS(joint=joint)
        return BranchedModel(method, strong, weak, freeze_weak=joint is not None and joint.freeze_weak,
                             reduction=case.reduction)

    def _die(self, model, training, tokenizer, folder, losses):
        class Killed(Exception):
            pass

        def progress(fraction):
            if fraction * len(self.rows) / training.global_batch > losses - 0.5:
                raise Killed

        try:
            train(model, self.rows, tokenizer, training, seed=5, work=folder / "work", on_progress=progress)
        except Killed:
            return
        raise AssertionError("the training was not stopped")


def main() -> None:
    """Run every case of the job file."""
    distributed.WHOLE_ELEMENTS = 0  # the test's whole model is smaller than that: really split every weight
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for case in job.pop("cases"):
        Job(**job).run(Case(**case))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
