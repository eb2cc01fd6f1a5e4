"""Time and memory of the mixed-logit loss against the form with two full logit tensors (`make bench-loss`).

Both forms compute the loss and the gradients of two hidden states and two heads, float32, on the CPU, each run in a
process of its own, the two forms taking turns. Time is the median over the runs of one forward and backward pass.

"Memory beyond inputs and weight gradients" of a run is

    highest resident memory during the pass  -  resident memory just before it  -  bytes of the two heads' gradients

where just before it the inputs lie in memory, a pass over a few tokens has started the thread pools and left its
buffers behind, and no gradient exists. Both forms must write the heads' gradients, so their size is taken off both;
the gradients of the hidden states count. The kernel's high-water mark is reset before the pass and read after it.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from foundation.errors import PrerequisiteError, SuiteError

TIME_TARGET = 0.75
MEMORY_TARGET = 1 / 20
FORMS = ("lean", "full")
_WARM_UP_TOKENS = 16
_FULL_FORM_COPIES = 7.0  # float32 (tokens, vocabulary) tensors alive at once in the full form, with a margin


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0 if both targets are met, 1 if not, 2 if this machine cannot run it."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a measuring child is ended as well
    try:
        if options.form:
            print(json.dumps(measure(options.form, options)))
            return 0
        _check_memory(options)
        report = compare(options)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=1) if options.json else _text(report))
    return 0 if report["passed"] else 1


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both forms in turn, `--repeats` times each, and judge the medians against the targets."""
    runs: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for repeat in range(options.repeats):
        for form in FORMS:
            run = _subprocess(form, options)
            runs[form].append(run)
            print(f"{form} {repeat + 1}/{options.repeats}: {run['seconds']:.2f} s, "
                  f"{run['beyond_bytes'] / 2**20:,.0f} MiB, loss {run['loss']:.4f}", file=sys.stderr, flush=True)
    medians = {form: {key: statistics.median(run[key] for run in runs[form]) for key in runs[form][0]}
               for form in FORMS}
    time_ratio = medians["lean"]["seconds"] / medians["full"]["seconds"]
    memory_ratio = medians["lean"]["beyond_bytes"] / max(medians["full"]["beyond_bytes"], 1)
    return {
        "vocab": options.vocab, "tokens": options.tokens, "hidden": options.hidden, "repeats": options.repeats,
        "median": medians, "runs": runs,
        "time_ratio": time_ratio, "time_target": TIME_TARGET, "time_passed": time_ratio <= TIME_TARGET,
        "memory_ratio": memory_ratio, "memory_target": MEMORY_TARGET, "memory_passed": memory_ratio <= MEMORY_TARGET,
        "passed": time_ratio <= TIME_TARGET and memory_ratio <= MEMORY_TARGET,
    }


def measure(form: str, options: argparse.Namespace) -> dict[str, float]:
    """Return seconds, loss and memory of one forward and backward pass of one form, in this process."""
    import torch

    torch.manual_seed(0)
    hidden = [torch.randn(options.tokens, options.hidden, requires_grad=True) for _ in range(2)]
    heads = [(torch.randn(options.vocab, options.hidden) / options.hidden**0.5).requires_grad_() for _ in range(2)]
    labels_T = torch.randint(options.vocab, (options.tokens,))
    step = _lean_pass if form == "lean" else full_pass
    few = slice(0, _WARM_UP_TOKENS)
    step(hidden[0][few], hidden[1][few], heads[0], heads[1], labels_T[few])
    for tensor in (*hidden, *heads):
        tensor.grad = None
    reset_high_water_mark()
    before = status_bytes("VmRSS")
    started = time.perf_counter()
    loss = step(hidden[0], hidden[1], heads[0], heads[1], labels_T)
    seconds = time.perf_counter() - started
    increase = status_bytes("VmHWM") - before
    gradient_bytes = sum(head.numel() * head.element_size() for head in heads)
    return {"seconds": seconds, "loss": loss, "increase_bytes": increase, "beyond_bytes": increase - gradient_bytes}


