"""Columns of a row, the large ones in a file of this process (the tests of a program may have tens of megabytes): they
stay out of memory, and where a prompt goes to another process a few numbers go with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LARGE = 1 << 16  # characters of a value, about


@dataclass(frozen=True)
class Aside:
    """Where a value stands: `size` bytes of JSON from `start` in a file."""

    path: str
    start: int
    size: int

    def read(self) -> Any:
        with open(self.path, "rb") as stream:
            stream.seek(self.start)
            return json.loads(stream.read(self.size))


class Columns(Mapping[str, Any]):
    """The columns of a row, read-only. One that was set aside is read whenever it is asked for.

    >>> columns = set_aside({"id": 7, "tests": ["x" * 40] * 4000})
    >>> len(columns["tests"]), type(columns.held["tests"]).__name__, dict(columns)["id"]
    (4000, 'Aside', 7)
    """

    __slots__ = ("held",)

    def __init__(self, held: Mapping[str, Any]):
        self.held = dict(held)  # the values as they are in memory

    def __getitem__(self, name: str) -> Any:
        value = self.held[name]
        return value.read() if type(value) is Aside else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def __repr__(self) -> str:
        return f"Columns({self.held!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Columns, (self.held,)


def held_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a row as they are in memory: an `Aside` for each that was set aside."""
    return row.held if isinstance(row, Columns) else row


def set_aside(values: Mapping[str, Any]) -> Columns:
    """The columns, large ones in the file; where there is no room for that they stay in memory."""
    held = dict(values)
    for name, value in values.items():
        if _left_of(value, LARGE) < 0:
            with contextlib.suppress(OSError):
                held[name] = _FILE.put(json.dumps(value).encode())
    return Columns(held)


def _left_of(value: Any, room: int) -> int:
    """What a value leaves of the room; it is not looked at further once there is none."""
    if isinstance(value, str):
        return room - len(value)
    if not isinstance(value, (list, dict)):
        return room - 8
    for item in value.items() if isinstance(value, dict) else value:
        room = _left_of(list(item) if isinstance(item, tuple) else item, room)
        if room < 0:
            break
    return room


class _File:
    """The file, made when it is first needed; it goes when the process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._path = ""

    def put(self, data: bytes) -> Aside:
        with self._lock:
            if self._owner != os.getpid():
                number, self._path = tempfile.mkstemp(prefix="temper-rows-")
                os.close(number)
                self._owner = os.getpid()
                atexit.register(self._remove, self._owner)
            with open(self._path, "ab") as stream:
                start = stream.tell()
                stream.write(data)
            return Aside(self._path, start, len(data))

    def _remove(self, owner: int) -> None:
        if os.getpid() == owner:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


_FILE = _File()
