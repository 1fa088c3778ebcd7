"""Process supervision of groups: replies cut into steps, each step judged, judgements turned into advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean
from typing import Protocol

from torch import Tensor

from temper.algorithms.process import process_advantages
from temper.rewards.steps import Asked, StepScore, StepScorer
from temper.rollout.reward_model import RewardModel
from temper.rollout.statistics import Advantages
from temper.text.steps import TokenEnds, reply_steps, step_ends
from temper.types import Group, Prompt, Reply, Rollout, Step


class Chat(Protocol):
    """What cutting into steps needs of a chat format (`text/chat.py`)."""

    @property
    def thinking_opened(self) -> bool: ...
    def decode(self, ids: Iterable[int]) -> str: ...


@dataclass(frozen=True, eq=False)
class StepModel:
    """A process reward model as a step reward, the probability that a step is right; all replies in one call."""

    model: RewardModel

    def __call__(self, prompt: Prompt, reply: Reply, steps: Sequence[Step]) -> list[float]:
        return self.model.step_rewards(prompt, reply, steps)

    def batch(self, asked: Sequence[Asked]) -> list[list[float] | ValueError]:
        return self.model.step_batch(asked)


@dataclass(frozen=True)
class JudgedSteps:
    """The steps of one completion, the token that ends each, and what each earned."""

    steps: tuple[Step, ...]
    ends: tuple[int, ...]
    score: StepScore


Cut = tuple[tuple[Step, ...], tuple[int, ...]]  # the steps of a completion, the index of the token that ends each


def cut_all(chat: Chat, rollouts: Iterable[Rollout]) -> list[Cut]:
    """The steps of each completion and where they end."""
    ends_of = TokenEnds(chat.decode)
    cuts: list[Cut] = []
    for rollout in rollouts:
        steps = reply_steps(rollout.reply)
        ends = step_ends(ends_of(rollout.completion.token_ids), steps, chat.thinking_opened)
        cuts.append((tuple(steps), tuple(ends)))
    return cuts


def judge_steps(chat: Chat, scorer: StepScorer, groups: Sequence[Group]) -> list[list[JudgedSteps]]:
    """The judged steps of every completion of every group; every reward is asked once about all of them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    cuts = cut_all(chat, rollouts)
    scores = scorer.score_all(
        [(rollout.prompt, rollout.reply, steps) for rollout, (steps, _) in zip(rollouts, cuts, strict=True)]
    )
    judged = iter([JudgedSteps(*of_one, score) for of_one, score in zip(cuts, scores, strict=True)])
    return [[next(judged) for _ in group.rollouts] for group in groups]


def step_advantages(
    groups: Sequence[Group], judged: Sequence[Sequence[JudgedSteps]], totals_NG: Tensor,
    normalise: Callable[[Tensor], Tensor],
) -> Advantages:  # fmt: skip
    """Process supervision: each token gets the sum of the normalised rewards of the steps that end at it or after it.

    What a completion earned as a whole (`totals_NG`) comes with its last step, which ends with it: with one step and no
    step reward this is outcome supervision.
    """
    found = []
    for group, of_group, totals in zip(groups, judged, totals_NG.tolist(), strict=True):
        rewards = []
        for one, total in zip(of_group, totals, strict=True):
            with_total = [*one.score.totals[:-1], one.score.totals[-1] + total]
            rewards.append(list(zip(one.ends, with_total, strict=True)))
        lengths = [len(rollout.completion.token_ids) for rollout in group.rollouts]
        found.append([tuple(values.tolist()) for values in process_advantages(rewards, lengths, normalise)])
    return found


def step_metrics(groups: Sequence[Group], judged: Sequence[Sequence[JudgedSteps]]) -> dict[str, float]:
    """Steps of a completion, what a step earns by each reward and in all, the rewards that failed on a reply; and what
    a completion earns in all, steps included."""
    scores = [one.score for of_group in judged for one in of_group]
    metrics = {"reward/total": fmean(total for of_group in earned(groups, judged) for total in of_group)}
    metrics["steps/count"] = fmean(len(score.totals) for score in scores)
    for name in scores[0].rewards:
        metrics[f"steps/{name}"] = fmean(v for score in scores for v in score.rewards[name])
    metrics["steps/reward"] = fmean(value for score in scores for value in score.totals)
    metrics["steps/failures"] = sum(len(score.reasons) for score in scores)
    return metrics


def step_notes(groups: Sequence[Group], judged: Sequence[Sequence[JudgedSteps]]) -> list[list[dict]]:
    """What is kept on disk of each completion: the values of each step reward, one a step, and the total with them."""
    return [
        [
            {"step_rewards": {name: list(values) for name, values in one.score.rewards.items()}, "total": total}
            for one, total in zip(*of_group, strict=True)
        ]
        for of_group in zip(judged, earned(groups, judged), strict=True)
    ]


def earned(groups: Sequence[Group], judged: Sequence[Sequence[JudgedSteps]]) -> list[list[float]]:
    """Of each completion: its own total and those of its steps, before anything is normalised."""
    return [
        [fsum((rollout.total, *one.score.totals)) for rollout, one in zip(group.rollouts, of_group, strict=True)]
        for group, of_group in zip(groups, judged, strict=True)
    ]
