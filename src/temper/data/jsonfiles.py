"""Rows written as JSON: one object a line, or one array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from temper.data import sources
from temper.data.characters import suspicious
from temper.data.findings import Findings, clip
from temper.data.messages import is_messages, row_of_messages
from temper.data.rows import (
    Decoded,
    Row,
    check_characters,
    decode,
    decode_line,
    not_utf8,
    skip_space,
    too_long,
    type_name,
)
from temper.data.sources import BOM, Source
from temper.errors import DataError, Fault

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8


def read_jsonl(source: Source, found: Findings) -> Iterator[Row]:
    """One JSON object a line; blank lines are passed over. A file that holds one JSON array is accepted and noted."""
    for number, offset, raw in source.lines():
        if not raw.strip():
            continue
        if not found.rows and raw.lstrip()[:1] == b"[" and _is_array(source):
            found.note("a JSON array of rows in a `.jsonl` file: read as its rows")
            yield from read_array(source, found)
            return
        found.rows += 1
        row = _line_row(raw, found.rows, number, offset, found)
        if row is not None:
            yield row


def _is_array(source: Source) -> bool:
    """Whether the whole file is one array: its first line is not complete, or nothing comes after it."""
    filled = (raw for _, _, raw in source.lines() if raw.strip())
    first, second = next(filled), next(filled, None)
    try:
        decode(first.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError:
        return second is not None or first.rstrip().endswith(b"]")
    return second is None


def _line_row(raw: bytes, number: int, line: int, offset: int, found: Findings) -> Row | None:
    where = f"{found.path}:{line}"
    if len(raw) > sources.MAX_ROW:
        too_long(number, line, found)
        return None
    text = decode_line(raw.rstrip(b"\r\n"), number, line, offset, found)
    if text is None:
        return None
    try:
        decoded = decode(text)
        rest = skip_space(text, decoded.end)
        if rest != len(text):
            raise json.JSONDecodeError("Extra data", text, rest)
    except json.JSONDecodeError as error:
        _syntax(error, text, number, f"{where}:{error.pos + 1}", found)
        return None
    return _row(decoded, Row(number, line, {}), text, found)


_SYNTAX = {
    "Extra data": "something follows the end of the row's value; one row is one line",
    "Expecting property name enclosed in double quotes": "expected a key in double quotes",
    "Unterminated string starting at": "a string that starts here is never closed",
    "Invalid control character at": "a raw control character inside a string; write it as an escape, such as \\n",
    "nested too deep": "lists and objects nested too deep to read",
}


def _syntax(error: json.JSONDecodeError, text: str, number: int, where: str, found: Findings) -> None:
    message = _SYNTAX.get(error.msg, error.msg[:1].lower() + error.msg[1:])
    near = clip(text[error.pos : error.pos + 40], 24)
    found.bad(number, where, "not valid JSON", f"{message}, found " + (f"`{near}`" if near else "the end"), _mend(text))


def _mend(text: str) -> str:
    """What to do about a line of broken JSON: some ways of going wrong are common."""
    if text.lstrip().startswith("{'"):
        return "JSON wants double quotes; this looks like printed Python: write rows with `json.dumps`"
    if text.strip() in ("{", "}"):
        return "one line is one row: write each object on a line of its own, not spread over several"
    if "\r" in text.rstrip():
        return "end lines with a line feed: this file seems to have carriage returns alone"
    return ""


def _row(decoded: Decoded, row: Row, written: str, found: Findings) -> Row | None:
    """The row of a decoded value, None when it cannot be one. `written` is the text it was read from."""
    where = row.place(found.path)
    if is_messages(decoded.value):
        decoded = replace(decoded, value=row_of_messages(decoded.value))
    if not isinstance(decoded.value, dict):
        detail = f"found {type_name(decoded.value)}: `{clip(written, 40)}`"
        found.bad(row.number, where, "not an object", detail, "write each row as `{…}`")
        return None
    for kind, detail in decoded.problems:
        found.bad(row.number, where, kind, detail)
    if decoded.problems:
        return None
    made = Row(row.number, row.line, decoded.value, row.column)
    if ("\\u" in written or suspicious(written)) and not check_characters(made, found):
        return None
    return made


# -- one JSON value ---------------------------------------------------------------------------------------------------


def read_json(source: Source, found: Findings) -> Iterator[Row]:
    """An array of objects. Lines of JSON in a `.json` file are accepted and noted."""
    filled = (raw for _, _, raw in source.lines() if raw.strip())
    first = next(filled, None)
    if first is None:
        return
    if first.lstrip()[:1] == b"[":
        yield from read_array(source, found)
        return
    try:
        decode(first.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError:
        _one_object(source, found)
    found.note("one JSON value a line in a `.json` file: read as lines")
    yield from read_jsonl(source, found)


def _one_object(source: Source, found: Findings) -> None:
    """Raises with what a `.json` file holds instead of an array of rows; returns if it looks like lines after all."""
    text = source.whole().removeprefix(BOM).decode("utf-8", "surrogateescape")
    try:
        decoded = decode(text)
    except json.JSONDecodeError:
        return
    if skip_space(text, decoded.end) != len(text):
        return
    held = decoded.value
    lists = [key for key, inner in held.items() if isinstance(inner, list)] if isinstance(held, dict) else []
    fix = f"the rows seem to be under `{clip(lists[0])}`: save that list alone" if lists else "write `[{…}, {…}]`"
    raise DataError(Fault("not an array of rows", f"{found.path}:1", f"the file holds {type_name(held)}", fix))


def read_array(source: Source, found: Findings) -> Iterator[Row]:
    """The rows of a file that is one JSON array; each has the line and column it starts at."""
    data = source.whole()
    text = data.removeprefix(BOM).decode("utf-8", "surrogateescape")
    unmarked = len(data) - len(data.removeprefix(BOM))
    line, line_start, at = 1, 0, 0
    for start, decoded in _elements(text, found):
        breaks = text.count("\n", at, start)
        if breaks:
            line, line_start = line + breaks, text.rindex("\n", at, start) + 1
        at = start
        row = Row(found.rows, line, {}, start - line_start + 1)
        broken = _NOT_UTF8.search(text, start, decoded.end)
        if broken:
            offset = unmarked + len(text[: broken.start()].encode("utf-8", "surrogateescape"))
            not_utf8(ord(broken.group()) - 0xDC00, row.number, row.place(found.path), offset, found)
        elif (made := _row(decoded, row, text[start : decoded.end], found)) is not None:
            yield made


def _elements(text: str, found: Findings) -> Iterator[tuple[int, Decoded]]:
    """(start, value) of each element; counts the rows. A syntax fault ends it: what follows cannot be told apart."""
    at = skip_space(text, skip_space(text, 0) + 1)
    try:
        more = text[at : at + 1] != "]"
        while more:
            decoded = decode(text, at)
            found.rows += 1
            yield at, decoded
            at = skip_space(text, decoded.end)
            more = text[at : at + 1] == ","
            if more:
                at = skip_space(text, at + 1)
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("expected `,` or `]` after a row", text, at)
        at = skip_space(text, at + 1)
        if at != len(text):
            raise json.JSONDecodeError("something follows the end of the array", text, at)
    except json.JSONDecodeError as error:
        found.rows += 1
        _syntax(error, text, found.rows, f"{found.path}:{error.lineno}:{error.colno}", found)
