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

    >>> called("assert set(common([1], [1, 2])) == {1}")
    ('common',)
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))} | set(_imported(tree))
    own |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    own |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return tuple(name for name in dict.fromkeys(names) if not hasattr(builtins, name) and name not in own)


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
