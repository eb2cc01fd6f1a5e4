"""The bf16 path of the losses, against float64; the Triton kernel runs in Triton's interpreter where there is no GPU.

On the CPU the path's products are float32 products of bf16 values, so what is tested here is everything around the
matrix units: chunks, sides, softmax, residual, accumulation, selection of the path.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from baselines import half_precision, mixed_cross_entropy
from baselines.half_precision import HalfPath
from baselines.mixed_cross_entropy import computed_by, cross_entropy, token_entropy
from foundation.errors import InputError

TORCH = HalfPath(softmax="torch")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU")])]
TRITON = importlib.util.find_spec("triton") is not None


def problem(tokens=50, vocabulary=1009, sizes=(32, 24), dtype=torch.bfloat16, device="cpu", scale=0.7, ignored=3):
    generator = torch.Generator().manual_seed(0)
    shapes = [(tokens, sizes[0]), (tokens, sizes[1]), (vocabulary, sizes[0]), (vocabulary, sizes[1])]
    tensors = [(torch.randn(*shape, generator=generator) * scale).to(device, dtype).requires_grad_()
               for shape in shapes]
    labels_T = torch.randint(vocabulary, (tokens,), generator=generator)
    if ignored:
        labels_T[1::ignored] = -100
    return tensors, labels_T.to(device)


def oracle(tensors, labels_T, mix_weight):
    """Return loss and gradients in float64 from full logits of the same (rounded) inputs."""
    exact = [tensor.detach().to(torch.bfloat16).double().requires_grad_() for tensor in tensors]
    mixed_TV = mix_weight * exact[0] @ exact[2].T + (1 - mix_weight) * exact[1] @ exact[3].T
    loss = F.cross_entropy(mixed_TV, labels_T, reduction="sum", ignore_index=-100)
    return loss, torch.autograd.grad(loss, exact)


def mixed(tensors, labels_T, mix_weight, **more):
    return mixed_cross_entropy.mixed_cross_entropy(*tensors, labels_T, mix_weight, **more)


def check(path, tensors, labels_T, mix_weight, *, chunk_tokens=16, tolerance=2**-7):
    with computed_by(path):
        loss = mixed(tensors, labels_T, mix_weight, chunk_tokens=chunk_tokens)
        gradients = torch.autograd.grad(loss, tensors)
    expected, wanted = oracle(tensors, labels_T, mix_weight)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    for tensor, gradient, exact in zip(tensors, gradients, wanted, strict=True):
        assert gradient.dtype == tensor.dtype and gradient.shape == tensor.shape
        assert float((gradient.double() - exact).norm()) <= tolerance * float(exact.norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("accumulate", ["float32", "parameter"])
@pytest.mark.parametrize("mix_weight", [0.0, 0.3, 0.5, 1.0])
def test_the_torch_softmax_agrees_with_float64(device, accumulate, mix_weight):
    tensors, labels_T = problem(device=device)
    check(HalfPath(softmax="torch", accumulate=accumulate), tensors, labels_T, mix_weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or not TRITON, reason="needs a CUDA GPU and Triton")
@pytest.mark.parametrize("case", [{}, {"vocabulary": 4097}, {"vocabulary": 17}, {"tokens": 1, "ignored": 0},
                                  {"scale": 40.0}, {"dtype": torch.float32}])
@pytest.mark.parametrize("mix_weight", [0.0, 0.5, 1.0])
def test_the_triton_kernel_agrees_with_float64_on_a_gpu(case, mix_weight):
    tensors, labels_T = problem(device="cuda", **case)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        check(HalfPath(softmax="triton"), tensors, labels_T, mix_weight)


INTERPRETED = """
import sys, torch
sys.path.insert(0, "tests")
from test_half_precision import HalfPath, check, problem
from baselines.triton_softmax import loss_and_residual
for case in ({}, {"vocabulary": 4097}, {"vocabulary": 17}, {"vocabulary": 4096}, {"tokens": 1, "ignored": 0},
             {"scale": 40.0}, {"tokens": 3, "ignored": 1}):
    for mix_weight in (0.0, 0.5, 1.0):
        for accumulate in ("float32", "parameter"):
            check(HalfPath(softmax="triton", accumulate=accumulate), *problem(**{"tokens": 7} | case), mix_weight,
                  chunk_tokens=4)
