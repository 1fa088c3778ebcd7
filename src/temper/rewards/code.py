"""Does the program in the reply pass its row's tests?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from temper.aside import Aside, held_of
from temper.code.extract import extract
from temper.code.grader import Grade, Outcome, Score, Scoring, grade_all
from temper.code.refusals import SandboxError
from temper.code.rows import NoTests, read_tests
from temper.code.sandbox import shared_sandbox
from temper.code.shown import with_shown
from temper.code.tests import Tests
from temper.code.tiers import Tier
from temper.errors import Fault
from temper.rewards.returns import Unknown
from temper.types import Prompt, Reply

REMEMBERED = 1 << 15  # grades kept, for metrics and samples to tell of
LARGE_TESTS = 1 << 28  # bytes of tests that were set aside which are held at a time
DEADLINE = 600.0  # seconds that one call may take; what was not run by then is nobody's fault
UNSETTLED = ("infrastructure", "timeout", "memory")  # verdicts that a second run might not give again
Key = tuple[str, str | None]  # a row and a program
# Of all programs so far, those that it could not run: the sandbox does not work, and the run ends. Programs that no
# time was left for, in a step full of others without end, are not among them
BROKEN_SHARE, BROKEN_LEAST = 0.1, 8


class InfrastructureFailure(Unknown):
    """The sandbox could not run a program: says nothing of it."""


class CodeReward:
    """1.0 if the program in the reply's answer passes all tests of the prompt's row (`code/rows.py`), else 0.0; by
    another `scoring`, the share that it passes. A prompt whose row has no tests has no such reward (None).

    Several replies are graded at once, on every core, while others are still being drawn. Raises SandboxError where
    there is no sandbox, and where more than a tenth of the programs could not be run.

    >>> from temper.text.reply import parse_reply
    >>> row = {"problem": "Double it.", "tests": [{"input": "2", "output": "4"}]}
    >>> prompt = Prompt("1", "programs", (), gold=None, row=row)
    >>> reply = "<think>Easy.</think><answer>```python\\nprint(2 * int(input()))\\n```</answer>"
    >>> code(prompt, parse_reply(reply)), code(prompt, parse_reply("<think>No.</think><answer>4</answer>"))
    (1.0, 0.0)
    """

    overlaps = True

    def __init__(self, scoring: Scoring | None = None, deadline: float = DEADLINE, tier: Tier = "landlock"):
        self.scoring, self.deadline = scoring or Scoring(), deadline
        self.tier: Tier = tier
        self._tests: OrderedDict[str, tuple[Tests | str, int]] = OrderedDict()  # or why there are none; bytes aside
        self._grades: OrderedDict[Key, tuple[Scoring, Grade]] = OrderedDict()
        self._asked = self._broken = 0
        self._lock = Lock()

    def scored(self, score: Score, tier: Tier = "landlock") -> CodeReward:
        """The reward with another score for the tests, in another sandbox (`code/tiers.py`); it shares what is
        remembered of tests and grades.

        >>> code.scored("share").scoring.of(1, 4)
        0.25
        """
        other = CodeReward(Scoring(score), self.deadline, tier)
        other._tests, other._grades, other._lock = self._tests, self._grades, self._lock
        return other

    def __call__(self, prompt: Prompt, reply: Reply) -> float | None:
        (value,) = self.batch([(prompt, reply)])
        if isinstance(value, BaseException):
            raise value
        return value

    def batch(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[float | BaseException | None]:
        """The reward of each reply; an InfrastructureFailure where the sandbox could not say. A program that was run on
        a prompt's tests is not run on them again."""
        tests = [self.tests_of(prompt) for prompt, _ in pairs]
        asked = {self._key(*pair, of_one): (pair, of_one) for pair, of_one in zip(pairs, tests, strict=True) if of_one}
        new = {key: (pair[1].answer or "", of_one) for key, (pair, of_one) in asked.items() if not self._settled(key)}
        grades = grade_all(list(new.values()), self.scoring, shared_sandbox(self.tier), self.deadline) if new else []
        known = {key: grade for key in asked if (grade := self._grades.get(key))}
        found = {key: grade for key, (_, grade) in known.items()} | dict(zip(new, grades, strict=True))
        for key, grade in found.items():
            self._remember(key, grade, new=key in new)
        values: list[float | BaseException | None] = []
        for pair, of_one in zip(pairs, tests, strict=True):
            grade = found[self._key(*pair, of_one)] if of_one else None
            broken = grade is not None and grade.verdict == "infrastructure"
            values.append(InfrastructureFailure(_why(grade)) if grade and broken else grade and grade.score)
        return values

    def _key(self, prompt: Prompt, reply: Reply, tests: Tests) -> Key:
        return _place_of(prompt), extract(reply.answer or "", tests.language)

    def _settled(self, key: Key) -> bool:
        """Whether the grade is known, and would be the same again: time and the sandbox's own faults might not be."""
        scoring, grade = self._grades.get(key, (None, None))
        return grade is not None and scoring == self.scoring and grade.verdict not in UNSETTLED

    def tests_of(self, prompt: Prompt) -> Tests | None:
        """The tests of a prompt's row; None where it has none that can be run."""
        found = self._read(prompt)
        return None if isinstance(found, str) else found

    def no_tests(self, prompt: Prompt) -> str:
        """Why a prompt's row has no tests that can be run; "" where it has."""
        found = self._read(prompt)
        return found if isinstance(found, str) else ""

    def _read(self, prompt: Prompt) -> Tests | str:
        """The tests are read once; large ones, which stand in a file, again when others took their place."""
        key = _place_of(prompt)
        with self._lock:
            if key not in self._tests:
                try:
                    found: Tests | str = with_shown(read_tests(prompt.row), prompt.text)
                except NoTests as problem:
                    found = str(problem)
                size = sum(value.size for value in held_of(prompt.row).values() if isinstance(value, Aside))
                self._tests[key] = (found, size)
                if size or len(self._tests) > REMEMBERED:
                    self._forget()
            self._tests.move_to_end(key)
            return self._tests[key][0]

    def _forget(self) -> None:
        """Those not asked for lately; of large ones as many as are more than LARGE_TESTS together."""
        aside = sum(size for _, size in self._tests.values())
        for key, (_, size) in list(self._tests.items())[:-1]:
            if len(self._tests) > REMEMBERED or (size and aside > LARGE_TESTS):
                del self._tests[key]
                aside -= size
            elif aside <= LARGE_TESTS:
                break

    def grade_of(self, prompt: Prompt, reply: Reply) -> Grade | None:
        """How a reply was graded, if that was not long ago."""
        tests = self.tests_of(prompt)
        known = None if tests is None else self._grades.get(self._key(prompt, reply, tests))
        return None if known is None else known[1]

    def _remember(self, key: Key, grade: Grade, new: bool) -> None:
        with self._lock:
            self._grades[key] = (self.scoring, _slim(grade))
            self._grades.move_to_end(key)
            while len(self._grades) > REMEMBERED:
                self._grades.popitem(last=False)
            self._asked += new
            self._broken += new and grade.verdict == "infrastructure" and grade.program is not None
        if self._broken >= BROKEN_LEAST and self._broken > BROKEN_SHARE * self._asked:
            what = f"the sandbox could not run {self._broken} of {self._asked} programs"
            raise SandboxError(Fault(what, why=_why(grade), fix="`temper doctor` shows what the sandbox needs"))


