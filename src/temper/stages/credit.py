"""From the rewards of a step's groups to the advantage of every token: the keys that choose how, and the ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.advantages import ADVANTAGES, decoupled
from temper.algorithms.kl import k1, k3
from temper.config import RewardName, TaskName
from temper.errors import ConfigError, Fault
from temper.rollout.statistics import Advantages
from temper.rollout.steps import JudgedSteps, step_advantages
from temper.stages.rewards import reward_label
from temper.stages.rollouts import RolloutConfig
from temper.types import Group, Rollout

POOLED = ("std", "std_population", "none")  # advantages that mean something for step rewards pooled, of any number


class CreditConfig(RolloutConfig):
    """What a completion is compared with, and what it is charged for leaving the reference."""

    num_generations: Annotated[int, Field(ge=1)] = 16  # R1; 1 only where prompts are compared with each other
    advantage: Literal[tuple(ADVANTAGES)] = "std"  # type: ignore[valid-type]
    reward_aggregation: Literal["sum", "decoupled"] = "sum"  # decoupled: each reward normalised by itself (GDPO)
    supervision: Literal["outcome", "process"] = "outcome"  # process: every step of a completion earns by itself
    step_rewards: list[RewardName] = []  # what judges the steps; what judges completions comes with the last step
    step_reward_weights: list[float] | None = None  # one a step reward; all 1.0 when not given
    retire_above: Annotated[float, Field(gt=0, le=1)] | None = None  # a pass rate; solved prompts are drawn no more
    kl_penalty: Annotated[float, Field(ge=0)] | dict[TaskName, Annotated[float, Field(ge=0)]] = 0.001  # R1; by task
    # reward: the sum of k1 over the completion is subtracted; token_reward: from each token its own and what follows
    kl_placement: Literal["loss", "reward", "token_reward"] = "loss"

    @model_validator(mode="after")
    def _compared(self) -> CreditConfig:
        if self.num_generations == 1 and self.advantage != "batch_whitened":
            raise ValueError(
                f"num_generations 1 with advantage `{self.advantage}`: an advantage compares the completions of one "
                "prompt, and one alone has no other (`batch_whitened` compares the prompts of a step)"
            )
        if self.kl_placement == "token_reward" and self.advantage != "batch_whitened":
            raise ValueError(
                f"kl_placement `token_reward` with advantage `{self.advantage}`: rewards of tokens have no group; "
                "`batch_whitened` takes their mean and std over the step"
            )
        return self

    @model_validator(mode="after")
    def _charged(self) -> CreditConfig:
        if isinstance(self.kl_penalty, dict) and set(self.kl_penalty) != set(self.tasks):
            raise ValueError(f"kl_penalty names {', '.join(self.kl_penalty)}, the tasks are {', '.join(self.tasks)}")
        if self.reward_aggregation == "decoupled" and self.kl_placement != "loss":
            what = f"kl_placement `{self.kl_placement}` with reward_aggregation `decoupled`"
            raise ValueError(f"{what}: there is no total to charge")
        return self

    @model_validator(mode="after")
    def _supervised(self) -> CreditConfig:
        names, weights, process = self.step_rewards, self.step_reward_weights, self.supervision == "process"
        if process != bool(names):
            raise ValueError(f"supervision `{self.supervision}` with step_rewards {names}: only `process` needs some")
        if weights is not None and len(weights) != len(names):
            raise ValueError(f"step_reward_weights has {len(weights)} values for {len(names)} step_rewards")
        if process and self.advantage not in POOLED:
            raise ValueError(f"advantage `{self.advantage}` with supervision `process`: one of {', '.join(POOLED)}")
        if process and self.reward_aggregation == "decoupled":
            raise ValueError("reward_aggregation `decoupled` with supervision `process`: rewards of a step are summed")
        return self

    @property
    def kl_penalties(self) -> dict[str, float]:
        """The coefficient of each task."""
        return self.kl_penalty if isinstance(self.kl_penalty, dict) else dict.fromkeys(self.tasks, self.kl_penalty)

    @property
    def has_kl(self) -> bool:
        return any(self.kl_penalties.values())


def total_rewards(config: CreditConfig, groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]]) -> Tensor:
    """[N, G]: each completion's weighted sum of rewards, less β Σ_t k1 where there are `anchors`."""
    totals_NG = torch.tensor([[r.total for r in group.rollouts] for group in groups], dtype=torch.float64)
    if not anchors:
        return totals_NG
    k1_NG = torch.tensor(over_completions(groups, anchors, lambda ours, theirs: k1(ours, theirs).sum().item()))
    betas_N = torch.tensor([config.kl_penalties[group.prompt.task] for group in groups], dtype=torch.float64)
    return totals_NG - betas_N[:, None] * k1_NG


