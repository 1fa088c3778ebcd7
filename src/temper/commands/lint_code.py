"""`temper check` of rows with tests for programs: the tests can be read, and the reference programs pass them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from temper.code.grader import Grade, grade_program
from temper.code.refusals import SandboxError
from temper.code.rows import NoTests, read_tests, solutions_of
from temper.code.sandbox import shared_sandbox
from temper.code.tests import Tests
from temper.data.findings import Findings, clip
from temper.data.rows import Row
from temper.errors import Fault
from temper.types import Prompt

TRIED = 3  # reference programs of a row: one that passes is enough
AT_ONCE = 16


def check_programs(pairs: Sequence[tuple[Row, Prompt]], found: Findings) -> dict[str, float]:
    """Bad rows for tests that cannot be run and for reference programs that none passes; the share of reference
    programs that pass, by the reward's name (nothing where there are none). Raises SandboxError, with the bad rows so
    far, where they cannot be run here."""
    runnable: list[tuple[Row, Tests, list[str]]] = []
    for row, prompt in pairs:
        try:
            tests = read_tests(prompt.row)
        except NoTests as problem:
            found.bad(row.number, row.place(found.path), "its tests cannot be run", str(problem))
            continue
        runnable.append((row, tests, solutions_of(prompt.row)[:TRIED]))
    with_programs = [item for item in runnable if item[2]]
    if not with_programs:
        if runnable:
            found.note(f"no reference programs: the tests of {len(runnable):,} rows were read, and not tried")
        return {}
    try:
        grades = list(_graded(with_programs))
    except SandboxError as error:
        raise SandboxError((*found.faults(), *error.faults)) from None
    _refuse_what_broke(grades, found)
    for (row, _, _), grade in zip(with_programs, grades, strict=True):
        if grade.verdict != "passed":
            found.bad(row.number, row.place(found.path), "its reference program does not pass its tests", _why(grade))
    return {"code": sum(grade.verdict == "passed" for grade in grades) / len(grades)}


def _refuse_what_broke(grades: Sequence[Grade], found: Findings) -> None:
    """Programs that the sandbox could not run say nothing of their rows."""
    broken = [grade for grade in grades if grade.verdict == "infrastructure"]
    if broken:
        what = f"the sandbox could not run {len(broken):,} of {len(grades):,} reference programs"
        fix = "`temper doctor` shows what the sandbox needs"
        raise SandboxError((*found.faults(), Fault(what, found.path, _why(broken[0]), fix)))


def _graded(items: Sequence[tuple[Row, Tests, list[str]]]) -> Iterator[Grade]:
    sandbox = shared_sandbox()
    for start in range(0, len(items), AT_ONCE):
        yield from sandbox.map(lambda item: _best(item[1], item[2]), items[start : start + AT_ONCE])
        _progress(min(start + AT_ONCE, len(items)), len(items))


def _best(tests: Tests, programs: Sequence[str]) -> Grade:
    """The grade of the first program that passes, else of the first."""
    grades = []
    for program in programs:
        grades.append(grade_program(program, tests))
        if grades[-1].verdict == "passed":
            return grades[-1]
    return grades[0]


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        width = 30 * done // of
        end = "\n" if done == of else ""
        sys.stderr.write(f"\rreference programs {'█' * width}{'░' * (30 - width)} {done:,} of {of:,}{end}")
        sys.stderr.flush()


def _why(grade: Grade) -> str:
    if grade.failing is None:
        return grade.verdict
    number, outcome = grade.failing
    parts = [f"{grade.verdict} in test {number}"]
    if outcome.error:
        parts.append(clip(outcome.error.strip().splitlines()[-1], 80))
    elif outcome.expected or outcome.got:
        parts.append(f"expected `{clip(outcome.expected, 40)}`, got `{clip(outcome.got, 40)}`")
    return ": ".join(parts)
