"""A method tried out on a few random tensors, before anything trains: shapes, finiteness, gradient, reductions.

A wrong loss then costs seconds instead of a run, and the message names the line to fix.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.interface import Batch, Branch, Method, Pairs, StoredLogits
from baselines.phases import Distil, Pair, Train
from baselines.settings import TrainingSettings
from baselines.user_methods import declared_phases, guarded, place
from foundation.errors import InputError

# N supervised tokens, B examples, D hidden size, V vocabulary, K stored logits a token, S positions
_N, _B, _D, _V, _K, _S = 6, 2, 8, 11, 4, 5
_EQUAL = 1e-5


def try_out(method: Method) -> None:
    """Walk through the method's phases and call each loss they need.

    Args:
        method: with the settings it is going to be trained with.

    Raises:
        InputError: a loss fails, gives no scalar (or no value per pair), no finite one, a mean, other values at each
            call, or no gradient; file and line of what to fix are named.
    """
    phases = declared_phases(method)
    pair_data = {phase.out for phase in phases if isinstance(phase, Pair)}
    targets = {phase.out for phase in phases if isinstance(phase, Distil)}
    for phase in phases:
        if not isinstance(phase, Train):
            continue
        if phase.data in pair_data:
            _try_pairs(method)
        else:
            _try_tokens(method, phase, stored=phase.data in targets)
        if phase.trainer:
            _check_trainer_arguments(method, phase)


def _try_tokens(method: Method, phase: Train, *, stored: bool) -> None:
    def loss_of(times: int) -> tuple[Tensor, Branch, Branch | None]:
        """Return the loss of the same examples `times` over, and the branches it was given."""
        batch, strong, second = _example(times, other=(phase.weak or phase.reference) is not None, stored=stored)
        loss = guarded(type(method), "has a loss that fails", lambda: method.loss(batch, strong, second))
        empty = " on a micro-batch without supervised tokens" if times == 0 else ""
        _check(method, "loss", loss, (), empty)
        return loss, strong, second

    loss, strong, weak = loss_of(1)
    _check_gradient(method, "loss", loss, strong.hidden_ND, "the hidden states")
    if weak is not None and phase.weak is not None and not (phase.joint is not None and phase.joint.freeze_weak):
        _check_weak_side(method, loss, weak)
    once, again, twice = loss.item(), loss_of(1)[0].item(), loss_of(2)[0].item()
    if abs(once - again) > _EQUAL * abs(once):
        raise InputError(f"{place(type(method), 'loss')}: loss gave {once:.6g}, then {again:.6g} on the same tokens; "
                         "draw noise from batch.seeds_B (baselines.noise), so that a run can be repeated")
    if once != 0 and abs(twice - once) <= _EQUAL * abs(once):
        raise InputError(f"{place(type(method), 'loss')}: loss does not grow when every token comes twice: it looks "
                         "like a mean; return the sum over the supervised tokens, the trainer divides by their number "
                         "in the whole batch")
    loss_of(0)
    if type(method).embed is not Method.embed:
        _try_embed(method)


def _example(times: int, *, other: bool, stored: bool) -> tuple[Batch, Branch, Branch | None]:
    """Return a batch of the same two examples `times` over, its strong branch, and another one if asked for."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def repeated(tensor_N: Tensor) -> Tensor:
        return tensor_N.repeat(times, *[1] * (tensor_N.dim() - 1))

    strong = Branch(repeated(random(_N, _D)).requires_grad_(), random(_V, _D).requires_grad_())
    second = Branch(repeated(random(_N, _D)).requires_grad_(), random(_V, _D)) if other else None
    stored_NK = repeated(torch.arange(_K).repeat(_N, 1)), repeated(random(_N, _K))
    teacher = StoredLogits(*stored_NK, torch.full((times * _N,), -3.0),
                           torch.ones(times * _N, dtype=torch.bool)) if stored else None
    example_N = torch.arange(max(times, 1) * _B).repeat_interleave(_N // _B)[: times * _N]
    lengths_B, seeds_B = torch.tensor([_N, _N + 1] * max(times, 1)), [1, 2] * max(times, 1)
    return Batch(repeated(torch.arange(_N)), example_N, lengths_B, seeds_B, teacher), strong, second


def _try_embed(method: Method) -> None:
    plain_BSD = torch.randn(_B, _S, _D, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask_BS = torch.ones(_B, _S, dtype=torch.long)
    embedded_BSD = guarded(type(method), "has an `embed` that fails",
                           lambda: method.embed(plain_BSD, mask_BS, [1, 2]))
    _check(method, "embed", embedded_BSD, (_B, _S, _D))
    _check_gradient(method, "embed", embedded_BSD.sum(), plain_BSD, "the embeddings")


def _try_pairs(method: Method) -> None:
    generator = torch.Generator().manual_seed(0)
    policy = [torch.randn(_B, generator=generator, requires_grad=True) for _ in range(2)]
    reference = [torch.randn(_B, generator=generator) for _ in range(2)]
    loss_B = guarded(type(method), "has a pair_loss that fails", lambda: method.pair_loss(Pairs(*policy, *reference)))
    _check(method, "pair_loss", loss_B, (_B,))
    _check_gradient(method, "pair_loss", loss_B.sum(), policy[0], "the policy's log-probabilities")


def _check(method: Method, name: str, value: Any, shape: tuple[int, ...], when: str = "") -> None:
    what = {"loss": "the sum over the supervised tokens, a scalar", "pair_loss": "one value a pair, shape (B,)",
            "embed": "embeddings of the shape it was given"}[name]
    where = place(type(method), name)
    if not isinstance(value, Tensor):
        raise InputError(f"{where}: {name} returned {type(value).__name__}{when}; it must return {what}")
    if tuple(value.shape) != shape:
        raise InputError(f"{where}: {name} returned shape {tuple(value.shape)}{when}; it must return {what}")
    if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
        raise InputError(f"{where}: {name} returned {value.detach().flatten()[:3].tolist()}{when}; it must be finite")


def _check_gradient(method: Method, name: str, loss: Tensor, leaf: Tensor, words: str) -> None:
    where = place(type(method), name)
    if not loss.requires_grad:
        raise InputError(f"{where}: {name} has no gradient; was it detached, or computed under torch.no_grad()?")
    (gradient,) = guarded(type(method), f"has a {name} whose gradient fails",
                          lambda: torch.autograd.grad(loss, leaf, allow_unused=True, retain_graph=True))
    if gradient is None or not gradient.any():
        raise InputError(f"{where}: no gradient of {name} reaches {words}: nothing would be learned")
    if not torch.isfinite(gradient).all():
        raise InputError(f"{where}: the gradient of {name} is not finite on random tensors")


def _check_weak_side(method: Method, loss: Tensor, weak: Branch) -> None:
    if torch.autograd.grad(loss, weak.hidden_ND, allow_unused=True)[0] is None:
        raise InputError(f"{place(type(method), 'loss')}: no gradient of loss reaches the weak branch, which the phase "
                         "trains (chunked_loss trains its first branch only): take its logits from logits_NV(), or "
                         "name that model as reference=..., or freeze it with joint=JointTraining(freeze_weak=True)")


def _check_trainer_arguments(method: Method, phase: Train) -> None:
    from trl import SFTConfig

    from baselines.trainer import shared_arguments

    suite = shared_arguments(TrainingSettings(learning_rate=1e-5, global_batch=16), updates=1, seed=0, work=Path("."))
    for name in phase.trainer:
        if name in suite:
            raise InputError(f"{place(type(method), 'phases')}: the trainer's argument {name!r} is the suite's; change "
                             "it with departures=Departures(...) or --set train.<name>=...")
        if name not in {f.name for f in fields(SFTConfig)}:
            raise InputError(f"{place(type(method), 'phases')}: the library's trainer has no argument {name!r} "
                             "(trl.SFTConfig lists them)")
