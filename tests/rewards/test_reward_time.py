"""A verdict takes milliseconds on any reply, and time grows with its length, not with its square."""

from __future__ import annotations

import time

import pytest
from reward_rows import prompt

from temper.rewards import REWARDS
from temper.text.reply import parse_reply

LENGTH = 200_000
VERDICT_SECONDS = 0.05
FRAGMENTS = [
    "<", "<think>", "</answer>", "< /", "<a", "9", "1,234,", "1 ", "\\frac{", "\\boxed{", "\\boxed", "{", "}", "(1,",
    "$", "*", "**a", "`", "_a", " ", "\n", "\x1f", "\\text{", "\\left(", "^{9", "5 or ", "the answer is ", "x=", "中",
    "½", "a", "First ", "- a\n", "1. a\n", "don't ", "a/b ", "\\(", "~", "%", "xä ",
]  # fmt: skip
PLACES = {
    "alone": "{}",
    "thinking": "<think>{}</think><answer>5</answer>",
    "answer": "<think>so</think><answer>{}</answer>",
    "after a number": "<think>so</think><answer>5{}</answer>",
    "in a box": "<think>so</think><answer>\\boxed{{{}}}</answer>",
    "before a box": "<think>so</think><answer>{}\\boxed{{5}}</answer>",
    "after a box": "<think>so</think><answer>\\boxed{{5}}{}</answer>",
}


def seconds(text: str, names: tuple[str, ...], within: float) -> float:
    """CPU seconds to parse and score; the best of some tries if the first takes longer than `within`."""
    asked, best = prompt("5", "What is \\boxed{5}?"), 1e9
    for _ in range(5):
        start = time.process_time()
        reply = parse_reply(text)
        for name in names:
            REWARDS[name](asked, reply)
        best = min(best, time.process_time() - start)
        if best < within:
            break
    return best


@pytest.mark.parametrize("place", PLACES)
def test_a_verdict_takes_at_most_50_ms_on_any_reply(place):
    for fragment in FRAGMENTS:
        for length in (990, LENGTH):  # the longest final form, and the longest reply
            text = PLACES[place].format(fragment * (length // len(fragment)))
            assert seconds(text, ("accuracy", "format"), VERDICT_SECONDS) < VERDICT_SECONDS, (fragment, length)


@pytest.mark.parametrize("name", REWARDS)
def test_time_grows_with_the_length_of_the_reply(name):
    for fragment in FRAGMENTS:
        for place in ("thinking", "answer"):
            short = seconds(PLACES[place].format(fragment * (LENGTH // 8 // len(fragment))), (name,), 1.0)
            bound = 20 * short + 0.02  # 8 times the length: a square would take 64 times as long
            assert seconds(PLACES[place].format(fragment * (LENGTH // len(fragment))), (name,), bound) < bound, fragment


HOSTILE_NUMBERS = ["9" * LENGTH, "1e" + "9" * 900, "1e-999999999", "9^" * 400 + "9", "\\frac{" * 150, "0." + "1" * 999]


@pytest.mark.parametrize("number", HOSTILE_NUMBERS, ids=lambda number: number[:12])
def test_a_hostile_number_is_refused_at_once(number):
    start = time.process_time()
    assert REWARDS["accuracy"](prompt("5"), parse_reply(f"<think>so</think><answer>{number}</answer>")) == 0.0
    assert time.process_time() - start < VERDICT_SECONDS
