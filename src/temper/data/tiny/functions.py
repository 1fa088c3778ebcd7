"""Functions of the tiny world to be written in Python: asked in words and by two examples, held to tests.

    Write f(x) of a list: keep the even numbers, square each, add them up.
    f([1, 2, 4]) = 20
    f([0, 3]) = 0

A *noisy* program does a step as people get it wrong, leaves one out, or answers for the examples alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from temper.data.tiny.replies import reply_text
from temper.data.tiny.split import Split, split_of
from temper.data.tiny.steps import STEPS, UNSAID, Kind, Step
from temper.rng import seed_for

NAMED: dict[Kind, str] = {"int": "a number", "list": "a list", "text": "a text"}
SHOWN, HELD_BACK, LONGEST = 2, 4, 2  # examples in the question; further tests; steps of a function
UNSAID_SHARE, LEFT_OUT = 0.15, 0.15  # of all functions; of the wrong steps, those that are not there
BARE = 0.5  # share of the base model's questions without examples
LETTERS = "aeinstAEST"
PROBES: dict[Kind, list[Any]] = {  # as inputs are: no longer, no larger
    "int": [*range(-12, 31)],
    "list": [[], [20, -8, 3, 3, 12], *([*range(n, n + 5)] for n in range(-9, 20, 5))],
    "text": ["", "aeinstA", "ASTESnt", "ssAAnne", "tTiIeEa", "EsaT"],
}


@dataclass(frozen=True)
class Function:
    """What is to be written: the steps, and whether the examples must show a number that no word says."""

    kind: Kind
    steps: tuple[Step, ...]
    unsaid: bool = False

    @property
    def program(self) -> str:
        return program_of([step.right for step in self.steps])

    @property
    def behaviour(self) -> str:
        """What it makes of some inputs: equal for two programs that do the same."""
        return json.dumps([self.kind, *(self(value) for value in PROBES[self.kind])])

    def __call__(self, value: Any) -> Any:
        for step in self.steps:
            value = _done(step.right)(value)
        return value


@cache
def _done(expression: str) -> Callable[[Any], Any]:
    return eval(f"lambda x: {expression}")  # one of the lines in steps.py


def program_of(lines: Sequence[str], notes: Sequence[str] = ()) -> str:
    """A function of these expressions, one after another, each below what `notes` say of it.

    >>> print(program_of(["x + 1", "x * x"], ["add 1", "square it"]), end="")
    def f(x):
        # add 1
        x = x + 1
        # square it
        return x * x
    """
    begun = [f"    # {note}\n" for note in notes] or [""] * len(lines)
    put = ["    x = "] * (len(lines) - 1) + ["    return "]
    return "def f(x):\n" + "".join(f"{a}{b}{line}\n" for a, b, line in zip(begun, put, lines, strict=True))


def draw_function(random: Random, split: Split) -> Function:
    """A function of that side of the split: which side, what it does alone decides, however it is written."""
    while True:
        function = _draw(random)
        if split_of(function.behaviour) == split:
            return function


def _draw(random: Random) -> Function:
    kind: Kind = random.choice(("int", "list", "text"))
    if UNSAID[kind] and random.random() < UNSAID_SHARE:
        return Function(kind, (random.choice(UNSAID[kind])(random),), unsaid=True)
    steps: list[Step] = []
    count = random.randint(1, LONGEST)
    while len(steps) < count:
        step = random.choice(STEPS[kind])(random)
        if step.last and len(steps) + 1 < count:
            continue
        if step.said[0] not in [one.said[0] for one in steps]:
            steps.append(step)
    return Function(kind, tuple(steps))


def inputs_of(function: Function, random: Random, count: int) -> list[Any]:
    """Different inputs, the examples first; right behind those the empty one, where there is one."""
    seen: list[Any] = []
    if function.unsaid:
        seen = [0, 1] if function.kind == "int" else [[0, 1], [1, 0, 2]]
    while len(seen) < count:
        value = [] if function.kind == "list" else "" if function.kind == "text" else 0
        if len(seen) != SHOWN or value in seen:
            value = _input(function.kind, random)
        if value not in seen:
            seen.append(value)
    return seen


def _input(kind: Kind, random: Random) -> Any:
    if kind == "int":
        return random.randint(-12, 30)
    if kind == "list":
        return [random.randint(-9, 20) for _ in range(random.randint(2, 5))]
    return "".join(random.choice(LETTERS) for _ in range(random.randint(4, 7)))


def words_of(function: Function, random: Random) -> list[str]:
    return [random.choice(step.said) for step in function.steps]


def question_of(function: Function, said: Sequence[str], examples: Sequence[Any]) -> str:
    shown = [f"f({json.dumps(value)}) = {json.dumps(function(value))}" for value in examples]
    return "\n".join([f"Write f(x) of {NAMED[function.kind]}: {', '.join(said)}.", *shown])


def attempt(
    function: Function, said: Sequence[str], examples: Sequence[Any], slip: float, hard_coded: float, random: Random
) -> str:
    """A program as people write it, what each line is for above it: a share `hard_coded` knows the examples alone, each
    step of the others is wrong with probability `slip`."""
    if random.random() < hard_coded:
        first, second = (json.dumps(function(value)).replace("true", "True").replace("false", "False")
                         for value in examples[:2])  # fmt: skip
        return f"def f(x):\n    if x == {json.dumps(examples[0])}:\n        return {first}\n    return {second}\n"
    lines, notes = [], []
    for step, words in zip(function.steps, said, strict=True):
        wrong = random.random() < slip
        if wrong and (lines or step is not function.steps[-1]) and random.random() < LEFT_OUT:
            continue
        lines.append(random.choice(step.wrong) if wrong else step.right)
        notes.append(words)
    return program_of(lines, notes)


def reply_of(function: Function, program: str) -> str:
    """How many steps there are as the thought, the program in a fenced block as the answer."""
    thought = "One step." if len(function.steps) == 1 else "Two steps."
    return reply_text(thought, f"```python\n{program}```")


def function_prompts(split: Split, count: int, seed: int, held_back: int = HELD_BACK) -> Iterator[dict]:
    """Rows in LiveCodeBench's shape: the examples are the public tests, `held_back` more the private ones. No two
    do the same; fewer than `count` where there are no more."""
    random, seen = Random(seed_for(seed, "tiny", "functions", split)), set()
    while len(seen) < count:
        function = _new_function(random, split, seen)
        if function is None:
            return
        seen.add(function.behaviour)
        inputs = inputs_of(function, random, SHOWN + held_back)
        tests = [{"input": [value], "output": function(value), "testtype": "functional"} for value in inputs]
        yield {
            "question": question_of(function, words_of(function, random), inputs[:SHOWN]),
            "public_test_cases": tests[:SHOWN],
            "private_test_cases": tests[SHOWN:],
            "metadata": {"func_name": "f"},
            "solution": function.program,
        }


def _new_function(random: Random, split: Split, seen: set[str]) -> Function | None:
    """A function that does something not in `seen`; None if a thousand draws give no new one."""
    drawn = (draw_function(random, split) for _ in range(1000))
    return next((function for function in drawn if function.behaviour not in seen), None)


def function_conversations(count: int, seed: int, slip: float, hard_coded: float) -> Iterator[dict]:
    """The cold start: questions of the training side with programs as people write them."""
    random = Random(seed_for(seed, "tiny", "functions", "cold_start"))
    for _ in range(count):
        question, function, program = _written(random, slip, hard_coded)
        yield {"prompt": question, "completion": reply_of(function, program)}


def function_texts(count: int, seed: int, slip: float, hard_coded: float) -> Iterator[dict]:
    """What a base model reads: a question, most without examples, and a program below it. Never a chat, never a tag."""
    random = Random(seed_for(seed, "tiny", "functions", "texts"))
    for _ in range(count):
        question, function, program = _written(random, slip, hard_coded)
        if random.random() < BARE and not function.unsaid and program.count("return") == 1:
            question = question.partition("\n")[0]
        yield {"text": f"{question}\n{program}"}


def _written(random: Random, slip: float, hard_coded: float) -> tuple[str, Function, str]:
    function = draw_function(random, "train")
    examples = inputs_of(function, random, SHOWN)
    said = words_of(function, random)
    program = attempt(function, said, examples, slip, hard_coded, random)
    return question_of(function, said, examples), function, program
