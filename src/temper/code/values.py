"""Values that cross between processes: plain data by a notation in JSON, anything else by a number that stands for it.

What comes out of `decode` is made of exact built-in types, whatever the other side sent: no object of a program's own
class, with its own `__eq__`, ever stands in a comparison. Imported by the guest's interpreter: standard library only.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections import deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

DEEPEST = 200
LARGEST = 1 << 53


class Foreign(ValueError):
    """A value that is not plain data, or a notation that is none."""


def encode(value: Any, handle: Callable[[Any], Any] | None = None, depth: int = 0) -> Any:
    """The notation of a value; `handle` gives that of one that is not plain data. Raises Foreign.

    >>> encode((1, {"a": {2}}))
    {'t': [1, {'d': [['a', {'s': [2]}]]}]}
    """
    if depth > DEEPEST:
        raise Foreign(f"nested more than {DEEPEST} deep")
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -LARGEST < value < LARGEST else {"i": hex(value)}
    if kind is list:
        return [encode(item, handle, depth + 1) for item in value]
    if kind.__module__ in OWN and handle is not None and issubclass(kind, _CONTAINERS) and not _is_record(kind):
        return {"w": [handle(value), encode(plain(value), handle, depth + 1)]}
    if issubclass(kind, tuple) and (fields := getattr(kind, "_fields", ())):
        items = [encode(item, handle, depth + 1) for item in tuple.__iter__(value)]
        return {"m": [kind.__name__, list(fields), items]}
    for tag, base, iterate in _SEQUENCES:
        if issubclass(kind, base):
            items = [encode(item, handle, depth + 1) for item in iterate(value)]
            return items if tag == "l" else {tag: items}
    if issubclass(kind, dict):
        pairs = dict.items(value)
        return {"d": [[encode(k, handle, depth + 1), encode(v, handle, depth + 1)] for k, v in pairs]}
    return _scalar(value, kind, handle, depth)


_SEQUENCES = (
    ("t", tuple, tuple.__iter__),
    ("l", list, list.__iter__),
    ("s", set, set.__iter__),
    ("f", frozenset, frozenset.__iter__),
    ("q", deque, deque.__iter__),
)


OWN = ("solution", "__main__")  # where classes of a program are
_CONTAINERS = (tuple, list, set, frozenset, deque, dict)


def _is_record(kind: type) -> bool:
    """Whether a class is a named tuple with nothing of its own: it crosses as one."""
    return kind.__bases__ == (tuple,) and hasattr(kind, "_fields") and not _methods(kind)


def _methods(kind: type) -> list[str]:
    given = dir(namedtuple("Given", ()))
    return [name for name in vars(kind) if callable(getattr(kind, name)) and name not in given]


def plain(value: Any) -> Any:
    """The tuple, list, set or dict that an object of a class made from one is; None for any other."""
    for base, iterate in _PLAIN:
        if isinstance(value, base):
            return base(iterate(value))
    return None


_PLAIN: tuple[tuple[Any, Any], ...] = (
    (tuple, tuple.__iter__), (list, list.__iter__), (set, set.__iter__), (frozenset, frozenset.__iter__),
    (deque, deque.__iter__), (dict, dict.items),
)  # fmt: skip


def _scalar(value: Any, kind: type, handle: Callable[[Any], Any] | None, depth: int) -> Any:
    if issubclass(kind, int):
        return encode(int.__add__(value, 0))
    if issubclass(kind, float):
        return float.__add__(value, 0.0)
    if issubclass(kind, str):
        return str.__str__(value)
    if kind is complex:
        return {"c": [value.real, value.imag]}
    if kind in (bytes, bytearray):
        return {"b": bytes(value).hex()}
    if kind is Fraction:
        return {"r": [encode(value.numerator), encode(value.denominator)]}
    if kind is Decimal:
        return {"n": str(value)}
    if kind is range:
        return {"g": [value.start, value.stop, value.step]}
    if (kind.__module__ or "").partition(".")[0] == "numpy" and callable(getattr(value, "tolist", None)):
        items = encode(value.tolist(), handle, depth + 1)
        return {"a": [value.dtype.str, items]} if isinstance(items, list) else items
    if kind in _TIMES and getattr(value, "tzinfo", None) is None:
        return {"z": [kind.__name__, *(getattr(value, name) for name in _TIMES[kind])]}
    if handle is None:
        raise Foreign(f"a value of type {kind.__name__} is no plain data")
    return handle(value)


_DAY, _CLOCK = ("year", "month", "day"), ("hour", "minute", "second", "microsecond")
_TIMES: dict[type, tuple[str, ...]] = {
    datetime.date: _DAY, datetime.time: _CLOCK, datetime.datetime: (*_DAY, *_CLOCK),
    datetime.timedelta: ("days", "seconds", "microseconds"),
}  # fmt: skip


def decode(notation: Any, handle: Callable[[str, Any], Any] | None = None) -> Any:
    """The value of a notation. Raises Foreign for what is none.

    >>> decode({'t': [1, {'d': [['a', {'s': [2]}]]}]})
    (1, {'a': {2}})
    """
    try:
        return _decode(notation, handle, 0)
    except Foreign:
        raise
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError, RecursionError) as problem:
        raise Foreign(f"not a notation of a value: {type(problem).__name__}") from None


def json_value(notation: Any, depth: int = 0) -> Any:
    """The value of a notation as JSON would have it: a tuple is a list, keys are text. Takes no more time than its
    length asks for, whoever wrote it. Raises Foreign for what JSON has not.

    >>> json_value({'t': [1, {'d': [[2, True]]}]})
    [1, {'2': True}]
    """
    if depth > 2 * DEEPEST:
        raise Foreign("nested too deep")
    if isinstance(notation, list):
        return [json_value(item, depth + 1) for item in notation]
    if not isinstance(notation, dict):
        return notation
    if len(notation) != 1:
        raise Foreign("not a notation of a value")
    ((tag, inner),) = notation.items()
    if tag in ("t", "q"):
        return json_value(list(inner), depth + 1)
    if tag in ("a", "w"):
        return json_value(inner[1], depth + 1)
    if tag == "m":
        return json_value(list(inner[2]), depth + 1)
    if tag == "d":
        return {json_key(key): json_value(value, depth + 1) for key, value in inner}
    if tag == "i":
        return int(inner, 16)
    raise Foreign(_NAMES.get(tag) or f"a value that is no plain data ({str(inner)[:60]})")


_NAMES = {
    "s": "a set", "f": "a frozenset", "c": "a complex number", "r": "a Fraction", "n": "a Decimal", "b": "bytes",
    "g": "a range", "z": "a date or time",
}  # fmt: skip


def json_key(notation: Any) -> str:
    """A key of a dict as text.

    >>> json_key(True), json_key(2), json_key({"t": [1, "a"]})
    ('true', '2', "(1, 'a')")
    """
    if isinstance(notation, bool) or notation is None:
        return {True: "true", False: "false", None: "null"}[notation]
    if isinstance(notation, (str, int, float)):
        return str(notation)
    value = json_value(notation)
    return str(tuple(value) if isinstance(value, list) else value)


def _decode(notation: Any, handle: Callable[[str, Any], Any] | None, depth: int) -> Any:
    if depth > 2 * DEEPEST:
        raise Foreign("nested too deep")
    if isinstance(notation, list):
        return [_decode(item, handle, depth + 1) for item in notation]
    if not isinstance(notation, dict):
        return notation
    ((tag, inner),) = notation.items()
    if tag in _MAKE:
        return _MAKE[tag]([_decode(item, handle, depth + 1) for item in inner])
    if tag == "d":
        return {_decode(key, handle, depth + 1): _decode(value, handle, depth + 1) for key, value in inner}
    if tag == "i":
        return int(inner, 16)
    if tag == "b":
        return bytes.fromhex(inner)
    if tag == "n":
        return Decimal(inner)
    if tag == "z":
        return {kind.__name__: kind for kind in _TIMES}[inner[0]](*inner[1:])
    if tag == "m":
        return _record(str(inner[0]), tuple(inner[1]))(*(_decode(item, handle, depth + 1) for item in inner[2]))
    if tag == "a":
        return _array(inner[0], _decode(inner[1], handle, depth + 1))
    if tag == "w":
        return _decode(inner[0 if handle is not None else 1], handle, depth + 1)
    if handle is not None:
        return handle(tag, inner)
    raise Foreign(f"a value that is no plain data ({str(inner)[:60]})")


@lru_cache(256)
def _record(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields, rename=True)


def _array(kind: str, items: Any) -> Any:
    """An array of numpy where it is at hand, the list where it is not."""
    if "numpy" not in sys.modules or kind.lstrip("<>|=")[:1] not in "biufc":
        return items
    import numpy

    return numpy.array(items, dtype=kind)


_MAKE: dict[str, Callable[[list], Any]] = {
    "t": tuple,
    "s": set,
    "f": frozenset,
    "q": deque,
    "c": lambda parts: complex(*parts),
    "r": lambda parts: Fraction(*parts),
    "g": lambda parts: range(*parts),
}


def pack(message: Any) -> bytes:
    """A message as it stands on the line: its length in four bytes, then JSON."""
    body = json.dumps(message, ensure_ascii=True).encode("ascii")
    return len(body).to_bytes(4, "big") + body
