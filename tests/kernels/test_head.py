"""The head in one call says what torch's says, to the bit the same with any number of threads, pieces kept or not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from temper.kernels import choice, kept
from temper.kernels import head as own
from temper.kernels.straight import straight
from temper.train import head as plain
from temper.train.head import Head, score_hidden

pytestmark = pytest.mark.skipif(not own._functions.available, reason="no C compiler")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Case(NamedTuple):
    head: Head
    hidden: Tensor
    targets: Tensor


def case(targets: int, width: int, tokens: int, bias: bool = True, scale: float = 1.0, softcap: float | None = None,
         spare: bool = False) -> Case:  # fmt: skip
    torch.manual_seed(0)
    linear = nn.Linear(width, tokens, bias=bias)
    nn.init.normal_(linear.weight, std=2 / width**0.5)
    rows = torch.tensor([0, tokens // 2, tokens - 1])
    meant = [token for token in range(tokens) if token not in rows] if spare else range(tokens)
    chosen = torch.tensor(list(meant))[torch.randint(len(meant), (targets,))]
    head = Head(linear, scale, softcap, rows if spare else None)
    return Case(head, torch.randn(targets, width, requires_grad=True), chosen)


def weights_of(case: Case) -> list[Tensor]:
    return [case.hidden, *case.head.linear.parameters()]


def loss_of(values: tuple[Tensor, ...], wanted: str) -> Tensor:
    parts = [(value * torch.linspace(-1, 2, len(value)).to(value)).sum() for value in values]
    return {"logprobs": parts[0], "entropy": parts[1], "both": parts[0] + parts[1]}[wanted]


def found_by(case: Case, wanted: str = "both", temperature: float = 0.7) -> list[Tensor]:
    """Values and gradients."""
    values = score_hidden(*case, temperature)
    return [*(value.detach() for value in values), *torch.autograd.grad(loss_of(values, wanted), weights_of(case))]


def exactly(case: Case, wanted: str, temperature: float = 0.7) -> list[Tensor]:
    """The same, in float64 and from all logits at once."""
    head, inputs = case.head, [weight.detach().double().requires_grad_() for weight in weights_of(case)]
    logits = nn.functional.linear(*inputs) * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    logits = logits / temperature
    if head.spare is not None:
        logits = logits.index_fill(-1, head.spare, -1e30)
    logprobs = logits.log_softmax(-1)
    values = logprobs.gather(-1, case.targets[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)
    return [*(value.detach() for value in values), *torch.autograd.grad(loss_of(values, wanted), inputs)]


def alike(found: list[Tensor], expected: list[Tensor], tolerance: float = 3e-5) -> bool:
    return all(
        (one - other).abs().max() <= tolerance * (1 + other.abs().max())
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("wanted", ["logprobs", "entropy", "both"])
@pytest.mark.parametrize("spare", [False, True], ids=["all", "spare"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (1.0, 3.0), (4.0, 20.0)])
def test_values_and_gradients_are_those_of_all_logits(scale: float, softcap: float | None, spare: bool, wanted: str):
    one = case(301, 40, 1300, True, scale, softcap, spare)  # three pieces, a panel that is not full
    assert own.serves(one.hidden, one.head.weight, one.head.linear.bias, plain._plainly)
    assert alike(found_by(one, wanted), exactly(one, wanted))


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.integers(1, 40), st.integers(1, 50), st.integers(4, 70), st.booleans(), st.integers(1, 5))
def test_sizes_may_be_any(targets: int, width: int, tokens: int, bias: bool, threads: int):
    one = case(targets, width, tokens, bias)
    torch.set_num_threads(threads)
    found = found_by(one)
    torch.set_num_threads(1)
    assert alike(found, exactly(one, "both"))


@pytest.mark.parametrize("sizes", [(999, 64, 128), (301, 40, 1300), (5, 7, 3)])
def test_no_bit_depends_on_threads_or_on_what_is_kept(sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch):
    one, found = case(*sizes), []
    a_piece = 4 * sizes[0] * min(576, -(-sizes[2] // 32) * 32)
    for threads, most in product((1, 2, 7), (0, a_piece, 2 * a_piece, kept.LEAST)):
        monkeypatch.setattr(own, "kept_bytes", lambda _, most=most: most)
        torch.set_num_threads(threads)
        values = score_hidden(*one)
        torch.set_num_threads(1)
        loss = loss_of(values, "both")
        torch.set_num_threads(threads)
        found.append([*values, *torch.autograd.grad(loss, weights_of(one))])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_a_target_has_the_same_bits_alone_and_without_gradients():
    hidden, targets = (one := case(301, 40, 1300)).hidden, one.targets
    everything = score_hidden(*one)
    with torch.no_grad():
        alone = [score_hidden(one.head, hidden[i : i + 1], targets[i : i + 1]) for i in (0, 150, 300)]
        again = score_hidden(*one)
    for value, other, parts in zip(everything, again, zip(*alone, strict=True), strict=True):
        assert torch.equal(value, other)
        assert torch.equal(value[[0, 150, 300]], torch.cat(parts))


def test_without_gradients_no_logits_are_kept(monkeypatch: pytest.MonkeyPatch):
    asked, space = [], own.space
    monkeypatch.setattr(own, "space", lambda floats: asked.append(floats) or space(floats))
    one = case(30, 40, 128)
    with torch.no_grad():
        score_hidden(*one)
    score_hidden(*one)
    assert asked == [0, 30 * 128]


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_what_needs_no_gradient_gets_none(needed: tuple[int, ...]):
    one = case(301, 40, 1300)
    expected = exactly(one, "both")[2:]
    for number, weight in enumerate(weights_of(one)):
        weight.requires_grad_(number in needed)
    loss_of(score_hidden(*one, 0.7), "both").backward()
    found = [weight.grad for weight in weights_of(one)]
    assert [gradient is not None for gradient in found] == [number in needed for number in range(3)]
    assert alike([g for g in found if g is not None], [expected[number] for number in needed])


def test_the_gradient_of_the_weight_is_added_to_what_has_gathered():
    one, found = case(301, 40, 1300), []
    for asked in (False, True):
        for weight in weights_of(one):
            weight.grad = torch.full_like(weight, 0.5)
        place = one.head.weight.grad
        with straight(asked):
            loss_of(score_hidden(*one), "both").backward()
        assert one.head.weight.grad is place
        found.append([weight.grad for weight in weights_of(one)])
    assert alike(*found)
    assert not alike(found[0][1:2], [torch.full_like(one.head.weight, 0.5)])


def test_gradients_may_be_asked_for_twice():
    one = case(301, 40, 1300)
    loss = loss_of(score_hidden(*one), "both")
    first = torch.autograd.grad(loss, weights_of(one), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, weights_of(one))))


def test_what_is_not_finite_stays_so():
    one = case(30, 40, 128)
    with torch.no_grad():
        one.hidden[3, 5] = float("nan")
    logprobs, entropy = score_hidden(*one)
    assert logprobs.isnan().nonzero().tolist() == entropy.isnan().nonzero().tolist() == [[3]]


def test_logits_far_apart_leave_a_certain_target_certain():
    head = Head(nn.Linear(2, 600, bias=False))
    nn.init.zeros_(head.linear.weight)
    with torch.no_grad():
        head.linear.weight[7, 0] = 500
        logprobs, entropy = score_hidden(head, torch.tensor([[1.0, 0], [2.0, 0]]), torch.tensor([7, 8]))
    assert torch.allclose(logprobs, torch.tensor([0.0, -1000.0]))
    assert torch.allclose(entropy, torch.zeros(2), atol=1e-6)


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(own, "SMALL", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice.pin("auto")
    yield
    choice.pin("auto")


@pytest.mark.parametrize("way", ["own", "default"])
def test_a_large_head_is_served_where_that_was_faster(all_are_large: None, way: str, monkeypatch: pytest.MonkeyPatch):
    def measure(slow: Any, other: Any, *_: Any) -> dict[str, Any]:
        slow()
        other()
        return {"way": way}

    monkeypatch.setattr(choice, "_measure", measure)
    one = case(30, 40, 128)
    assert own.serves(one.hidden, one.head.weight, None, plain._plainly) == (way == "own")
    assert choice.table()["head 40x128"] == {"way": way}


def test_where_a_library_is_pinned_a_large_head_is_not_served(all_are_large: None):
    choice.pin("default")
    one = case(30, 40, 128)
    assert not own.serves(one.hidden, one.head.weight, None, plain._plainly)


@pytest.mark.parametrize("change", [
    lambda x, w: (x.double(), w.double()), lambda x, w: (x.bfloat16(), w.bfloat16()),
    lambda x, w: (x[:0], w), lambda x, w: (x, torch.cat([w, w], 1)[:, : w.shape[1]]),
])  # fmt: skip
def test_other_numbers_none_and_those_with_gaps_are_left_to_torch(change: Any):
    one = case(30, 40, 128)
    hidden, weight = change(one.hidden, one.head.weight)
    assert own.serves(one.hidden, one.head.weight, None, plain._plainly)
    assert not own.serves(hidden, weight, None, plain._plainly)
