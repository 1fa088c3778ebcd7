"""Several rewards, weighed: one total a reply, each reward kept beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from temper.errors import ConfigError, Fault
from temper.rewards.user import WrongReturn, checked, describe
from temper.types import Prompt, Reply


@dataclass(frozen=True)
class Score:
    """Each reward by name, their weighted sum, and why each reward that failed did: it counts as 0."""

    rewards: Mapping[str, float]
    total: float
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the rewards that failed."""
        return tuple(self.reasons)


class Scorer:
    """Rewards with their weights (1.0 each when not given). Raises ConfigError where the two do not fit.

    >>> from temper.rewards import load_rewards
    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> scorer = Scorer(load_rewards(["accuracy", "format", "tag_count"]), [1.0, 0.1, 0.05])
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "2+3"),), gold="5")
    >>> scorer.score(prompt, parse_reply("<think>2+3=5</think><answer>5</answer>")).total
    1.15
    """

    def __init__(
        self,
        rewards: Mapping[str, Callable[[Prompt, Reply], float]],
        weights: Sequence[float] | None = None,
        strict: bool = False,
    ):
        weights = [1.0] * len(rewards) if weights is None else list(weights)
        if len(weights) != len(rewards):
            given = ", ".join(f"{weight:g}" for weight in weights) or "none"
            why = f"the rewards are {', '.join(rewards)}; the weights are {given}"
            fix = "give one weight a reward, in the same order"
            raise ConfigError(Fault(f"{len(weights)} weights for {len(rewards)} rewards", why=why, fix=fix))
        wrong = [weight for weight in weights if not math.isfinite(weight)]
        if wrong:
            raise ConfigError(Fault(f"the reward weight {wrong[0]} is not a finite number"))
        self.rewards = dict(rewards)
        self.weights = dict(zip(rewards, weights, strict=True))
        self.strict = strict

    def score(self, prompt: Prompt, reply: Reply) -> Score:
        """Every reward of one reply. One that raises, or returns anything but a finite number, counts as 0 and is named
        in `failures`; with `strict` a wrong return raises WrongReturn instead."""
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name, reward in self.rewards.items():
            try:
                values[name] = checked(reward(prompt, reply))
            except (Exception, SystemExit) as error:
                if self.strict and isinstance(error, WrongReturn):
                    raise WrongReturn(f"the reward `{name}` {error}") from None
                values[name] = 0.0
                reasons[name] = describe(error)
        # fsum: the total does not depend on the order of the rewards
        total = math.fsum(self.weights[name] * value for name, value in values.items())
        return Score(values, total, reasons)
