"""Rows with tests for programs, as public files have them, are known for what they are."""

from __future__ import annotations

import json

import pytest

from temper.cli import main
from temper.code import SandboxError, Script
from temper.code.rows import read_tests
from temper.config import TaskConfig
from temper.data.rows import Row
from temper.data.shapes import detect_shape
from temper.data.tasks import load_prompts
from temper.errors import Fault

ADD = "assert add(1, 2) == 3"
ROWS = {
    "MBPP": {"text": "Add two.", "code": "def add(a, b): return a + b", "test_list": [ADD], "test_setup_code": ""},
    "LeetCode": {"prompt": "Add two numbers.", "completion": "def add(a, b): return a + b", "entry_point": "add",
                 "test": "def check(candidate):\n    assert candidate(1, 2) == 3"},
    "SYNTHETIC-1": {"prompt": "Print it.", "verification_info": json.dumps({"language": "python", "test_cases": [
        {"type": "stdin_stdout", "input": "3", "output": "3"}]}), "gold_standard_solution": "print(input())"},
    "OpenCoder": {"instruction": "Add.", "output": "So.", "testcase": [ADD], "code": "def add(a, b): return a + b"},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_public_shape_is_known(name):
    row = ROWS[name]
    assert detect_shape(row, rows=[Row(1, 1, row)]).name == "code"
    assert read_tests(row).cases


def test_where_conversations_are_wanted_a_reply_is_one():
    row = ROWS["LeetCode"]
    assert detect_shape(row, wanted=("messages", "completion"), rows=[Row(1, 1, row)]).name == "completion"


def test_a_gold_answer_in_an_object_is_no_test():
    row = {"prompt": "1 + 1?", "verification_info": {"ground_truth": "2"}}
    assert detect_shape(row, rows=[Row(1, 1, row)]).name == "verifiable"
    assert detect_shape(["text"], rows=[Row(1, 1, {"text": "Once."})]).name == "text"


def test_mbpp_plus_has_its_lines_and_its_script():
    tests = read_tests({"test_list": [ADD], "test": "for a, b in [(1, 3), (2, 4)]:\n    assert add(a, 2) == b"})
    assert [type(case) for case in tests.cases] == [Script, Script]
    assert tests.cases[1].bound == ("add",)


def asked(tmp_path, row):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return load_prompts(file, "t", TaskConfig(), golds="none")[0].text


def test_a_statement_in_several_columns_is_asked_as_a_whole(tmp_path):
    row = {
        "description": "Add them.", "input_format": "Two integers.", "output_format": "Their sum.", "note": "Easy.",
        "examples": [{"input": "1 2\n", "output": "3\n"}], "official_tests": [{"input": "4 5", "output": "9"}],
    }  # fmt: skip
    text = asked(tmp_path, row)
    shown = ["Input\nTwo integers.", "Output\nTheir sum.", "Example\nInput:\n1 2\nOutput:\n3", "Note\nEasy."]
    assert text == "\n\n".join(["Add them.", *shown])
    assert asked(tmp_path, row | {"description": text}).count("Two integers.") == 1


def test_a_function_that_nobody_names_is_shown_by_one_test(tmp_path):
    more = "assert add(5, 5) == 10"
    text = asked(tmp_path, ROWS["MBPP"] | {"test_list": [ADD, more]})
    assert ADD in text
    assert more not in text
    assert asked(tmp_path, ROWS["MBPP"] | {"text": "Write add(a, b)."}) == "Write add(a, b)."


def test_columns_of_tests_are_not_said_to_be_ignored(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    row = {**ROWS["MBPP"], "time_limit": 1, "colour": "red"}
    file.write_text(json.dumps({name: value for name, value in row.items() if name != "code"}) + "\n")
    assert main(["check", str(file)]) == 0
    assert "does not read: `colour`\n" in "".join(capsys.readouterr())


def test_without_a_sandbox_no_reference_program_counts_as_run(tmp_path, capsys, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (ROWS["MBPP"], {**ROWS["MBPP"], "test_list": "f()"})))

    def none_here():
        raise SandboxError(Fault("the sandbox for programs cannot be had here", fix="a newer kernel"))

    monkeypatch.setattr("temper.commands.lint_code.shared_sandbox", none_here)
    assert main(["check", str(file)]) == 8
    said = "".join(capsys.readouterr())
    assert "cannot be had here" in said
    assert "its tests cannot be run" in said  # all that is wrong is told
