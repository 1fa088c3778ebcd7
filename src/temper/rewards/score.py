"""Several rewards, weighed: one total a reply, each reward kept beside it.

A reward that would rather see many replies in one call (a model, a judge) carries a second function, `batch`:
`batch(pairs)` returns one value a pair of (prompt, reply), in order, an exception standing for a reply that failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from temper.errors import ConfigError, Fault, Preempted, TemperError
from temper.rewards import REWARDS
from temper.rewards.returns import Unknown, WrongReturn, applied, checked_all, describe
from temper.types import Prompt, Reply

Pair = tuple[Prompt, Reply]
# What a reward says of a reply (None: it does not apply), or the exception by which it failed on it.
Outcome = float | None | BaseException


@dataclass(frozen=True)
class Score:
    """Each reward by name, their weighted sum, why each reward that failed did (it counts as 0), and which said that
    they do not apply: those are no part of the sum. `unknown` names those that could not tell: what they would have
    added is not known, so neither is the sum."""

    rewards: Mapping[str, float]
    total: float
    reasons: Mapping[str, str] = field(default_factory=dict)
    inapplicable: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the rewards that failed."""
        return tuple(self.reasons)


class Scorer:
    """Rewards with their weights (1.0 each when not given). Raises ConfigError where the two do not fit.

    `tasks` names, for a reward that not all prompts earn, the tasks of those that do.

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
        rewards: Mapping[str, Callable[[Prompt, Reply], float | None]],
        weights: Sequence[float] | None = None,
        strict: bool = False,
        tasks: Mapping[str, Collection[str]] | None = None,
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
        self.tasks = dict(tasks or {})

    def score(self, prompt: Prompt, reply: Reply) -> Score:
        """Every reward of one reply; see `score_all`."""
        return self.score_all([(prompt, reply)])[0]

    def score_all(self, pairs: Sequence[Pair]) -> list[Score]:
        """Every reward of every reply, in order. One that says None does not apply to that reply; one that raises,
        or gives anything but a finite number, counts as 0 and is named in its `failures`; with `strict` a wrong return
        raises WrongReturn instead. A TemperError is no failure of one reply (a judge's budget is spent): it is
        raised."""
        return [self.weigh(of_reply) for of_reply in self.ask(self.rewards, pairs)]

    def ask(self, names: Collection[str], pairs: Sequence[Pair]) -> list[dict[str, Outcome]]:
        """What the rewards of these names say of each reply, but for those that its task does not have."""
        found: list[dict[str, Outcome]] = [{} for _ in pairs]
        for name in names:
            tasks = self.tasks.get(name)
            mine = [i for i, (prompt, _) in enumerate(pairs) if tasks is None or prompt.task in tasks]
            for i, outcome in zip(mine, outcomes(self.rewards[name], [pairs[i] for i in mine]), strict=True):
                found[i][name] = outcome
        return found

    def weigh(self, outcome: Mapping[str, Outcome]) -> Score:
        """The score of one reply from what all its rewards say."""
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        inapplicable: list[str] = []
        unknown = tuple(name for name in self.rewards if isinstance(outcome.get(name), Unknown))
        for name in self.rewards:
            if name not in outcome:
                continue
            value = outcome[name]
            if value is None:
                inapplicable.append(name)
                continue
            if isinstance(value, BaseException):
                if self.strict and isinstance(value, WrongReturn):
                    raise WrongReturn(f"the reward `{name}` {value}") from None
                reasons[name] = describe(value)
            values[name] = 0.0 if isinstance(value, BaseException) else value
        # fsum: the total does not depend on the order of the rewards
        total = math.fsum(self.weights[name] * value for name, value in values.items())
        return Score(values, total, reasons, tuple(inapplicable), unknown)


def outcomes(reward: Callable[[Prompt, Reply], float | None], pairs: Sequence[Pair]) -> list[Outcome]:
    """What a reward says of each reply: a finite float, None, or the exception by which it failed on it.

    With `batch` all are asked about at once; where that call fails as a whole, each reply is tried alone.

    >>> class Lengths:
    ...     def __call__(self, prompt, reply):
    ...         return self.batch([(prompt, reply)])[0]
    ...     def batch(self, pairs):
    ...         return [len(reply.text) for _, reply in pairs]
    >>> prompt = Prompt("1", "arithmetic", (), gold="5")
    >>> outcomes(Lengths(), [(prompt, Reply(text, None, None, False)) for text in ("five", "5")])
    [4.0, 1.0]
    """
    batch = getattr(reward, "batch", None)
    if batch is None or not pairs:
        return [_outcome(lambda pair=pair: applied(reward(*pair))) for pair in pairs]
    try:
        values = checked_all(batch(pairs), len(pairs))
    except (TemperError, Preempted):
        raise
    except (Exception, SystemExit):
        return [_outcome(lambda pair=pair: applied(reward(*pair))) for pair in pairs]
    return [_outcome(lambda value=value: applied(value)) for value in values]


def may_overlap(reward: Callable[[Prompt, Reply], float | None]) -> bool:
    """Whether a reward may be asked on another thread, of some replies at a time, while others are still being drawn:
    the built-in ones, and those that say so (`reward.overlaps = True`). It must be slow by waiting, not by computing,
    to gain by it; it must say the same whatever the time and the other replies; one thread asks it.

    >>> from temper.rewards import REWARDS
    >>> may_overlap(REWARDS["format"]), may_overlap(lambda prompt, reply: 1.0)
    (True, False)
    """
    return getattr(reward, "overlaps", False) is True or reward in REWARDS.values()


def _outcome(ask: Callable[[], float | None]) -> Outcome:
    try:
        return ask()
    except (TemperError, Preempted):
        raise
    except (Exception, SystemExit) as error:
        return error
