"""Process supervision of groups: replies cut into steps, each step judged, judgements turned into advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from torch import Tensor

from temper.algorithms.process import process_advantages
from temper.rewards.steps import Asked, StepScore, StepScorer
from temper.rollout.reward_model import RewardModel
from temper.rollout.statistics import Advantages
from temper.text.steps import reply_steps, step_ends
from temper.types import Completion, Group, Prompt, Reply, Step


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


def cut(chat: Chat, completion: Completion, reply: Reply) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """(the steps of a completion that reads `reply`, the index of the token that ends each)."""
    steps = reply_steps(reply)
    return tuple(steps), tuple(step_ends(chat.decode, completion.token_ids, steps, chat.thinking_opened))


def judge_steps(chat: Chat, scorer: StepScorer, groups: Sequence[Group]) -> list[list[JudgedSteps]]:
    """The judged steps of every completion of every group; every reward is asked once about all of them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    cuts = [cut(chat, rollout.completion, rollout.reply) for rollout in rollouts]
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
            earned = [*one.score.totals[:-1], one.score.totals[-1] + total]
            rewards.append(list(zip(one.ends, earned, strict=True)))
        lengths = [len(rollout.completion.token_ids) for rollout in group.rollouts]
        found.append([tuple(values.tolist()) for values in process_advantages(rewards, lengths, normalise)])
    return found


def step_metrics(judged: Sequence[Sequence[JudgedSteps]]) -> dict[str, float]:
    """Steps of a completion, what a step earns by each reward and in all, and the rewards that failed on a reply."""
    scores = [one.score for of_group in judged for one in of_group]
    metrics = {"steps/count": fmean(len(score.totals) for score in scores)}
    for name in scores[0].rewards:
        metrics[f"steps/{name}"] = fmean(v for score in scores for v in score.rewards[name])
    metrics["steps/reward"] = fmean(value for score in scores for value in score.totals)
    metrics["steps/failures"] = sum(len(score.reasons) for score in scores)
    return metrics


def step_notes(judged: Sequence[Sequence[JudgedSteps]]) -> list[list[dict]]:
    """What is kept on disk of each completion: the values of each step reward, one a step."""
    return [[{"step_rewards": {k: list(v) for k, v in one.score.rewards.items()}} for one in group] for group in judged]