def _place_of(prompt: Prompt) -> str:
    """What names a row: two files of a task may number theirs alike."""
    return "\0".join((prompt.task, prompt.id, prompt.place))


def _slim(grade: Grade) -> Grade:
    """The grade with the texts of its first failing test alone: those of the others are told to nobody."""
    shown = grade.failing[0] if grade.failing else 0
    outcomes = (one if n == shown else Outcome(one.verdict) for n, one in enumerate(grade.outcomes, 1))
    return replace(grade, outcomes=tuple(outcomes))


def _why(grade: Grade) -> str:
    failing = grade.failing
    return failing[1].error if failing else "it could not be run"


def told(grade: Grade) -> dict[str, object]:
    """A grade as samples and reports show it: the verdict, tests passed, and the first that failed. For people: it is
    never shown to the model.

    >>> told(Grade("wrong", 0.0, "print(1)", (Outcome("passed"), Outcome("wrong", "2", "4", "1"))))["failing"]
    {'test': 2, 'input': '2', 'expected': '4', 'got': '1', 'error': ''}
    """
    shown: dict[str, object] = {"verdict": grade.verdict, "passed": grade.passed, "program": grade.program or ""}
    if grade.failing is not None:
        number, of_test = grade.failing
        shown["failing"] = _of_test(number, of_test)
    return shown


def _of_test(number: int, outcome: Outcome) -> dict[str, object]:
    return {
        "test": number, "input": outcome.input, "expected": outcome.expected, "got": outcome.got,
        "error": outcome.error,
    }  # fmt: skip


code = CodeReward()
