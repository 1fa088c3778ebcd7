# ruff: noqa: E501, PT017 - rows stand as they are
"""Rows as people have them become tests, and their own reference programs pass them."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.code import Call, Script, Stdin, grade_program
from temper.code.rows import NoTests, read_tests, solutions_of

ADD = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b"


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


CASES = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
PRINTS = "print(sum(map(int, input().split())))"
ROWS = {
    "a list": {"tests": [{"input": "1 2", "output": "3"}], "solution": PRINTS},
    "a list as JSON": {"tests": json.dumps([{"input": "1 2", "output": "3"}]), "solution": PRINTS},
    "inputs and outputs": {"tests": CASES, "solutions": [PRINTS]},
    "APPS": {"input_output": json.dumps(CASES), "solutions": json.dumps([PRINTS])},
    "APPS, lines": {"input_output": {"inputs": [["1 2"]], "outputs": [["3"]]}, "solutions": json.dumps([PRINTS])},
    "TACO, calls": {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}), "solution": ADD},
    "APPS, calls": {"input_output": {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}, "solution": ADD},
    "verl": {"reward_model": {"ground_truth": json.dumps(CASES)}, "solution": PRINTS},
    "open-r1": {
        "verification_info": {"language": "python", "test_cases": [
            {"input": "1 2", "output": "3", "fn_name": None, "type": "stdin_stdout"}]},
        "gold_standard_solution": f"```python\n{PRINTS}\n```",
    },
    "LiveCodeBench": {
        "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
        "private_test_cases": packed([{"input": "5\n6", "output": "11", "testtype": "functional"}]),
        "metadata": json.dumps({"func_name": "add"}), "solution": ADD,
    },
    "LiveCodeBench, stdin": {
        "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]),
        "private_test_cases": packed([{"input": "5 6", "output": "11", "testtype": "stdin"}]), "metadata": "{}",
        "solution": PRINTS,
    },
    "Codeforces": {
        "official_tests": [{"input": "1 2", "output": "3"}], "examples": [{"input": "5 6", "output": "11"}],
        "time_limit": 2.0, "memory_limit": 256.0, "solution": PRINTS,
    },
    "HumanEval": {
        "prompt": 'def add(a, b):\n    """The sum."""\n', "entry_point": "add", "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(2, 2) == 4\n",
    },
    "MBPP": {"test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"], "code": "def add(a, b):\n\treturn a + b"},
    "MBPP+": {"test_imports": ["import math"], "test_list": ["assert math.isclose(add(1, 2), 3)"],
              "code": "def add(a, b): return a + b"},
    "KodCode": {"test": "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3",
                "solution": "def add(a, b): return a + b"},
    "LeetCode": {"tests": {"functional": "def check(candidate):\n    assert candidate(a = 1, b = 2) == 3\n\n\ncheck(Solution().add)"},
                 "solutions": ADD},
    "lines of asserts": {"tests": ["assert add(1, 2) == 3"], "solution": "def add(a, b): return a + b"},
    "a script": {"tests": "assert add(1, 2) == 3\nassert add(0, 0) == 0", "solution": "def add(a, b): return a + b"},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_the_reference_program_of_a_row_passes(sandbox, name):
    tests = read_tests(ROWS[name])
    (solution,) = solutions_of(ROWS[name])
    assert grade_program(solution, tests, sandbox=sandbox).verdict == "passed"
    wrong = solution.replace("sum(", "max(").replace("a + b", "a - b")
    assert grade_program(wrong, tests, sandbox=sandbox).verdict == "wrong"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "?"}, "no column of tests"),
        ({"tests": []}, "is empty"),
        ({"tests": 5}, "no list of tests"),
        ({"tests": "some words"}, "neither JSON nor"),
        ({"tests": [{"input": "1"}]}, "no `output`"),
        ({"tests": [{"input": {"a": 1}, "output": "1"}]}, "not text"),
        ({"tests": {"inputs": ["1"], "outputs": []}}, "1 inputs, 0 outputs"),
        ({"tests": [{"input": "1", "output": "1"}], "checker": "import sys"}, "checker program"),
        ({"tests": [{"input": "1", "output": "1"}], "interaction_format": "x"}, "interactive"),
        ({"tests": [{"input": "[1]", "output": "1", "testtype": "functional"}]}, "nothing says which"),
        ({"tests": ["def f(:"]}, "no Python"),
        ({"tests": ["x = 1"]}, "asserts nothing"),
        ({"tests": {"fn_name": "f", "inputs": [[1]], "outputs": [1]}, "language": "c++"}, "inputs and outputs"),
        ({"test_list": "assert f()"}, "no list of lines"),
    ],
)
def test_what_cannot_be_run_says_why(row, why):
    with pytest.raises(NoTests, match=why):
        read_tests(row)


def test_a_pickle_that_is_more_than_a_string_is_not_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    row = {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()}
    with pytest.raises(NoTests):
        read_tests(row)
    assert not list(tmp_path.iterdir())


def test_kinds_and_limits():
    assert isinstance(read_tests(ROWS["LeetCode"]).cases[0], Script)
    assert isinstance(read_tests(ROWS["TACO, calls"]).cases[0], Call)
    assert isinstance(read_tests(ROWS["verl"]).cases[0], Stdin)
    assert read_tests(ROWS["LiveCodeBench"]).public == 1
    assert read_tests({**ROWS["a list"], "time_limit": "3000 ms"}).limits.seconds == 3
    assert read_tests({**ROWS["a list"], "memory_limit": "1024 MB"}).limits.memory > 1 << 30
    assert read_tests({**ROWS["a list"], "tolerance": 1e-6}).tolerance == 1e-6
    assert read_tests({**ROWS["a list"], "language": "C++"}).language == "cpp"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["input", "output", "inputs", "outputs", "fn_name"]), inner),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["tests", "test", "test_list", "input_output", "metadata", "time_limit"]), JSON))
def test_any_row_gives_tests_or_a_reason(row):
    try:
        assert read_tests(row).cases
    except NoTests as problem:
        assert str(problem)
