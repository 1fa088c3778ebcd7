"""The reward `code`: what a program is worth, and what becomes of one that could not be run."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest

from temper.aside import set_aside
from temper.code import Outcome, SandboxError
from temper.code import sandbox as sandboxes
from temper.code.grader import Grade, Scoring
from temper.rewards import REWARDS, load_rewards, needs_gold
from temper.rewards.code import CodeReward, InfrastructureFailure, told
from temper.rewards.score import Scorer, may_overlap
from temper.rollout.collect import comparable
from temper.text.reply import parse_reply
from temper.types import Message, Prompt

module = import_module("temper.rewards.code")
ROW = {"problem": "Double it.", "tests": [{"input": "2", "output": "4"}, {"input": "3", "output": "6"}]}


@pytest.fixture(autouse=True)
def with_a_sandbox():
    try:
        sandboxes.shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")


def prompt(row=ROW, number="1"):
    return Prompt(number, "programs", (Message("user", "Double it."),), None, row=row)


def reply(program):
    return parse_reply(f"<think>So.</think><answer>```python\n{program}\n```</answer>")


def test_right_and_wrong_programs():
    code = REWARDS["code"]
    programs = ["print(2 * int(input()))", "print(4)", "print(", "while True: print(1)"]
    assert [code(prompt(), reply(program)) for program in programs] == [1.0, 0.0, 0.0, 0.0]


def test_a_batch_is_in_order_and_a_share_counts():
    code = CodeReward(Scoring("share"))
    pairs = [(prompt(), reply(program)) for program in ("print(4)", "print(2 * int(input()))", "print(0)")]
    assert code.batch(pairs) == [0.5, 1.0, 0.0]
    assert code.grade_of(*pairs[0]).verdict == "wrong"


def test_it_does_not_apply_without_tests():
    assert REWARDS["code"](prompt({"problem": "?"}, "2"), reply("print(1)")) is None


def test_it_overlaps_and_needs_no_gold():
    (code,) = load_rewards(["code"]).values()
    assert may_overlap(code)
    assert not needs_gold(code)


def broken(replies, *_, **__):
    return [Grade("infrastructure", 0.0, "", (Outcome("infrastructure", error="no room"),)) for _ in replies]


def test_what_could_not_be_run_is_no_wrong_answer(monkeypatch):
    monkeypatch.setattr(module, "grade_all", broken)
    code = CodeReward()
    (value,) = code.batch([(prompt(), reply("print(4)"))])
    assert isinstance(value, InfrastructureFailure)
    score = Scorer({"code": code}).score(prompt(), reply("print(4)"))
    assert score.unknown == ("code",)
    good, bad = Scorer({}).weigh({}), Scorer({}).weigh({})
    assert comparable([good, score, bad])[1] == 0.0


def test_a_sandbox_that_does_not_work_ends_the_run(monkeypatch):
    monkeypatch.setattr(module, "grade_all", broken)
    with pytest.raises(SandboxError, match="could not run"):
        CodeReward().batch([(prompt(), reply(f"print({n})")) for n in range(20)])


def test_a_program_is_run_once_on_a_rows_tests(monkeypatch):
    asked, grade_all = [], module.grade_all
    monkeypatch.setattr(
        module, "grade_all", lambda replies, *rest, **more: asked.extend(replies) or grade_all(replies, *rest, **more)
    )
    code = CodeReward()
    assert (
        code.batch([(prompt(), reply("print(4)")), (prompt(), reply("print(2 * int(input()))"))] * 3) == [0.0, 1.0] * 3
    )
    assert code.batch([(prompt(), reply("print(4)"))]) == [0.0]
    assert len(asked) == 2
    assert code.scored("share").batch([(prompt(), reply("print(4)"))]) == [0.5]  # of another score nothing is known


def test_two_files_of_a_task_may_number_their_rows_alike():
    other = {"problem": "Double it.", "tests": [{"input": "2", "output": "5"}]}
    here, there = replace(prompt(), place="train.jsonl:1"), replace(prompt(other), place="test.jsonl:1")
    assert CodeReward().batch([(here, reply("print(5)")), (there, reply("print(5)"))]) == [0.0, 1.0]


def test_the_failing_test_is_told_to_people():
    code = REWARDS["code"]
    pair = (prompt(), reply("print(4)"))
    code(*pair)
    shown = told(code.grade_of(*pair))
    assert shown["verdict"] == "wrong"
    assert shown["failing"]["test"] == 2
    assert shown["failing"]["expected"] == "6"


def test_large_tests_are_read_once_and_only_so_many_are_held(monkeypatch):
    asked, read_tests = [], module.read_tests
    monkeypatch.setattr(module, "read_tests", lambda row: asked.append(row["id"]) or read_tests(row))
    rows = [{"id": n, "tests": [{"input": str(n) * 100_000, "output": str(n)}]} for n in range(4)]
    prompts = [prompt(set_aside(row), str(row["id"])) for row in rows]
    code = CodeReward()
    program = reply("print(input()[0])")
    assert code.batch([(one, program) for one in prompts] * 2) == [1.0] * 8
    assert asked == [0, 1, 2, 3]
    assert code.no_tests(prompts[0]) == ""
    monkeypatch.setattr(module, "LARGE_TESTS", 250_000)  # two of them
    assert code.tests_of(prompt(set_aside({**rows[0], "id": 4}), "4"))
    assert code.tests_of(prompts[0])  # asked for not long ago
    assert asked == [0, 1, 2, 3, 4]
    assert code.tests_of(prompts[1])
    assert asked == [0, 1, 2, 3, 4, 1]


def test_why_a_row_has_no_tests_is_known():
    assert "is empty" in CodeReward().no_tests(prompt({"problem": "?", "tests": []}, "9"))
