"""Rewards of steps: functions (prompt, reply, steps) -> one float a step. `STEP_REWARDS` is all that are built in.

A new one is one function in one file and one line here; one of your own is named `path/to/file.py:function`. One that
would rather see many replies in one call (a process reward model) carries a second function, `batch`: `batch(asked)`
returns a list with one entry for each (prompt, reply, steps), in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Fault, Preempted, TemperError
from temper.rewards.returns import WrongReturn, checked, checked_all, describe
from temper.rewards.step_check import step_check
from temper.rewards.user import load_step_reward
from temper.rewards.worker import Limits
from temper.types import Prompt, Reply, Step

StepReward = Callable[[Prompt, Reply, Sequence[Step]], Sequence[float]]
Asked = tuple[Prompt, Reply, Sequence[Step]]

STEP_REWARDS: dict[str, StepReward] = {
    "step_check": step_check,
}


def load_step_rewards(
    names: Sequence[str], folder: Path | None = None, limits: Limits | None = None
) -> dict[str, StepReward]:
    """The step rewards by the names they were asked for. Raises ConfigError with every fault, as `load_rewards` does.

    >>> list(load_step_rewards(["step_check"]))
    ['step_check']
    >>> load_step_rewards(["accuracy"])
    Traceback (most recent call last):
        ...
    temper.errors.ConfigError: unknown step reward `accuracy`
    """
    loaded: dict[str, StepReward] = {}
    faults: list[Fault] = []
    for name in names:
        try:
            if name in loaded:
                raise ConfigError(Fault(f"step reward `{name}` is named twice", fix="give it one weight instead"))
            if name not in STEP_REWARDS and ".py" not in name:
                known = f"the step rewards are {', '.join(STEP_REWARDS)}; one of your own is named `file.py:function`"
                raise ConfigError(Fault(f"unknown step reward `{name}`", why=known))
            loaded[name] = STEP_REWARDS.get(name) or load_step_reward(name, folder, limits)
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return loaded


@dataclass(frozen=True)
class StepScore:
    """Of one reply: each reward's values by name, one a step; their weighted sums; why a reward that failed did."""

    rewards: Mapping[str, tuple[float, ...]]
    totals: tuple[float, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)


class StepScorer:
    """Step rewards with their weights (1.0 each when not given)."""

    def __init__(self, rewards: Mapping[str, StepReward], weights: Sequence[float] | None = None):
        self.rewards = dict(rewards)
        self.weights = [1.0] * len(rewards) if weights is None else list(weights)
        if len(self.weights) != len(self.rewards):
            raise ConfigError(Fault(f"{len(self.weights)} weights for {len(self.rewards)} step rewards"))

    def score_all(self, asked: Sequence[Asked]) -> list[StepScore]:
        """Every reward of every step of every reply, in order. A reward that raises on a reply, or gives anything but
        one finite number a step, counts as 0 for all steps of that reply and is named in `reasons`."""
        columns = [_outcomes(reward, asked) for reward in self.rewards.values()]
        return [self._weigh([column[i] for column in columns], len(steps)) for i, (_, _, steps) in enumerate(asked)]

    def _weigh(self, outcomes: Sequence[tuple[float, ...] | BaseException], count: int) -> StepScore:
        named = list(zip(self.rewards, outcomes, strict=True))
        values = {name: (0.0,) * count if isinstance(it, BaseException) else it for name, it in named}
        totals = tuple(
            math.fsum(weight * value[j] for weight, value in zip(self.weights, values.values(), strict=True))
            for j in range(count)
        )
        return StepScore(values, totals, {name: describe(it) for name, it in named if isinstance(it, BaseException)})


def _outcomes(reward: StepReward, asked: Sequence[Asked]) -> list[tuple[float, ...] | BaseException]:
    """What a reward says of each reply's steps, or the exception by which it failed on it; with `batch` all at once,
    and each alone where that call fails."""
    batch = getattr(reward, "batch", None)
    if batch is not None and asked:
        try:
            given = checked_all(batch(asked), len(asked))
        except (TemperError, Preempted):
            raise
        except (Exception, SystemExit):
            pass
        else:
            return [_outcome(lambda it=it: it, one) for it, one in zip(given, asked, strict=True)]
    return [_outcome(lambda one=one: reward(*one), one) for one in asked]


def _outcome(ask: Callable[[], Any], asked: Asked) -> tuple[float, ...] | BaseException:
    try:
        values = ask()
        if isinstance(values, Exception):  # a batch says so where it failed on one reply
            raise values
        if len(values) != len(asked[2]):
            raise WrongReturn(f"got {len(values)} values for {len(asked[2])} steps")
        return tuple(checked(value) for value in values)
    except (TemperError, Preempted):
        raise
    except (Exception, SystemExit) as error:
        return error
