"""One row of a data file, and the strict JSON that rows are written in: nothing is lost, nothing is guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any

from temper.data.characters import BROKEN, odd_characters
from temper.data.findings import Findings, clip
from temper.data.sources import MAX_ROW

MAX_DEPTH = 64  # objects and arrays inside one another


@dataclass(frozen=True)
class Number:
    """A number as it stands in the file, digit by digit.

    >>> decode('{"answer": 0.10}').value["answer"]
    Number(text='0.10')
    """

    text: str


@dataclass(frozen=True)
class Row:
    """One row: its number among the rows of the file and its line, both from 1; `column` where lines hold several,
    `file` where the data set has several."""

    number: int
    line: int
    values: Mapping[str, Any]
    column: int = 1
    file: str = field(default="", repr=False)

    def place(self, path: str) -> str:
        """`train.jsonl:17`, or `train.parquet row 17` where there are no lines."""
        path = self.file or path
        if not self.line:
            return f"{path} row {self.number}"
        return f"{path}:{self.line}:{self.column}" if self.column > 1 else f"{path}:{self.line}"


class _Nothing:
    """What stands in a column that a row does not have."""


NOTHING = _Nothing()
TYPES: dict[type, str] = {
    _Nothing: "no such column",
    str: "a string",
    bool: "a boolean",
    Number: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def type_name(value: object) -> str:
    """What people call the type of a value in a file.

    >>> type_name(None), type_name(Number("5")), type_name([])
    ('null', 'a number', 'a list')
    """
    return TYPES.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True)
class Decoded:
    """A JSON value with what is wrong inside it: (kind, detail) pairs. `end` is where the value stops in its text."""

    value: Any
    end: int
    problems: tuple[tuple[str, str], ...]


def skip_space(text: str, at: int) -> int:
    """Where the next thing that is not JSON white space stands."""
    return WHITESPACE.match(text, at).end()


class _Decoder(json.JSONDecoder):
    """Strict JSON: duplicate keys and NaN are problems, numbers keep their text."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []
        super().__init__(
            object_pairs_hook=self._object, parse_int=Number, parse_float=Number, parse_constant=self._constant
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            self.problems.append(("duplicate key", f"`{clip(twice)}` stands twice; only one of its values would count"))
        return made

    def _constant(self, name: str) -> None:
        self.problems.append(("not valid JSON", f"`{name}` is not a JSON number; write null, or leave the key out"))


_DECODER = _Decoder()


def decode(text: str, start: int = 0) -> Decoded:
    """The JSON value that begins at `start`. Raises `json.JSONDecodeError` on broken syntax, and for nesting too deep
    to read; what is well-formed but not acceptable is listed in `problems`."""
    _DECODER.problems = problems = []
    start = skip_space(text, start)
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise json.JSONDecodeError("nested too deep", text, start) from None
    if text.count("[", start, end) + text.count("{", start, end) > MAX_DEPTH and depth(value) > MAX_DEPTH:
        problems.append(("nested too deep", f"more than {MAX_DEPTH} lists and objects inside one another"))
    return Decoded(value, end, tuple(problems))


def depth(value: Any) -> int:
    """How many lists and objects are inside one another.

    >>> depth("x"), depth([]), depth({"a": [[]]})
    (0, 1, 3)
    """
    level, layer = 0, [value]
    while layer := [item for item in layer if isinstance(item, (list, dict))]:
        level += 1
        layer = [inner for item in layer for inner in (item.values() if isinstance(item, dict) else item)]
    return level


def decode_line(raw: bytes, number: int, line: int, offset: int, found: Findings) -> str | None:
    """The text of a line, None when it is not UTF-8: then the bad byte is told with its offset in the file."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        not_utf8(raw[error.start], number, f"{found.path}:{line}:{error.start + 1}", offset + error.start, found)
        return None


def not_utf8(byte: int, number: int, where: str, offset: int, found: Findings) -> None:
    latin = bytes([byte]).decode("cp1252", "replace")
    guess = f"; it would be `{latin}` in Windows-1252 or Latin-1" if latin.isprintable() and latin != "�" else ""
    fix = "save the file as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8`"
    found.bad(number, where, "not UTF-8", f"byte 0x{byte:02X} at byte offset {offset}{guess}", fix)


def too_long(number: int, line: int, found: Findings) -> None:
    detail = "one line is one row; is the file missing its line ends?"
    found.bad(number, f"{found.path}:{line}", f"longer than {MAX_ROW >> 20} MiB", detail)


def strings(value: Any) -> Iterator[str]:
    """Every string in a value, keys included.

    >>> list(strings({"a": ["b", {"c": Number("5")}]}))
    ['a', 'b', 'c']
    """
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(part for pair in reversed(item.items()) for part in reversed(pair))


def check_characters(row: Row, found: Findings) -> bool:
    """Tell odd characters of a row with code point and column; False when they make it unusable."""
    usable, where = True, row.place(found.path)
    pieces = ((column, text) for column, value in row.values.items() for text in (column, *strings(value)))
    for column, text in pieces:
        for kind, code in odd_characters(text):
            what, detail = f"a {kind} in the text", f"{code} in `{clip(column)}`"
            if kind in BROKEN:
                usable = False
                found.bad(row.number, where, what, detail)
            else:
                found.odd(row.number, where, what, detail, "remove it if it is not meant: the model would learn it")
    return usable


def to_json(value: Any) -> str:
    """A row as one line of JSON, its numbers digit by digit as they were read.

    >>> to_json({"answer": Number("0.10"), "tags": ["é", None]})
    '{"answer": 0.10, "tags": ["é", null]}'
    """
    if isinstance(value, Number):
        return value.text
    if isinstance(value, list):
        return "[" + ", ".join(map(to_json, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {to_json(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value as Python knows it: numbers become int or float; one that neither holds stays its text.

    >>> plain({"nums": [Number("3"), Number("0.5")], "huge": Number("1e999")})
    {'nums': [3, 0.5], 'huge': '1e999'}
    """
    if isinstance(value, Number):
        try:
            number = json.loads(value.text)
        except ValueError:  # more digits than int reads
            return value.text
        return number if isinstance(number, int) or math.isfinite(number) else value.text
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, None when none is close.

    >>> nearest("anwser", ["prompt", "answer"]), nearest("Prompt", ["prompt"]), nearest("zebra", ["prompt"])
    ('answer', 'prompt', None)
    """
    import difflib

    names = list(known)[:500]
    folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    close = difflib.get_close_matches(name.casefold()[:200], [key[:200] for key in folded], n=1)
    return folded.get(close[0]) if close else None