def _lean_pass(strong_hidden_TD: Any, weak_hidden_TD: Any, strong_head_VD: Any, weak_head_VD: Any,
               labels_T: Any) -> float:
    from baselines.mixed_cross_entropy import mixed_cross_entropy

    loss = mixed_cross_entropy(strong_hidden_TD, weak_hidden_TD, strong_head_VD, weak_head_VD, labels_T, 0.5)
    loss.backward()
    return float(loss.detach())


def full_pass(strong_hidden_TD: Any, weak_hidden_TD: Any, strong_head_VD: Any, weak_head_VD: Any,
              labels_T: Any) -> float:
    """Mix as the paper's public code does: both logit tensors, stacked, weighted and summed, then cross-entropy."""
    import torch
    import torch.nn.functional as F

    stacked_2TV = torch.stack([F.linear(weak_hidden_TD, weak_head_VD), F.linear(strong_hidden_TD, strong_head_VD)])
    weights_2 = torch.tensor([0.5, 0.5], device=labels_T.device)
    mixed_TV = (stacked_2TV * weights_2[:, None, None]).sum(dim=0)
    loss = F.cross_entropy(mixed_TV, labels_T, reduction="sum", ignore_index=-100)
    loss.backward()
    return float(loss.detach())


def _subprocess(form: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.loss", "--form", form, "--vocab", str(options.vocab),
               "--tokens", str(options.tokens), "--hidden", str(options.hidden)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        reason = "killed, probably for memory" if finished.returncode < 0 else finished.stderr.strip()
        raise PrerequisiteError(f"the {form} form did not finish (exit code {finished.returncode}): {reason}")
    return dict(json.loads(finished.stdout))


def _check_memory(options: argparse.Namespace) -> None:
    logits = 4 * options.tokens * options.vocab
    heads = 4 * options.hidden * options.vocab
    needed = int(_FULL_FORM_COPIES * logits + 4 * heads + 2**30)
    free = _proc_bytes(Path("/proc/meminfo"), "MemAvailable")
    if free < needed:
        raise PrerequisiteError(
            f"the full form needs about {needed / 1e9:.1f} GB of free memory at {options.tokens} tokens and a "
            f"vocabulary of {options.vocab}, this machine has {free / 1e9:.1f} GB; free some or give fewer --tokens")


def reset_high_water_mark() -> None:
    """Begin a new measurement of the highest resident memory (PrerequisiteError where Linux does not offer it)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise PrerequisiteError("memory is measured through Linux's /proc/self/clear_refs, which is not writable "
                                "here; run this benchmark on Linux") from error


def status_bytes(field: str) -> int:
    """Return VmRSS (now) or VmHWM (highest since the reset) of this process, in bytes."""
    return _proc_bytes(Path("/proc/self/status"), field)


def _proc_bytes(path: Path, field: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise PrerequisiteError(f"memory is measured through {path}, which is missing; run on Linux") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _text(report: dict[str, Any]) -> str:
    lines = [f"mixed-logit cross-entropy, forward + backward, float32, V={report['vocab']:,} T={report['tokens']:,} "
             f"hidden={report['hidden']}, median of {report['repeats']}",
             f"{'form':<28}{'seconds':>10}{'MiB beyond inputs and weight gradients':>42}"]
    names = {"lean": "chunked (this suite)", "full": "two full logit tensors"}
    for form in FORMS:
        row = report["median"][form]
        lines.append(f"{names[form]:<28}{row['seconds']:>10.2f}{row['beyond_bytes'] / 2**20:>42,.0f}")
    for key in ("time", "memory"):
        verdict = "pass" if report[f"{key}_passed"] else "FAIL"
        lines.append(f"{key}: {report[f'{key}_ratio']:.3f}x, target <= {report[f'{key}_target']:.2f}x: {verdict}")
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.loss", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each form")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
