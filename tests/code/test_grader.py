# ruff: noqa: E501, PT018 - programs stand as they are
"""The grader: ordinary programs pass, wrong ones do not, and each kind of end has its verdict."""

from __future__ import annotations

import shutil

import pytest

from temper.code import Call, Limits, Ran, Scoring, Script, Stdin, grade, grade_all, grade_program
from temper.code import Tests as Problem
from temper.code.extract import extract
from tests.code.ordinary import ORDINARY

ECHO = Problem((Stdin("7", "7"),))


def test_there_are_sixty_ordinary_programs():
    assert len(ORDINARY) >= 60


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_program_passes(sandbox, name):
    program, given, expected = ORDINARY[name]
    graded = grade_program(program, Problem((Stdin(given, expected),)), sandbox=sandbox)
    assert graded.verdict == "passed", graded.failing
    wrong = grade_program(program, Problem((Stdin(given, expected + "\nmore"),)), sandbox=sandbox)
    assert wrong.verdict == "wrong"


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("print(input())", "passed"),
        ("print(int(input()) + 1)", "wrong"),
        ("print(1 / 0)", "runtime_error"),
        ("import nothing_of_that_name", "runtime_error"),
        ("print(", "compile_error"),
        ("def f():\nprint(1)", "compile_error"),
        ("while True: pass", "timeout"),
        ("x = bytearray(1 << 40)", "memory"),
        ("while True: print('x' * 1000)", "output_limit"),
        ("eval('1 +')", "runtime_error"),
        ("\0", "compile_error"),
    ],
)
def test_each_end_has_its_verdict(sandbox, program, verdict):
    limits = Limits(1, 1)
    assert grade_program(program, Problem(ECHO.cases, limits), sandbox=sandbox).verdict == verdict


def test_a_reply_without_a_program(sandbox):
    assert grade("The answer is 7.", ECHO, sandbox=sandbox).verdict == "no_code"


@pytest.mark.parametrize(("score", "passed"), [("all", 0.0), ("share", 0.5), ("both", 0.25)])
def test_scores(sandbox, score, passed):
    half = Problem((Stdin("1", "1"), Stdin("2", "3")))
    assert grade_program("print(input())", half, Scoring(score), sandbox).score == passed
    whole = Problem((Stdin("1", "1"), Stdin("2", "2")))
    assert grade_program("print(input())", whole, Scoring(score), sandbox).score == 1.0


def test_it_stops_at_the_first_failure_where_only_all_count(sandbox):
    cases = tuple(Stdin(str(n), "0") for n in range(5))
    assert len(grade_program("print(input())", Problem(cases), sandbox=sandbox).outcomes) == 2
    assert len(grade_program("print(input())", Problem(cases), Scoring("share"), sandbox).outcomes) == 5


def test_the_failing_test_is_told(sandbox):
    number, outcome = grade_program("print(5)", Problem((Stdin("a", "5"), Stdin("b", "6"))), sandbox=sandbox).failing
    assert (number, outcome.input, outcome.expected, outcome.got.strip()) == (2, "b", "6", "5")


@pytest.mark.parametrize(
    ("program", "case", "verdict"),
    [
        ("def f(a, b): return a + b", Call("f", (1, 2), 3), "passed"),
        ("class Solution:\n    def f(self, a: List[int]) -> int: return max(a)", Call("f", ([1, 2],), 2), "passed"),
        ("def f(a): return tuple(a)", Call("f", ([1, 2],), [1, 2]), "passed"),
        ("def f(a): return {1: 2}", Call("f", (0,), {"1": 2}), "passed"),
        ("def f(a): return 1", Call("f", (0,), True), "wrong"),
        ("def f(a): return 5", Call("f", (0,), [5], wrapped=True), "passed"),
        ("def f(a): return 5", Call("f", (0,), [5]), "wrong"),
        ("def f(a): a.sort()", Call("f", ([2, 1],), [1, 2], in_place=True), "passed"),
        ("def f(a): pass", Call("f", ([2, 1],), [1, 2], in_place=True), "wrong"),
        ("def g(a): return a", Call("f", (1,), 1), "runtime_error"),
        ("def f(a): return 10 ** 5000", Call("f", (1,), 10**5000), "passed"),
        ("import numpy as np\ndef f(a): return np.cumsum(a)", Call("f", ([1, 2],), [1, 3]), "passed"),
        ("print('hello')\ndef f(a):\n    print(1)\n    return a", Call("f", ("é\ud800",), "é\ud800"), "passed"),
        ("if __name__ == '__main__':\n    input()\ndef f(a): return a", Call("f", (1,), 1), "passed"),
    ],
)
def test_calls(sandbox, program, case, verdict):
    given = grade_program(program, Problem((case,)), sandbox=sandbox)
    assert given.verdict == verdict, given


