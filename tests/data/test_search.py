"""Searches of the tiny world: one pair is right, thoughts try pairs in order, and patience is what they are worth."""

from __future__ import annotations

import re
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.data.tiny.search import Habits, draw_search, search_conversations, search_prompts, search_thought
from temper.data.tiny.split import split_of
from temper.rollout.statistics import reflections
from temper.types import Reply

PERFECT = Habits(slip=0.0, gives_up=(0.0, 0.0), checks=0.0, mixed=0.0)


@given(st.integers(0, 10**6), st.sampled_from([3, 4, 5]), st.sampled_from(["train", "test"]))
def test_exactly_one_pair_is_right_and_it_is_the_answer(seed: int, size: int, split) -> None:
    problem = draw_search(Random(seed), split, size)
    right = [pair for pair in combinations(problem.numbers, 2) if sum(pair) == problem.target]
    assert [f"{a}, {b}" for a, b in right] == [problem.answer]
    assert split_of(problem.text) == split


@given(st.integers(0, 10**6))
def test_who_never_gives_up_finds_it_and_looks_back_once_a_wrong_pair(seed: int) -> None:
    problem = draw_search(Random(seed), "train", 5)
    thought, answer = search_thought(problem, PERFECT, Random(seed))
    place = [f"{a}, {b}" for a, b in problem.pairs].index(problem.answer)
    assert answer == problem.answer
    assert (thought.count("+"), reflections(Reply("", thought, answer, True))) == (place + 1, place)


def test_patience_is_what_makes_people_right() -> None:
    def share(**habits) -> float:
        rows = list(search_conversations(400, 0, Habits(slip=0.0, **habits)))
        right = 0
        for row in rows:
            a, b = re.findall(r"<answer>(\d+), (\d+)</answer>", row["completion"])[0]
            right += int(a) + int(b) == int(row["prompt"].rsplit(" ", 1)[1])
        return right / len(rows)

    assert share(gives_up=(0.0, 0.0)) == 1.0
    assert share(gives_up=(1.0, 1.0), thinks_again=0.0) < 0.55 < 0.8 < share(gives_up=(0.1, 0.1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_search_stands_twice_in_a_file(split) -> None:
    rows = list(search_prompts(split, 300, 3))
    assert len({row["question"] for row in rows}) == 300
    assert [row["level"] for row in rows[:4]] == [3, 4, 5, 3]
    assert rows[:50] == list(search_prompts(split, 50, 3))


def test_sums_added_in_the_head_are_those_of_english_sentences_and_slip_as_often_as_told() -> None:
    habits = Habits(slip=0.0, slip_in_english=0.4, gives_up=(0.1, 0.1))
    text = " ".join(row["completion"] for row in search_conversations(400, 0, habits))
    german = re.findall(r"(?:Zuerst|Warte,) (\d+)\+(\d+)=(\d+), \d+\?", text)
    english = re.findall(r"(?:First|Wait,) (\d+), (\d+): (\d+), \d+\?", text)
    assert len(german) + len(english) == text.count("?")
    assert all(int(a) + int(b) == int(c) for a, b, c in german)
    slips = sum(int(a) + int(b) != int(c) for a, b, c in english)
    assert (min(len(german), len(english)) > 300, 0.35 < slips / len(english) < 0.45) == (True, True)
