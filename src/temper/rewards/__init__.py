"""Rewards: plain functions (prompt, reply) -> float. `REWARDS` is all of them; `score.py` weighs them.

A new built-in reward is one function in one file and one line here. A reward of your own needs neither: name it
`path/to/file.py:function` wherever a reward's name stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from temper.errors import ConfigError, Fault
from temper.rewards.accuracy import accuracy
from temper.rewards.code import code
from temper.rewards.cosine_length import cosine_length
from temper.rewards.forbidden_words import forbidden_words
from temper.rewards.format import format
from temper.rewards.language_consistency import language_consistency
from temper.rewards.length import length
from temper.rewards.names import our_name, refusal
from temper.rewards.random import random
from temper.rewards.reasoning_steps import reasoning_steps
from temper.rewards.remote import RemoteReward, is_remote
from temper.rewards.repetition_penalty import repetition_penalty
from temper.rewards.tag_count import tag_count
from temper.rewards.worker import Limits
from temper.types import Prompt, Reply

Reward = Callable[[Prompt, Reply], float | None]  # None: it does not apply to this reply

REWARDS: dict[str, Reward] = {
    "accuracy": accuracy,
    "code": code,
    "format": format,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "language_consistency": language_consistency,
    "repetition_penalty": repetition_penalty,
    "length": length,
    "cosine_length": cosine_length,
    "forbidden_words": forbidden_words,
    "random": random,
}
# Those that every evaluation measures.
MEASURED = ("accuracy", "format", "tag_count", "reasoning_steps", "language_consistency", "repetition_penalty")


def load_rewards(
    names: Sequence[str],
    folder: Path | None = None,
    given: Mapping[str, Reward] = MappingProxyType({}),
    limits: Limits | None = None,
) -> dict[str, Reward]:
    """The rewards by the names they were asked for; `file.py:function` is looked up in `folder`, then where we are.
    A name of Open-R1 or TRL that means one of ours gives ours, by our name (`rewards/names.py`).
    `given` are rewards that need more than a name, such as a stage's `judge`; functions of a file have
    `limits`.

    Raises ConfigError with every fault: an unknown or repeated name, a missing file, a syntax error with its line, a
    missing function, a signature other than `(prompt, reply)`.

    >>> list(load_rewards(["accuracy", "format"]))
    ['accuracy', 'format']
    >>> load_rewards(["accurracy"])
    Traceback (most recent call last):
        ...
    temper.errors.ConfigError: unknown reward `accurracy`
    """
    from temper.rewards.user import load_reward

    known = {**REWARDS, **given}
    loaded: dict[str, Reward] = {}
    faults: list[Fault] = []
    if not names:
        faults.append(Fault("no rewards", why="nothing would be scored", fix=f"name some of {', '.join(REWARDS)}"))
    for name in map(our_name, names):
        try:
            if name in loaded:
                raise ConfigError(Fault(f"reward `{name}` is named twice", fix="give it one weight instead"))
            if name in known:
                loaded[name] = known[name]
            elif name == "math_verify":
                from temper.rewards.second_judge import SecondJudge

                loaded[name] = SecondJudge(limits)
            elif is_remote(name):
                loaded[name] = RemoteReward(name, (limits or Limits()).timeout)
            elif name == "gym":
                loaded[name] = load_reward(f"{Path(__file__).with_name('gym.py')}:gym", None, limits)
            elif ".py" in name:
                loaded[name] = load_reward(name, folder, limits)
            else:
                raise ConfigError(_unknown(name))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return loaded


def needs_gold(reward: Callable[..., object]) -> bool:
    """Whether a reward holds replies against the prompt's gold answer: some of the built-in ones, and those that say so
    (`reward.needs_gold = True`). Prompts that no such reward is for need no gold answer.

    >>> needs_gold(accuracy), needs_gold(format)
    (True, False)
    """
    return getattr(reward, "needs_gold", False) is True or reward in (accuracy, cosine_length)


def _unknown(name: str) -> Fault:
    import difflib

    if (refused := refusal(name)) is not None:
        return refused
    if name == "judge":
        why = "a judge is asked where a stage says which one"
        fix = "give a stage with `reward_funcs` a judge: {url: http://localhost:8000/v1, model: NAME}"
        return Fault("the reward `judge` needs a judge", why=why, fix=fix)
    close = difflib.get_close_matches(name.removesuffix("_reward").replace("-", "_").lower()[:100], REWARDS, n=1)
    known = f"the rewards are {', '.join(REWARDS)}; one of your own is named `file.py:function`"
    return Fault(f"unknown reward `{name}`", why=known, fix=f"did you mean `{close[0]}`?" if close else "")
