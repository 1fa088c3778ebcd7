"""What a program is tested with: a problem's `Tests`, read from a row of data by `rows.py` or written by hand."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from typing import Any, Literal

from temper.code.limits import DEFAULTS, Limits

Language = Literal["python", "cpp"]


@dataclass(frozen=True)
class Stdin:
    """The program is started with this input and must write this output."""

    input: str
    output: str


@dataclass(frozen=True)
class Call:
    """The program's function (or method of its class `Solution`) of this name must return `expected`. With `in_place`
    it is the first argument that must be so afterwards. `wrapped`: the answer may stand as a list of one, as it does
    in APPS."""

    name: str
    arguments: tuple[Any, ...]
    expected: Any
    in_place: bool = False
    wrapped: bool = False


@dataclass(frozen=True)
class Script:
    """A script of asserts. It sees the program's names by proxies: the program runs in another process, and never sees
    the script. `bound` are names that are the program's even where Python has one of the same name."""

    source: str
    bound: tuple[str, ...] = ()


Case = Stdin | Call | Script


@dataclass(frozen=True)
class Tests:
    """All tests of a problem. The first `public` of them stand in the problem's text. `tolerance` (absolute or
    relative) is for numbers in outputs; None compares them as text. `starter` is what a reply continues."""

    cases: tuple[Case, ...]
    limits: Limits = DEFAULTS
    language: Language = "python"
    tolerance: float | None = None
    starter: str = ""
    entry: str = ""
    public: int = 0

    def __len__(self) -> int:
        return len(self.cases)


def called(source: str) -> tuple[str, ...]:
    """The names that asserts call and that Python has not: the functions under test, in order.

    >>> called("assert set(common([1], [1, 2])) == {1}"), called("assert sum(1, 2) == 3")
    (('common',), ('sum',))
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))} | set(_imported(tree))
    own |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    own |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    free = [name for name in dict.fromkeys(names) if name not in own]
    unknown = tuple(name for name in free if not hasattr(builtins, name))
    if unknown or {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - own - set(dir(builtins)):
        return unknown
    return tuple(free[:1])  # nothing else is the program's: a `sum` of its own


def _imported(tree: ast.AST) -> list[str]:
    kinds = (ast.Import, ast.ImportFrom)
    every = [alias for node in ast.walk(tree) if isinstance(node, kinds) for alias in node.names]
    return [(alias.asname or alias.name).partition(".")[0] for alias in every]


def from_solution(source: str) -> tuple[str, ...]:
    """The names that a script imports from `solution`.

    >>> from_solution("from solution import f, g as h")
    ('f', 'g')
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "solution"]
    return tuple(alias.name for node in nodes for alias in node.names if alias.name != "*")


FIXTURES = ("capsys",)  # of pytest's own, what a test may ask for


def fixtures_missing(source: str) -> list[str]:
    """The fixtures that tests of a script ask for and nobody gives.

    >>> fixtures_missing("def test_it(capsys, tmp_path): assert f()")
    ['tmp_path']
    """
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    known = {one.name for one in functions} | {"self", "cls", *FIXTURES}
    return [
        name.arg
        for one in functions
        if one.name.startswith("test")
        for name in _needed(one.args)
        if name.arg not in known and not any(name.arg in text for text in _texts(one))
    ]


def _needed(given: ast.arguments) -> list[ast.arg]:
    plain = given.args[: len(given.args) - len(given.defaults)]
    return [*plain, *(one for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value is None)]


def _texts(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The texts in what decorates a function: names of what `parametrize` gives it are among them."""
    nodes = [node for decorator in function.decorator_list for node in ast.walk(decorator)]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
