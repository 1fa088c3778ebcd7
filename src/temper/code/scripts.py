"""Runs a test script against a program in another process. The script sees the program's names by proxies and its
values as plain data; the program never sees the script. Imported by the guest's interpreter: standard library only.
"""

from __future__ import annotations

import ast
import builtins
import sys
import types
from typing import Any

speak = sys.modules.get("temper_speak") or __import__("temper.code.speak", fromlist=["speak"])
values = speak.values
REPORT = 4
# What tests compare with: theirs even where the program has something of the name
STANDARD = {"isclose", "isnan", "isinf", "fabs", "sqrt", "floor", "ceil", "Counter", "OrderedDict", "defaultdict"}


class Reached:
    """Counts the asserts that were reached."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Marked(ast.NodeTransformer):
    """`assert L == R` as three lines: it is counted, both sides are kept for the report, then it is asserted."""

    def visit_Assert(self, node: ast.Assert) -> Any:
        lines: list[ast.stmt] = [ast.Expr(ast.Call(ast.Name("__asserted__", ast.Load()), [], []))]
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            for name, side in (("__left__", test.left), ("__right__", test.comparators[0])):
                lines.append(ast.Assign([ast.Name(name, ast.Store())], side))
            left, right = ast.Name("__left__", ast.Load()), ast.Name("__right__", ast.Load())
            node.test = ast.Compare(left, test.ops, [right])
        for line in lines:
            ast.copy_location(line, node)
            ast.fix_missing_locations(line)
        ast.copy_location(node.test, test)
        ast.fix_missing_locations(node)
        return [*lines, node]


class Tester(speak.Side):
    """The test's end of the line. What it gave a program may be called and looked at, as far as a test's own values go;
    nothing of that leads to the test itself."""

    def reached(self, target: Any, name: Any, how: str) -> Any:
        inside = not isinstance(name, str) or name.startswith("_") or name.split("_")[0] in _OF_FRAMES
        closed = isinstance(target, _CLOSED) or (how == "set" and _is_method(target, name))
        if inside or closed:
            raise AttributeError(f"{type(target).__name__} of the test has no attribute {name!r} for a program")
        return target


# What leads from a value to the code around it
_CLOSED = (
    types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.CodeType, types.FrameType,
    types.TracebackType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, property, staticmethod,
    classmethod,
)  # fmt: skip
_OF_FRAMES = {"gi", "cr", "ag", "f", "tb", "co", "func"}


def _is_method(target: Any, name: str) -> bool:
    return isinstance(target, type) or callable(getattr(type(target), name, None))


def check(source: bytes, header: dict) -> None:
    """Runs a test script against the program behind the line and reports what came of it."""
    reached = Reached()
    report: dict[str, Any] = {"verdict": "passed"}
    space: dict[str, Any] = {"__name__": "test"}
    try:
        tree = ast.fix_missing_locations(Marked().visit(ast.parse(source)))
        bind(space, header.get("bound", []), reached)
        space["__asserted__"] = reached
        exec(compile(tree, "test.py", "exec"), space)
        run_tests(space, reached)
        if not reached.count:
            report = {"verdict": "error", "text": "the test script ended without reaching an assert"}
    except speak.ProgramError as problem:
        report = {"verdict": "program", "text": str(problem)}
    except speak.OwnAssertion as problem:
        report = {"verdict": "raised", "text": f"AssertionError: {problem}"[:500], **failing(problem)}
    except AssertionError as problem:
        report = {"verdict": "wrong", "text": str(problem)[:500], **failing(problem)}
    except BaseException as problem:
        report = {"verdict": "raised", "text": f"{type(problem).__name__}: {problem}"[:500], **failing(problem)}
    if speak.LOST:  # whatever the script made of that
        report = {"verdict": "program", "text": speak.LOST[0][:500]}
    speak.write(REPORT, values.pack({**report, "asserts": reached.count}))


def failing(problem: BaseException) -> dict:
    """The line of the script that failed, and both sides of its comparison."""
    place, frame = None, problem.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "test.py":
            place = frame
        frame = frame.tb_next
    if place is None:
        return {}
    local = place.tb_frame.f_locals
    sides = {name: shown(local[f"__{name}__"]) for name in ("left", "right") if f"__{name}__" in local}
    return {"line": place.tb_lineno, **(sides if isinstance(problem, AssertionError) else {})}


def shown(value: Any) -> str:
    if type(value) is speak.Remote:
        return "an object of the program's own"
    return repr(value)[:500]


def bind(space: dict, bound: list[str], reached: Reached) -> None:
    """The names that a script may use: the standard ones, then the program's others; `bound` are the program's even if
    they are standard. A program cannot change what `abs` or `all` mean to a test."""
    exec(speak.PRELUDE, space)
    speak.NODES.update({name: space[name] for name in ("ListNode", "TreeNode")})
    side = Tester("x", "h")
    theirs = [name for name in side.ask({"do": "names"}) if isinstance(name, str)]
    module = types.ModuleType("solution")
    for name in theirs:
        standard = isinstance(space.get(name), types.ModuleType) or name in STANDARD
        taken = standard or hasattr(builtins, name) or name.startswith("__")
        if name in bound or not taken:
            space[name] = module.__dict__[name] = side.ask({"do": "global", "name": name})
        elif not name.startswith("__"):
            module.__dict__[name] = side.ask({"do": "global", "name": name})
    sys.modules["solution"] = module
    sys.modules["pytest"] = pytest_module(reached)
    for name in [name for name in bound if name not in theirs and name != "Solution" and "Solution" in theirs]:
        space[name] = lambda *a, _name=name, **k: getattr(space["Solution"](), _name)(*a, **k)


def run_tests(space: dict, reached: Reached) -> None:
    """Functions `test_*` and classes of them, as a test runner would call them."""
    import unittest

    for name, value in list(space.items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and value is not unittest.TestCase:
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
            if result.failures or result.errors:
                raise AssertionError((result.failures + result.errors)[0][1].strip().splitlines()[-1])
            reached.count += result.testsRun
        elif name.startswith("test_") and isinstance(value, types.FunctionType):
            call_test(value, reached)
        elif name.startswith("Test") and isinstance(value, type):
            for inner in [inner for inner in vars(value) if inner.startswith("test")]:
                call_test(getattr(value(), inner), reached)


def call_test(function, reached: Reached) -> None:
    code = function.__code__
    needed = code.co_argcount - len(function.__defaults__ or ()) - isinstance(function, types.MethodType)
    rows = getattr(function, "rows", None)
    if rows is None and needed:
        return
    for row in rows if rows is not None else [{}]:
        function(**row)


def pytest_module(reached: Reached) -> types.ModuleType:
    """As much of pytest as tests in data sets use: `raises`, `approx`, `mark.parametrize`."""
    import contextlib
    import math
    import re

    module = types.ModuleType("pytest")

    @contextlib.contextmanager
    def raises(kinds, match=None):
        info = types.SimpleNamespace(value=None)
        reached.count += 1
        try:
            yield info
        except kinds as problem:
            if match is not None and not re.search(match, str(problem)):
                raise AssertionError(f"{problem} does not match {match}") from None
            info.value = problem
            return
        raise AssertionError("nothing was raised")

    class approx:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __init__(self, expected, rel=None, abs=None, nan_ok=False):
            self.expected, self.rel, self.abs = expected, 1e-6 if rel is None else rel, 1e-12 if abs is None else abs

        def close(self, a, b):
            if isinstance(b, (list, tuple)):
                same = isinstance(a, (list, tuple)) and len(a) == len(b)
                return same and all(self.close(x, y) for x, y in zip(a, b, strict=True))
            if isinstance(b, dict):
                return isinstance(a, dict) and a.keys() == b.keys() and all(self.close(a[k], b[k]) for k in b)
            if isinstance(a, (int, float)) and isinstance(b, (int, float)):
                return math.isclose(a, b, rel_tol=self.rel, abs_tol=self.abs)
            return a == b

        def __eq__(self, other):
            return self.close(other, self.expected)

        def __repr__(self):
            return f"approx({self.expected!r})"

    def parametrize(names, rows, **_):
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def mark(function):
            given = [dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in rows]
            before = getattr(function, "rows", [{}])
            function.rows = [{**one, **other} for one in before for other in given]
            return function

        return mark

    vars(module).update(raises=raises, approx=approx, mark=types.SimpleNamespace(parametrize=parametrize))
    return module
