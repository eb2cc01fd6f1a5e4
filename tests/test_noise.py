"""Noise belongs to an example and a visit: neither chunks, micro-batches nor their order can move it."""

from __future__ import annotations

import pytest
import torch

from baselines.interface import Batch
from baselines.noise import example_seeds, token_normals, uniform

WIDTH = 5
LIKE = torch.empty(0)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def batch_of(lengths, seeds):
    """A micro-batch of examples with so many supervised tokens each."""
    example_N = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return Batch(torch.zeros(len(example_N), dtype=torch.long), example_N, torch.tensor(lengths) + 3, seeds)


def all_noise(batch, chunk):
    total = len(batch.labels_N)
    return torch.cat([token_normals(batch, slice(start, min(start + chunk, total)), WIDTH, LIKE)
                      for start in range(0, total, chunk)])


@pytest.mark.parametrize("chunk", [1, 7, 63, 64, 65, 128, 1000])
def test_noise_does_not_depend_on_how_tokens_are_cut_into_chunks(chunk):
    batch = batch_of([3, 150, 1, 64, 65], seeds=[11, 12, 13, 14, 15])
    assert torch.equal(all_noise(batch, chunk), all_noise(batch, 10_000))


def test_noise_does_not_depend_on_the_micro_batch_or_its_order():
    lengths, seeds = [70, 5, 130], [21, 22, 23]
    together = all_noise(batch_of(lengths, seeds), 16).split(lengths)
    for i in range(3):
        assert torch.equal(all_noise(batch_of(lengths[i : i + 1], seeds[i : i + 1]), 16), together[i])
    reversed_ = all_noise(batch_of(lengths[::-1], seeds[::-1]), 16).split(lengths[::-1])
    assert all(torch.equal(a, b) for a, b in zip(reversed_, together[::-1], strict=True))


def test_an_example_without_supervised_tokens_moves_nobody_elses_noise():
    with_empty = batch_of([4, 0, 6], seeds=[1, 2, 3])
    without = batch_of([4, 6], seeds=[1, 3])
    assert torch.equal(all_noise(with_empty, 3), all_noise(without, 3))


def test_examples_visits_and_blocks_have_different_noise():
    same_seed = all_noise(batch_of([200], seeds=[5]), 64)
    assert not torch.equal(same_seed[:64], same_seed[64:128])
    first, second = all_noise(batch_of([40, 40], seeds=[6, 7]), 64).split(40)
    assert not torch.equal(first, second)


def test_token_noise_is_standard_normal_and_uncorrelated_between_tokens():
    noise = token_normals(batch_of([2000], seeds=[8]), slice(0, 2000), 100, LIKE)
    assert noise.mean().abs() < 0.01 and noise.std() == pytest.approx(1.0, rel=0.01)
    assert (noise[:-1] * noise[1:]).mean().abs() < 0.01 and (noise**4).mean() == pytest.approx(3.0, rel=0.03)


def test_uniform_noise_fills_its_interval_and_is_fixed_by_its_seed():
    noise = uniform((400, 100), 9, LIKE)
    assert noise.abs().max() <= 1 and noise.std() == pytest.approx(3**-0.5, rel=0.01) and noise.mean().abs() < 0.01
    assert torch.equal(noise, uniform((400, 100), 9, LIKE))
    assert not torch.equal(noise, uniform((400, 100), 10, LIKE))


def test_noise_takes_the_dtype_it_is_added_to():
    like = torch.empty(0, dtype=torch.float64)
    assert uniform((2, 2), 1, like).dtype == torch.float64
    assert token_normals(batch_of([3], seeds=[1]), slice(0, 3), 2, like).dtype == torch.float64


def test_neither_kind_touches_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    uniform((5, 5), 1, LIKE)
    all_noise(batch_of([9], seeds=[1]), 4)
    assert torch.equal(torch.rand(4), expected)


def test_seeds_name_the_run_and_the_visit():
    seeds = example_seeds(4, list(range(100)))
    assert len(set(seeds)) == 100
    assert example_seeds(4, [7, 3]) == [seeds[7], seeds[3]]
    assert not set(seeds) & set(example_seeds(5, list(range(100))))
