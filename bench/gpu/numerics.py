"""The mixed loss against float64, at full vocabulary and hidden size, over fewer tokens in as many chunks as usual.

The error of a gradient is the norm of its difference to the float64 gradient of the same (bf16) inputs, over the norm
of that one. It is set against two others: full logits in bf16, as the paper's public code computes them, and the
float64 gradient itself, rounded to bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.gpu.context import Context
from bench.gpu.loss import HIDDEN, SMALL, VOCABULARY, Problem, forward_backward, problem, usable_paths

TOKENS, CHUNK = 1024, 128
_NAMES = ("strong hidden", "weak hidden", "strong head", "weak head")


def numerics_part(context: Context) -> None:
    """Compare every path, and full logits in bf16, with float64."""
    vocabulary, hidden, tokens, chunk = (*SMALL[:2], 24, 6) if context.small else (VOCABULARY, HIDDEN, TOKENS, CHUNK)
    given = problem(vocabulary, hidden, tokens, context.device)
    with_ignored = given._replace(labels_T=given.labels_T.clone())
    with_ignored.labels_T[::5] = -100
    found: dict[str, Any] = {"shape": {"vocabulary": vocabulary, "hidden": hidden, "tokens": tokens, "chunk": chunk}}
    computed = {name: forward_backward(with_ignored, path, chunk_tokens=chunk)
                for name, path in usable_paths(context).items()}
    computed["full logits"] = _full(with_ignored)
    loss, exact = _oracle(with_ignored)
    found["loss"] = loss
    found["errors"] = {name: {"loss": abs(float(values[0]) - loss) / abs(loss)} for name, values in computed.items()}
    found["errors"]["rounded"] = {"loss": 0.0}
    for index, (name, gradient) in enumerate(zip(_NAMES, exact, strict=True), start=1):
        for which, values in computed.items():
            found["errors"][which][name] = _error(values[index], gradient)
        found["errors"]["rounded"][name] = _error(gradient.bfloat16(), gradient)
    for which, errors in found["errors"].items():
        context.say(f"{which}: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    context.put("numerics", found)


def _full(given: Problem) -> list[Any]:
    import torch
    import torch.nn.functional as F

    hidden_s, hidden_w, head_s, head_w, labels_T = given
    mixed_TV = torch.stack([F.linear(hidden_w, head_w), F.linear(hidden_s, head_s)]).mul(0.5).sum(dim=0)
    loss = F.cross_entropy(mixed_TV.float(), labels_T, reduction="sum", ignore_index=-100)
    return [loss.detach(), *torch.autograd.grad(loss, given.tensors)]


def _oracle(given: Problem) -> tuple[float, Iterator[Any]]:
    """Return loss and, one at a time, gradients in float64, written out rather than by autograd."""
    import torch

    strong, weak, head_s, head_w = (tensor.detach() for tensor in given.tensors)
    supervised_T = given.labels_T.ne(-100)
    labels_T1 = given.labels_T.clamp(min=0).unsqueeze(1)
    mixed_TV = 0.5 * (strong.double() @ head_s.double().t())
    mixed_TV += 0.5 * (weak.double() @ head_w.double().t())
    log_p = torch.log_softmax(mixed_TV, dim=1)
    loss = float(-(log_p.gather(1, labels_T1).squeeze(1) * supervised_T).sum())
    residual_TV = log_p.exp_()
    residual_TV.scatter_add_(1, labels_T1, torch.full_like(labels_T1, -1.0, dtype=torch.float64))
    residual_TV.mul_(0.5 * supervised_T.unsqueeze(1))

    def gradients() -> Iterator[Any]:
        yield residual_TV @ head_s.double()
        yield residual_TV @ head_w.double()
        yield residual_TV.t() @ strong.double()
        yield residual_TV.t() @ weak.double()

    return loss, gradients()


def _error(measured: Any, exact: Any) -> float:
    """Return the relative error, without a float64 copy of what was measured."""
    total, norm = 0.0, 0.0
    for part, exact_part in zip(measured.split(8192), exact.split(8192), strict=True):
        total += float((part.double() - exact_part).square().sum())
        norm += float(exact_part.square().sum())
    return (total / norm) ** 0.5 if norm else total**0.5
