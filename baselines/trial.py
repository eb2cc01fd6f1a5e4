"""A method tried out on a few random tensors, before anything trains: shapes, finiteness, gradient.

A wrong loss then costs a second instead of a run, and the message names the line to fix.
"""

from __future__ import annotations

import inspect
import math
import traceback
from typing import Any

import torch
from torch import Tensor

from baselines.interface import Batch, Branch, Method, Pairs, StoredLogits
from baselines.phases import Distil, Pair, Train
from foundation.errors import InputError

_N, _B, _D, _V, _K = 6, 2, 8, 11, 4  # supervised tokens, examples, hidden size, vocabulary, stored logits


def try_out(chosen: type[Method]) -> None:
    """Make the method with its defaults, walk through its phases and call its losses once.

    Raises:
        InputError: it fails, gives no scalar (or no value per pair), no finite one, or no gradient; file and line of
            what to fix are named.
    """
    method = _guarded(chosen, chosen, "cannot be made with its default settings")
    phases = _guarded(chosen, lambda: list(method.phases()), "has phases that fail")
    pair_data = {phase.out for phase in phases if isinstance(phase, Pair)}
    targets = {phase.out for phase in phases if isinstance(phase, Distil)}
    trainings = [phase for phase in phases if isinstance(phase, Train)]
    if not trainings:
        raise InputError(f"{_place(chosen, 'phases')}: {chosen.__name__} yields no Train phase; nothing would be "
                         "trained")
    for phase in trainings:
        if phase.data in pair_data:
            _try_pairs(chosen, method)
        else:
            _try_tokens(chosen, method, phase, stored=phase.data in targets)


def _try_tokens(chosen: type[Method], method: Method, phase: Train, *, stored: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(_N, _D, generator=generator, requires_grad=True)
    head_VD = torch.randn(_V, _D, generator=generator, requires_grad=True)
    other = None
    if phase.weak is not None or phase.reference is not None:
        other = Branch(torch.randn(_N, _D, generator=generator), torch.randn(_V, _D, generator=generator))
    teacher = StoredLogits(torch.arange(_K).repeat(_N, 1), torch.randn(_N, _K, generator=generator),
                           torch.full((_N,), -3.0), torch.ones(_N, dtype=torch.bool)) if stored else None
    batch = Batch(torch.arange(_N), torch.tensor([0] * (_N // 2) + [1] * (_N - _N // 2)),
                  torch.tensor([_N, _N + 1]), [1, 2], teacher)
    loss = _guarded(chosen, lambda: method.loss(batch, Branch(hidden_ND, head_VD), other), "has a loss that fails")
    _check(chosen, "loss", loss, ())
    _check_gradient(chosen, "loss", loss, hidden_ND, "the hidden states")
    if type(method).embed is not Method.embed:
        plain_BSD, mask_BS = torch.randn(_B, 5, _D, generator=generator), torch.ones(_B, 5, dtype=torch.long)
        embedded = _guarded(chosen, lambda: method.embed(plain_BSD, mask_BS, [1, 2]), "has an `embed` that fails")
        _check(chosen, "embed", embedded, tuple(plain_BSD.shape))


def _try_pairs(chosen: type[Method], method: Method) -> None:
    generator = torch.Generator().manual_seed(0)
    policy = [torch.randn(_B, generator=generator, requires_grad=True) for _ in range(2)]
    reference = [torch.randn(_B, generator=generator) for _ in range(2)]
    loss = _guarded(chosen, lambda: method.pair_loss(Pairs(*policy, *reference)), "has a pair_loss that fails")
    _check(chosen, "pair_loss", loss, (_B,))
    _check_gradient(chosen, "pair_loss", loss.sum(), policy[0], "the policy's log-probabilities")


def _check(chosen: type[Method], name: str, value: Any, shape: tuple[int, ...]) -> None:
    what = "the sum over the supervised tokens, a scalar" if shape == () else f"a tensor of shape {shape}"
    if not isinstance(value, Tensor):
        raise InputError(f"{_place(chosen, name)}: {name} returned {type(value).__name__}; it must return {what}")
    if tuple(value.shape) != shape:
        raise InputError(f"{_place(chosen, name)}: {name} returned shape {tuple(value.shape)}; it must return {what}")
    if not all(math.isfinite(v) for v in value.detach().flatten().tolist()):
        raise InputError(f"{_place(chosen, name)}: {name} returned a value that is not finite on random tensors")


def _check_gradient(chosen: type[Method], name: str, loss: Tensor, leaf: Tensor, words: str) -> None:
    if not loss.requires_grad:
        raise InputError(f"{_place(chosen, name)}: {name} has no gradient; was it detached, or computed under "
                         "torch.no_grad()?")
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    if gradient is None or not gradient.any():
        raise InputError(f"{_place(chosen, name)}: no gradient of {name} reaches {words}: nothing would be learned")


def _guarded(chosen: type[Method], call: Any, words: str) -> Any:
    try:
        return call()
    except Exception as error:
        file = inspect.getfile(chosen)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        place = f"{file}:{lines[-1]}" if lines else file
        raise InputError(f"{place}: {chosen.__name__} {words}: {type(error).__name__}: {error}") from error


def _place(chosen: type[Method], name: str) -> str:
    function = getattr(chosen, name)
    return f"{inspect.getfile(function)}:{inspect.getsourcelines(function)[1]}"
