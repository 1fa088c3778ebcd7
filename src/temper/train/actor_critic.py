"""A policy and its value model, trained together: two models with an optimiser each, or one model with two heads.

Shapes: T tokens of a completion, M targets of a micro-batch, K positions asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from temper.algorithms.gae import value_clipped_share, value_loss
from temper.data.batching import Batch, split_by_tokens
from temper.kernels.packed import AttentionPlan
from temper.train.forward import Scored, plan_batch, score_targets
from temper.train.learner import Learner
from temper.train.losses import LossSum
from temper.train.policy import PolicyBatch, PolicyLoss, per_token, policy_batch
from temper.train.scores import AskedExample, asked_batch, score_positions, score_shared
from temper.train.team import run_all
from temper.types import Example, PolicyExample


@dataclass(frozen=True, kw_only=True)
class PPOExample(PolicyExample):
    """A `PolicyExample` with what several passes over it need: the log-prob of each token and the value of the state
    before it as they were before the step's updates, and the return that the value model learns."""

    old_logprobs: tuple[float, ...]
    old_values: tuple[float, ...]
    returns: tuple[float, ...]


@dataclass(frozen=True)
class PPOBatch:
    """A micro-batch for both models, one value a target token [M] from each source."""

    policy: PolicyBatch
    old_values_M: Tensor
    returns_M: Tensor


def ppo_batches(examples: Sequence[PPOExample], budget: int, device: torch.device | str = "cpu") -> list[PPOBatch]:
    """Micro-batches of at most `budget` tokens; the completions of one prompt share its forward pass."""
    parts = []
    for indices in split_by_tokens(examples, budget):
        chosen = [examples[i] for i in indices]
        old_logprobs, old_values, returns = (
            per_token(chosen, name, device) for name in ("old_logprobs", "old_values", "returns")
        )
        parts.append(PPOBatch(replace(policy_batch(chosen, device), old_logprobs_M=old_logprobs), old_values, returns))
    return parts


@dataclass(frozen=True)
class ValueLoss:
    """Σ_tokens coefficient · weight · ½ (V − return)², clipped where `clip_range` is given."""

    coefficient: float = 1.0
    clip_range: float | None = None

    def __call__(self, values_M: Tensor, part: PPOBatch) -> LossSum:
        losses = value_loss(values_M, part.returns_M, part.old_values_M, self.clip_range)
        sums = {"value/loss": losses.detach()}
        if self.clip_range is not None:
            sums["value/clip_fraction"] = value_clipped_share(values_M.detach(), part.old_values_M, self.clip_range)
        return LossSum(
            self.coefficient * (losses * part.policy.weights_M).sum(),
            {name: float((value * part.policy.shares_M).sum()) for name, value in sums.items()},
            count=part.policy.count,
        )


class ActorCritic(Protocol):
    """What PPO needs of a policy and its value model."""

    @property
    def learner(self) -> Learner:
        """The policy's."""
        ...

    @property
    def policy(self) -> Any:
        """The causal language model that samples and that is saved."""
        ...

    def score(self, batch: Batch, plan: AttentionPlan, positions_K: Tensor) -> tuple[Scored, Tensor]:
        """What the policy says of the targets, and the values [K] of the states after the positions."""
        ...

    def update(self, parts: Sequence[PPOBatch], divisor: float, train_policy: bool = True) -> dict[str, float]:
        """One optimiser step of each; without `train_policy` of the value model alone."""
        ...


