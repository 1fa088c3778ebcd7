"""A majority counts answers in the light of the gold answer, whatever their order."""

from __future__ import annotations

from itertools import permutations

import pytest
from reward_rows import answered, prompt

from temper.rewards.accuracy import accuracy, vote
from temper.rollout.measures import majority_is_right
from temper.text.reply import parse_reply

CASES = [
    ("x = 5", ["x=5", "x=5", "y=5"], 1.0),
    ("x = 5", ["5", "x = 5", "y = 5", "y=5", "7"], 0.5),
    ("5 cm", ["5", "5 cm", "5 m", "5 m"], 0.5),
    ("5", ["5 apples", "5.0", "6", "6"], 0.5),
    (r"\frac{\sqrt3}{3}", [r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt 3}{3}", "0.577", "0.577"], 0.5),
    ("3, 5", ["5, 3", "3 and 5", "3", "3"], 0.5),
    ("C", ["(C)", "c", "B", "B"], 0.5),
    ("7", ["1", "2+5", "2+5", "7", "7"], 1.0),
]


@pytest.mark.parametrize(("gold", "answers", "expected"), CASES)
def test_the_order_of_the_samples_does_not_matter(gold: str, answers: list[str], expected: float) -> None:
    asked = prompt(gold)
    for order in set(permutations(answers)):
        replies = [parse_reply(answered(answer)) for answer in order]
        right = [accuracy(asked, reply) == 1.0 for reply in replies]
        assert majority_is_right([vote(asked, reply) for reply in replies], right) == expected


def test_what_is_no_final_form_does_not_vote() -> None:
    assert vote(prompt("5"), parse_reply(answered("2+3"))) is None
    assert vote(prompt("5"), parse_reply("no tags")) is None
    assert vote(prompt("paris", answer_type="text"), parse_reply(answered(" Paris "))) == "paris"
