"""What follows the backward passes: sums in the order of the parts, AdamW as torch has it, the same by any threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from temper.kernels import update

SHAPES = ((700, 500), (3,), (0,), (5000,))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tensors(seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for shape in SHAPES]


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_are_added_one_after_the_other(threads: int) -> None:
    torch.set_num_threads(threads)
    sums, parts = tensors(0), [tensors(seed) for seed in (1, 2, 3)]
    wanted = [((a + b) + c) + d for a, b, c, d in zip(sums, *parts, strict=True)]
    update.add_up(sums, parts)
    assert all(map(torch.equal, sums, wanted))


def test_other_kinds_of_numbers_are_added_and_blanked_too() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        sums = [torch.ones(3, dtype=dtype)]
        update.add_up(sums, [[torch.ones(3, dtype=dtype)]] * 2)
        assert sums[0].tolist() == [3.0] * 3
        update.blank(sums)
        assert sums[0].tolist() == [0.0] * 3


def test_all_of_each_is_blanked() -> None:
    made = tensors(0)
    update.blank(made)
    assert not any(tensor.any() for tensor in made)


@pytest.mark.skipif(not update.fits([]), reason="no compiler")
def test_tensors_with_gaps_or_of_other_kinds_do_not_fit() -> None:
    assert update.fits(tensors(0))
    assert not update.fits([torch.ones(4, 4).T[:2]])
    assert not update.fits([torch.ones(2, dtype=torch.float64)])


@pytest.mark.skipif(not update.fits([]), reason="no compiler")
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.4, 0.999), (0.0, 0.0)])
def test_adamw_is_that_of_torch(betas: tuple[float, float]) -> None:
    found = [steps(threads, betas) for threads in (1, 3)]
    assert all(map(torch.equal, *found))
    weights = [torch.nn.Parameter(tensor) for tensor in tensors(0)]
    optimizer = torch.optim.AdamW(weights, lr=0.01, betas=betas, eps=1e-6, weight_decay=0.1, fused=True)
    for seed in (1, 2, 3):
        for weight, gradient in zip(weights, tensors(seed), strict=True):
            weight.grad = 0.3 * gradient
        optimizer.step()
    wanted = [weight.detach() for weight in weights]
    for name in ("exp_avg", "exp_avg_sq"):
        wanted += [optimizer.state[weight][name] for weight in weights]
    torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-7)


def steps(threads: int, betas: tuple[float, float]) -> list[Tensor]:
    """Weights and moments after three updates."""
    torch.set_num_threads(threads)
    weights, means, squares = tensors(0), *([torch.zeros(shape) for shape in SHAPES] for _ in range(2))
    for step in (1, 2, 3):
        rows = zip(weights, tensors(step), means, squares, strict=True)
        update.adamw([update.Moved(*row, 0.1, step) for row in rows], 0.3, 0.01, betas, 1e-6)
    return [*weights, *means, *squares]
