"""The mixed loss: its time against the matrix products that it cannot avoid, its memory against full logits.

Which products those are: z_s = h_s W_s' and z_w = h_w W_w', and from the residual R of the mixed logits the gradients
R W_s, R'h_s, R W_w and R'h_w: six where both sides are trained. A frozen weak side keeps its logits and drops both of
its gradients: four. One side alone, SFT's loss: three. They are timed in bf16 at full size, each as one product.

Every tensor is far larger than the L2 cache; it is flushed between repetitions all the same. "Beyond inputs and
gradients" is the highest memory of forward and backward, less what lay there before, less the gradients handed out.
"""

# T tokens, V vocabulary, D hidden size

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

from baselines.half_precision import HalfPath
from bench.gpu.context import Context
from bench.gpu.timing import Stopwatch, is_out_of_memory

VOCABULARY, HIDDEN, TOKENS = 151_936, 2560, 8192
SMALL = (1000, 48, 24)
PATHS: dict[str, HalfPath | None] = {
    "default": None,
    "half": HalfPath(softmax="torch"),
    "half-triton": HalfPath(softmax="triton"),
    "half-triton-fp32": HalfPath(softmax="triton", accumulate="float32"),
}
"""`default` is what the suite uses while `mixed_cross_entropy.PATH` is None."""
CANDIDATE = "half-triton"
_CHUNKS = (512, 1024, 2048)
_FULL_FORM_BYTES = 24  # a token and vocabulary entry: highest of the full form, float32 products of bf16 logits
_SPARE = 4 * 2**30


class Problem(NamedTuple):
    """Inputs of the mixed loss."""

    strong_hidden_TD: Any
    weak_hidden_TD: Any
    strong_head_VD: Any
    weak_head_VD: Any
    labels_T: Any

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The four that get gradients."""
        return self[:4]


def shapes(context: Context) -> tuple[int, int, int]:
    """Return vocabulary, hidden size and tokens: fewer tokens where the GPU's memory does not hold them."""
    if context.small:
        return SMALL
    tokens = TOKENS
    if context.device == "cuda":
        import torch

        free = torch.cuda.mem_get_info()[0] - _SPARE - 14 * VOCABULARY * HIDDEN  # heads and gradients
        while tokens > 512 and tokens * VOCABULARY * 4 > free:
            tokens //= 2
    if tokens < TOKENS:
        context.say(f"only {tokens} tokens: this GPU's memory holds no more beside the heads")
    return VOCABULARY, HIDDEN, tokens


def problem(vocabulary: int, hidden: int, tokens: int, device: str, dtype: str = "bfloat16") -> Problem:
    """Return random inputs whose logits have a standard deviation of about 2, both sides trained."""
    import torch

    generator = torch.Generator(device).manual_seed(0)

    def normal(rows: int, scale: float) -> Any:
        drawn = torch.randn(rows, hidden, generator=generator, device=device, dtype=torch.float32)
        return drawn.mul_(scale).to(getattr(torch, dtype)).requires_grad_()

    labels_T = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
    scale = 2 / hidden**0.5
    return Problem(normal(tokens, 1), normal(tokens, 1), normal(vocabulary, scale), normal(vocabulary, scale), labels_T)


def usable_paths(context: Context) -> dict[str, HalfPath | None]:
    """Return the paths that run here; why the others do not is said and recorded once."""
    if "no_triton" not in context.result and "triton_runs" not in context.result:
        why = _no_triton(context)
        context.put("no_triton" if why else "triton_runs", why or True)
        if why:
            context.say(f"not run: the paths with Triton ({why})")
    if "no_triton" not in context.result:
        return PATHS
    return {name: path for name, path in PATHS.items() if path is None or path.softmax != "triton"}


