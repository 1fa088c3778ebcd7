"""How a test asks a program for values, each in a process of its own: what crosses the line between them is plain data.

The program's end (`serve`) answers; the other is a test script's (`scripts.py`) or the host. Imported by the guest's
interpreter: standard library only.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import types
from typing import Any

values = sys.modules.get("temper_values") or __import__("temper.code.values", fromlist=["values"])
LINE = 3
PRELUDE = """
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
pow = __builtins__["pow"] if isinstance(__builtins__, dict) else __builtins__.pow
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


LOST: list[str] = []  # why the other process is no longer there to answer


class ProgramError(BaseException):
    """The program ended, or said what is no answer. No `except Exception` of a test takes it for what was to be
    raised."""

    def __init__(self, why: str):
        super().__init__(why)
        LOST.append(why)


class OwnAssertion(AssertionError):
    """An assert of the program's own failed: no word about the test."""


def read(number: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(number, min(size, 1 << 20))
        if not part:
            raise ProgramError("the program ended before it answered")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except (BrokenPipeError, ConnectionError):
            raise ProgramError("the program ended before it answered") from None


def receive() -> dict:
    size = int.from_bytes(read(LINE, 4), "big")
    if size > 1 << 24:
        raise ProgramError("the program's answer is too long")
    message = json.loads(read(LINE, size))
    if not isinstance(message, dict):
        raise ProgramError("the program's answer is no message")
    return message


class Side:
    """One end of the line: keeps what it gave a number, answers the other end's requests while it waits."""

    def __init__(self, mine: str, theirs: str):
        self.mine, self.theirs = mine, theirs
        self.kept: dict[int, Any] = {}

    def keep(self, value: Any) -> dict:
        if isinstance(value, Remote):
            return {self.theirs: value._number}
        if type(value).__name__ in ("ListNode", "TreeNode"):
            return node_notation(value, self)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"raises": lineage(value)}
        self.kept[id(value)] = value
        return {self.mine: id(value)}

    def take(self, tag: str, inner: Any) -> Any:
        if tag == self.mine and inner in self.kept:
            return self.kept[inner]
        if tag == self.theirs:
            return Remote(self, inner)
        if tag in ("ListNode", "TreeNode"):
            return node_of(tag, inner, self)
        if tag == "raises":
            return exception_class(inner)
        raise values.Foreign("unknown value")

    def encode(self, value: Any) -> Any:
        return values.encode(value, self.keep)

    def decode(self, notation: Any) -> Any:
        return values.decode(notation, self.take)

    def ask(self, request: dict) -> Any:
        """The value that the other side answers with; raises what it says was raised."""
        arguments = request.pop("arguments", [])
        notation = [self.encode(value) for value in arguments]
        token = os.urandom(8).hex()
        write(LINE, values.pack({**request, "k": token, "a": notation}))
        while True:
            message = receive()
            if "do" in message:
                write(LINE, values.pack(self.answer(message)))
                continue
            if message.get("k") != token:
                raise ProgramError("the program answered what nobody asked")
            for place, changed in message.get("c", ()):
                restore(arguments[place], self.decode(changed))
            if "e" in message:
                raise exception_of(*message["e"])
            return self.decode(message.get("v"))

    def answer(self, request: dict) -> dict:
        token = request.get("k")
        try:
            arguments = [self.decode(notation) for notation in request.get("a", ())]
            value = self.obey(request, arguments)
            answer = {"k": token, "v": self.encode(value)}
            changed = [(i, self.encode(a)) for i, a in enumerate(arguments) if isinstance(a, (list, dict, set))]
            changed = [(i, notation) for i, notation in changed if notation != request["a"][i]]
            return {**answer, "c": changed} if changed else answer
        except ProgramError:
            raise
        except BaseException as problem:
            if isinstance(problem, (SystemExit, KeyboardInterrupt)):
                raise
            return {"k": token, "e": describe(problem)}

    def obey(self, request: dict, arguments: list) -> Any:
        """Does one thing to a kept object (or, where none is named, to the program's own names)."""
        target: Any = self.kept[request["of"]] if "of" in request else None
        what = request["do"]
        if what == "call":
            names = request.get("n", [])
            free = arguments[: len(arguments) - len(names)]
            named = dict(zip(names, arguments[len(free) :], strict=True))
            return target(*free, **named)
        if what == "get":
            return getattr(self.reached(target, request["name"], what), request["name"])
        if what == "set":
            return setattr(self.reached(target, request["name"], what), request["name"], arguments[0])
        if what == "item":
            return target[arguments[0]]
        if what == "len":
            return len(target)
        if what == "iter":
            return iter(target)
        if what == "next":
            return next(target)
        if what == "names":
            return self.names()
        raise ProgramError("an unknown request")

    def reached(self, target: Any, name: str, how: str) -> Any:
        """The object whose attribute is asked for, or set. Raises AttributeError where it is not to be had."""
        return target

    def names(self) -> Any:
        raise ProgramError("only a program has names")


