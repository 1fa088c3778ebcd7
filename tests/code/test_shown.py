"""Programs that know the examples of their question by heart are told from those that are merely wrong."""

from __future__ import annotations

import pytest

from temper.code import Call, Limits, Sandbox, SandboxError, Script, Stdin, Tests, grade_program
from temper.code.rows import read_tests
from temper.code.shown import hard_codes, with_shown

CALLS = Tests(tuple(Call("f", ([n, n],), 2 * n) for n in (3, 4, 5, 6)), public=2)
STDIN = Tests((Stdin("1 2\n", "3\n"), Stdin("4 5\n", "9\n")), public=1)


@pytest.fixture(scope="module")
def sandbox():
    try:
        with Sandbox(1) as one:
            yield one
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("program", "tests", "expected"),
    [
        ("def f(x):\n    return sum(x)", CALLS, (False, False)),
        ("def f(x):\n    return 6 if x == [3, 3] else 8", CALLS, (True, True)),
        ("def f(x):\n    return {(3, 3): 6, (4, 4): 8}[tuple(x)]", CALLS, (True, True)),
        ("def f(x):\n    return min(sum(x), 8)", CALLS, (True, False)),
        ("def f(x):\n    return 6", CALLS, (False, False)),
        ("if input() == '1 2': print(3)", STDIN, (True, True)),
        ("if input().split() == ['1', '2']: print(3)", STDIN, (True, True)),
        ("print(3)", STDIN, (True, False)),
        ("print(sum(map(int, input().split())))", STDIN, (False, False)),
    ],
)
def test_what_passes_only_what_is_shown(sandbox, program, tests, expected):
    grade = grade_program(program, tests, sandbox=sandbox)
    assert (grade.shown_only, grade.hard_coded) == expected


def test_a_program_too_slow_for_a_held_back_test_hides_nothing(sandbox):
    slow = "n = int(input())\nwhile n > 5: pass\nprint(n)"
    tests = Tests((Stdin("1", "1"), Stdin("9", "9")), Limits(0.5), public=1)
    assert not grade_program(slow, tests, sandbox=sandbox).shown_only


@pytest.mark.parametrize(
    ("row", "question", "public"),
    [
        ({"tests": [{"input": "9 9", "output": "18"}, {"input": "2 3", "output": "5"}]}, "Add: 2 3 gives 5", 1),
        ({"tests": [{"input": "9 9", "output": "18"}, {"input": "2 3", "output": "5"}]}, "Add 12 3 to 5", 0),
        ({"test_list": ["assert f(1) == 2", "assert f(2) == 4"]}, "Double. assert f(2) == 4", 1),
        ({"test_list": ["assert f(1) == 2", "assert f(2) == 4"]}, "Double.", 0),
    ],
)
def test_which_tests_stand_in_the_question(row, question, public):
    found = with_shown(read_tests(row), question)
    assert found.public == public
    assert sorted(map(repr, found.cases)) == sorted(map(repr, read_tests(row).cases))
    assert "2 3" in repr(found.cases[0]) or "f(2)" in repr(found.cases[0]) or not public


@pytest.mark.parametrize("program", ["def f(:", "x = " + "(" * 3000 + ")" * 3000, "\0", "match 1:\n case [1, 2]: pass"])
def test_any_text_may_be_looked_into(program):
    assert not hard_codes(program, [Call("f", (7,), 1), Script("assert f(9) == 1"), Stdin("8", "1")])


def test_an_example_in_an_assert_is_one():
    assert hard_codes("def f(x):\n    match x:\n        case 9: return 1", [Script("assert f(9) == 1")])
