"""An evaluation's thoughts cut and extended: the keys, and what each length is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from temper.config import StrictModel
from temper.errors import Fault
from temper.rollout.forcing import CLOSINGS, Forced, Forcing, find_thought, readable
from temper.rollout.measures import mean_interval
from temper.rollout.scoring import Decoder
from temper.types import Group, Prompt, ReplyForm

DRAWN = "drawn"  # among the lengths: the thoughts as they are


class ForcedConfig(StrictModel):
    """Budget forcing (2501.19393): each length is measured on the completions that were drawn, forced."""

    thinking_budgets: list[Annotated[int, Field(ge=0)]] = []  # tokens at which a thought is cut
    thinking_extensions: list[Annotated[int, Field(ge=1, le=64)]] = []  # how often a thought is made to go on
    extend_with: Annotated[str, Field(min_length=1)] = "Wait,"  # what is written where it would have ended

    def check_budgets(self, longest: int) -> None:
        """Raises ValueError for a budget that leaves no room for an answer in completions of `longest` tokens."""
        if over := [budget for budget in self.thinking_budgets if budget >= longest]:
            raise ValueError(f"thinking_budgets has {over[0]}, max_completion_length is {longest}: no room to answer")

    @property
    def forced(self) -> list[str]:
        """The metrics that a claim can name, thoughts growing."""
        cut = [f"budget@{budget}" for budget in sorted(set(self.thinking_budgets))]
        return cut + [f"extended@{times}" for times in sorted(set(self.thinking_extensions))]


def in_order(config: ForcedConfig) -> list[str]:
    """The lengths of a curve: cut thoughts, those that were drawn, extended ones."""
    cut = [name for name in config.forced if name.startswith("budget")]
    return [*cut, DRAWN, *config.forced[len(cut) :]]


@dataclass(frozen=True)
class Length:
    """What one length of thinking gave: the accuracy of each prompt (none without gold answers), and of all completions
    the mean tokens of a thought, the share that was changed, and the share without room for an end."""

    accuracies: list[float | None]
    tokens: float
    changed: float
    truncated: float

    def row(self) -> dict[str, Any]:
        judged = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return {
            "value": sum(judged) / len(judged) if judged else None,
            "interval": list(mean_interval(judged)) if judged else None,
            "thinking_tokens": self.tokens,
            "changed": self.changed,
            "truncated": self.truncated,
        }


def scored_by(lengths: Mapping[str, Length], prompt: int) -> dict[str, float]:
    """The accuracy of a prompt at each length that is forced; nothing of an open prompt."""
    found = {name: length.accuracies[prompt] for name, length in lengths.items() if name != DRAWN}
    return {name: accuracy for name, accuracy in found.items() if accuracy is not None}


def without_thoughts(reply: ReplyForm, model: str, task: str) -> Fault:
    why = f"replies of `{model}` on `{task}` are read as `{reply}`: they have no thinking that could be cut or extended"
    fix = f"`reply: {' or '.join(CLOSINGS)}`, or an evaluation without these keys"
    return Fault("`thinking_budgets` and `thinking_extensions` need replies with a thought", "", why, fix)


def force(forcing: Forcing, config: ForcedConfig) -> Iterator[tuple[str, Forced, list[Prompt]]]:
    """By metric: the completions with their thoughts forced, and the prompts in the form they are read in."""
    prompts = [group.prompt for group in forcing.groups]
    for budget in sorted(set(config.thinking_budgets)):
        yield f"budget@{budget}", forcing.cut(budget), readable(prompts, budget)
    if not config.thinking_extensions:
        return
    completions = tuple(rollout.completion for group in forcing.groups for rollout in group.rollouts)
    changed = (False,) * len(completions)
    for time in range(1, max(config.thinking_extensions) + 1):
        done = forcing.extend(completions, config.extend_with, time)
        completions, changed = done.completions, tuple(map(bool.__or__, changed, done.changed))
        if time in config.thinking_extensions:
            yield f"extended@{time}", Forced(completions, changed), prompts


def length_of(chat: Decoder, groups: Sequence[Group], changed: Sequence[bool]) -> Length:
    """What groups scored whose completions were forced, and which ones that changed."""
    completions = [rollout.completion for group in groups for rollout in group.rollouts]
    n = len(completions)
    return Length(
        [accuracy_of(group) for group in groups],
        sum(find_thought(chat, completion).tokens for completion in completions) / n,
        sum(changed) / n,
        sum(completion.finish_reason == "length" for completion in completions) / n,
    )


def accuracy_of(group: Group) -> float | None:
    """The share of right replies; None of an open prompt."""
    if "accuracy" not in group.rollouts[0].rewards:
        return None
    return sum(rollout.rewards["accuracy"] for rollout in group.rollouts) / len(group.rollouts)
