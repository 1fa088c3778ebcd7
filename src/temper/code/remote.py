"""Objects of the other process, by proxies. Imported by the guest's interpreter: standard library only."""

from __future__ import annotations

import asyncio
import json
import operator
import sys
from typing import Any

values = sys.modules.get("temper_values") or __import__("temper.code.values", fromlist=["values"])
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift")
COMPARE = ("lt", "le", "gt", "ge")
UNARY = ("neg", "pos", "abs", "invert")
INPLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")
ONE = {"str": str, "repr": repr, "hash": hash, "bool": bool, "int": int, "float": float, "round": round, "len": len}
OPERATIONS: dict[str, Any] = {name: getattr(operator, name) for name in (*BINARY, *COMPARE, *UNARY, *INPLACE)} | ONE
OPERATIONS |= {
    "item": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem, "contains": operator.contains,
    "iter": iter, "next": next, "format": format, "is": lambda kind, it: isinstance(it, kind),
    "below": lambda kind, other: issubclass(other, kind), "await": lambda it: asyncio.run(it),
    "enter": lambda it: type(it).__enter__(it), "exit": lambda it: bool(type(it).__exit__(it, None, None, None)),
}  # fmt: skip
NAMED, CLASS, MADE = 0, 1, 2  # how a test came by something: it was given it, it is a class, or made from one


class Remote:
    """Something of the other side's that is no plain data.

    What a program's own `==`, `<` or `+` says has no voice in a test of a function: what a function gave is equal to
    itself only, or to the plain data that it is (an own kind of list or dict). The objects that a test makes itself, of
    classes of the program, may be added and put in order, and are equal if all that they hold is.
    """

    def __init__(self, side: Any, number: Any, how: int = NAMED):
        object.__setattr__(self, "_side", side)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_how", how)

    def _ask(self, what: str, *arguments: Any, **more: Any) -> Any:
        return self._side.ask({"do": what, "of": self._number, "arguments": list(arguments), **more})

    def _made(self, value: Any, how: int = MADE) -> Any:
        return Remote(value._side, value._number, how) if self._how and type(value) is Remote else value

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        value = self._ask("call", *arguments, *named.values(), n=list(named))
        return self._made(value) if self._how == CLASS else value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        value = self._ask("get", name=name)
        return self._made(value, CLASS) if self._how == CLASS else value

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", value, name=name)

    def __delattr__(self, name: str) -> None:
        self._ask("del", name=name)

    def _operate(self, name: str, *arguments: Any) -> Any:
        return self._ask("op", *arguments, name=name)

    def __getitem__(self, key: Any) -> Any:
        return self._operate("item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._operate("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._operate("delitem", key)

    def __len__(self) -> int:
        return self._operate("len")

    def __iter__(self) -> Any:
        return self._operate("iter")

    def __next__(self) -> Any:
        return self._operate("next")

    def __contains__(self, item: Any) -> bool:
        return self._operate("contains", item) is True if self._how else any(one == item for one in self)

    def __bool__(self) -> bool:
        return self._operate("bool") if self._how == MADE else True

    def __str__(self) -> str:
        return self._operate("str")

    def __repr__(self) -> str:
        return self._operate("repr")

    def __format__(self, how: str) -> str:
        return self._operate("format", how)

    def __enter__(self) -> Any:
        return self._made(self._operate("enter"))

    def __exit__(self, *_: object) -> None:
        self._operate("exit")

    def __instancecheck__(self, value: Any) -> bool:
        return type(value) is Remote and self._operate("is", value) is True

    def __subclasscheck__(self, kind: Any) -> bool:
        return type(kind) is Remote and self._operate("below", kind) is True

    def __eq__(self, other: Any) -> bool:
        if type(other) is not Remote:
            return self._data() == other
        same = other._number == self._number
        return same or (MADE in (self._how, other._how) and self._ask("state") == other._ask("state"))

    def _data(self) -> Any:
        """The plain data that it is, if it is any: else something equal to nothing."""
        value = self._ask("data")
        return object() if value is None else value[0]

    def __hash__(self) -> int:
        return self._operate("hash") if self._how == MADE else hash(self._number)


def _with(name: str) -> Any:
    def operate(self: Remote, *arguments: Any) -> Any:
        return self._made(self._operate(name, *arguments)) if self._how else NotImplemented

    return operate


def _with_reversed(name: str) -> Any:
    def operate(self: Remote, other: Any) -> Any:
        return self._made(self._operate(f"r{name}", other)) if self._how else NotImplemented

    return operate


for _name in (*BINARY, *COMPARE, *INPLACE):
    setattr(Remote, f"__{_name.rstrip('_')}__", _with(_name))
for _name in BINARY:
    OPERATIONS[f"r{_name}"] = lambda mine, other, _operation=OPERATIONS[_name]: _operation(other, mine)
    setattr(Remote, f"__r{_name.rstrip('_')}__", _with_reversed(_name))
for _name in (*UNARY, "int", "float", "round"):
    setattr(Remote, f"__{_name}__", _with(_name))


async def awaited(it: Remote) -> Any:
    """What a coroutine of the program's comes to."""
    return it._operate("await")


def state(value: Any) -> str:
    """All that an object holds, as a text: two objects of a class that hold the same have the same. Objects of a class
    that has no `==` of its own are what they are, whatever they hold."""
    return json.dumps(_state(value, []), sort_keys=True)


def _state(value: Any, above: list[int]) -> Any:
    if id(value) in above or len(above) > values.DEEPEST:
        return ["above", above.index(id(value)) if id(value) in above else 0]
    kind, inside = type(value), [*above, id(value)]
    if isinstance(value, (list, tuple)):
        parts: Any = [_state(item, inside) for item in value]
    elif isinstance(value, (set, frozenset)):
        parts = sorted(json.dumps(_state(item, inside)) for item in value)
    elif isinstance(value, dict):
        parts = sorted([json.dumps(_state(k, inside)), _state(v, inside)] for k, v in value.items())
    else:
        try:
            return values.encode(value)
        except values.Foreign:
            parts = []
    if kind.__module__ == "builtins":
        return [kind.__name__, parts]
    own = kind.__eq__ is not object.__eq__
    return [id(kind), parts, _state(_fields(value), inside)] if own else [id(value)]


def _fields(value: Any) -> dict[str, Any]:
    slots = [name for kind in type(value).__mro__ for name in kind.__dict__.get("__slots__", ())]
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots if hasattr(value, name)}}


def restore(old: Any, new: Any) -> None:
    """What a call did to the list, dict or set that it was given, done here too."""
    if isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif isinstance(old, (dict, set)) and type(old) is type(new):
        old.clear()
        old.update(new)
