"""How a step's rewards become advantages: each kind of reward counts, by the name the config gives it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from temper.rollout.statistics import dead_share
from temper.stages.credit import (
    advantages_of,
    mean_divergence,
    outcome_advantages,
    reward_table,
    total_rewards,
)
from temper.stages.grpo import (
    Config,
    mini_batches,
)
from temper.types import Completion, Group, Prompt, Reply, Rollout


def group_of(*rewards: dict[str, float], finish: str = "stop") -> Group:
    prompt = Prompt("t:1", "t", (), gold="1")
    reply = Reply("x", None, None, False)
    completion = Completion((5, 6), (-1.0, -1.0), finish)  # type: ignore[arg-type]
    return Group(prompt, (7, 8, 9), tuple(Rollout(prompt, completion, reply, r, sum(r.values())) for r in rewards))


def config(**options: Any) -> Config:
    return Config(model="m", tasks=["t"], max_steps=1, prompts_per_step=2, num_generations=2, **options)


def test_a_reward_model_counts_when_rewards_are_normalised_one_by_one() -> None:
    settings = config(reward_funcs=["accuracy", "@helpful"], reward_weights=[1.0, 0.5], reward_aggregation="decoupled")
    groups = [group_of({"accuracy": 1.0, "helpful": 0.0}, {"accuracy": 1.0, "helpful": 2.0})]
    rewards_KNG, weights = reward_table(settings, groups)
    assert rewards_KNG.tolist() == [[[1.0, 1.0]], [[0.0, 2.0]]]
    assert weights == [1.0, 0.5]
    [[worse, better]] = outcome_advantages(settings, torch.zeros(1, 2), groups)
    assert worse[0] < 0 < better[0]


def test_a_reward_that_does_not_apply_has_no_part_where_rewards_are_normalised_one_by_one() -> None:
    settings = config(reward_funcs=["accuracy", "format"], reward_aggregation="decoupled")
    groups = [group_of({"accuracy": 1.0}, {"accuracy": 0.0})]
    rewards_KNG, _ = reward_table(settings, groups)
    assert rewards_KNG[0].tolist() == [[1.0, 0.0]]
    assert rewards_KNG[1].isnan().all()
    [[right, wrong]] = outcome_advantages(settings, torch.zeros(1, 2), groups)
    assert right[0] > 0 > wrong[0]
    some = [group_of({"accuracy": 1.0, "format": 1.0}, {"accuracy": 1.0, "format": 0.0}, {"accuracy": 1.0})]
    [[high, low, without]] = outcome_advantages(settings, torch.zeros(1, 3), some)
    assert high[0] > 0 > low[0]
    assert without[0] == 0.0


def test_a_charge_for_divergence_does_not_hide_groups_of_equal_rewards() -> None:
    settings = config(kl_placement="reward", kl_penalty={"t": 0.5})
    groups = [group_of({"accuracy": 0.1 + 0.2}, {"accuracy": 0.3})]
    anchors = [[torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -1.0])]]
    charged = advantages_of(settings, groups, [], anchors)
    assert dead_share(charged) == 0.0
    assert dead_share(advantages_of(settings, groups, [], ())) == 1.0


def test_the_divergence_is_charged_to_the_reward_by_task_and_logged() -> None:
    settings = config(kl_placement="reward", kl_penalty={"t": 0.5})
    groups = [group_of({"accuracy": 1.0}, {"accuracy": 0.0})]
    anchors = [[torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -1.0])]]  # the sampler said −1 everywhere
    assert total_rewards(settings, groups, anchors).tolist() == [[0.5, 0.0]]
    assert mean_divergence(groups, anchors) == pytest.approx(math.exp(-1) / 4)


@pytest.mark.parametrize("masked", [False, True])
def test_masked_completions_train_nothing_and_count_in_the_divisor(masked: bool) -> None:
    settings = config(mask_truncated=masked, kl_penalty=0.0)
    groups = [group_of({"accuracy": 1.0}, {"accuracy": 0.0}, finish="length")]
    [(examples, divisor)] = mini_batches(settings, groups * 2, [[(1.0, 1.0), (-1.0, -1.0)]] * 2, ())
    assert divisor == 4
    assert all((example.weight == 0) == masked for group in examples for example in group)
