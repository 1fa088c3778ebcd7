"""Reasoning problems of the tiny world and their worked solutions: chains like `38+33+19-49` and linear equations.

A solution is a list of steps, each one line of arithmetic; words around it come in English, German or both.
A *noisy* solution makes slips: a step's result is off, and what follows goes on from the wrong number, as people do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from temper.data.tiny.split import Split, split_of

Tongue = Literal["en", "de", "mixed"]
LEVELS = (1, 2, 3)
FIRST = {"en": "First", "de": "Zuerst"}
THEN = {"en": "Then", "de": "Dann"}
CLOSING = {"en": "So the result is", "de": "Damit ist das Ergebnis"}
LARGEST = 99  # operands stay below half of it, partial results between 0 and it


@dataclass(frozen=True)
class Problem:
    """A problem and the operations that solve it: `start`, then each (sign, operand) in turn; or `ax ± b = c`."""

    text: str
    level: int
    chain: tuple[tuple[str, int], ...] = ()
    equation: tuple[int, str, int, int] | None = None  # a, sign, b, c

    @property
    def answer(self) -> int:
        return solve(self)[-1][1]


def draw_problem(random: Random, split: Split, levels: Sequence[int] = LEVELS) -> Problem:
    """A problem of that side of the split and one of the levels; three in ten are equations.

    >>> draw_problem(Random(0), "train", [2]).level
    2
    """
    while True:
        chosen = random.choice(levels) if len(levels) > 1 else levels[0]
        problem = _equation(random, chosen) if random.random() < 0.3 else _chain(random, chosen)
        if split_of(problem.text) == split:
            return problem


def _chain(random: Random, level: int) -> Problem:
    total = random.randint(2, LARGEST // 2)
    chain: list[tuple[str, int]] = [("+", total)]
    for _ in range(level):
        sign, operand = random.choice("+-"), random.randint(2, LARGEST // 2)
        if not 0 <= (total + operand if sign == "+" else total - operand) <= LARGEST:
            sign = "-" if sign == "+" else "+"
        if not 0 <= (total + operand if sign == "+" else total - operand) <= LARGEST:
            operand = random.randint(0, total) if sign == "-" else random.randint(0, LARGEST - total)
        total = total + operand if sign == "+" else total - operand
        chain.append((sign, operand))
    text = str(chain[0][1]) + "".join(f"{sign}{operand}" for sign, operand in chain[1:])
    return Problem(text, level, chain=tuple(chain))


def _equation(random: Random, level: int) -> Problem:
    factor = 1 if level == 1 else random.randint(2, 5 if level == 2 else 9)
    unknown = random.randint(1, 9 if level > 1 else LARGEST // 2)
    sign, shift = random.choice("+-"), random.randint(1, 30)
    if sign == "-":
        shift = min(shift, factor * unknown)
    right = factor * unknown + shift if sign == "+" else factor * unknown - shift
    left = "x" if factor == 1 else f"{factor}x"
    return Problem(f"Solve: {left} {sign} {shift} = {right}", level, equation=(factor, sign, shift, right))


def solve(problem: Problem, slip: float = 0.0, random: Random | None = None) -> list[tuple[str, int]]:
    """The steps as (line, result); each result is off with probability `slip`.

    >>> solve(Problem("38+33-49", 2, chain=(("+", 38), ("+", 33), ("-", 49))))
    [('38+33=71', 71), ('71-49=22', 22)]
    >>> solve(Problem("Solve: 3x - 5 = 10", 2, equation=(3, "-", 5, 10)))
    [('3x=10+5=15', 15), ('x=15/3=5', 5)]
    """

    def write(value: int) -> int:
        return slipped(value, random) if random is not None and random.random() < slip else value

    steps: list[tuple[str, int]] = []
    if problem.equation is not None:
        factor, sign, shift, right = problem.equation
        back = "-" if sign == "+" else "+"
        value = write(right + shift if back == "+" else right - shift)
        left = "x" if factor == 1 else f"{factor}x"
        steps.append((f"{left}={right}{back}{shift}={value}", value))
        if factor > 1:
            result = write(value // factor)
            steps.append((f"x={value}/{factor}={result}", result))
        return steps
    total = problem.chain[0][1]
    for sign, operand in problem.chain[1:]:
        value = write(total + operand if sign == "+" else total - operand)
        steps.append((f"{total}{sign}{operand}={value}", value))
        total = value
    return steps


def slipped(value: int, random: Random) -> int:
    """A wrong result of the kinds people write: off by one or two, off by ten, a wrong last digit."""
    while True:
        wrong = random.choice(
            (
                value + random.choice((-2, -1, 1, 2)),
                value + random.choice((-10, 10)),
                value // 10 * 10 + random.randint(0, 9),
            )
        )
        if wrong != value and (wrong >= 0 or value < -10):  # after slips, a result may be so low that none reaches 0
            return wrong


def work_out(steps: list[tuple[str, int]], tongue: Tongue, random: Random) -> str:
    """The steps as running text; in "mixed" every sentence picks its language.

    >>> work_out([("38+33=71", 71), ("71-49=22", 22)], "en", Random(0))
    'First 38+33=71. Then 71-49=22. So the result is 22.'
    """

    def pick(words: dict[str, str]) -> str:
        return words[random.choice(("en", "de")) if tongue == "mixed" else tongue]

    sentences = [f"{pick(FIRST if i == 0 else THEN)} {line}." for i, (line, _) in enumerate(steps)]
    return " ".join([*sentences, f"{pick(CLOSING)} {steps[-1][1]}."])
