"""Each kind of gold answer with answers that say the same and answers that do not, bare and in a box."""

from __future__ import annotations

from random import Random

import pytest
from reward_rows import rows

from temper.rewards.answers import answer_of, read_gold, same_gold

FAMILIES = rows("answers.jsonl")


def is_right(gold: str, answer: str, question: str = "What is the value?") -> bool:
    found = answer_of(read_gold(gold), answer, question)
    return found is not None and found.right


@pytest.mark.parametrize("row", FAMILIES, ids=[row["family"] for row in FAMILIES])
def test_a_family_gets_its_verdicts(row: dict) -> None:
    gold, question = row["gold"], row["question"]
    assert [answer for answer in row["right"] if not is_right(gold, answer, question)] == []
    assert [answer for answer in row["wrong"] if is_right(gold, answer, question)] == []


@pytest.mark.parametrize("row", FAMILIES, ids=[row["family"] for row in FAMILIES])
def test_the_gold_answer_itself_is_right_bare_and_in_a_box(row: dict) -> None:
    gold, question = row["gold"], row["question"]
    assert is_right(gold, gold, question)
    assert is_right(gold, f"so we get \\boxed{{{gold}}}.", question)


@pytest.mark.parametrize("row", FAMILIES, ids=[row["family"] for row in FAMILIES])
def test_a_wrong_answer_is_wrong_in_a_box_too(row: dict) -> None:
    for answer in row["wrong"]:
        if "boxed" not in answer and row["family"] != "percent that counts":
            assert not is_right(row["gold"], f"\\boxed{{{answer}}}", row["question"]), answer


def test_golds_of_different_families_are_never_right_for_one_another() -> None:
    golds = [row["gold"] for row in FAMILIES]
    for gold, other in Random(0).sample([(gold, other) for gold in golds for other in golds], 1_500):
        if is_right(gold, other, "q"):
            assert same_gold(gold, other), (gold, other)


@pytest.mark.parametrize(
    "gold",
    [
        "",
        "five",
        "2+",
        "2+3=6",
        "(1,2",
        "what follows is a sentence and no answer",
        "٥",
        "1/0",
        "9^{9^{9^{9}}}",
        "\\boxed{}",
        "x" * 2_000,
    ],
)
def test_what_cannot_be_verified_says_so(gold: str) -> None:
    with pytest.raises(ValueError, match=r"final form|longer|empty|box"):
        read_gold(gold)


@pytest.mark.parametrize("gold", ["2+3", r"2 \cdot 3^4", r"\frac{10}{4}", r"\sqrt{25}", r"\binom{6}{2}", "5!"])
def test_a_gold_answer_is_trusted_and_worked_out(gold: str) -> None:
    assert is_right(gold, gold)


def test_an_unfinished_gold_answer_is_worked_out() -> None:
    assert is_right(r"\frac{10}{4}", "5/2")
    assert is_right("5!", "120")
    assert not is_right("5!", "4! \\cdot 5")
    assert is_right(r"\sqrt{50}", r"5\sqrt2")


def test_a_box_of_the_question_is_no_answer() -> None:
    question = "The user says \\boxed{7}. What is it?"
    assert is_right("7", "\\boxed{7}", question)
    assert not is_right("7", question, question)
    assert not is_right("7", "The user says \\boxed{7}.", question)
    blank = "Which number belongs here: $4 + \\boxed{\\phantom{2}} = 7$?"
    assert is_right("3", "From $4 + \\boxed{\\phantom{2}} = 7$ we get \\boxed{3}.", blank)


def test_a_rounded_box_needs_a_question_that_rounds() -> None:
    assert not is_right("3.14", r"$x \approx \boxed{3.14}$")
    assert is_right("3.14", r"$x \approx \boxed{3.14}$", "Give x, rounded to two decimal places.")


def test_a_known_noun_stands_in_the_question() -> None:
    assert is_right("5", "5 red balloons", "How many red balloons are left?")
    assert not is_right("5", "5 zeppelins", "How many red balloons are left?")
    assert not is_right("5", "5 or", "Are 4 or 5 left?")
    assert is_right("18", "18元", "他有多少元？")
