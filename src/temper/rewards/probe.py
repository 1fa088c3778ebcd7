"""Rewards tried before anything runs, on prompts of the tasks they are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from temper.errors import ConfigError, Fault, Preempted, TemperError
from temper.rewards.returns import RewardFailure, WrongReturn, applied, checked_all, describe
from temper.rewards.user import UserReward, UserStepReward, with_limits
from temper.rewards.worker import WORKER
from temper.text.reply import parse_reply
from temper.types import Message, Prompt, Reply, ReplyForm

BATCH_TOLERANCE = 1e-2  # by which a reply's value may depend on its batch: a narrow model rounds it otherwise
ROWS = 4  # of a task that a reward is tried on, spread over the file
# How a sound reward may fail on made-up rows, which lack its columns or its kind of gold answer. Else it is broken.
_MAY_LACK = ("KeyError", "IndexError", "LookupError", "ValueError", "JSONDecodeError", "TypeError", "AttributeError",
             "AssertionError", "StopIteration")  # fmt: skip
_OURS = ("'Prompt' object has", "'Reply' object has")
Pair = tuple[Prompt, Reply]

_QUESTION = Prompt("probe", "probe", (Message("user", "What is 2+3?"),), gold="5")


def right_reply(gold: str, form: ReplyForm = "tags") -> Reply:
    """A well-formed reply with this answer.

    >>> right_reply("42").answer, right_reply("42", "plain").text
    ('42', '42')
    """
    thought = "<think>We work it out step by step and check the result.</think>"
    text = {"tags": f"{thought}<answer>{gold}</answer>", "think": f"{thought}\n\n{gold}", "plain": gold}[form]
    return parse_reply(text, form=form)


def replies_to(prompt: Prompt) -> list[Pair]:
    """Replies to try a reward on: the gold answer, another one, one without form."""
    form = prompt.reply
    texts = (right_reply(prompt.gold or "yes", form), right_reply("6", form), parse_reply("no idea", form=form))
    return [(prompt, reply) for reply in texts]


PROBES: tuple[Pair, ...] = tuple(replies_to(_QUESTION))


def spread(prompts: Sequence[Prompt], count: int = ROWS) -> list[Prompt]:
    """Some of the prompts, from the first to the last.

    >>> spread(range(100), 4)
    [0, 33, 66, 99]
    """
    if len(prompts) <= count:
        return list(prompts)
    return [prompts[i * (len(prompts) - 1) // (count - 1)] for i in range(count)]


@dataclass(frozen=True)
class _Tried:
    """What a reward said of each sample, twice."""

    samples: Sequence[Pair]
    first: Sequence[Any]
    second: Sequence[Any]

    @property
    def failures(self) -> list[tuple[Reply, BaseException]]:
        both = zip(self.samples, self.first, self.second, strict=True)
        found = [(reply, one if isinstance(one, BaseException) else two) for (_, reply), one, two in both]
        return [(reply, said) for reply, said in found if isinstance(said, BaseException)]


def probe_rewards(
    rewards: Mapping[str, Callable[[Prompt, Reply], float | None]],
    samples: Sequence[Pair] = PROBES,
    real: bool = False,
) -> tuple[Fault, ...]:
    """Warnings about rewards tried twice on each sample: one that raises on some, one that says something else the
    second time, one whose `batch` says something else than it says of each reply alone.

    Raises ConfigError for a reward that returns anything but a finite number (`batch`: one a reply) or None, that says
    None of everything, or that fails on all samples, all of them together. Where the samples are not `real` rows of its
    task, a reward that fails on all may need what they lack: that is a warning, unless a name or a module is missing.
    """
    faults: list[Fault] = []
    warnings: list[Fault] = []
    for name, reward in rewards.items():
        try:
            tried = _try(reward, samples)
            warning = _judge(name, reward, tried, real) or _probe_batch(name, reward, tried)
            warnings += [warning] if warning else []
        except WrongReturn as error:
            fix = "return one finite float for each reply"
            what = f"the reward `{name}` does not return a number"
            faults.append(Fault(what, _where(reward), str(error), fix))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return tuple(warnings)


def probe_steps(name: str, reward: UserStepReward, samples: Sequence[Any]) -> list[Fault]:
    """A fault for a step reward that fails on all (prompt, reply, steps), or gives anything but a number a step."""
    said = WORKER.ask(reward.source, samples, False, replace(reward.limits, strikes=1))
    wrong = next((one for one in said if isinstance(one, WrongReturn)), None)
    if wrong is not None:
        fix = "return one finite float for each step"
        return [Fault(f"the step reward `{name}` does not return numbers", reward.traits.where, str(wrong), fix)]
    if said and all(isinstance(one, RewardFailure) for one in said):
        where = reward.traits.where if said[0].ended else said[0].where
        return [Fault(f"the step reward `{name}` fails on every reply it was tried on", where, str(said[0]))]
    return []


def _where(reward: object) -> str:
    return reward.traits.where if isinstance(reward, UserReward) else ""


def _try(reward: Callable, samples: Sequence[Pair]) -> _Tried:
    """Raises WrongReturn."""
    if isinstance(reward, UserReward):
        once = with_limits(reward, strikes=1)
        first = once.alone(samples)
        gone = any(isinstance(said, RewardFailure) for said in first)
        said = _Tried(samples, first, first if gone else once.alone(samples))
    else:
        said = _Tried(samples, *([_ask(reward, pair) for pair in samples] for _ in range(2)))
    for value in (*said.first, *said.second):
        if isinstance(value, WrongReturn):
            raise value
    return said


def _ask(reward: Callable, pair: Pair) -> Any:
    try:
        return applied(reward(*pair))
    except (TemperError, Preempted):
        raise
    except (Exception, SystemExit) as error:
        return error


def _judge(name: str, reward: Callable, tried: _Tried, real: bool) -> Fault | None:
    """A warning about one reward. Raises ConfigError, WrongReturn."""
    failures = tried.failures
    if failures and len(failures) == len(tried.samples):
        _, error = failures[0]
        where = _where(reward) if getattr(error, "ended", True) else error.where  # type: ignore[attr-defined]
        said = str(error) if isinstance(error, RewardFailure) else describe(error)
        fix = "" if real else "it may need rows of its own: `temper check rows.jsonl --rewards …` tries it on them"
        fault = Fault(f"the reward `{name}` fails on every reply it was tried on", where, said, fix)
        lacks = said.split(":")[0].rpartition(".")[2] in _MAY_LACK and not any(ours in said for ours in _OURS)
        if real or not lacks:
            raise ConfigError(fault)
        return fault
    if failures:
        reply, error = failures[0]
        why = f"{describe(error)}, on the reply {reply.text[:60]!r}; such a reply scores 0 and is counted"
        return Fault(f"the reward `{name}` failed when it was tried", why=why)
    is_columns = isinstance(reward, UserReward) and reward.traits.kind == "columns"
    if tried.samples and all(value is None for value in tried.first) and not is_columns:
        raise WrongReturn("got None for every reply, expected one finite float (None says: does not apply)")
    for (_, reply), one, two in zip(tried.samples, tried.first, tried.second, strict=True):
        if one != two:
            shown = [f"{value:g}" if value is not None else "None" for value in (one, two)]
            why = f"{shown[0]}, then {shown[1]} for the same reply: runs cannot be repeated, and equal replies differ"
            return Fault(f"the reward `{name}` is not deterministic", _where(reward), f"{why} ({reply.text[:60]!r})")
    return None


def _probe_batch(name: str, reward: Callable, tried: _Tried) -> Fault | None:
    samples = tried.samples
    batch = getattr(reward, "batch", None)
    if batch is None or not samples or tried.failures:
        return None
    if isinstance(reward, UserReward) and not reward.traits.batch:
        return None
    is_whole = isinstance(reward, UserReward) and reward.traits.kind == "columns"  # it has no other call
    ask = with_limits(reward, strikes=1).at_once if isinstance(reward, UserReward) else batch
    try:
        together = [applied(value) for value in checked_all(ask(samples), len(samples))]
    except WrongReturn as error:
        raise WrongReturn(str(error) if is_whole else f"`batch` {error}") from None
    except (TemperError, Preempted):
        raise
    except (Exception, SystemExit) as error:
        why = f"{describe(error)}; each reply is then scored alone"
        return Fault(f"`batch` of the reward `{name}` failed when it was tried", why=why)
    for (_, reply), one, alone in zip(samples, together, tried.first, strict=True):
        if not _close(one, alone):
            shown = [f"{value:g}" if value is not None else "None" for value in (one, alone)]
            why = f"{shown[0]}, and {shown[1]} alone, for the reply {reply.text[:60]!r}"
            return Fault(f"`batch` of the reward `{name}` says something else than the reward", why=why)
    return None


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=BATCH_TOLERANCE, abs_tol=BATCH_TOLERANCE)
