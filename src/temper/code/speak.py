"""How a test asks a program for values, each in a process of its own: what crosses the line between them is plain data.

The program's end (`serve`) answers; the other is a test script's (`scripts.py`) or the host. Imported by the guest's
interpreter: standard library only.
"""

from __future__ import annotations

import io
import json
import os
import sys
import types
from typing import Any

values = sys.modules.get("temper_values") or __import__("temper.code.values", fromlist=["values"])
raised = sys.modules.get("temper_raised") or __import__("temper.code.raised", fromlist=["raised"])
nodes = sys.modules.get("temper_nodes") or __import__("temper.code.nodes", fromlist=["nodes"])
remote = sys.modules.get("temper_remote") or __import__("temper.code.remote", fromlist=["remote"])
Remote, ProgramError = remote.Remote, raised.ProgramError
ENDED = "the program ended before it answered"
LINE = 3
PRELUDE = """
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from operator import *
from math import *
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from copy import deepcopy
from typing import *
from builtins import abs, pow
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


def read(number: int, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = os.read(number, min(size, 1 << 20))
        except ConnectionError:
            part = b""
        if not part:
            raise ProgramError(ENDED)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except ConnectionError:
            raise ProgramError(ENDED) from None


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
        self.nodes = nodes.Nodes(mine)

    def keep(self, value: Any) -> dict:
        if type(value) is Remote:
            return {self.theirs: value._number}
        if type(value).__name__ in nodes.KINDS:
            return self.nodes.notation(value, self.encode)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"raises": raised.lineage(value)}
        self.kept[id(value)] = value
        return {"await" if isinstance(value, types.CoroutineType) else self.mine: id(value)}

    def take(self, tag: str, inner: Any) -> Any:
        if tag == self.mine and inner in self.kept:
            return self.kept[inner]
        if tag == self.theirs:
            return Remote(self, inner)
        if tag in nodes.KINDS:
            return self.nodes.of(tag, inner, self.decode)
        if tag == "await":
            return remote.awaited(Remote(self, inner))
        if tag == "raises":
            return raised.exception_class(inner)
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
                remote.restore(arguments[place], self.decode(changed))
            if "e" in message:
                raise raised.exception_of(*message["e"])
            return self.decode(message.get("v"))

    def answer(self, request: dict) -> dict:
        token = request.get("k")
        try:
            arguments = [self.decode(notation) for notation in request.get("a", ())]
            value = self.obey(request, arguments)
            answer = {"k": token, "v": self.encode(value)}
            changed = [(i, self.encode(a)) for i, a in enumerate(arguments) if _may_change(a)]
            changed = [(i, notation) for i, notation in changed if notation != request["a"][i]]
            return {**answer, "c": changed} if changed else answer
        except ProgramError:
            raise
        except BaseException as problem:
            if isinstance(problem, (SystemExit, KeyboardInterrupt)):
                raise
            return {"k": token, "e": raised.describe(problem)}

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
        if what == "del":
            return delattr(self.reached(target, request["name"], "set"), request["name"])
        if what == "op":
            return remote.OPERATIONS[request["name"]](target, *arguments)
        if what == "state":
            return remote.state(target)
        if what == "data":
            plain = values.plain(target)
            return None if plain is None else [plain]
        if what == "names":
            return self.names()
        raise ProgramError("an unknown request")

    def reached(self, target: Any, name: str, how: str) -> Any:
        """The object whose attribute is asked for, or set. Raises AttributeError where it is not to be had."""
        return target

    def names(self) -> Any:
        raise ProgramError("only a program has names")


def _may_change(value: Any) -> bool:
    return isinstance(value, (list, dict, set)) or type(value).__name__ in nodes.KINDS


# --- the program's side -------------------------------------------------------------------------------------------


class Program(Side):
    def __init__(self, names: dict):
        super().__init__("h", "x")
        self.space = names
        self._printed: Any = None

    def names(self) -> Any:
        return [name for name in self.space if not name.startswith("__") and name.isidentifier()]

    def obey(self, request: dict, arguments: list) -> Any:
        if "of" in request or request["do"] == "names":
            return super().obey(request, arguments)
        if request["do"] == "global":
            return self.space[request["name"]]
        if request["do"] == "output":
            return self.output()
        if request["do"] == "enter":
            return super().obey({**request, "do": "call", "of": self.entry(request["name"])}, arguments)
        return super().obey(request, arguments)

    def output(self) -> str:
        """What was printed since this was last asked."""
        if sys.stdout is not self._printed:
            self._printed = sys.stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogatepass", write_through=True)
        said = self._printed.buffer.getvalue().decode("utf-8", "surrogatepass")
        self._printed.buffer.seek(0)
        self._printed.buffer.truncate()
        return said

    def entry(self, name: str) -> int:
        """The function, or method of `Solution` (or of whatever comes before the dot), that a test calls."""
        owner, _, method = name.rpartition(".")
        if owner or (method not in self.space and "Solution" in self.space):
            found = getattr(self.space[owner or "Solution"](), method)
        else:
            found = self.space[method]
        return self.keep(found)["h"]


def _class_of(space: dict, before: dict, name: str) -> type:
    return space[name] if isinstance(space.get(name), type) else before[name]


def serve(source: bytes, header: dict) -> None:
    """Runs the program's text once, then does what the line asks until it closes."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(PRELUDE, module.__dict__)
    given = set(module.__dict__)
    before = dict(module.__dict__)
    exec(compile(source, "solution.py", "exec"), module.__dict__)
    own = {k: v for k, v in module.__dict__.items() if k not in given or v is not before.get(k)}
    side = Program(own)
    side.nodes.classes = {name: _class_of(module.__dict__, before, name) for name in nodes.KINDS}
    sys.stdout.flush()
    try:
        while True:
            write(LINE, values.pack(side.answer(receive())))
    except ProgramError:
        return
