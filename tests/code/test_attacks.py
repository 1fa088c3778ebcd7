# ruff: noqa: E501 - programs stand as they are
"""Hostile programs: none gets through, none survives, none leaves anything behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from temper.code import Call, Limits, Script, Stdin, grade_program
from temper.code import Tests as Problem
from tests.code.attacks import ALSO_DENIED, CHEATS, DEEPER, DENIED, GREEDY, HEAD

SECRET = "the answer is 4711"
ATTEMPTS = [(family, line) for family, lines in DENIED.items() for line in lines.strip().splitlines()]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o755)
    file = folder / "secret.txt"
    file.write_text(SECRET)
    return file


def descendants(root: int) -> set[int]:
    """Processes below a process, by their numbers."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grew = found | more, bool(more)
    return found - {root}


def survivors(sandbox) -> set[int]:
    zygotes = {zygote.process.pid for zygote in sandbox._every if zygote.process is not None}
    return {pid for zygote in zygotes for pid in descendants(zygote)}


def test_there_are_enough_of_them():
    assert len(ATTEMPTS) + len(GREEDY) + len(CHEATS) >= 120
    assert len(DENIED) + 3 >= 12


@pytest.mark.parametrize(("family", "line"), ATTEMPTS)
def test_what_is_denied(sandbox, outside, family, line):
    body = f"try:\n    {line}\nexcept BaseException as problem:\n    print('denied', type(problem).__name__)\nelse:\n    escaped()"
    program = HEAD.format(outside=str(outside), host=os.getpid()) + body
    before = sorted(os.listdir(outside.parent))
    ran = sandbox.run(program, b"", Limits(2, 4))
    assert not ran.broken
    assert b"ESCAPED" not in ran.stdout, ran.stdout
    assert SECRET.encode() not in ran.stdout + ran.stderr
    assert sorted(os.listdir(outside.parent)) == before
    assert outside.read_text() == SECRET
    assert not survivors(sandbox)


TRY_ALL = """
for line in sys.stdin.read().splitlines():
    try:
        exec(line)
    except BaseException:
        print("denied")
    else:
        escaped(line)
"""


@pytest.mark.parametrize("family", ALSO_DENIED)
def test_what_else_is_denied(sandbox, outside, family):
    lines = ALSO_DENIED[family].strip()
    program = HEAD.format(outside=str(outside), host=os.getpid()) + TRY_ALL
    ran = sandbox.run(program, lines.encode(), Limits(3, 10))
    assert not ran.broken
    assert b"ESCAPED" not in ran.stdout, ran.stdout
    assert ran.stdout.count(b"denied\n") == len(lines.splitlines()), ran  # every one was tried
    assert SECRET.encode() not in ran.stdout + ran.stderr
    assert os.listdir(outside.parent) == [outside.name]
    assert not survivors(sandbox)


@pytest.mark.parametrize("name", DEEPER)
def test_what_goes_deeper(sandbox, outside, name):
    ran = sandbox.run(HEAD.format(outside=str(outside), host=os.getpid()) + DEEPER[name], b"", Limits(1, 3))
    assert not ran.broken
    assert b"ESCAPED" not in ran.stdout, ran
    assert not survivors(sandbox)
    assert sandbox.run("print(1)").stdout == b"1\n"


@pytest.mark.parametrize("name", GREEDY)
def test_what_is_without_end(sandbox, outside, name):
    body, verdicts = GREEDY[name]
    program = HEAD.format(outside=str(outside), host=os.getpid()) + body
    tests = Problem((Stdin("x", "never"),), limits=Limits(1, 0.6 if verdicts == {"timeout"} else 1.2))
    given = grade_program(program, tests, sandbox=sandbox)
    assert given.verdict in (verdicts | ({"wrong"} if name == "reads without end" else set())), given
    assert given.score == 0
    assert not survivors(sandbox)


@pytest.mark.parametrize("kind", ["call", "script"])
@pytest.mark.parametrize("name", CHEATS)
def test_what_only_claims_to_be_right(sandbox, name, kind):
    script = "def check(candidate):\n    assert abs(candidate(1) - 4711) < 1e-6 and candidate(2) == 4711\ncheck(f)"
    case = Call("f", (1,), 4711) if kind == "call" else Script(script, ("f",))
    given = grade_program(CHEATS[name], Problem((case,), limits=Limits(1, 1.2)), sandbox=sandbox)
    assert given.verdict not in ("passed", "infrastructure"), given
    assert not survivors(sandbox)
