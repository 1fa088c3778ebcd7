"""Tests that stand in the question, tests that are held back, and programs that know the first by heart."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from temper.code.tests import Call, Case, Script, Stdin, Tests

LONGEST_CODE = 1 << 14  # characters of a program that is looked into


def with_shown(tests: Tests, question: str) -> Tests:
    """The tests with those first that stand in the question, where the row does not itself say which do.

    >>> with_shown(Tests((Stdin("4 5", "9"), Stdin("2 3", "5"))), "Add.\\nInput: 2 3\\nOutput: 5").public
    1
    """
    if tests.public or not question:
        return tests
    seen = [case for case in tests.cases if _stands_in(case, question)]
    if not seen:
        return tests
    held_back = [case for case in tests.cases if case not in seen]
    return replace(tests, cases=(*seen, *held_back), public=len(seen))


def _stands_in(case: Case, question: str) -> bool:
    if isinstance(case, Script):
        return case.source.strip().splitlines()[-1].strip() in question
    if isinstance(case, Call):
        return False  # how a question writes a call and its value is anybody's guess: rows that have both say so
    given, wanted = case.input.strip(), case.output.strip()
    if not given or not wanted:
        return False
    pattern = rf"(?<!\S){re.escape(given)}(?!\S)"
    return any(_word_in(wanted, question[found.end() :]) for found in re.finditer(pattern, question))


def _word_in(text: str, question: str) -> bool:
    return re.search(rf"(?<!\S){re.escape(text)}(?!\S)", question) is not None


def hard_codes(program: str, shown: Sequence[Case]) -> bool:
    """Whether a program compares with, or looks up, an input that stands in its question.

    >>> case = Call("f", (7,), 12)
    >>> hard_codes("def f(x): return 12 if x == 7 else 0", [case]), hard_codes("def f(x): return x + 5", [case])
    (True, False)
    """
    try:
        tree = ast.parse(program[:LONGEST_CODE])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    inputs = {repr(_as_list(value)) for case in shown for value in _inputs(case)}
    return any(repr(_as_list(value)) in inputs for value in _looked_for(tree))


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, (list, tuple)) else value


def _inputs(case: Case) -> list[Any]:
    if isinstance(case, Stdin):
        return [case.input, case.input.strip(), case.input.split(), *_numbers(case.input)]
    if isinstance(case, Call):
        return [*case.arguments, list(case.arguments), case.arguments]
    return list(_arguments(case.source))


def _numbers(text: str) -> list[int]:
    return [int(text)] if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text) else []


def _arguments(source: str) -> Iterator[Any]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield from (value for argument in node.args if (value := _literal(argument)) is not None)


def _looked_for(tree: ast.AST) -> Iterator[Any]:
    for node in ast.walk(tree):
        asked: list[ast.expr | None] = []
        if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.In)) for op in node.ops):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            asked = list(node.keys)
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        yield from (value for one in asked if one is not None and (value := _literal(one)) is not None)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
