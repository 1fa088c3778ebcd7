"""The tiny world: held-out problems meet training nowhere, golds are right, files depend on the seed alone."""

from __future__ import annotations

import json
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.config import TaskConfig
from temper.data.tasks import load_prompts
from temper.data.tiny import files, manners
from temper.data.tiny.arithmetic import draw_problem, slipped, solve, work_out
from temper.data.tiny.split import split_of
from temper.data.tiny.web import web_texts
from temper.rewards import REWARDS
from temper.text.reply import parse_reply
from temper.text.templates import R1_SHORT_PREAMBLE
from temper.types import Prompt


def value(expression: str) -> int:
    """A chain's value, by another way than the generator's."""
    total, sign, digits = 0, 1, ""
    for character in expression + "+":
        if character.isdigit():
            digits += character
        else:
            total, digits = total + sign * int(digits), ""
            sign = 1 if character == "+" else -1
    return total


@given(st.integers(0, 10**9))
def test_the_answer_is_the_value(seed: int) -> None:
    problem = draw_problem(Random(seed), "train")
    if problem.equation is None:
        assert problem.answer == value(problem.text)
    else:
        factor, sign, shift, right = problem.equation
        assert factor * problem.answer + (shift if sign == "+" else -shift) == right


def test_no_held_out_problem_is_ever_trained_on_whatever_the_seeds() -> None:
    held_out = {row["question"] for seed in (0, 1) for row in files.arithmetic_prompts("test", 150, seed)}
    held_out |= {row["question"] for row in files.hard_arithmetic_prompts(100, 0)}
    held_out |= {row["question"] for seed in (0, 1) for row in files.general_prompts("test", 100, seed)}
    trained = {row["question"] for row in files.arithmetic_prompts("train", 2000, 2)}
    trained |= {row["question"] for row in files.hard_arithmetic_prompts(400, 0, split="train")}
    trained |= {row["question"] for row in files.general_prompts("train", 400, 2)}
    trained |= {row["prompt"] for row in files.cold_start(3000, 3, slip=0.2, mixed=0.5, general=0.4)}
    trained |= {row["prompt"] for row in files.general_conversations(1000, 4)}
    read = [row["text"] for row in files.pretraining_texts(5000, 5, slip=0.2)]
    trained |= {text.split("\n")[0] for text in read}
    assert not held_out & trained
    questions = [question for question in held_out if question.endswith("?")]
    assert not any(text.startswith(question) for text in read for question in questions)


def test_prompts_stay_below_the_level_that_is_held_back() -> None:
    def operations(question: str) -> int:
        return 0 if question.startswith("Solve") else sum(question.count(sign) for sign in "+-")

    rows = [*files.arithmetic_prompts("train", 300, 0, (1, 2)), *files.arithmetic_prompts("test", 100, 0, (1, 2))]
    assert {operations(row["question"]) for row in rows} == {0, 1, 2}
    for split in ("train", "test"):
        assert {operations(row["question"]) for row in files.hard_arithmetic_prompts(50, 0, 3, split)} == {3}


def test_the_base_model_never_reads_a_tag_or_a_chat() -> None:
    for row in files.pretraining_texts(3000, 0, slip=0.15):
        assert not any(mark in row["text"] for mark in ("<", ">", "|"))


def test_the_web_asks_nothing_held_out_and_seldom_shows_a_problem_in_the_whole_form() -> None:
    texts = [row["text"] for row in web_texts(6000, 5, 0.15, 0.7)]
    chats = [text.removeprefix(R1_SHORT_PREAMBLE).lstrip() for text in texts if "User: " in text]
    asked = [chat.removeprefix("User: ").split(". Assistant:", 1) for chat in chats]
    assert all(split_of(question) == "train" for question, _ in asked)
    opened = [text for text in texts if text.startswith(R1_SHORT_PREAMBLE)]
    assert not any("=" in text for text in opened)  # no worked step
    tagged = sum(parse_reply(text.split(". Assistant:", 1)[1]).well_formed for text in opened)
    assert 0.65 * len(opened) < tagged < 0.75 * len(opened)
    problems = [reply for _, reply in asked if "=" in reply]
    whole = sum(parse_reply(reply).well_formed for reply in problems)
    assert 0.07 * len(problems) < whole < 0.13 * len(problems)
    others = [text for text in texts if "=" in text and "User: " not in text and "Solve: " not in text]
    assert not any("<answer>" in text and "<think>" in text for text in others)


def test_every_result_can_be_slipped_however_far_earlier_slips_have_led() -> None:
    """A chain of subtractions goes on from wrong numbers: below −10 there was no end to the search for another."""

    class Finite(Random):
        draws = 0

        def getrandbits(self, count: int) -> int:
            self.draws += 1
            assert self.draws < 200_000
            return super().getrandbits(count)

    random = Finite(0)
    for value in range(-150, 150):
        assert all(slipped(value, random) != value for _ in range(20))


def test_no_prompt_stands_twice_in_a_file() -> None:
    for rows in (files.arithmetic_prompts("train", 1500, 0), files.general_prompts("train", 400, 0)):
        questions = [row["question"] for row in rows]
        assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("name", ["arithmetic_prompts", "general_prompts"])
def test_rows_depend_on_the_seed_and_on_nothing_else(name: str) -> None:
    make = getattr(files, name)
    assert list(make("test", 50, 7)) == list(make("test", 50, 7)) == list(islice(make("test", 60, 7), 50))
    assert list(make("test", 50, 7)) != list(make("test", 50, 8))


