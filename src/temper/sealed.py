"""Files that carry a hash of their own content: JSON whose first key is the hash of every byte behind it.

The hash covers what the file is called as well, so a file under another's name is no more valid than a damaged one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_HEAD = b'{"sha256": "%s"'
_HEAD_BYTES = len(_HEAD) - 2 + 64


class Damaged(Exception):
    """A file is not as it was written; `file` is its path, `reason` says what is wrong with it."""

    def __init__(self, file: Path, reason: str):
        super().__init__(f"{file}: {reason}")
        self.file, self.reason = file, reason


def seal(name: str, value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """A JSON object as bytes that `unseal` accepts under the same `name` only.

    >>> unseal("a.json", seal("a.json", {"step": 3}))
    {'step': 3}
    """
    body = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")[1:]
    rest = b"," * bool(value) + b" " * (indent is None and bool(value)) + body
    return _head(name, rest) + rest


def unseal(name: str, data: bytes) -> dict[str, Any]:
    """The object that `seal` made bytes of. Raises ValueError if one of them is another now.

    >>> unseal("a.json", seal("a.json", {"step": 1}).replace(b"1}", b"3}"))
    Traceback (most recent call last):
        ...
    ValueError: its bytes do not match the hash written with them
    """
    head, rest = data[:_HEAD_BYTES], data[_HEAD_BYTES:]
    if not rest.endswith((b"}", b"}\n")) or not head.startswith(_HEAD[:12]):
        raise ValueError("it is cut short, or holds no hash of its own")
    if head != _head(name, rest.removesuffix(b"\n")):
        raise ValueError("its bytes do not match the hash written with them")
    value = json.loads((head + rest).decode("utf-8", "surrogatepass"))
    del value["sha256"]
    return value


def _head(name: str, rest: bytes) -> bytes:
    return _HEAD % hashlib.sha256(name.encode() + b"\0" + rest).hexdigest().encode()


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a file that was written sealed under the file's name. Raises Damaged, FileNotFoundError where
    there is none."""
    try:
        return unseal(path.name, path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise Damaged(path, str(problem)) from None


def trusted(path: Path) -> dict[str, Any]:
    """The same object; {} where there is none, or none that can be believed."""
    try:
        return read_sealed(path)
    except (Damaged, OSError):
        return {}


# -- text -------------------------------------------------------------------------------------------------------------

_COMMENT = b"# sha256: %s\n"


def seal_text(name: str, text: str) -> bytes:
    """A text whose first line, a comment, is the hash of `name` and of all lines below.

    >>> seal_text("a.yaml", "seed: 1\\n").splitlines()[1]
    b'seed: 1'
    """
    rest = text.encode("utf-8", "surrogatepass")
    return _COMMENT % hashlib.sha256(name.encode() + b"\0" + rest).hexdigest().encode() + rest


def read_sealed_text(path: Path) -> str:
    """The text of a file that was written sealed under the file's name, its first line left out. Raises Damaged,
    FileNotFoundError where there is none."""
    try:
        text = path.read_bytes().partition(b"\n")[2].decode("utf-8", "surrogatepass")
        if seal_text(path.name, text) != path.read_bytes():
            raise Damaged(path, "its bytes do not match the hash written with them")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(path, f"cannot be read: {error.strerror}") from None
    except ValueError as problem:
        raise Damaged(path, str(problem)) from None
    return text


# -- rows -------------------------------------------------------------------------------------------------------------


def seal_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON Lines; the last line, `{"sha256": …}`, covers `name` and all lines before it.

    >>> unseal_rows("a", seal_rows("a", [{"x": 1}, {"x": 2}]))
    [{'x': 1}, {'x': 2}]
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")
    return lines + _last(name, lines)


def unseal_rows(name: str, data: bytes) -> list[dict[str, Any]]:
    """The rows that `seal_rows` wrote. Raises ValueError if a byte of them is another now."""
    start = data.rfind(b"\n", 0, -1) + 1
    if data[start:] != _last(name, data[:start]):
        raise ValueError("its bytes do not match the hash written with them")
    return [json.loads(line) for line in data[:start].decode("utf-8").split("\n") if line]


def _last(name: str, lines: bytes) -> bytes:
    return _head(name, lines) + b"}\n"
