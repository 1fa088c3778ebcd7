"""Rewards from a user's own file, run in a process of their own (`worker.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from temper.rewards.files import Source, Traits, find_source
from temper.rewards.returns import ONLY, WrongReturn
from temper.rewards.worker import WORKER, Limits
from temper.types import Prompt, Reply, Step


@dataclass(frozen=True, eq=False)
class UserReward:
    """A function of a file as a reward: `(prompt, reply) -> float | None`, with `batch`. It never changes anything
    here: what it breaks is told as the exception by which it failed on a reply."""

    source: Source
    traits: Traits
    limits: Limits

    @property
    def overlaps(self) -> bool:
        return self.traits.overlaps

    @property
    def needs_gold(self) -> bool:
        return self.traits.needs_gold

    def __call__(self, prompt: Prompt, reply: Reply) -> float | None:
        """The reward of one reply. Raises RewardFailure, WrongReturn."""
        return _only(self.alone([(prompt, reply)]))

    def alone(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[Any]:
        """The reward of each reply, asked one by one, or the exception by which it failed."""
        return WORKER.ask(self.source, pairs, False, self.limits)

    def batch(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[Any]:
        """The same, in one call where the function takes many."""
        return WORKER.ask(self.source, pairs, True, self.limits)

    def at_once(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[Any]:
        """The same, in one call alone: the reason why it failed for each reply, if it fails. Raises WrongReturn."""
        said = WORKER.ask(self.source, pairs, ONLY, self.limits)
        wrong = next((one for one in said if isinstance(one, WrongReturn)), None)
        if wrong is not None:
            raise wrong
        return said


@dataclass(frozen=True, eq=False)
class UserStepReward:
    """A function of a file as a step reward: `(prompt, reply, steps) -> list[float]`, with `batch`."""

    source: Source
    traits: Traits
    limits: Limits

    def __call__(self, prompt: Prompt, reply: Reply, steps: Sequence[Step]) -> list[float]:
        """The reward of each step. Raises RewardFailure, WrongReturn."""
        return _only(WORKER.ask(self.source, [(prompt, reply, steps)], False, self.limits))

    def batch(self, asked: Sequence[tuple[Prompt, Reply, Sequence[Step]]]) -> list[Any]:
        """The rewards of the steps of each reply, or the exception by which it failed on it."""
        return WORKER.ask(self.source, asked, True, self.limits)


def load_reward(name: str, folder: Path | None = None, limits: Limits | None = None) -> UserReward:
    """The reward that `path/to/file.py:function` names. Raises ConfigError with file and line."""
    source, limits = find_source(name, folder), limits or Limits()
    return UserReward(source, WORKER.traits(source, limits), limits)


def load_step_reward(name: str, folder: Path | None = None, limits: Limits | None = None) -> UserStepReward:
    """The step reward that `path/to/file.py:function` names. Raises ConfigError with file and line."""
    source, limits = find_source(name, folder, steps=True), limits or Limits()
    return UserStepReward(source, WORKER.traits(source, limits), limits)


def with_limits(reward: UserReward, **changed: Any) -> UserReward:
    """The same reward under other limits."""
    return replace(reward, limits=replace(reward.limits, **changed))


def _only(values: Sequence[Any]) -> Any:
    (value,) = values
    if isinstance(value, Exception):
        raise value
    return value