class Remote:
    """Something of the other side's that is no plain data. It is equal to itself only: what `==`, `<` or `bool` of a
    program's own class would say has no voice in a test."""

    def __init__(self, side: Side, number: Any):
        object.__setattr__(self, "_side", side)
        object.__setattr__(self, "_number", number)

    def _ask(self, what: str, *arguments: Any, **more: Any) -> Any:
        return self._side.ask({"do": what, "of": self._number, "arguments": list(arguments), **more})

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", *arguments, *named.values(), n=list(named))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__name__":
            raise AttributeError(name)
        return self._ask("get", name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", value, name=name)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __len__(self) -> int:
        return self._ask("len")

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        return self._ask("iter")

    def __next__(self) -> Any:
        return self._ask("next")

    def __eq__(self, other: Any) -> bool:
        return type(other) is Remote and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)


def restore(old: Any, new: Any) -> None:
    """What a call did to the list, dict or set that it was given, done here too."""
    if isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif isinstance(old, (dict, set)) and type(old) is type(new):
        old.clear()
        old.update(new)


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
    try:
        made_of = values.encode(list(problem.args))
    except values.Foreign:
        made_of = [str(problem)[:500]]
    return [lineage(type(problem)), str(problem)[:500], made_of if len(str(made_of)) < 2000 else [str(problem)[:500]]]


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


def node_notation(value: Any, side: Side) -> dict:
    """A linked list or a tree as lists: in order, and by levels; one of another build is kept as it is."""
    if type(value).__name__ == "ListNode":
        items, seen = [], set()
        while value is not None and id(value) not in seen and len(items) < 100_000:
            seen.add(id(value))
            items.append(side.encode(value.val))
            value = value.next
        return {"ListNode": items}
    items, level = [], [value]
    while level and len(items) < 100_000:
        items += [None if node is None else [side.encode(node.val)] for node in level]
        level = [child for node in level if node is not None for child in (node.left, node.right)]
    return {"TreeNode": items}


def node_of(tag: str, items: list, side: Side) -> Any:
    kind = NODES[tag]
    if tag == "ListNode":
        head = None
        for item in reversed(items):
            head = kind(side.decode(item), head)
        return head
    nodes = [None if item is None else kind(side.decode(item[0])) for item in items]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left, node.right = next(children, None), next(children, None)
    return nodes[0] if nodes else None


NODES: dict[str, type] = {}


# --- the program's side -------------------------------------------------------------------------------------------


class Program(Side):
    def __init__(self, names: dict):
        super().__init__("h", "x")
        self.space = names

    def names(self) -> Any:
        return [name for name in self.space if not name.startswith("__") and name.isidentifier()]

    def obey(self, request: dict, arguments: list) -> Any:
        if "of" in request or request["do"] == "names":
            return super().obey(request, arguments)
        if request["do"] == "global":
            return self.space[request["name"]]
        if request["do"] == "enter":
            return super().obey({**request, "do": "call", "of": self.entry(request["name"])}, arguments)
        return super().obey(request, arguments)

    def entry(self, name: str) -> int:
        """The function, or method of `Solution` (or of whatever comes before the dot), that a test calls."""
        owner, _, method = name.rpartition(".")
        if owner or (method not in self.space and "Solution" in self.space):
            found = getattr(self.space[owner or "Solution"](), method)
        else:
            found = self.space[method]
        return self.keep(found)["h"]


def serve(source: bytes, header: dict) -> None:
    """Runs the program's text once, then does what the line asks until it closes."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(PRELUDE, module.__dict__)
    given = set(module.__dict__)
    NODES.update({name: module.__dict__[name] for name in ("ListNode", "TreeNode")})
    before = dict(module.__dict__)
    exec(compile(source, "solution.py", "exec"), module.__dict__)
    for name in NODES:
        if isinstance(module.__dict__.get(name), type):
            NODES[name] = module.__dict__[name]
    own = {k: v for k, v in module.__dict__.items() if k not in given or v is not before.get(k)}
    side = Program(own)
    sys.stdout.flush()
    try:
        while True:
            write(LINE, values.pack(side.answer(receive())))
    except ProgramError:
        return
