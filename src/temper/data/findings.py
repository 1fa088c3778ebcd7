"""What a look at a data file finds: bad rows grouped by kind, warnings and notes, all of them, told once at the end."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn

from temper.errors import DataError, Fault

SHOWN = 3  # rows of a kind that are named; the others are counted


@dataclass(frozen=True)
class Note:
    """Something to know that stops nothing: `note` says what was done, `warning` says what to look at.

    >>> print(Note("warning", Fault("2 prompts occur twice", where="train.jsonl:7")).render())
    warning: 2 prompts occur twice
      where: train.jsonl:7
    """

    level: Literal["note", "warning"]
    fault: Fault

    def render(self) -> str:
        return self.fault.render(self.level)


Tell = Callable[[Note], None]


def tell_log(note: Note) -> None:
    """The default listener: nothing that was found about a file is lost, even where nobody asked."""
    logging.getLogger("temper.data").warning(note.render())


def tell_all(notes: Iterable[Note], tell: Tell | None) -> None:
    for note in notes:
        (tell or tell_log)(note)


def clip(text: object, limit: int = 60) -> str:
    """What stands in a message: the text's beginning, on one line.

    >>> clip("a" * 100, 5), clip("two" + chr(10) + "lines")
    ('aaaaa…', 'two lines')
    """
    shown = str(text)[: limit * 4].replace("\r", "\\r").replace("\t", "\\t").replace("\n", " ").strip(" ")
    return shown if len(shown) <= limit else shown[:limit] + "…"


@dataclass
class _Kind:
    """All places where one kind of thing was found; the first few by name."""

    fix: str
    count: int = 0
    shown: list[tuple[int, str, str]] = field(default_factory=list)  # row, place, detail
    last_row: int = -1

    def add(self, row: int, where: str, detail: str | Callable[[], str]) -> None:
        if row == self.last_row:
            return  # one row is one bad row, however often the same thing is wrong with it
        self.last_row = row
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((row, where, detail if isinstance(detail, str) else detail()))

    def fault(self, kind: str, rows: int, noun: str) -> Fault:
        row, where, detail = self.shown[0]
        if self.count == 1:
            return Fault(f"row {row}: {kind}", where, detail, self.fix)
        more = self.count - len(self.shown)
        places = [place for _, place, _ in self.shown] + ([f"and {more:,} more"] if more else [])
        details = [f"row {r}: {text}" for r, _, text in self.shown if text]
        return Fault(f"{self.count:,} {noun} of {rows:,}: {kind}", "\n".join(places), "\n".join(details), self.fix)


class Findings:
    """Collects what is wrong with the rows of one file, in bounded memory.

    >>> found = Findings("a.jsonl")
    >>> for row in (2, 5, 6, 9): found.bad(row, f"a.jsonl:{row}", "`answer` is empty")
    >>> found.rows = 10
    >>> print(found.faults()[0].render().splitlines()[0])
    error: 4 bad rows of 10: `answer` is empty
    """

    def __init__(self, path: str, skip_bad: bool = False, checkable: bool = True):
        self.path = path
        self.skip_bad = skip_bad
        self.checkable = checkable  # a data file, which `temper check` could rewrite
        self.rows = 0  # rows seen, good and bad
        self.bad_rows: set[int] = set()
        self.notes: list[Note] = []
        self._bad: dict[str, _Kind] = {}
        self._odd: dict[str, _Kind] = {}
        self.dropped: set[int] = set()
        self._dropped: dict[str, _Kind] = {}

    def bad(self, row: int, where: str, kind: str, detail: str | Callable[[], str] = "", fix: str = "") -> None:
        """A row that cannot be used. `kind` groups rows: it never holds text from the file. `detail` may; as a
        function it is called only for rows that are shown."""
        self.bad_rows.add(row)
        self._bad.setdefault(kind, _Kind(fix)).add(row, where, detail)

    def drop(self, row: int, where: str, kind: str, detail: str | Callable[[], str] = "", fix: str = "") -> None:
        """A row that is left out because the task says so; it is counted."""
        self.dropped.add(row)
        self._dropped.setdefault(kind, _Kind(fix)).add(row, where, detail)

    def odd(self, row: int, where: str, kind: str, detail: str = "", fix: str = "") -> None:
        """A row that is used, with a warning."""
        self._odd.setdefault(kind, _Kind(fix)).add(row, where, detail)

    def note(self, what: str, where: str = "", why: str = "", fix: str = "") -> None:
        self.notes.append(Note("note", Fault(what, where or self.path, why, fix)))

    def warn(self, what: str, where: str = "", why: str = "", fix: str = "") -> None:
        self.notes.append(Note("warning", Fault(what, where or self.path, why, fix)))

    def faults(self) -> tuple[Fault, ...]:
        """The bad rows, one fault a kind; where there are several kinds, a last one with the sum."""
        by_row = sorted(self._bad.items(), key=lambda item: item[1].shown[0][0])
        kinds = [found.fault(kind, self.rows, "bad rows") for kind, found in by_row]
        skip = f"; `temper check --skip-bad --write GOOD.jsonl {shlex.quote(self.path)}` keeps the good rows"
        skip = skip if self.checkable else ""
        if len(kinds) == 1:
            (only,) = kinds
            return (replace(only, fix=f"{only.fix or 'mend the file'}{skip}"),)
        count = f"{len(self.bad_rows):,} bad row{'s' * (len(self.bad_rows) != 1)} of {self.rows:,} in all"
        total = Fault(count, self.path, fix=f"mend the file{skip}")
        return (*kinds, total) if kinds else ()

    def fail(self, *faults: Fault) -> NoReturn:
        """Raises `DataError` with the bad rows so far and what makes reading on pointless."""
        raise DataError((*self.faults(), *faults))

    def warnings(self) -> list[Note]:
        """Everything to know about the file beside its bad rows."""
        odd = [Note("warning", found.fault(kind, self.rows, "rows")) for kind, found in self._odd.items()]
        return [*self.notes, *odd]

    def close(self) -> list[Note]:
        """The notes of a file that can be used, rows that were left out among them. Raises `DataError` with every
        fault where it cannot: a bad row (unless bad rows are skipped), or no good row at all."""
        if not self.rows:
            self.fail(empty(self.path))
        if self.bad_rows and (not self.skip_bad or len(self.bad_rows) >= self.rows):
            self.fail()
        unverifiable = [found.fault(kind, self.rows, "rows") for kind, found in self._dropped.items()]
        if len(self.dropped | self.bad_rows) >= self.rows:
            self.fail(*unverifiable)
        left_out = (*unverifiable, *self.faults())
        out = [Note("warning", Fault(f"left out: {fault.what}", fault.where, fault.why)) for fault in left_out]
        return [*self.warnings(), *out]


def empty(path: str) -> Fault:
    return Fault("0 rows", path, "there is nothing in this file to learn from or to test on", "is it the right file?")