def mean_divergence(groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]]) -> float:
    """The mean of k3 over each completion's tokens, over completions, as the loss would log it."""
    found = over_completions(groups, anchors, lambda ours, theirs: k3(ours, theirs).mean().item())
    return fmean(value for of_group in found for value in of_group)


def over_completions(
    groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]], measure: Callable[[Tensor, Tensor], float]
) -> list[list[float]]:
    """`measure` of log π as each completion was sampled and log π_ref."""
    return [
        [
            measure(torch.tensor(rollout.completion.sampler_logprobs), anchor)
            for rollout, anchor in zip(group.rollouts, of_group, strict=True)
        ]
        for group, of_group in zip(groups, anchors, strict=True)
    ]


def advantages_of(
    config: CreditConfig, groups: Sequence[Group], judged: Sequence[Sequence[JudgedSteps]],
    anchors: Sequence[Sequence[Tensor]],
) -> Advantages:  # fmt: skip
    """The advantage of every token, by what its completion earned, or its steps where they are `judged`; less what it
    is charged where there are `anchors`."""
    if anchors and config.kl_placement == "token_reward":
        return token_advantages(config, groups, anchors)
    totals_NG = total_rewards(config, groups, anchors)
    if judged:
        return step_advantages(groups, judged, totals_NG, ADVANTAGES[config.advantage])
    return outcome_advantages(config, totals_NG, groups)


def token_advantages(config: CreditConfig, groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]]) -> Advantages:
    """A_t = total − β Σ k1 of the tokens from t on, then mean and std over all tokens of the step (REINFORCE++
    2501.03262, section 3.1)."""
    returns = [
        rollout.total - config.kl_penalties[group.prompt.task] * _of_following(rollout, anchor)
        for group, of_group in zip(groups, anchors, strict=True)
        for rollout, anchor in zip(group.rollouts, of_group, strict=True)
    ]
    pooled = ADVANTAGES[config.advantage](torch.cat(returns))
    parts = iter(pooled.split([len(values) for values in returns]))
    return [[tuple(next(parts).tolist()) for _ in group.rollouts] for group in groups]


def _of_following(rollout: Rollout, anchor_T: Tensor) -> Tensor:
    """[T] float64: at t the sum of k1 over the tokens from t on."""
    k1_T = k1(torch.tensor(rollout.completion.sampler_logprobs, dtype=torch.float64), anchor_T.double())
    return k1_T.flip(0).cumsum(0).flip(0)


def outcome_advantages(config: CreditConfig, totals_NG: Tensor, groups: Sequence[Group]) -> Advantages:
    """Outcome supervision: every token of a completion gets the completion's advantage."""
    if config.reward_aggregation == "decoupled":
        values_NG = decoupled(*reward_table(config, groups))
    else:
        try:
            values_NG = ADVANTAGES[config.advantage](totals_NG)
        except ValueError as problem:
            raise ConfigError(Fault(str(problem), fix="another `advantage`, or other rewards")) from None
    return [
        [(value,) * len(r.completion.token_ids) for r, value in zip(group.rollouts, values, strict=True)]
        for group, values in zip(groups, values_NG.tolist(), strict=True)
    ]


def reward_table(config: CreditConfig, groups: Sequence[Group]) -> tuple[Tensor, list[float]]:
    """[K, N, G] of each reward by itself, nan where it does not apply, and the weights [K]."""
    given = config.reward_weights or [1.0] * len(config.reward_funcs)
    weights = dict(zip(map(reward_label, config.reward_funcs), given, strict=True))
    weights |= {"overlong": 1.0} if config.overlong_cache else {}
    rewards_KNG = [[[r.rewards.get(name, math.nan) for r in group.rollouts] for group in groups] for name in weights]
    return torch.tensor(rewards_KNG, dtype=torch.float64), list(weights.values())