SCRIPTS = {
    "check": "def check(candidate):\n    assert candidate(2) == 3\n    assert candidate(-1) == 0\ncheck(f)",
    "lines": "assert f(2) == 3\nassert set([f(1)]) == {2}",
    "pytest": "import pytest\nfrom solution import f\ndef test_one():\n    assert f(1) == pytest.approx(2.0)\n"
    "@pytest.mark.parametrize('a, b', [(1, 2), (5, 6)])\ndef test_two(a, b):\n    assert f(a) == b",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(f(1), 2)",
    "a class of tests": "class TestIt:\n    def test_it(self): assert f(1) == 2",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(sandbox, name):
    problem = Problem((Script(SCRIPTS[name], ("f",)),))
    assert grade_program("def f(x): return x + 1", problem, sandbox=sandbox).verdict == "passed"
    assert grade_program("def f(x): return x", problem, sandbox=sandbox).verdict == "wrong"
    assert grade_program("def f(x): raise KeyError(x)", problem, sandbox=sandbox).verdict in ("runtime_error", "wrong")


def test_a_script_that_reaches_no_assert_is_not_passed(sandbox):
    loop = Script("for item in f(): assert item == 1", ("f",))
    assert grade_program("def f(): return []", Problem((loop,)), sandbox=sandbox).verdict == "wrong"


@pytest.mark.parametrize(
    ("script", "program"),
    [
        ("p = Pair(1, 2)\nassert p.total() == 3 and p.a == 1", "class Pair:\n def __init__(s, a, b): s.a, s.b = a, b\n def total(s): return s.a + s.b"),
        ("assert longest([Pair(5, 24), Pair(39, 60)], 2) == 2", "class Pair:\n def __init__(s, a, b): s.a, s.b = a, b\ndef longest(a, n): return sum(p.a < p.b for p in a)"),
        ("assert apply(lambda x: x * 2, [1, 2]) == [2, 4]", "def apply(g, a): return [g(x) for x in a]"),
        ("assert list(count(3)) == [0, 1, 2]", "def count(n): yield from range(n)"),
        ("try:\n    f(-1)\nexcept ValueError as e:\n    assert str(e) == 'no'", "def f(x): raise ValueError('no')"),
        ("a = [3, 1]\nf(a)\nassert a == [1, 3]", "def f(a): a.sort()"),
        ("assert math.isclose(f(2), 2 ** 0.5)", "import math\ndef f(x): return math.sqrt(x)"),
        ("h = ListNode(1, ListNode(2))\nassert Solution().rev(h).next.val == 1", "class Solution:\n def rev(self, h: Optional[ListNode]):\n  p = None\n  while h: h.next, p, h = p, h, h.next\n  return p"),
        ("assert depth(TreeNode(1, TreeNode(2), None)) == 2", "def depth(t): return 0 if t is None else 1 + max(depth(t.left), depth(t.right))"),
    ],
)  # fmt: skip
def test_scripts_that_use_more_than_plain_data(sandbox, script, program):
    bound = ("f", "Pair", "Solution") if "Solution" in program else ()
    given = grade_program(program, Problem((Script(script, tuple(b for b in bound if b in program)),)), sandbox=sandbox)
    assert given.verdict == "passed", given


def test_what_a_reply_continues(sandbox):
    starter = "import math\n\ndef f(x):\n    '''The next number.'''\n"
    problem = Problem((Script("assert f(1) == 2", ("f",)),), starter=starter)
    for program in ("    return x + 1", "def f(x):\n    return x + 1", "def f(x):\n    return math.floor(x) + 1"):
        assert grade_program(program, problem, sandbox=sandbox).verdict == "passed", program


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler here")
def test_cpp(sandbox):
    problem = Problem((Stdin("1 2", "3"), Stdin("4 5", "9")), language="cpp")
    good = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }"
    assert grade(f"```cpp\n{good}\n```", problem, sandbox=sandbox).verdict == "passed"
    assert grade_program("int main( {", problem, sandbox=sandbox).verdict == "compile_error"
    fork = "#include <unistd.h>\n#include <iostream>\nint main() { std::cout << (fork() < 0 ? 3 : 0); }"
    assert grade_program(fork, Problem((Stdin("", "3"),), language="cpp"), sandbox=sandbox).verdict == "passed"
    secret = (
        '#include <fstream>\n#include <iostream>\nint main() { std::ifstream f("/etc/passwd"); std::cout << f.good(); }'
    )
    assert grade_program(secret, Problem((Stdin("", "0"),), language="cpp"), sandbox=sandbox).verdict == "passed"
    included = '#include "/etc/passwd"\nint main() {}'
    given = grade_program(included, problem, sandbox=sandbox)
    assert given.verdict == "compile_error" and "root:" not in given.failing[1].error


class Remote:
    """A runner of another make."""

    def run(self, program: str, stdin: bytes, limits: Limits) -> Ran:
        return Ran(0, stdin)


def test_a_runner_of_ones_own():
    assert grade_program("anything", ECHO, sandbox=Remote()).verdict == "passed"
    assert grade_program("anything", Problem((Call("f", (), 1),)), sandbox=Remote()).verdict == "infrastructure"


def test_many_at_once_and_a_deadline(sandbox):
    replies = [("```python\nprint(input())\n```", ECHO), ("no", ECHO), ("```\nprint(8)\n```", ECHO)] * 4
    assert [g.verdict for g in grade_all(replies, sandbox=sandbox)] == ["passed", "no_code", "wrong"] * 4
    late = grade_all(replies[:3], sandbox=sandbox, deadline=-1)
    assert {g.verdict for g in late} == {"infrastructure"}


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```\n```python\nb\n```", "b\n"),
        ("```python\na\n```\n```bash\nls\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("~~~py\na\n~~~", "a\n"),
        ("```Python3\r\na\r\n```\r\n", "a\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```json\n{}\n```", None),
        ("```python\n\n```", None),
        ("```python\na", None),
    ],
)
def test_extraction(text, program):
    assert extract(text) == program
