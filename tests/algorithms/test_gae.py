"""GAE against sums written out in full, and what must hold of it whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.algorithms.gae import (
    explained_variance,
    generalized_advantages,
    token_rewards,
    value_clipped_share,
    value_loss,
    whitened,
)

NUMBERS = st.floats(-5, 5, allow_nan=False)
SHARES = st.floats(0, 1)


@st.composite
def completions(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, float, float, float]:
    length = draw(st.integers(1, 9))
    rewards = draw(st.lists(NUMBERS, min_size=length, max_size=length))
    values = draw(st.lists(NUMBERS, min_size=length, max_size=length))
    made = (torch.tensor(rewards, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    return (*made, draw(NUMBERS), draw(SHARES), draw(SHARES))


def written_out(rewards: list[float], values: list[float], last: float, gamma: float, lam: float) -> list[float]:
    """Equation 16 as it stands: every A_t from all the δ after it."""
    states = [*values, last]
    advantages = []
    for t in range(len(rewards)):
        total = 0.0
        for later in range(t, len(rewards)):
            delta = rewards[later] + gamma * states[later + 1] - states[later]
            total += (gamma * lam) ** (later - t) * delta
        advantages.append(total)
    return advantages


@settings(max_examples=60, deadline=None)
@given(completions())
def test_advantages_are_the_sums_of_the_paper_and_returns_add_the_values(case):
    rewards, values, last, gamma, lam = case
    found = generalized_advantages(rewards, values, last, gamma, lam)
    expected = torch.tensor(written_out(rewards.tolist(), values.tolist(), last, gamma, lam), dtype=torch.float64)
    assert torch.allclose(found.advantages_T, expected, rtol=0, atol=1e-10)
    assert torch.allclose(found.returns_T, expected + values, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(completions())
def test_with_gamma_and_lambda_one_the_return_is_what_was_still_earned_whatever_the_values(case):
    rewards, values, last, _, _ = case
    found = generalized_advantages(rewards, values, last)
    earned = rewards.flip(0).cumsum(0).flip(0) + last
    assert torch.allclose(found.returns_T, earned, rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(completions())
def test_with_lambda_zero_an_advantage_is_one_step_of_surprise(case):
    rewards, values, last, gamma, _ = case
    after = torch.cat([values[1:], torch.tensor([last], dtype=torch.float64)])
    found = generalized_advantages(rewards, values, last, gamma, gae_lambda=0.0)
    assert torch.allclose(found.advantages_T, rewards + gamma * after - values, rtol=0, atol=1e-10)


def test_values_that_are_right_leave_no_advantage():
    rewards = torch.tensor([0.0, 0.5, 0.0, 1.0])
    for last in (0.0, 0.3):
        values = rewards.flip(0).cumsum(0).flip(0) + last
        assert generalized_advantages(rewards, values, last, 1.0, 0.7).advantages_T.abs().max() < 1e-6


def test_a_token_bears_its_own_divergence_and_the_last_one_the_reward_too():
    old, reference = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.2, -1.0, -0.5])
    found = token_rewards(0.8, old, reference, kl_penalty=0.5)
    assert torch.allclose(found, torch.tensor([-0.1, 0.5, 0.8], dtype=torch.float64), atol=1e-6)
    assert token_rewards(0.8, old).tolist() == [0.0, 0.0, 0.8]


def test_the_penalty_sums_to_the_log_ratio_of_the_whole_completion():
    torch.manual_seed(0)
    old, reference = torch.randn(6), torch.randn(6)
    total = token_rewards(0.0, old, reference, kl_penalty=1.0).sum()
    assert total == pytest.approx(float(reference.double().sum() - old.double().sum()), abs=1e-9)


def test_a_clipped_value_has_no_gradient_where_it_ran_ahead_of_its_range_and_one_where_it_must_come_back():
    old, returns = torch.zeros(3), torch.tensor([2.0, -2.0, 2.0])
    values = torch.tensor([1.0, 1.0, 0.1], requires_grad=True)  # too far on the way; too far the wrong way; within
    value_loss(values, returns, old, clip_range=0.5).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.0, 3.0, -1.9])
    assert value_clipped_share(values.detach(), old, 0.5).tolist() == [1.0, 1.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=20), NUMBERS, st.floats(0.01, 1))
def test_clipping_never_makes_the_loss_smaller_and_does_nothing_within_the_range(values, target, clip):
    now = torch.tensor(values, dtype=torch.float64)
    returns = torch.full_like(now, target)
    plain = value_loss(now, returns)
    assert bool((value_loss(now, returns, now.flip(0), clip) >= plain).all())
    assert torch.equal(value_loss(now, returns, now, clip), plain)


def test_whitening_keeps_the_order_and_leaves_nothing_of_equal_advantages():
    advantages = torch.tensor([0.3, -1.0, 2.5, 0.1], dtype=torch.float64)
    found = whitened(advantages)
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.std()) == pytest.approx(1, abs=1e-6)
    assert found.argsort().tolist() == advantages.argsort().tolist()
    assert not whitened(torch.full((5,), 1 / 3)).any()
    assert not whitened(torch.tensor([0.7])).any()


def test_explained_variance_of_perfect_constant_and_harmful_values():
    returns = torch.tensor([0.0, 1.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.full((3,), 7.0), returns) == pytest.approx(0)
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert math.isnan(explained_variance(returns, torch.ones(3)))