def _no_triton(context: Context) -> str | None:
    """Return why Triton does not run here, None if it does: tried out, for it needs a C compiler as well."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if context.device == "cpu" and not interpreted:
        return "Triton needs a GPU or its interpreter"
    if interpreted:
        context.say("Triton runs in its interpreter: right numbers (bf16 cut off, not rounded), meaningless times")
    import torch

    logits_CV = torch.zeros(2, 32, device=context.device)
    labels_C, losses_C = torch.zeros(2, dtype=torch.long, device=context.device), torch.empty_like(logits_CV[:, 0])
    try:
        from baselines.triton_softmax import loss_and_residual

        loss_and_residual(logits_CV, labels_C, losses_C, torch.empty_like(logits_CV))
        found = losses_C.tolist()
    except Exception as error:
        return f"Triton fails here: {type(error).__name__}: {error}"
    expected = math.log(32)
    return None if all(abs(loss - expected) < 1e-4 for loss in found) else f"its loss is {found}, not {expected:.4f}"


def forward_backward(given: Problem, path: HalfPath | None, *, frozen_weak: bool = False, alone: bool = False,
                     autocast: bool = False, chunk_tokens: int | None = None) -> list[Any]:
    """Compute loss and gradients; return the loss and the gradients asked for."""
    import torch

    from baselines.mixed_cross_entropy import computed_by, cross_entropy, mixed_cross_entropy

    hidden_s, hidden_w, head_s, head_w, labels_T = given
    wanted = [hidden_s, head_s] if frozen_weak or alone else [hidden_s, hidden_w, head_s, head_w]
    cast = torch.autocast(labels_T.device.type, torch.bfloat16) if autocast else nullcontext()
    with computed_by(path), cast:
        if alone:
            loss = cross_entropy(hidden_s, head_s, labels_T, chunk_tokens=chunk_tokens)
        else:
            weak = (hidden_w.detach(), head_w.detach()) if frozen_weak else (hidden_w, head_w)
            loss = mixed_cross_entropy(hidden_s, weak[0], head_s, weak[1], labels_T, 0.5, chunk_tokens=chunk_tokens)
    return [loss.detach(), *torch.autograd.grad(loss, wanted)]


def products(given: Problem, sides: int = 2, backward: int = 2) -> Callable[[], None]:
    """Return what does the unavoidable products once: `sides` logits, and `backward` sides' gradients."""
    import torch

    tensors = [tensor.detach() for tensor in given.tensors]
    pairs = [(tensors[0], tensors[2]), (tensors[1], tensors[3])]
    logits_TV = torch.empty(len(tensors[0]), len(tensors[2]), dtype=tensors[0].dtype, device=tensors[0].device)
    torch.mm(*_logit_operands(*pairs[0]), out=logits_TV)
    for part in logits_TV.split(256):
        part.copy_(torch.softmax(part.float(), dim=1))  # as the residual is: mostly tiny numbers
    residual_TV = logits_TV.clone()
    hidden_gradient, head_gradient = (torch.empty_like(tensor) for tensor in pairs[0])

    def run() -> None:
        for hidden_TD, head_VD in pairs[:sides]:
            torch.mm(*_logit_operands(hidden_TD, head_VD), out=logits_TV)
        for hidden_TD, head_VD in pairs[:backward]:
            torch.mm(residual_TV, head_VD, out=hidden_gradient)
            torch.mm(residual_TV.t(), hidden_TD, out=head_gradient)

    return run


def _logit_operands(hidden_TD: Any, head_VD: Any) -> tuple[Any, Any]:
    return hidden_TD, head_VD.t()


def time_part(context: Context) -> None:
    """Time the products and every path."""
    vocabulary, hidden, tokens = shapes(context)
    context.put("shape", {"vocabulary": vocabulary, "hidden": hidden, "tokens": tokens, "dtype": "bfloat16"})
    watch, given = Stopwatch(context.device), problem(vocabulary, hidden, tokens, context.device)
    flops = 2 * vocabulary * hidden * tokens
    floor: dict[str, Any] = {}
    for count, sides, backward in ((6, 2, 2), (4, 2, 1), (3, 1, 1)):
        found = watch.measure(context, f"{count} products", products(given, sides, backward), share=0.15)
        floor[str(count)] = found and found | {"tflops_per_second": count * flops / found["median"] / 1e12}
    context.put("products", floor)
    _time_paths(context, watch, given, floor)
    _time_chunks(context, watch, given)
    del given
    _time_autocast(context, watch, (vocabulary, hidden, tokens))