logits = torch.tensor([[3e4, 0.0, -3e4], [float("nan"), 0.0, 1.0], [float("inf"), 0.0, 1.0], [0.0, 0.0, 0.0]])
losses, residual = torch.empty(4), torch.empty(4, 3)
loss_and_residual(logits, torch.tensor([2, 0, 0, 1]), losses, residual)
assert losses[0] == 6e4 and losses[1].isnan() and losses[2].isnan(), losses
assert residual[0].tolist() == [1.0, 0.0, -1.0]
assert torch.allclose(residual[3], torch.tensor([1 / 3, -2 / 3, 1 / 3]))
before = residual.clone()
loss_and_residual(logits, torch.tensor([2, 0, 0, 1]), losses, None)
loss_and_residual(logits[:0], torch.tensor([], dtype=torch.long), losses[:0], None)
assert torch.equal(residual.nan_to_num(), before.nan_to_num())
wide = torch.randn(6, 40)
narrow = wide[:, :33]  # a row stride that is not the vocabulary
losses = torch.empty(6)
loss_and_residual(narrow, torch.arange(6), losses, None)
assert torch.allclose(losses, torch.nn.functional.cross_entropy(narrow, torch.arange(6), reduction="none"))
print("agrees")
"""


@pytest.mark.skipif(not TRITON, reason="Triton is not installed: pip install triton")
def test_the_triton_kernel_agrees_with_float64_in_the_interpreter():
    done = subprocess.run([sys.executable, "-c", INTERPRETED], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stdout.strip() == "agrees", done.stderr


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from baselines.triton_softmax import _BLOCK, _WARPS, _softmax_row
pointers = {"logits": "*fp32", "labels": "*i64", "losses": "*fp32", "residual": "*bf16"}
numbers = dict.fromkeys(("row_stride", "residual_stride"), "i32")
constants = dict.fromkeys(("VOCABULARY", "WANTS_RESIDUAL", "BLOCK"), "constexpr")
source = ASTSource(_softmax_row, signature=pointers | numbers | constants,
                   constexprs={"VOCABULARY": 151_936, "WANTS_RESIDUAL": True, "BLOCK": _BLOCK})
made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": _WARPS})
assert "cvt.rn.bf16" in made.asm["ptx"], "the residual is rounded to the nearest bf16"
print("machine code" if len(made.asm["cubin"]) > 0 else "none")
"""


