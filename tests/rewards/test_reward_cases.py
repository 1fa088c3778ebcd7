"""The adversarial cases: what honest models write and what a policy under pressure tries, each with its verdict."""

from __future__ import annotations

import pytest
from reward_rows import prompt, rows

from temper.rewards import REWARDS
from temper.rewards.answers import read_gold
from temper.text.reply import parse_reply

CASES = rows("reward_cases.jsonl") + rows("reward_families.jsonl")


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_each_case_gets_its_verdict(case):
    asked, reply = prompt(case["gold"], case["prompt"]), parse_reply(case["reply"])
    given = {name: REWARDS[name](asked, reply) for name in ("accuracy", "format")}
    assert set(given.values()) <= {0.0, 1.0}
    assert {name: value for name, value in given.items() if case[name] is not None} == {
        name: case[name]
        for name in given
        if case[name] is not None  # null: either verdict will do
    }


def test_every_gold_of_the_cases_is_a_final_form():
    assert all(read_gold(case["gold"]) for case in CASES)


def test_cases_have_ids_of_their_own():
    assert len({case["id"] for case in CASES}) == len(CASES) > 500