@dataclass(frozen=True)
class TwoModels:
    """A value model with a trunk, an optimiser and a learning rate of its own."""

    actor: Learner
    critic: Learner
    policy_loss: PolicyLoss
    value_loss: ValueLoss

    @property
    def learner(self) -> Learner:
        return self.actor

    @property
    def policy(self) -> Any:
        return self.actor.model

    def score(self, batch: Batch, plan: AttentionPlan, positions_K: Tensor) -> tuple[Scored, Tensor]:
        values_K = score_positions(self.critic.model, batch, plan, positions_K)
        return score_targets(self.actor.model, batch, plan, self.policy_loss.temperature), values_K

    def update(self, parts: Sequence[PPOBatch], divisor: float, train_policy: bool = True) -> dict[str, float]:
        found = self.critic.update([lambda part=part: self._of_critic(part) for part in parts], divisor)
        metrics = {_of_value(name): value for name, value in found.items() if name != "loss"}
        if train_policy:
            model = self.actor.model
            makers = [lambda part=part: self.policy_loss(model, part.policy) for part in parts]
            metrics |= self.actor.update(makers, divisor)
        return metrics

    def _of_critic(self, part: PPOBatch) -> LossSum:
        batch = part.policy.batch
        return self.value_loss(score_positions(self.critic.model, batch, part.policy.plan, batch.sources), part)


@dataclass(frozen=True)
class OneTrunk:
    """A value head on the policy's own last hidden states: one forward pass, one optimiser, the sum of both losses."""

    learner: Learner  # of a SharedTrunk
    policy_loss: PolicyLoss
    value_loss: ValueLoss

    @property
    def policy(self) -> Any:
        return self.learner.model.policy

    def score(self, batch: Batch, plan: AttentionPlan, positions_K: Tensor) -> tuple[Scored, Tensor]:
        return score_shared(self.learner.model, batch, plan, positions_K, self.policy_loss.temperature)

    def update(self, parts: Sequence[PPOBatch], divisor: float, train_policy: bool = True) -> dict[str, float]:
        """Raises ValueError without `train_policy`: the value loss alone would move the policy."""
        if not train_policy:
            raise ValueError("a value head on the policy's trunk cannot be trained alone")
        return self.learner.update([lambda part=part: self._of_both(part) for part in parts], divisor)

    def _of_both(self, part: PPOBatch) -> LossSum:
        loss, batch = self.policy_loss, part.policy.batch
        with_entropy = loss.config.entropy_bonus > 0
        scored, values_M = score_shared(
            self.learner.model, batch, part.policy.plan, batch.sources, loss.temperature, with_entropy
        )
        policy, value = loss.of(scored, part.policy), self.value_loss(values_M, part)
        return LossSum(
            policy.loss + value.loss, {**policy.sums, **value.sums}, policy.count, {**policy.peaks, **value.peaks}
        )


def _of_value(name: str) -> str:
    return name if name.startswith("value/") else f"value/{name}"


@dataclass(frozen=True)
class Judged:
    """What the models say of a completion before the step's updates: log π_old of its tokens, the values of the states
    before them, and the value of the state after the last one."""

    old_logprobs_T: Tensor
    values_T: Tensor
    last_value: float


@torch.no_grad()
def judge(actor_critic: ActorCritic, examples: Sequence[Example], budget: int) -> list[Judged]:
    """Every example, equal ones once, by micro-batches of at most `budget` tokens. The targets of an example must be
    its last tokens."""
    once = list(dict.fromkeys(examples))
    parts = [[once[i] for i in part] for part in split_by_tokens(once, budget)]
    found = run_all(actor_critic.learner.team, [partial(_judge, actor_critic, part) for part in parts], "judge")
    judged = dict(zip(chain(*parts), chain(*found), strict=True))
    return [judged[example] for example in examples]


def _judge(actor_critic: ActorCritic, examples: Sequence[Example]) -> list[Judged]:
    asked = [
        AskedExample(one.token_ids, one.mask, asked=tuple(range(one.prefix_length - 1, len(one.token_ids))))
        for one in examples
    ]
    batch, positions = asked_batch(asked, actor_critic.policy.device)
    scored, values = actor_critic.score(batch, plan_batch(batch), positions)
    lengths = [len(one.asked) for one in asked]
    of_each = zip(
        scored.logprobs_M.cpu().split([length - 1 for length in lengths]), values.cpu().split(lengths), strict=True
    )
    return [Judged(logprobs, states[:-1], float(states[-1])) for logprobs, states in of_each]
