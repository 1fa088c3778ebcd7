"""The packed, prefix-sharing forward is the plain one: log-probs and gradients, for each architecture."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_model

from temper.data.batching import make_batch, split_by_tokens
from temper.train.forward import plan_batch, score_targets
from temper.types import Example


def examples(seed: int, groups: int = 3, samples: int = 4) -> list[Example]:
    """Groups that share a prompt, and one conversation of several turns."""
    draw = random.Random(seed)
    made = []
    for _ in range(groups):
        prompt = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 20)))
        for _ in range(samples):
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 25)))
            made.append(Example(prompt + reply, (False,) * len(prompt) + (True,) * len(reply)))
    return [*made, Example((5, 6, 7, 8, 9), (False, True, True, False, True))]


def plain_logprobs(model: torch.nn.Module, rows: list[Example], temperature: float) -> torch.Tensor:
    """One example at a time through the model's own eager attention."""
    chosen = []
    for row in rows:
        logprobs = (model(torch.tensor([row.token_ids])).logits[0] / temperature).log_softmax(-1)
        chosen += [logprobs[i - 1, row.token_ids[i]] for i, target in enumerate(row.mask) if target]
    return torch.stack(chosen)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logprobs_and_gradients_equal_the_plain_forward(architecture: str) -> None:
    model, plain = tiny_model(architecture), tiny_model(architecture, attention="eager")
    rows = examples(0)
    batch = make_batch(rows)
    weights = torch.linspace(-1, 1, len(batch.targets))
    packed_logprobs = score_targets(model, batch, plan_batch(batch), 0.7).logprobs_M
    (packed_logprobs * weights).sum().backward()
    expected = plain_logprobs(plain, rows, 0.7)
    (expected * weights).sum().backward()
    assert torch.allclose(packed_logprobs, expected, atol=1e-5)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= 1e-5 * theirs.grad.abs().max() + 1e-7


def test_gradient_does_not_depend_on_how_a_batch_is_split() -> None:
    rows = examples(1)
    gradients = []
    for budget in (8, 64, 100_000):
        model = tiny_model("llama")
        for part in split_by_tokens(rows, budget):
            batch = make_batch([rows[i] for i in part])
            score_targets(model, batch, plan_batch(batch)).logprobs_M.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=1e-5 * float(gradients[0].abs().max()))


def test_order_of_examples_does_not_change_their_logprobs() -> None:
    model, rows = tiny_model("qwen3"), examples(2)
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    straight, mixed = make_batch(rows), make_batch([rows[i] for i in order])
    with torch.no_grad():
        expected = score_targets(model, straight, plan_batch(straight)).logprobs_M
        found = score_targets(model, mixed, plan_batch(mixed)).logprobs_M
    for at, original in enumerate(order):
        assert torch.allclose(found[mixed.rows == at], expected[straight.rows == original], atol=1e-5)


def test_a_shared_prompt_stands_in_the_batch_once() -> None:
    prompt, replies = (5, 6, 7, 8), [(9,), (10, 11), (12, 13, 14)]
    batch = make_batch([Example(prompt + r, (False,) * 4 + (True,) * len(r)) for r in replies])
    assert len(batch.tokens) == 4 + 1 + 2 + 3


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=5), st.lists(st.integers(0, 9), min_size=1, max_size=6)
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_micro_batches_hold_every_example_once_within_the_budget(parts: list, budget: int) -> None:
    rows = [Example((*p, *r), (False,) * len(p) + (True,) * len(r)) for p, r in parts]
    split = split_by_tokens(rows, budget)
    assert sorted(i for part in split for i in part) == list(range(len(rows)))
    for part in split:
        tokens = len(make_batch([rows[i] for i in part]).tokens)
        assert tokens <= budget or len(part) == 1


def test_padding_never_reaches_a_target() -> None:
    model = tiny_model("gemma2")
    short, long = Example((5, 6, 7), (False, True, True)), Example(tuple(range(5, 45)), (False,) + (True,) * 39)
    alone, together = make_batch([short]), make_batch([short, long])
    with torch.no_grad():
        expected = score_targets(model, alone, plan_batch(alone)).logprobs_M
        found = score_targets(model, together, plan_batch(together)).logprobs_M[:2]
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_model_is_not_changed_by_being_packed() -> None:
    model = tiny_model("llama")
    before = copy.deepcopy(model.state_dict())
    batch = make_batch(examples(3))
    score_targets(model, batch, plan_batch(batch))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