def _time_paths(context: Context, watch: Stopwatch, given: Problem, floor: dict[str, Any]) -> None:
    cases = {"mixed": ("6", {}), "mixed, frozen weak side": ("4", {"frozen_weak": True}),
             "plain (SFT)": ("3", {"alone": True})}
    timed: dict[str, Any] = {title: {} for title in cases}
    for title, (count, more) in cases.items():
        for name, path in usable_paths(context).items() if title == "mixed" else _main(context):
            if not context.room_for(f"{title}, {name}", 3 if context.device == "cuda" else 0.5):
                continue
            found = watch.measure(context, f"{title}, {name}", lambda p=path, m=more: forward_backward(given, p, **m),
                                  share=0.25)
            if found:
                over = found["median"] / floor[count]["median"] if floor.get(count) else None
                timed[title][name] = found | {"times_products": over, "products": int(count)}
                context.put("paths", timed)


def _main(context: Context) -> list[tuple[str, HalfPath | None]]:
    return [(name, path) for name, path in PATHS.items()
            if name == "default" or (name == CANDIDATE and "no_triton" not in context.result)]


def _time_chunks(context: Context, watch: Stopwatch, given: Problem) -> None:
    if "no_triton" in context.result:
        return
    found = {}
    for chunk in (8, 16) if context.small else _CHUNKS:
        if context.room_for(f"chunks of {chunk}", 2 if context.device == "cuda" else 0.2):
            found[str(chunk)] = watch.measure(
                context, f"mixed, {CANDIDATE}, chunks of {chunk}", repeats=5, warm_ups=1, share=0.25,
                action=lambda c=chunk: forward_backward(given, PATHS[CANDIDATE], chunk_tokens=c))
            context.put("chunks", found)


def _time_autocast(context: Context, watch: Stopwatch, shape: tuple[int, int, int]) -> None:
    """Time float32 hidden states and heads under bf16 autocast: what a training with fp32 master weights has."""
    if not context.room_for("float32 weights under autocast", 4 if context.device == "cuda" else 0.5):
        return
    given, found = problem(*shape, context.device, dtype="float32"), {}
    for name, path in _main(context):
        found[name] = watch.measure(context, f"mixed, fp32 weights under bf16 autocast, {name}", repeats=3, warm_ups=1,
                                    share=0.6, action=lambda p=path: forward_backward(given, p, autocast=True))
        context.put("autocast", found)


def memory_part(context: Context) -> None:
    """Measure the highest memory of every path and of full logits."""
    vocabulary, hidden, tokens = shapes(context)
    watch, given = Stopwatch(context.device), problem(vocabulary, hidden, tokens, context.device)
    watch.flush = None
    gradient_bytes = sum(tensor.numel() * tensor.element_size() for tensor in given.tensors)
    few = Problem(*(tensor[:16].detach().requires_grad_() for tensor in given[:2]), *given[2:4], given.labels_T[:16])
    found: dict[str, Any] = {"shape": {"vocabulary": vocabulary, "hidden": hidden, "tokens": tokens},
                             "beyond_bytes": {}, "two_fp32_logit_tensors_bytes": 8 * tokens * vocabulary}
    for name, path in usable_paths(context).items():
        forward_backward(few, path)  # libraries' workspaces are there before the measurement
        peak = watch.peak(lambda p=path: forward_backward(given, p))
        found["beyond_bytes"][name] = max(peak - gradient_bytes, 0)
        context.say(f"{name}: {found['beyond_bytes'][name] / 2**20:,.0f} MiB beyond inputs and gradients")
        context.put("memory", found)
    found["full_bytes"], found["full_how"] = _full_peak(context, watch, given, few, gradient_bytes)
    context.say(f"full logits: {found['full_bytes'] / 2**20:,.0f} MiB ({found['full_how']})")
    context.put("memory", found)


def _full_peak(context: Context, watch: Stopwatch, given: Problem, few: Problem, gradients: int) -> tuple[int, str]:
    from bench.loss import full_pass

    def run(inputs: Problem) -> None:
        for tensor in inputs.tensors:
            tensor.grad = None
        full_pass(*inputs)

    try:
        run(few)
        for tensor in given.tensors:
            tensor.grad = None
        return max(watch.peak(lambda: run(given)) - gradients, 0), "measured"
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        tokens, vocabulary = len(given.labels_T), len(given.strong_head_VD)
        return _FULL_FORM_BYTES * tokens * vocabulary, f"computed, {_FULL_FORM_BYTES} bytes a logit: it does not fit"
