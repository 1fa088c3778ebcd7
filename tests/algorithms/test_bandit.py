"""Which estimator is unbiased for what: expected gradients on softmax bandits, every outcome enumerated, in float64.

A bandit is a prompt whose completions are one token. π_θ is a softmax over a few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from temper.algorithms.advantages import ADVANTAGES
from temper.algorithms.kl import KL
from temper.algorithms.losses import SURROGATES, Bounds

THETA = torch.tensor([0.4, -0.7, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.5, 0.3], dtype=torch.float64).log_softmax(0)
REWARDS = torch.tensor([1.0, 0.0, 0.25], dtype=torch.float64)
BINARY = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def gradient(objective: Callable[[Tensor], Tensor], at: Tensor = THETA) -> Tensor:
    """∇ of objective(log π)."""
    theta = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective(theta.log_softmax(0)), theta)
    return found


def expected(loss: Callable[[Tensor, tuple[int, ...]], Tensor], size: int, at: Tensor = THETA) -> Tensor:
    """E over all draws of `size` actions from π of the gradient of loss(log π, actions); the draw has no gradient."""

    def objective(logprobs: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for actions in product(range(len(THETA)), repeat=size):
            chance = logprobs.detach()[list(actions)].sum().exp()
            total = total + chance * loss(logprobs, actions)
        return total

    return gradient(objective, at)


def policy_gradient(advantage: str, rewards: Tensor, size: int, surrogate: str = "clip", at: Tensor = THETA) -> Tensor:
    """What a group of `size` earns on average: the expected gradient of −loss."""

    def loss(logprobs: Tensor, actions: tuple[int, ...]) -> Tensor:
        chosen = logprobs[list(actions)]
        advantages = ADVANTAGES[advantage](rewards[list(actions)])
        return -SURROGATES[surrogate](chosen, chosen - chosen.detach(), advantages, Bounds()).mean()

    return expected(loss, size, at)


TRUE = gradient(lambda logprobs: (logprobs.exp() * REWARDS).sum())


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_reward_minus_mean_is_the_true_gradient_times_g_minus_1_over_g(size: int, surrogate: str) -> None:
    found = policy_gradient("none", REWARDS, size, surrogate)
    assert torch.allclose(found, TRUE * (size - 1) / size, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leave_one_out_is_exact(size: int) -> None:
    assert torch.allclose(policy_gradient("rloo", REWARDS, size), TRUE, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_maxrl_is_the_gradient_of_the_log_pass_rate_cut_off_at_the_group_size(size: int) -> None:
    def truncated_log(logprobs: Tensor) -> Tensor:  # log p = −Σ_{k≥1} (1 − p)^k / k
        fails = 1 - (logprobs.exp() * BINARY).sum()
        return -torch.stack([fails**k / k for k in range(1, size)]).sum()

    found = policy_gradient("maxrl", BINARY, size)
    assert torch.allclose(found, gradient(truncated_log), atol=1e-12)


def test_std_weighs_a_hard_prompt_more_than_an_even_one_and_none_does_not() -> None:
    """Both point where the true gradient does; dividing by the std changes how far (2503.20783, section 3.1)."""
    hard, even = (torch.tensor([value, 0.0, 0.0], dtype=torch.float64) for value in (-2.0, 0.7))
    steps = {
        name: [policy_gradient(name, BINARY, 4, at=at).norm() / policy_gradient("rloo", BINARY, 4, at=at).norm()
               for at in (hard, even)]
        for name in ("std", "none")
    }  # fmt: skip
    assert steps["std"][0] > 1.05 * steps["std"][1]
    assert steps["none"][0] == pytest.approx(steps["none"][1].item(), rel=1e-12)


def reverse_kl(logprobs: Tensor) -> Tensor:
    return (logprobs.exp() * (logprobs - REFERENCE)).sum()


def forward_kl(logprobs: Tensor) -> Tensor:
    return (REFERENCE.exp() * (REFERENCE - logprobs)).sum()


def kl_gradient(name: str) -> Tensor:
    """The expected gradient of an estimator as a loss, one draw from π = π_old."""

    def loss(logprobs: Tensor, actions: tuple[int, ...]) -> Tensor:
        chosen = logprobs[list(actions)]
        return KL[name](chosen, REFERENCE[list(actions)], chosen - chosen.detach()).sum()

    return expected(loss, 1)


def test_k1_as_a_loss_has_gradient_zero() -> None:
    assert torch.allclose(kl_gradient("k1"), torch.zeros(3, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("name", ["k2", "k3_corrected"])
def test_k2_and_corrected_k3_have_the_gradient_of_the_reverse_kl(name: str) -> None:
    assert torch.allclose(kl_gradient(name), gradient(reverse_kl), atol=1e-12)


def test_k3_has_the_gradient_of_the_forward_kl() -> None:
    assert torch.allclose(kl_gradient("k3"), gradient(forward_kl), atol=1e-12)
    assert not torch.allclose(kl_gradient("k3"), gradient(reverse_kl), atol=1e-3)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_for_the_value_of_the_reverse_kl(name: str) -> None:
    logprobs = THETA.log_softmax(0)
    value = (logprobs.exp() * KL[name](logprobs, REFERENCE, torch.zeros(3))).sum()
    assert value == pytest.approx(reverse_kl(logprobs).item(), abs=1e-12)


def test_k1_inside_the_reward_has_the_gradient_of_the_penalised_objective() -> None:
    beta, size = 0.3, 3

    def loss(logprobs: Tensor, actions: tuple[int, ...]) -> Tensor:
        chosen = logprobs[list(actions)]
        charged = REWARDS[list(actions)] - beta * KL["k1"](chosen.detach(), REFERENCE[list(actions)], torch.zeros(3))
        return -SURROGATES["reinforce"](chosen, torch.zeros(3), ADVANTAGES["rloo"](charged), Bounds()).mean()

    wanted = TRUE - beta * gradient(reverse_kl)
    assert torch.allclose(expected(loss, size), wanted, atol=1e-12)


def test_clipped_tokens_lose_their_gradient_and_cispo_keeps_it() -> None:
    logprobs = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    for name, lost in (("clip", True), ("cispo", False)):
        log_ratio = logprobs - logprobs.detach() + torch.tensor([1.0, 1.0])
        loss = SURROGATES[name](logprobs, log_ratio, torch.tensor([1.0, 1.0]), Bounds(cap=1.5)).sum()
        (found,) = torch.autograd.grad(loss, logprobs)
        assert (found == 0).all() == lost
