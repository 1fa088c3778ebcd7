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
suites: Any = sys.modules.get("temper_suites") or __import__("temper.code.suites", fromlist=["suites"])
values, raised, remote = speak.values, speak.raised, speak.remote
REPORT = 4
# What tests compare with: theirs even where the program has something of the name
STANDARD = {"isclose", "isnan", "isinf", "fabs", "sqrt", "floor", "ceil", "Counter", "OrderedDict", "defaultdict"}


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
        if name in ("__name__", "__doc__") and how == "get":
            return target
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
    reached = suites.Reached()
    report: dict[str, Any] = {"verdict": "passed"}
    space: dict[str, Any] = {"__name__": "test"}
    try:
        tree = ast.fix_missing_locations(Marked().visit(ast.parse(source)))
        side = Tester("x", "h")
        bind(space, header.get("bound", []), reached, side)
        space["__asserted__"] = reached
        exec(compile(tree, "test.py", "exec"), space)
        suites.run_tests(space, reached, lambda: str(side.ask({"do": "output"})))
        if not reached.count:
            report = {"verdict": "error", "text": "the test script ended without reaching an assert"}
    except raised.ProgramError as problem:
        report = {"verdict": "program", "text": str(problem)}
    except raised.OwnAssertion as problem:
        report = {"verdict": "raised", "text": f"AssertionError: {problem}"[:500], **failing(problem)}
    except AssertionError as problem:
        report = {"verdict": "wrong", "text": str(problem)[:500], **failing(problem)}
    except BaseException as problem:
        report = {"verdict": "raised", "text": f"{type(problem).__name__}: {problem}"[:500], **failing(problem)}
    if raised.LOST:  # whatever the script made of that
        report = {"verdict": "program", "text": raised.LOST[0][:500]}
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
    if type(value) is remote.Remote:
        return "an object of the program's own"
    try:
        return repr(value)[:500]
    except BaseException as problem:
        return f"what cannot be shown: {type(problem).__name__}"


def bind(space: dict, bound: list[str], reached: Any, side: Tester) -> None:
    """The names that a script may use: the standard ones, then the program's others; `bound` are the program's even if
    they are standard. A program cannot change what `abs` or `all` mean to a test."""
    exec(speak.PRELUDE, space)
    given = set(space)
    side.nodes.classes = {name: space[name] for name in speak.nodes.KINDS}
    theirs = [name for name in side.ask({"do": "names"}) if isinstance(name, str)]
    module = types.ModuleType("solution")
    asked = [name for name in bound if name in theirs]
    for name in theirs:
        if name.startswith("__"):
            continue
        module.__dict__[name] = value = _of_program(side, name)
        if name in bound:
            taken = name in STANDARD and asked != [name]
        else:
            taken = name in given or hasattr(builtins, name)
        if not taken:
            space[name] = value
    sys.modules["solution"] = module
    sys.modules["pytest"] = suites.pytest_module(reached)
    missing = [name for name in bound if name not in theirs and name != "Solution"]
    for name in missing:
        if "Solution" in theirs and name not in space:
            space[name] = lambda *a, _name=name, **k: getattr(space["Solution"](), _name)(*a, **k)
        elif not asked and not hasattr(
            builtins, name
        ):  # the standard library's function of the name is not the program's
            space[name] = _missing(name)


def _of_program(side: Tester, name: str) -> Any:
    value = side.ask({"do": "global", "name": name})
    return value if type(value) is not remote.Remote else remote.Remote(side, value._number, name[:1].isupper())


def _missing(name: str) -> Any:
    def missing(*_: Any, **__: Any) -> Any:
        raise NameError(f"name {name!r} is not defined")

    return missing
