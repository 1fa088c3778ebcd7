"""What PPO needs besides the clipped surrogate: rewards of tokens, advantages and returns from a value model, its loss.

Shapes: T tokens of one completion, M target tokens of a batch. The value of token t is that of the state before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """What each token of a completion was worth, float64: advantages for the policy, returns for the value model."""

    advantages_T: Tensor
    returns_T: Tensor


def token_rewards(
    reward: float, old_logprobs_T: Tensor, reference_logprobs_T: Tensor | None = None, kl_penalty: float = 0.0
) -> Tensor:
    """r_t = −β (log π_old − log π_ref) on every token, and the completion's reward on the last one [T], float64.

    The penalty is the estimator k1: inside the reward its expectation is the KL divergence, and so is its gradient
    (InstructGPT, 2203.02155, section 3.5). Without a reference there is none.

    >>> token_rewards(1.0, torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0]), kl_penalty=0.1)
    tensor([-0.0500,  1.1000], dtype=torch.float64)
    """
    rewards = torch.zeros(len(old_logprobs_T), dtype=torch.float64)
    if reference_logprobs_T is not None:
        rewards -= kl_penalty * (old_logprobs_T.double() - reference_logprobs_T.double())
    rewards[-1] += reward
    return rewards


def generalized_advantages(
    rewards_T: Tensor, values_T: Tensor, last_value: float, gamma: float = 1.0, gae_lambda: float = 1.0
) -> Estimate:
    """A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} − V_t, and returns A + V (GAE, 1506.02438, equation 16).

    `last_value` is the value after the last token: 0 after a true end; that of the position the completion was cut at,
    if it was cut.

    >>> rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.2, 0.4])
    >>> generalized_advantages(rewards, values, last_value=0.0).advantages_T  # 1 − V
    tensor([0.5000, 0.8000, 0.6000], dtype=torch.float64)
    >>> estimate = generalized_advantages(rewards, values, last_value=0.5, gamma=0.5, gae_lambda=0.5)
    >>> estimate.advantages_T  # δ = −0.4, 0, 0.85; A = −0.4 + 0.0625 × 0.85, 0.25 × 0.85, 0.85
    tensor([-0.3469,  0.2125,  0.8500], dtype=torch.float64)
    >>> estimate.returns_T
    tensor([0.1531, 0.4125, 1.2500], dtype=torch.float64)
    """
    rewards, values = rewards_T.tolist(), values_T.tolist()
    advantages = [0.0] * len(rewards)
    following, value_after = 0.0, last_value
    for t in reversed(range(len(rewards))):
        surprise = rewards[t] + gamma * value_after - values[t]
        following = advantages[t] = surprise + gamma * gae_lambda * following
        value_after = values[t]
    advantages_T = torch.tensor(advantages, dtype=torch.float64)
    return Estimate(advantages_T, advantages_T + values_T.double())


def value_loss(
    values_M: Tensor, returns_M: Tensor, old_values_M: Tensor | None = None, clip_range: float | None = None
) -> Tensor:
    """½ (V − return)² a token [M]; with `clip_range` the larger of that and the same of V held within `clip_range` of
    the value before the step's updates (the PPO2 code of OpenAI baselines; 2005.12729, section 3).

    >>> value_loss(torch.tensor([1.0]), torch.tensor([3.0]))
    tensor([2.])
    >>> value_loss(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([0.0]), clip_range=0.5)  # ½ (0.5 − 3)²
    tensor([3.1250])
    """
    loss = 0.5 * (values_M - returns_M) ** 2
    if old_values_M is None or clip_range is None:
        return loss
    near = old_values_M + (values_M - old_values_M).clamp(-clip_range, clip_range)
    return torch.maximum(loss, 0.5 * (near - returns_M) ** 2)


def value_clipped_share(values_M: Tensor, old_values_M: Tensor, clip_range: float) -> Tensor:
    """1 for each value that has left its range, else 0.

    >>> value_clipped_share(torch.tensor([0.7, 0.1]), torch.zeros(2), 0.5)
    tensor([1., 0.])
    """
    return ((values_M - old_values_M).abs() > clip_range).to(values_M.dtype)


def whitened(advantages_M: Tensor) -> Tensor:
    """Advantages of a whole step with mean 0 and standard deviation 1 (ddof 1); all 0 where they are equal.

    >>> whitened(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([ 1.5000, -0.5000, -0.5000, -0.5000])
    >>> whitened(torch.tensor([0.1, 0.1, 0.1]))
    tensor([0., 0., 0.])
    """
    if not len(advantages_M) or advantages_M.max() == advantages_M.min():
        return torch.zeros_like(advantages_M)
    return (advantages_M - advantages_M.mean()) / (advantages_M.std() + 1e-8)


def explained_variance(values_M: Tensor, returns_M: Tensor) -> float:
    """1 − Var(return − V) / Var(return): 1 for a perfect value model, 0 for a constant one, below 0 for a worse one;
    NaN where the returns are all equal.

    >>> explained_variance(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]))
    0.75
    """
    variance = float(returns_M.double().var(unbiased=False))
    if variance == 0:
        return math.nan
    return 1 - float((returns_M.double() - values_M.double()).var(unbiased=False)) / variance
