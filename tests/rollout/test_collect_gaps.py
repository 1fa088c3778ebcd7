"""Rewards without a value: what is said of some replies, what stops a step of all."""

from __future__ import annotations

import pytest

from temper.errors import Exit, TemperError
from temper.rewards.score import Scorer
from temper.rollout.collect import stop_if_a_reward_is_broken, tell_of_gaps
from temper.types import Message, Prompt, Reply

PROMPT = Prompt("1", "t", (Message("user", "?"),), "5")
PAIRS = [(PROMPT, Reply(text, None, None, False)) for text in "abcd"]


def moody(prompt: Prompt, reply: Reply) -> float | None:
    if reply.text == "a":
        raise ValueError("an a")
    return None if reply.text == "b" else 1.0


def broken(prompt: Prompt, reply: Reply) -> float:
    raise KeyError("answer")


def test_a_reward_that_fails_on_some_is_told_of_and_stops_nothing() -> None:
    scores = Scorer({"moody": moody}).score_all(PAIRS)
    told: dict[str, str] = {}
    stop_if_a_reward_is_broken(scores)
    tell_of_gaps(scores, told.__setitem__)
    assert "failed on 1 of 4 replies, which it gives 0: ValueError: an a" in told["failed moody"]
    assert "does not apply to 1 of 4 replies" in told["inapplicable moody"]


def test_a_reward_that_fails_on_all_stops_the_step() -> None:
    scores = Scorer({"moody": moody, "broken": broken}).score_all(PAIRS)
    with pytest.raises(TemperError) as raised:
        stop_if_a_reward_is_broken(scores)
    (fault,) = raised.value.faults
    assert (raised.value.code, fault.why) == (Exit.GUARD, "KeyError: 'answer'")
    assert "`broken` failed on all 4 replies" in fault.what


def test_a_reward_that_nobody_was_to_earn_is_not_broken() -> None:
    stop_if_a_reward_is_broken(Scorer({"broken": broken}, tasks={"broken": ["other"]}).score_all(PAIRS))
    stop_if_a_reward_is_broken([])
