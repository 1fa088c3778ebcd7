"""As much of pytest and of a test runner as tests in data sets use. Imported by the guest's interpreter: standard
library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import re
import types
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any


class Reached:
    """Counts the asserts that were reached."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Skipped(Exception):
    """A test says that it is not to be run here."""


def run_tests(space: dict, reached: Reached, output: Callable[[], str]) -> None:
    """Functions `test_*` and classes of them, as a test runner would call them. `output` gives what the program has
    printed since it was last asked."""
    import unittest

    fixtures = {"capsys": lambda: capsys(output)} | {k: v for k, v in space.items() if is_fixture(v)}
    call_if_there(space, "setup_module")
    for name, value in list(space.items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and value is not unittest.TestCase:
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
            if result.failures or result.errors:
                raise AssertionError((result.failures + result.errors)[0][1].strip().splitlines()[-1])
            reached.count += result.testsRun
        elif name.startswith("test") and isinstance(value, types.FunctionType):
            call_if_there(space, "setup_function", value)
            call_test(value, fixtures)
        elif name.startswith("Test") and isinstance(value, type):
            run_class(value, fixtures)


def run_class(kind: type, fixtures: dict) -> None:
    call_if_there({"setup_class": getattr(kind, "setup_class", None)}, "setup_class")
    for name in [name for name in dir(kind) if name.startswith("test")]:
        one = kind()
        own = {inner: getattr(one, inner) for inner in dir(kind) if is_fixture(getattr(kind, inner))}
        methods = {inner: getattr(one, inner, None) for inner in _AROUND}
        for before in _AROUND[:2]:
            call_if_there(methods, before, getattr(one, name))
        try:
            call_test(getattr(one, name), {**fixtures, **own})
        finally:
            for after in _AROUND[2:]:
                call_if_there(methods, after, getattr(one, name))


def is_fixture(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and hasattr(value, "fixture")


def capsys(output: Callable[[], str]) -> Any:
    """The fixture that gives what was printed."""
    output()
    return types.SimpleNamespace(readouterr=lambda: _Captured(output(), ""))


_Captured = namedtuple("_Captured", "out err")
_AROUND = ("setup_method", "setup", "teardown_method", "teardown")


def call_if_there(space: dict, name: str, about: Any = None) -> None:
    function = space.get(name)
    if callable(function):
        function(about) if needs(function) else function()


def needs(function: Any) -> list[str]:
    """The parameters of a function that have no value of their own.

    >>> needs(lambda a, b=1: a)
    ['a']
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    every = inspect.signature(function).parameters.values()
    return [one.name for one in every if one.default is one.empty and one.kind in named]


def call_test(function: Any, fixtures: dict) -> None:
    """Calls a test once for each of its rows, with what its fixtures give."""
    if getattr(function, "skipped", False):
        return
    for row in getattr(function, "rows", [{}]):
        with contextlib.ExitStack() as stack, contextlib.suppress(Skipped):
            made: dict[str, Any] = {}
            for name, fixture in fixtures.items():
                if getattr(fixture, "fixture", {}).get("autouse"):
                    given(name, fixtures, made, stack)
            wanted = {name: given(name, fixtures, made, stack) for name in needs(function) if name not in row}
            value = function(**row, **wanted)
            if inspect.iscoroutine(value):
                asyncio.run(value)


def given(name: str, fixtures: dict, made: dict, stack: contextlib.ExitStack) -> Any:
    """What a fixture gives; what stands after its `yield` is done at the test's end."""
    if name not in made:
        if name not in fixtures:
            raise NameError(f"no fixture {name!r}")
        function = fixtures[name]
        value = function(**{inner: given(inner, fixtures, made, stack) for inner in needs(function)})
        if isinstance(value, Iterator) and inspect.isgeneratorfunction(inspect.unwrap(function)):
            steps, value = value, next(value)
            stack.callback(lambda: next(steps, None))
        made[name] = value
    return made[name]


class Approx:
    """`pytest.approx`: numbers that are close, in lists and dicts too."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, expected: Any, rel: Any = None, abs: Any = None, nan_ok: bool = False):
        self.expected, self.rel, self.abs = expected, 1e-6 if rel is None else rel, 1e-12 if abs is None else abs
        self.nan_ok = nan_ok

    def close(self, a: Any, b: Any) -> bool:
        a, b = (value.tolist() if hasattr(value, "tolist") else value for value in (a, b))
        if isinstance(b, (list, tuple)):
            same = isinstance(a, (list, tuple)) and len(a) == len(b)
            return same and all(self.close(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(b, dict):
            return isinstance(a, dict) and a.keys() == b.keys() and all(self.close(a[k], b[k]) for k in b)
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return math.isclose(a, b, rel_tol=self.rel, abs_tol=self.abs) or (self.nan_ok and a != a and b != b)
        return a == b

    def __eq__(self, other: Any) -> bool:
        return self.close(other, self.expected)

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"


class Mark:
    """`pytest.mark`: `parametrize`, `skip`; of others nothing is known here, and they change nothing."""

    def __getattr__(self, name: str) -> Any:
        def mark(*arguments: Any, **named: Any) -> Any:
            if len(arguments) == 1 and callable(arguments[0]) and not named:
                return self._marked(arguments[0], name == "skip")
            skipped = name == "skip" or (name == "skipif" and bool(arguments and arguments[0]))
            return lambda function: self._marked(function, skipped)

        return mark

    @staticmethod
    def _marked(function: Any, skipped: bool) -> Any:
        function.skipped = skipped or getattr(function, "skipped", False)
        return function

    @staticmethod
    def parametrize(names: Any, rows: Any, **_: Any) -> Any:
        listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        alone = len(listed) == 1 and isinstance(names, str) and not names.endswith(",")  # then rows are values

        def mark(function: Any) -> Any:
            plain = [row.values if isinstance(row, Row) else (row,) if alone else row for row in rows]
            given = [dict(zip(listed, row, strict=True)) for row in plain]
            before = getattr(function, "rows", [{}])
            function.rows = [{**one, **other} for one in before for other in given]
            return function

        return mark


class Row:
    """`pytest.param`."""

    def __init__(self, *values: Any, **_: Any):
        self.values = values


def pytest_module(reached: Reached) -> types.ModuleType:
    """The module that `import pytest` gives a test."""
    module = types.ModuleType("pytest")

    @contextlib.contextmanager
    def awaited(kinds: Any, match: str | None) -> Iterator[Any]:
        info = types.SimpleNamespace(value=None, type=None)
        reached.count += 1
        try:
            yield info
        except kinds as problem:
            if match is not None and not re.search(match, str(problem)):
                raise AssertionError(f"{problem} does not match {match}") from None
            info.value, info.type = problem, type(problem)
            return
        raise AssertionError("nothing was raised")

    def raises(kinds: Any, *call: Any, match: str | None = None, **named: Any) -> Any:
        if not call:
            return awaited(kinds, match)
        with awaited(kinds, match) as info:
            call[0](*call[1:], **named)
        return info

    def fail(reason: str = "", **_: Any) -> None:
        raise AssertionError(reason)

    def skip(reason: str = "", **_: Any) -> None:
        raise Skipped(reason)

    def fixture(function: Any = None, **about: Any) -> Any:
        if function is None:
            return lambda inner: fixture(inner, **about)
        function.fixture = about
        return function

    vars(module).update(
        raises=raises, approx=Approx, mark=Mark(), param=Row, fixture=fixture, fail=fail, skip=skip,
        main=lambda *_, **__: 0,
    )  # fmt: skip
    return module