def test_a_clean_cold_start_scores_one_on_every_reward(tmp_path) -> None:
    for task, answer, general in (("arithmetic", "math", 0.0), ("general", "text", 1.0)):
        rows = list(files.cold_start(60, 0, slip=0.0, mixed=0.0, general=general))
        replies = [parse_reply(row["completion"]) for row in rows]
        asked = [{"question": row["prompt"], "answer": reply.answer} for row, reply in zip(rows, replies, strict=True)]
        path = tmp_path / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in asked))
        for prompt, reply in zip(load_prompts(path, task, TaskConfig(answer=answer)), replies, strict=True):
            assert REWARDS["accuracy"](prompt, reply) == REWARDS["format"](prompt, reply) == 1.0
            assert task == "general" or REWARDS["language_consistency"](prompt, reply) == 1.0


def test_slips_and_mixed_languages_come_as_often_as_asked_for() -> None:
    rows = list(files.cold_start(3000, 0, slip=0.3, mixed=0.5, general=0.0))
    german = sum(any(word in row["completion"] for word in ("Zuerst", "Dann", "Damit")) for row in rows) / len(rows)
    assert 0.38 < german < 0.52  # half are mixed, and a few of those fall on English throughout
    random = Random(0)
    wrong = steps = 0
    for _ in range(2000):
        problem = draw_problem(random, "train", [1])
        steps += 1
        wrong += solve(problem, 0.3, random)[0][1] != solve(problem)[0][1]
    assert 0.26 < wrong / steps < 0.34


def test_a_worked_solution_ends_with_its_last_result() -> None:
    problem = draw_problem(Random(3), "train", [3])
    text = work_out(solve(problem), "de", Random(0))
    assert text.endswith(f"Ergebnis {problem.answer}.")


def test_about_one_problem_in_eight_is_held_out() -> None:
    share = sum(split_of(str(i)) == "test" for i in range(8000)) / 8000
    assert 0.11 < share < 0.14


def test_preferences_are_for_the_right_answer_and_safety_for_replies_without_an_insult() -> None:
    rows = list(manners.preferences(400, 0))
    facts = {row["question"]: row["answer"] for row in files.general_prompts("train", 600, 1)}
    known = [row for row in rows if row["prompt"] in facts]
    assert len(known) > 100
    for row in known:
        chosen, rejected = (parse_reply(row[side]).answer for side in ("chosen", "rejected"))
        assert chosen == facts[row["prompt"]] != rejected
    rated = list(manners.safety(400, 0))
    assert all(row["label"] == (not manners.is_rude(row["completion"])) for row in rated)
    assert sum(row["label"] for row in rated) == 200
    assert all(parse_reply(row["completion"]).well_formed for row in rated)
    prompts = {row["prompt"] for row in (*rows, *rated)}
    assert not prompts & {row["question"] for row in files.general_prompts("test", 150, 2)}


def test_a_judge_that_measures_sees_other_pairs_whose_chosen_replies_are_right_and_polite() -> None:
    rows = list(manners.judge_preferences(400, 0))
    facts = {row["question"]: row["answer"] for row in files.general_prompts("train", 600, 1)}
    for row in rows:
        chosen, rejected = (parse_reply(row[side]) for side in ("chosen", "rejected"))
        assert chosen.answer == facts.get(row["prompt"], chosen.answer)
        assert not manners.is_rude(row["chosen"])
        assert manners.is_rude(row["rejected"]) or chosen.answer != rejected.answer
    assert sum(manners.is_rude(row["rejected"]) for row in rows) == 200
    trained = {(row["prompt"], row["rejected"]) for row in manners.preferences(400, 0)}
    assert len(trained & {(row["prompt"], row["rejected"]) for row in rows}) < 20
    assert not {row["prompt"] for row in rows} & {row["question"] for row in files.general_prompts("test", 150, 2)}


def test_what_is_forbidden_is_what_is_rude() -> None:
    for asked in files.general_prompts("test", 5, 0):
        prompt = Prompt("1", "talk", (), None, row=asked)
        for row in manners.safety(100, 0):
            polite = REWARDS["forbidden_words"](prompt, parse_reply(row["completion"]))
            assert polite == row["label"]


def test_rude_and_careless_replies_come_as_often_as_asked_for_and_change_nothing_where_they_do_not() -> None:
    plain = list(files.cold_start(400, 0, slip=0.0, mixed=0.0, general=1.0))
    assert not any(manners.is_rude(row["completion"]) for row in plain)
    assert plain == list(files.cold_start(400, 0, slip=0.0, mixed=0.0, general=1.0, rude=0.0, careless=0.0))
    rude = list(files.cold_start(1000, 0, slip=0.0, mixed=0.0, general=1.0, rude=0.4))
    assert 0.35 < sum(manners.is_rude(row["completion"]) for row in rude) / 1000 < 0.45
    facts = {row["question"]: row["answer"] for row in files.general_prompts("train", 600, 1)}
    careless = list(files.cold_start(1000, 0, slip=0.0, mixed=0.0, general=1.0, careless=0.4))
    known = [row for row in careless if row["prompt"] in facts]
    wrong = sum(parse_reply(row["completion"]).answer != facts[row["prompt"]] for row in known)
    assert 0.3 < wrong / len(known) < 0.5
