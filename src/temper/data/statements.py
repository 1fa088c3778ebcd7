"""Programming problems as they are asked: what a row says beside its question, and a program cannot do without."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from temper.code.rows import opened
from temper.data.rows import plain

_PARTS = (("input_format", "Input"), ("output_format", "Output"))  # Codeforces keeps a statement in several columns
COLUMNS = frozenset({*(column for column, _ in _PARTS), "note"})
_CALLED = re.compile(r"assert\s+(?:not\s+)?(?:\w+\()*?(?P<name>[A-Za-z_]\w*)\(")


def whole_statement(question: str, values: Mapping[str, Any]) -> str:
    """The question with what it leaves out: input and output formats with the examples, as Codeforces shows them, and
    of tests that call a function nobody names the first (MBPP, 2108.07732, shows all three; the others are held back
    here).

    >>> values = {"input_format": "Two integers.", "examples": [{"input": "1 2", "output": "3"}]}
    >>> print(whole_statement("Add them.", values))
    Add them.
    <BLANKLINE>
    Input
    Two integers.
    <BLANKLINE>
    Example
    Input:
    1 2
    Output:
    3
    >>> values = {"test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}
    >>> print(whole_statement("Write a function to add.", values))
    Write a function to add.
    <BLANKLINE>
    Your code should pass this test:
    assert add(1, 2) == 3
    """
    parts = [f"{title}\n{text}" for name, title in _PARTS if (text := _text(values.get(name))) and text not in question]
    if parts:
        parts += _examples(plain(values.get("examples")))
        parts += [f"Note\n{note}" for note in [_text(values.get("note"))] if note and note not in question]
    tests = plain(values.get("test_list"))
    first = _text(tests[0]) if isinstance(tests, list) and tests else ""
    called = _CALLED.match(first)
    if called and not _names(question, called["name"]):
        parts.append(f"Your code should pass this test:\n{first}")
    return "\n\n".join([question, *parts])


def _names(question: str, name: str) -> bool:
    """Whether a question names the function, as `add(a, b)` or `add`: in "a function to add" it is a common word."""
    if "_" in name and re.search(rf"\b{name}\b", question):
        return True
    return re.search(rf"\b{name}\s*\(|`{name}`|(?:named|called)\s+[\"']?{name}\b", question) is not None


def _examples(value: Any) -> list[str]:
    cases = opened(value)
    cases = [case for case in cases if isinstance(case, dict)] if isinstance(cases, list) else []
    texts = [(_text(case.get("input")), _text(case.get("output"))) for case in cases]
    return [f"Example\nInput:\n{given}\nOutput:\n{wanted}" for given, wanted in texts if wanted]


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
