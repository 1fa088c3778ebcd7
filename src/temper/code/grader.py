"""Is a program right? Outside its process: what a test expects never enters it, and only the right output passes.

A fresh process for each test. What the sandbox itself could not do is `infrastructure`: no fault of the program.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from temper.code import cpp, values
from temper.code.compare import same_output, same_value
from temper.code.extract import extract
from temper.code.limits import Limits, Ran, Runner
from temper.code.sandbox import NUMPY, Sandbox, shared_sandbox, source
from temper.code.shown import hard_codes
from temper.code.tests import Call, Case, Script, Stdin, Tests, called
from temper.code.zygote import Job, joined

Verdict = Literal[
    "passed", "wrong", "runtime_error", "timeout", "memory", "output_limit", "no_code", "compile_error",
    "infrastructure",
]  # fmt: skip
VERDICTS: tuple[Verdict, ...] = (
    "passed", "wrong", "runtime_error", "timeout", "memory", "output_limit", "no_code", "compile_error",
    "infrastructure",
)  # fmt: skip
Score = Literal["all", "share", "both"]
SHOWN = 2000  # characters of an input or output kept for people to read
LONGEST_PROGRAM = 1 << 18


@dataclass(frozen=True)
class Outcome:
    """What came of one test. Texts are cut for people to read; a model never sees them."""

    verdict: Verdict
    input: str = ""
    expected: str = ""
    got: str = ""
    error: str = ""
    cpu: float = 0.0


@dataclass(frozen=True)
class Grade:
    """A program's verdict (that of its first test that did not pass), its score from 0 to 1, and how each test that
    was run came out, in order. `shown_only`: it passed the tests that stand in its question and failed one that is
    held back; `hard_coded`: and it compares with an input that stands there."""

    verdict: Verdict
    score: float
    program: str | None
    outcomes: tuple[Outcome, ...] = ()
    shown_only: bool = False
    hard_coded: bool = False

    @property
    def passed(self) -> int:
        return sum(outcome.verdict == "passed" for outcome in self.outcomes)

    @property
    def failing(self) -> tuple[int, Outcome] | None:
        """The first test that did not pass, and its number from 1."""
        numbered = enumerate(self.outcomes, 1)
        return next(((n, outcome) for n, outcome in numbered if outcome.verdict != "passed"), None)


@dataclass(frozen=True)
class Scoring:
    """How tests become a score: `all` of them or nothing, the `share` that passed, or `both`: `weight` for all and the
    rest for the share. `seconds` is what one program may take on the clock in all."""

    score: Score = "all"
    weight: float = 0.5
    seconds: float = 30.0

    def of(self, passed: int, tests: int) -> float:
        """The score of so many passed of so many tests.

        >>> Scoring("both", 0.5).of(1, 4), Scoring().of(3, 4), Scoring("share").of(3, 4)
        (0.125, 0.0, 0.75)
        """
        whole, share = float(passed == tests > 0), passed / tests if tests else 0.0
        if self.score == "all":
            return whole
        return share if self.score == "share" else self.weight * whole + (1 - self.weight) * share


def grade(reply: str, tests: Tests, scoring: Scoring | None = None, sandbox: Sandbox | Runner | None = None) -> Grade:
    """The grade of the program in a reply: its last fenced block. Raises SandboxError where there is no sandbox.

    >>> tests = Tests((Stdin("2 3", "5"), Stdin("4 5", "9")))
    >>> grade("```python\\nprint(sum(map(int, input().split())))\\n```", tests).verdict
    'passed'
    >>> grade("```python\\nprint(5)\\n```", tests, Scoring("share"))
    Grade(verdict='wrong', score=0.5, ...
    """
    program = extract(reply, tests.language)
    if program is None:
        return Grade("no_code", 0.0, None)
    return grade_program(program, tests, scoring, sandbox)


def grade_program(
    program: str, tests: Tests, scoring: Scoring | None = None, sandbox: Sandbox | Runner | None = None
) -> Grade:
    """The grade of a program's text; see `grade`."""
    scoring = scoring or Scoring()
    if len(program) > LONGEST_PROGRAM:
        error = f"a program of {len(program):,} characters; {LONGEST_PROGRAM:,} are read"
        return Grade("compile_error", 0.0, program[:SHOWN], (Outcome("compile_error", error=error),))
    runner = sandbox if sandbox is not None else shared_sandbox()
    whole = f"{tests.starter.rstrip()}\n{program}" if tests.starter else program
    if tests.language == "cpp":
        outcomes = _cpp_outcomes(runner, whole, tests, scoring)
    else:
        problem = "the program has a NUL character" if "\0" in whole else ""
        run = lambda case: _python_outcome(runner, whole, case, tests)  # noqa: E731
        outcomes = [Outcome("compile_error", error=problem)] if problem else _each(run, tests, scoring)
    return _graded(whole, outcomes, tests, scoring)


def _graded(program: str, outcomes: list[Outcome], tests: Tests, scoring: Scoring) -> Grade:
    verdicts: list[Verdict] = [outcome.verdict for outcome in outcomes]
    if "infrastructure" in verdicts:
        return Grade("infrastructure", 0.0, program, tuple(outcomes))
    first: list[Verdict] = [verdict for verdict in verdicts if verdict != "passed"]
    verdict: Verdict = first[0] if first else "passed"
    shown_only = verdict in ("wrong", "runtime_error") and 0 < tests.public <= verdicts.index(verdict)
    hard_coded = shown_only and hard_codes(program, tests.cases[: tests.public])
    score = scoring.of(verdicts.count("passed"), len(tests))
    return Grade(verdict, score, program, tuple(outcomes), shown_only, hard_coded)


def _each(run: Any, tests: Tests, scoring: Scoring) -> list[Outcome]:
    """The tests one by one; the first that fails is the last where only all count."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + scoring.seconds
    for case in tests.cases:
        if outcomes and time.monotonic() > end:
            outcomes.append(Outcome("timeout", error=f"all tests together took more than {scoring.seconds:g} s"))
            break
        outcomes.append(run(case))
        verdict = outcomes[-1].verdict
        fatal = verdict in ("compile_error", "infrastructure")
        if fatal or (verdict != "passed" and scoring.score == "all"):
            break
    return outcomes


def _python_outcome(runner: Sandbox | Runner, program: str, case: Case, tests: Tests) -> Outcome:
    if isinstance(case, Stdin):
        limits = _room_for(tests.limits, case.output)
        return _of_output(runner.run(program, _bytes(case.input), limits), case, tests)
    if not isinstance(runner, Sandbox):
        return Outcome("infrastructure", error="this runner runs programs on inputs only, no calls or scripts")
    if isinstance(case, Call):
        return _of_call(runner, program, case, tests)
    return _of_script(runner, program, case, tests)


def _cpp_outcomes(runner: Sandbox | Runner, program: str, tests: Tests, scoring: Scoring) -> list[Outcome]:
    if not isinstance(runner, Sandbox):
        return [Outcome("infrastructure", error="this runner runs Python programs only")]
    with cpp.compiled(runner, program) as (binary, said):
        if binary is None:
            verdict: Verdict = "infrastructure" if said.broken else "compile_error"
            return [
                Outcome(verdict, error=said.broken or text_of(said.stderr) or "the compiler ended without a program")
            ]
        return _each(lambda case: _cpp_outcome(runner, binary, case, tests), tests, scoring)


def _cpp_outcome(runner: Sandbox, binary: Path, case: Case, tests: Tests) -> Outcome:
    if not isinstance(case, Stdin):
        return Outcome("infrastructure", error="tests of C++ programs are inputs and outputs only")
    ran = cpp.run_binary(runner, binary, _bytes(case.input), _room_for(tests.limits, case.output))
    return _of_output(ran, case, tests)


def _room_for(limits: Limits, output: str) -> Limits:
    return replace(limits, output=max(limits.output, 2 * len(output) + 1024))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def text_of(data: bytes, keep: int = SHOWN) -> str:
    """Bytes as text to be shown: cut in the middle."""
    text = data[: 4 * keep].decode("utf-8", "replace")
    return text if len(text) <= keep else f"{text[: keep // 2]}…{text[-keep // 2 :]}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return f"a {type(value).__name__} too large to show"


def _verdict_of(ran: Ran) -> Verdict | None:
    """What a run's end says by itself; a program that does not compile was never run."""
    verdict = ran.verdict
    if verdict == "runtime_error" and _did_not_compile(ran.stderr):
        return "compile_error"
    return verdict or None  # pyright: ignore[reportReturnType]


def _did_not_compile(stderr: bytes) -> bool:
    lines = stderr.rstrip().splitlines()
    kinds = (b"SyntaxError:", b"IndentationError:", b"TabError:")
    return bool(lines) and lines[-1].startswith(kinds) and b"in <module>" not in stderr


def _of_output(ran: Ran, case: Stdin, tests: Tests) -> Outcome:
    verdict = _verdict_of(ran)
    if verdict is None:
        got = ran.stdout.decode("utf-8", "replace")
        verdict = "passed" if same_output(got, case.output, tests.tolerance) else "wrong"
    error = ran.broken or text_of(ran.stderr)
    return Outcome(verdict, _cut(case.input), _cut(case.output), text_of(ran.stdout), error, ran.cpu)


def _of_call(runner: Sandbox, program: str, case: Call, tests: Tests) -> Outcome:
    request = values.pack({"do": "enter", "name": case.name, "k": "1", "a": [values.encode(a) for a in case.arguments]})
    job = Job(source(program), mode="serve", limits=tests.limits, request=request)
    ran = runner.run_jobs([job], NUMPY.search(program))[0]
    shown = {
        "input": _cut(f"{case.name}({', '.join(map(_shown, case.arguments))})"),
        "expected": _cut(_shown(case.expected)),
    }
    if not ran.answer or ran.broken or ran.flooded:
        verdict = _verdict_of(ran) or "runtime_error"
        error = ran.broken or text_of(ran.stderr) or "the program ended before it answered"
        return Outcome(verdict, error=error, cpu=ran.cpu, **shown)
    try:
        answer = json.loads(ran.answer[4:])
        if "e" in answer:
            names, text = answer["e"][0], str(answer["e"][1])
            verdict = "memory" if "MemoryError" in names else "runtime_error"
            return Outcome(verdict, error=f"{names[0]}: {text}"[:SHOWN], cpu=ran.cpu, **shown)
        got = values.json_value(answer.get("v"))
        if case.in_place:
            changed = [notation for place, notation in answer.get("c", ()) if place == 0]
            got = values.json_value(changed[0]) if changed else case.arguments[0]
        right = _is_expected(got, case, tests.tolerance)
        return Outcome("passed" if right else "wrong", got=_cut(_shown(got)), cpu=ran.cpu, **shown)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as problem:
        return Outcome("wrong", error=f"what it returned is no JSON value: {problem}"[:SHOWN], cpu=ran.cpu, **shown)


def _is_expected(got: Any, case: Call, tolerance: float | None) -> bool:
    if same_value(got, case.expected, tolerance):
        return True
    wrapped = case.wrapped and isinstance(case.expected, list) and len(case.expected) == 1
    return wrapped and same_value(got, case.expected[0], tolerance)


def _of_script(runner: Sandbox, program: str, case: Script, tests: Tests) -> Outcome:
    ours, theirs = joined()
    with ours, theirs:
        asked = Job(source(program), mode="serve", limits=tests.limits, line=ours)
        more = {"bound": list(case.bound or called(case.source))}
        asking = Job(source(case.source), mode="check", limits=tests.limits, line=theirs, reports=True, more=more)
        numpy = NUMPY.search(program) or NUMPY.search(case.source)
        ran, checked = runner.run_jobs([asked, asking], numpy, leads=1)
    return _script_outcome(ran, checked, case)


def _script_outcome(ran: Ran, checked: Ran, case: Script) -> Outcome:
    cpu = ran.cpu
    if ran.broken or checked.broken:
        return Outcome("infrastructure", error=ran.broken or checked.broken)
    if checked.status != 0 or not checked.report:  # a program's answers can do this to it: they are no answers
        error = text_of(checked.stderr) or "the test script did not end by itself"
        return Outcome(_verdict_of(checked) or "runtime_error", error=error, cpu=cpu)
    report = json.loads(checked.report[4:])
    lines = case.source.splitlines()
    place = report.get("line")
    line = lines[place - 1].strip() if isinstance(place, int) and 0 < place <= len(lines) else ""
    shown = {"input": _cut(line or case.source), "expected": report.get("right", ""), "got": report.get("left", "")}
    if report["verdict"] == "passed":
        return Outcome("passed", cpu=cpu, **shown)
    if report["verdict"] == "error":
        return Outcome("wrong", error=report["text"], cpu=cpu)
    by_itself = _verdict_of(ran) if not ran.ended or ran.flooded else None
    error = "\n".join(part for part in (report.get("text", ""), text_of(ran.stderr)) if part)
    if report["verdict"] == "wrong":
        return Outcome("wrong", error=error, cpu=cpu, **shown)
    memory = "MemoryError" in report.get("text", "")
    return Outcome("memory" if memory else by_itself or "runtime_error", error=error, cpu=cpu, **shown)


def grade_all(
    programs: Sequence[tuple[str, Tests]],
    scoring: Scoring | None = None,
    sandbox: Sandbox | None = None,
    deadline: float | None = None,
) -> list[Grade]:
    """The grades of many replies, as many at a time as there are cores, in order. After `deadline` seconds those not
    begun are `infrastructure`: nobody knows what they are worth."""
    runner = sandbox or shared_sandbox()
    end = None if deadline is None else time.monotonic() + deadline

    def one(item: tuple[str, Tests]) -> Grade:
        if end is not None and time.monotonic() > end:
            return Grade("infrastructure", 0.0, None, (Outcome("infrastructure", error="no time was left to run it"),))
        return grade(item[0], item[1], scoring, runner)

    return runner.map(one, programs)
