"""Functions of the tiny world: held out by what they do, asked with true examples, held to tests that tell right from
wrong."""

from __future__ import annotations

import json
from random import Random

import pytest

from temper.code import Sandbox, SandboxError, grade
from temper.code.rows import read_tests
from temper.data.tiny.functions import (
    attempt,
    draw_function,
    function_conversations,
    function_prompts,
    inputs_of,
    words_of,
)
from temper.data.tiny.steps import STEPS

ROWS = list(function_prompts("train", 60, seed=3))


def written(program: str):
    names: dict = {}
    exec(program, names)
    return names["f"]


def does(row: dict) -> str:
    """What a row's program makes of inputs as questions have them."""
    random = Random(0)
    numbers = [*range(-12, 31)]
    lists = [[random.randint(-9, 20) for _ in range(random.randint(2, 5))] for _ in range(80)]
    texts = ["".join(random.choices("aeinstAEST", k=random.randint(4, 7))) for _ in range(80)]
    inputs = {"number": numbers, "list": lists, "text": texts}
    kind = next(kind for kind in inputs if f"of a {kind}" in row["question"])
    return json.dumps([*map(written(row["solution"]), inputs[kind])])


def test_every_reference_program_gives_what_its_tests_expect():
    for row in ROWS:
        tests = row["public_test_cases"] + row["private_test_cases"]
        assert all(written(row["solution"])(*test["input"]) == test["output"] for test in tests)
        shown = [f"f({json.dumps(*t['input'])}) = {json.dumps(t['output'])}" for t in row["public_test_cases"]]
        assert row["question"].splitlines()[1:] == shown


def test_nothing_trained_on_does_what_a_held_out_function_does_whatever_the_seed():
    held_out = {does(row) for row in function_prompts("test", 100, seed=0)}
    assert len(held_out) == 100
    assert not held_out & {does(row) for seed in (0, 1) for row in function_prompts("train", 400, seed)}


def test_there_are_only_so_many_functions():
    rows = list(function_prompts("test", 10_000, seed=0))
    assert 250 < len(rows) == len({does(row) for row in rows})


def test_rows_and_programs_are_the_same_again():
    assert list(function_prompts("train", 60, seed=3)) == ROWS
    assert list(function_conversations(20, 5, 0.3, 0.1)) == list(function_conversations(20, 5, 0.3, 0.1))


@pytest.mark.parametrize("kind", list(STEPS))
def test_no_wrong_line_is_the_right_one(kind):
    random = Random(1)
    for make in STEPS[kind]:
        step = make(random)
        assert step.right not in step.wrong
        assert step.said
        assert "{" not in step.right + "".join(step.said) + "".join(step.wrong)


def test_programs_pass_in_the_sandbox_and_those_by_heart_are_told():
    try:
        sandbox = Sandbox(1)
    except SandboxError as error:
        pytest.skip(str(error))
    with sandbox:
        for row in ROWS[:6]:
            tests = read_tests(row)
            assert (len(tests), tests.public) == (6, 2)
            assert grade(f"```python\n{row['solution']}```", tests, sandbox=sandbox).verdict == "passed"
        random = Random(4)
        function = draw_function(random, "train")
        while len({json.dumps(function(value)) for value in inputs_of(function, Random(0), 6)}) < 4:
            function = draw_function(random, "train")
        inputs = inputs_of(function, random, 6)
        by_heart = attempt(function, words_of(function, random), inputs, 0.0, 1.0, random)
        tests = [{"input": [value], "output": function(value), "testtype": "functional"} for value in inputs]
        row = {"public_test_cases": tests[:2], "private_test_cases": tests[2:], "metadata": {"func_name": "f"}}
        assert grade(f"```python\n{by_heart}```", read_tests(row), sandbox=sandbox).hard_coded


def test_attempts_are_wrong_about_as_often_as_they_should_be():
    random, right = Random(2), 0
    for _ in range(300):
        function = draw_function(random, "train")
        said = words_of(function, random)
        program = attempt(function, said, inputs_of(function, random, 2), 0.25, 0.05, random)
        notes = [line for line in program.splitlines(keepends=True) if line.startswith("    #")]
        assert all(note.removeprefix("    # ").strip() in said for note in notes)
        right += "".join(line for line in program.splitlines(keepends=True) if line not in notes) == function.program
    assert 0.5 < right / 300 < 0.8
