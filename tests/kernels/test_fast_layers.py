"""Faster forwards say what a model's own say, forward and backward, and are gone after the pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_model
from torch import Tensor, nn

from temper.data.batching import make_batch
from temper.kernels import choice, fast, fused, product
from temper.kernels.fast import fast_forwards
from temper.kernels.forwards import in_place
from temper.train.forward import plan_batch, score_targets
from temper.types import Example

compiled = pytest.mark.skipif(not fused.available(), reason="no C compiler")
FUNCTIONS = {
    "silu": nn.functional.silu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def with_gradients(function: Any, *inputs: Tensor) -> list[Tensor]:
    """What `function` says, and the gradients of its inputs for one and the same gradient of that."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(gradient.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_close(found: list[Tensor], exact: list[Tensor], tolerance: float = 2e-6) -> None:
    assert [relative(one, other) <= tolerance for one, other in zip(found, exact, strict=True)] == [True] * len(exact)


@compiled
@given(rows=st.integers(1, 70), size=st.integers(1, 40), eps=st.sampled_from([1e-6, 1e-2]), scale=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_the_norm_is_the_formula_in_float64(rows: int, size: int, eps: float, scale: float) -> None:
    draw = torch.Generator().manual_seed(rows * 100 + size)
    x, weight = scale * torch.randn(rows, size, generator=draw), torch.randn(size, generator=draw)

    def exact(x: Tensor, weight: Tensor) -> Tensor:
        return x * weight / (x.square().mean(-1, keepdim=True) + eps).sqrt()

    found, expected = (
        with_gradients(lambda x, w: fused.rms_norm(x, w, eps), x, weight),
        with_gradients(exact, x.double(), weight.double()),
    )
    if size > 1:  # of one number it is the sign: its gradient is rounding
        assert_close(found, expected, 1e-5)


@compiled
@pytest.mark.parametrize("activation", sorted(fused.ACTIVATIONS))
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 7), (300, 130)])
def test_gates_are_the_formula_in_float64(activation: str, rows: int, size: int) -> None:
    x = 4 * torch.randn(rows, 2 * size, generator=torch.Generator().manual_seed(size))
    found = with_gradients(lambda x: fused.gated(x, activation), x)
    exact = with_gradients(lambda x: FUNCTIONS[activation](x[:, :size]) * x[:, size:], x.double())
    assert_close(found, exact)


@compiled
@pytest.mark.parametrize("activation", sorted(fused.ACTIVATIONS))
def test_gates_are_finite_far_from_zero(activation: str) -> None:
    gates = torch.tensor([-1e6, -300.0, -90.0, 0.0, 90.0, 300.0, 1e6])
    found = with_gradients(lambda x: fused.gated(x, activation), torch.stack([gates, torch.ones(7)], 1))
    assert all(bool(x.isfinite().all()) for x in found)
    assert torch.allclose(found[0][:, 0], FUNCTIONS[activation](gates), atol=1e-30)


@compiled
@pytest.mark.parametrize(("rows", "heads", "size"), [(1, 1, 2), (5, 3, 8), (200, 4, 32)])
def test_rotation_is_the_formula_in_float64(rows: int, heads: int, size: int) -> None:
    draw = torch.Generator().manual_seed(size)
    wide = torch.randn(rows, 2 * heads, size, generator=draw)
    cosine, sine = torch.randn(2, rows, size, generator=draw)  # not even those of an angle

    def exact(x: Tensor) -> Tensor:
        first, second = x[:, heads:].chunk(2, -1)
        return x[:, heads:] * cosine.double()[:, None] + torch.cat([-second, first], -1) * sine.double()[:, None]

    found = with_gradients(lambda x: fused.rotated(x[:, heads:], cosine, sine), wide)  # a view of wider rows
    assert_close(found, with_gradients(exact, wide.double()))


@pytest.fixture
def onednn() -> Iterator[None]:
    choice.pin("onednn")
    yield
    choice.pin("auto")


