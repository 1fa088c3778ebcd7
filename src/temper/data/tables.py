"""Rows from `.csv` tables with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from temper.data import sources
from temper.data.characters import suspicious
from temper.data.findings import Findings, clip
from temper.data.rows import Row, check_characters, decode_line, too_long
from temper.data.sources import Source
from temper.errors import DataError, Fault

SEPARATORS = {";": "`;`", "\t": "a tab", "|": "`|`"}


class _Lines:
    """The decoded lines of a source, as `csv.reader` wants them; remembers which of them are not UTF-8."""

    def __init__(self, source: Source, found: Findings):
        self.bad: set[int] = set()
        self._lines = source.lines()
        self._found = found

    def __iter__(self) -> Iterator[str]:
        for number, offset, raw in self._lines:
            row = self._found.rows + 1
            text = decode_line(raw, row, number, offset, self._found)
            if len(raw) > sources.MAX_ROW:
                too_long(row, number, self._found)
                self.bad.add(number)
            if text is None:
                self.bad.add(number)
            yield raw.decode("utf-8", "replace") if text is None else text


def read_csv(source: Source, found: Findings) -> Iterator[Row]:
    """Rows below a header line: commas, double quotes around what needs them, quoted line breaks, blank lines passed
    over. Every value is a string. Raises `DataError` for a header that cannot be one."""
    csv.field_size_limit(max(csv.field_size_limit(), sources.MAX_ROW))
    lines = _Lines(source, found)
    reader = csv.reader(iter(lines), strict=True)
    header = _header(reader, lines, found)
    names = [name for name in header if name]
    unnamed = len(header) - len(names)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found.rows += 1
            _broken(error, start, reader.line_num, found)
            continue
        if not cells:
            continue
        found.rows += 1
        row = Row(found.rows, start, dict(zip(names, cells[unnamed:], strict=False)))
        if lines.bad.intersection(range(start, reader.line_num + 1)):
            continue
        if len(cells) != len(header):
            _wrong_count(cells, header, row, found)
        elif not any(map(suspicious, cells)) or check_characters(row, found):
            yield row


def _header(reader: Any, lines: _Lines, found: Findings) -> list[str]:
    """The column names; "" for a first column without one. Raises `DataError` where they cannot be names."""
    where = f"{found.path}:1"
    try:
        cells = next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise DataError(Fault("the header line is broken", where, str(error), "quote names that hold commas")) from None
    if lines.bad:
        raise DataError(())
    names = [cell.strip() for cell in cells]
    if found_json := next((name for name in names[:1] if name.startswith(("{", "["))), None):
        raise DataError(Fault("not CSV", where, f"found JSON: `{clip(found_json)}`", "rename it to end in `.jsonl`"))
    _separated_by_commas(names, where)
    if any(cell.startswith(' "') for cell in cells):
        fix = "write `a,b`, not `a, b`: after a space a quote is part of the value"
        raise DataError(Fault("a space between a comma and a quote", where, fix=fix))
    if any(not name for name in names[1:]) or names == [""]:
        blank = next(place for place, name in enumerate(names, 1) if not name and (place > 1 or len(names) == 1))
        raise DataError(Fault(f"column {blank} has no name", where, f"found {_listed(names)}", "name every column"))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        what = f"two columns are called `{clip(twice[0])}`"
        raise DataError(Fault(what, where, "only one of them would count", "rename one"))
    if names and not names[0]:
        found.note("the first column has no name, like an index that pandas wrote: it is ignored", where)
    return names


def _separated_by_commas(names: list[str], where: str) -> None:
    if names and names[0].lower().startswith("sep="):
        fix = "remove this line, and separate columns with commas"
        raise DataError(Fault("an Excel `sep=` line instead of a header", where, f"found `{clip(names[0])}`", fix))
    if len(names) != 1:
        return
    for mark, shown in SEPARATORS.items():
        parts = [part.strip() for part in names[0].split(mark)]
        if len(parts) > 1 and all(parts):
            why = f"expected columns separated by `,`, found one column `{clip(names[0])}`"
            fix = f"save the table with commas: its columns seem to be {_listed(parts)}"
            raise DataError(Fault(f"columns are separated by {shown}", where, why, fix))


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{clip(name, 30)}`" for name in names[:8]) + (" …" if len(names) > 8 else "")


def _wrong_count(cells: list[str], header: list[str], row: Row, found: Findings) -> None:
    detail = f"expected {len(header)} columns ({_listed(header)}), found {len(cells)}"
    fix = "put double quotes around values that hold commas or line breaks" if len(cells) > len(header) else ""
    found.bad(row.number, row.place(found.path), "wrong number of columns", detail, fix)


def _broken(error: csv.Error, start: int, end: int, found: Findings) -> None:
    where, message = f"{found.path}:{start}", str(error)
    if "unexpected end of data" in message:
        detail = f"a quote that opens in the row at line {start} is never closed (the file ends at line {end})"
    elif "new-line character" in message:
        detail = "a carriage return inside an unquoted value: end lines with LF or CRLF"
    elif "field limit" in message:
        detail = f"a value longer than {sources.MAX_ROW >> 20} MiB: is a quote never closed?"
    else:
        detail = f"{message} (a double quote inside a quoted value is written twice)"
    found.bad(found.rows, where, "broken quoting", detail)