@pytest.mark.skipif(not TRITON, reason="Triton is not installed: pip install triton")
def test_the_triton_kernel_compiles_for_a_hopper_gpu_without_one(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=environment)
    assert done.returncode == 0 and done.stdout.strip() == "machine code", done.stderr


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_chooses_the_path_and_gradients_keep_the_inputs_dtype(device, dtype):
    tensors, labels_T = problem(dtype=dtype, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        check(TORCH, tensors, labels_T, 0.5)


def test_float32_inputs_without_autocast_and_float64_are_left_alone():
    for dtype, autocast in ((torch.float32, False), (torch.float64, True)):
        tensors, labels_T = problem(dtype=dtype)
        expected = mixed(tensors, labels_T, 0.5)
        with computed_by(TORCH), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            assert torch.equal(mixed(tensors, labels_T, 0.5), expected)


def test_without_a_path_nothing_changes_and_none_is_set():
    assert mixed_cross_entropy.PATH is None
    tensors, labels_T = problem()
    expected = mixed(tensors, labels_T, 0.5)
    with computed_by(TORCH), computed_by(None):
        assert torch.equal(mixed(tensors, labels_T, 0.5), expected)
    with pytest.raises(ZeroDivisionError), computed_by(TORCH):
        _ = 1 / 0
    assert mixed_cross_entropy.PATH is None


@pytest.mark.parametrize("chunk_tokens", [1, 7, 33, 34, 1000, None])
def test_chunks_do_not_matter_where_sums_are_float32(chunk_tokens):
    check(HalfPath(softmax="torch", accumulate="float32"), *problem(), 0.5, chunk_tokens=chunk_tokens)


def test_parts_of_a_chunk_do_not_matter(monkeypatch):
    monkeypatch.setattr(half_precision, "_SOFTMAX_BYTES", 5 * 4 * 1009)
    check(TORCH, *problem(), 0.5, chunk_tokens=None)
    tensors, _ = problem()
    with computed_by(TORCH):
        entropy_T = token_entropy(tensors[0], tensors[2], chunk_tokens=12)
    logits = tensors[0].detach().double() @ tensors[2].detach().double().T
    assert torch.allclose(entropy_T.double(), torch.distributions.Categorical(logits=logits).entropy(), rtol=1e-4)


@pytest.mark.parametrize("shape", [(64, 9), (9, 64)])
@pytest.mark.parametrize("overwrite", [True, False])
def test_products_that_cannot_be_added_in_place_are_added_in_slices(monkeypatch, shape, overwrite):
    monkeypatch.setattr(half_precision, "_SCRATCH_BYTES", 4 * 9 * 20)
    monkeypatch.setattr(half_precision.torch, "mm", lambda a, b, out_dtype: a.to(out_dtype) @ b.to(out_dtype))
    left, right, start = torch.randn(shape[0], 5), torch.randn(5, shape[1]), torch.randn(shape)
    total = torch.full(shape, torch.nan) if overwrite else start.clone()
    half_precision._add_in_slices(total, left, right, 0.3, overwrite=overwrite)
    assert torch.allclose(total, 0.3 * left @ right + (0 if overwrite else start), atol=1e-6)


def test_frozen_sides_get_nothing_and_change_nothing():
    tensors, labels_T = problem()
    frozen = [tensors[0], tensors[1].detach(), tensors[2], tensors[3].detach()]
    with computed_by(TORCH):
        expected = torch.autograd.grad(mixed(tensors, labels_T, 0.5), (tensors[0], tensors[2]))
        gradients = torch.autograd.grad(mixed(frozen, labels_T, 0.5), (tensors[0], tensors[2]))
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("tokens", [0, 4])
@pytest.mark.parametrize("mix_weight", [0.5, 1.0])
def test_without_supervised_tokens_the_zero_still_touches_the_inputs(tokens, mix_weight):
    tensors, _ = problem(tokens=tokens)
    with computed_by(TORCH):
        loss = mixed(tensors, torch.full((tokens,), -100), mix_weight)
        loss.backward()
    assert loss.item() == 0.0
    assert all(torch.count_nonzero(tensor.grad) == 0 for tensor in tensors)


def test_a_second_backward_outside_of_autocast_gives_the_same():
    tensors, labels_T = problem(dtype=torch.float32)
    with computed_by(TORCH), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(tensors[0], tensors[2], labels_T)
    first = torch.autograd.grad(loss, (tensors[0], tensors[2]), retain_graph=True)
    second = torch.autograd.grad(loss, (tensors[0], tensors[2]))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_bad_chunks_and_labels_are_refused():
    tensors, labels_T = problem()
    with computed_by(TORCH), pytest.raises(InputError, match="chunk_tokens is 0"):
        mixed(tensors, labels_T, 0.5, chunk_tokens=0)
    labels_T[0] = 1009
    with computed_by(TORCH), pytest.raises(InputError, match="label 1009"):
        mixed(tensors, labels_T, 0.5)