@pytest.mark.skipif(not product.has_onednn(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "ins", "outs"), [(128, 1, 1), (300, 65, 33), (1100, 8, 8)])
def test_products_are_those_of_float64(
    onednn: None, rows: int, ins: int, outs: int, bias: bool
) -> None:
    draw = torch.Generator().manual_seed(rows)
    shapes = [(rows, ins), (outs, ins), (outs,)][: 3 if bias else 2]
    inputs = [torch.randn(shape, generator=draw) for shape in shapes]
    found = with_gradients(product.linear, *inputs)
    assert_close(found, with_gradients(nn.functional.linear, *(x.double() for x in inputs)))


def batch_of(lengths: list[int]) -> Any:
    prompt = tuple(range(5, 14))
    rows = [prompt + tuple((7 * i + 3 * j) % 90 + 5 for j in range(length)) for i, length in enumerate(lengths)]
    return make_batch([Example(row, (False,) * 9 + (True,) * (len(row) - 9)) for row in rows])


def gradients(model: Any, forwards: fast.Forwards) -> Tensor:
    batch = batch_of([12, 1, 30, 30, 7])
    model.zero_grad()
    with in_place(forwards):
        logprobs = score_targets(model, batch, plan_batch(batch)).logprobs_M
        (logprobs * torch.arange(len(logprobs)).cos()).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_the_models_own_layers(architecture: str) -> None:
    model = tiny_model(architecture)
    forwards = fast_forwards(model)
    kinds = {forward.func.__name__ for _, forward in forwards}  # type: ignore[attr-defined]
    assert {"_norm", "_mlp", "_attention"} <= kinds
    exact = gradients(copy.deepcopy(model).double(), ())
    found, own = gradients(model, forwards), gradients(model, ())
    assert relative(found, own) < 1e-5
    assert relative(found, exact) < 1.5 * relative(own, exact) + 1e-6


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_the_models_own_layers(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny_model(architecture), batch_of([20, 3, 40])
    with torch.no_grad():
        found = score_targets(model, batch, plan_batch(batch)).logprobs_M
        monkeypatch.setattr("temper.train.forward.scoring_forwards", lambda _: ())
        own = score_targets(model, batch, plan_batch(batch)).logprobs_M
    assert torch.allclose(found, own, atol=1e-5)
    assert all("forward" not in module.__dict__ for module in model.modules())


@compiled
def test_the_same_numbers_twice_and_with_any_number_of_threads() -> None:
    x, weight = torch.randn(2, 600, 128, generator=torch.Generator().manual_seed(0)), torch.ones(128)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append(with_gradients(lambda x, w: fused.rms_norm(x, w, 1e-6), x[0], weight))
        results[-1] += with_gradients(lambda x: fused.gated(x, "silu"), x[1])
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


class Odd(nn.Module):
    """A norm by another name that does something else: its mean is not of squares alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


@compiled
def test_what_computes_something_else_is_left_alone() -> None:
    odd = Odd()
    assert not fast_forwards(odd)
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp.act_fn = nn.GELU()  # exact, not by tanh
        layer.self_attn.head_dim = 8  # not the size that it is called with
    names = {forward.func.__name__ for _, forward in fast_forwards(model)}  # type: ignore[attr-defined]
    assert "_mlp" not in names
    assert "_norm" in names


def test_other_types_and_devices_are_left_alone() -> None:
    assert not fast_forwards(tiny_model("llama").double())
    assert not fast_forwards(tiny_model("llama").bfloat16())


def test_forwards_put_in_place_twice_are_there_until_both_have_ended() -> None:
    layer = nn.Linear(2, 2)
    with in_place([(layer, lambda x: "outer")]):
        with in_place([(layer, lambda x: "inner")]):
            assert layer(1) == "inner"
        assert layer(1) == "outer"
    assert layer(torch.ones(1, 2)).shape == (1, 2)
    assert "forward" not in layer.__dict__


def test_products_take_pieces_of_two_sizes_only_whatever_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oneDNN prepares for a shape it keeps: rows of every count would fill the memory."""
    for rows in (1, 127, 128, 300, 511, 512, 5000):
        pieces, rest = product._pieces(rows)
        assert {piece.stop - piece.start for piece in pieces} <= set(product.PIECES)
        covered = [row for piece in (*pieces, rest) for row in range(rows)[piece]]
        assert covered == list(range(rows))
