"""Exceptions that cross between a program and a test. Imported by the guest's interpreter: standard library only."""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any

values = sys.modules.get("temper_values") or __import__("temper.code.values", fromlist=["values"])
LOST: list[str] = []  # why the other process is no longer there to answer
LONGEST = 500  # characters of a text


class ProgramError(BaseException):
    """The program ended, or said what is no answer. No `except Exception` of a test takes it for what was to be
    raised."""

    def __init__(self, why: str):
        super().__init__(why)
        LOST.append(why)


class OwnAssertion(AssertionError):
    """An assert of the program's own failed: no word about the test."""


def lineage(kind: type) -> list[str]:
    """The names of an exception's class and of those it comes from, down to Python's own.

    >>> lineage(type("Missing", (KeyError,), {}))
    ['Missing', 'KeyError']
    """
    names: list[str] = []
    for one in kind.__mro__:
        names.append(one.__name__)
        if getattr(builtins, one.__name__, None) is one:
            break
    return names


def describe(problem: BaseException) -> list[Any]:
    """What crosses the line of an exception: where its class comes from, its text, what it was made of."""
    text = str(problem)[:LONGEST]
    try:
        made_of = values.encode(list(problem.args))
    except values.Foreign:
        made_of = [text]
    return [lineage(type(problem)), text, made_of if len(str(made_of)) < 4 * LONGEST else [text]]


_CLASSES: dict[tuple[str, ...], type[BaseException]] = {}


def exception_class(names: Any) -> type[BaseException]:
    """The class here that stands for the program's of this lineage. One that would end a process, or that tests
    raise themselves, has none: ProgramError, OwnAssertion."""
    *own, base = [str(name) for name in names] if isinstance(names, list) and names else [""]
    kind: Any = getattr(builtins, base, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return ProgramError
    if issubclass(kind, AssertionError):
        return OwnAssertion
    for place in range(len(own) - 1, -1, -1):
        line = (*own[place:], base)
        if line not in _CLASSES:
            _CLASSES[line] = types.new_class(own[place], (kind,))
        kind = _CLASSES[line]
    return kind


def exception_of(names: Any = None, text: Any = "", made_of: Any = None) -> BaseException:
    """The exception that stands here for the program's."""
    kind = exception_class(names)
    if kind is ProgramError:
        return ProgramError(f"{names[0] if isinstance(names, list) and names else 'nothing'}: {text}")
    try:
        return kind(*values.decode(made_of))
    except (TypeError, ValueError):
        return kind.__new__(kind, str(text))
