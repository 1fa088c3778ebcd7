"""temper.grade and temper.score: what the rewards say, called from Python; every misuse is told."""

from __future__ import annotations

import pytest

import temper


@pytest.mark.parametrize(
    ("reply", "gold", "verdict"),
    [
        ("<think>a</think><answer>5</answer>", "5", "correct"),
        ("<think>a</think>It may well be 5.", "5", "wrong"),  # prose around a value
        ("<think>a</think>5", "5", "correct"),
        (r"\boxed{5}", "5", "correct"),
        ("5 or 6", "5", "wrong"),
        ("<think>5</think>", "5", "no_answer"),
        ("", "5", "no_answer"),
        ("<think>a</think><answer>5</answer><answer>5</answer>", "5", "no_answer"),
        ("<think>5", "5", "no_answer"),
    ],
)
def test_an_answer_is_held_against_the_gold(reply, gold, verdict):
    found = temper.grade(reply, gold)
    assert found.verdict == verdict
    assert bool(found) == (verdict == "correct") == (found.score == 1.0)


def test_the_form_can_be_told():
    reply = "<think>a</think><answer>5</answer>"
    assert not temper.grade(reply, "5", form="plain")
    assert temper.grade(reply, "5", form="think")


def test_what_the_question_asks_for_counts():
    assert not temper.grade("x^2-1", "(x-1)(x+1)", question="Factor $x^2-1$.")
    assert temper.grade("x^2-1", "(x-1)(x+1)")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give one of them"),
        ({"gold": "5", "tests": ["assert True"]}, "give one of them"),
        (
            {"gold": "Let $n$ be even. Then, by induction, the sum is less than one, as was to be shown."},
            "cannot be verified",
        ),
        ({"tests": []}, "cannot be run"),
        ({"tests": {"problem": "no tests"}}, "cannot be run"),
    ],
)
def test_what_cannot_be_graded_is_an_error(options, words):
    with pytest.raises(temper.TemperError) as problem:
        temper.grade("5", **options)
    assert words in problem.value.render()
    assert problem.value.code == 2


def test_programs_are_run():
    tests = [{"input": "2", "output": "4"}, {"input": "5", "output": "10"}]
    assert temper.grade("```python\nprint(2 * int(input()))\n```", tests=tests)
    assert temper.grade("```python\nprint(4)\n```", tests=tests).verdict == "wrong"
    assert temper.grade("I cannot.", tests=tests).verdict == "no_code"


def test_rewards_of_ones_own_stand_beside_the_built_in_ones():
    def halved(prompt, reply):
        return temper.rewards.accuracy(prompt, reply) / prompt.row["by"]

    [found] = temper.score("<think>a</think><answer>5</answer>", ["format", halved], weights=[1, 4], gold="5",
                           row={"by": 2})  # fmt: skip
    assert found.rewards == {"format": 1.0, "halved": 0.5}
    assert found.total == 3.0


def test_a_reward_that_raises_says_why():
    def broken(prompt, reply):
        raise KeyError("nums")

    [found] = temper.score("5", [broken])
    assert found.rewards == {"broken": 0.0}
    assert "nums" in found.reasons["broken"]


@pytest.mark.parametrize(
    ("rewards", "options", "words"),
    [
        (["accurracy"], {"gold": "5"}, "did you mean"),
        (["accuracy"], {}, "no gold answer"),
        (["format", "format"], {}, "named twice"),
        (["format"], {"weights": [1, 2]}, "2 weights for 1 rewards"),
        ([], {}, "no rewards"),
    ],
)
def test_rewards_that_cannot_be_are_told(rewards, options, words):
    with pytest.raises(temper.TemperError) as problem:
        temper.score("5", rewards, **options)
    assert words in problem.value.render()
