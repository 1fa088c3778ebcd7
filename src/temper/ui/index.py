"""An index beside a run: every completion on disk in one SQLite file, so that a filter takes a moment and no memory.

`RUN/.completions.sqlite` is made anew by whoever reads and never read by a run; deleting it loses nothing. It follows
the files it was made from by their size and time: a file that changed is read again, one that is gone leaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.record.runfiles import read_lines
from temper.report.find import Source, is_right
from temper.text.languages import main_language

NAME = ".completions.sqlite"
VERSION = 2  # of the tables: an index of another is made anew
REWARDS = 24  # by which one can filter; the rest are shown
ROWS_AT_ONCE = 20_000  # in one transaction
MOST_TEXT = 100_000  # characters of a completion whose words are found

_TABLES = f"""
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT UNIQUE, signature TEXT, stage TEXT, step INTEGER, task TEXT);
CREATE TABLE names (id INTEGER PRIMARY KEY, kind TEXT, name TEXT, UNIQUE (kind, name));
CREATE TABLE rows (
  id INTEGER PRIMARY KEY, file INTEGER, stage INTEGER, step INTEGER, task INTEGER, prompt INTEGER, sample INTEGER,
  verdict INTEGER, language INTEGER, truncated INTEGER, tokens INTEGER, total REAL, advantage REAL,
  {", ".join(f"r{i} REAL" for i in range(REWARDS))}
);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB);
CREATE VIRTUAL TABLE words USING fts5 (text, content='', detail=none);
CREATE INDEX by_prompt ON rows (prompt, stage, step);
CREATE INDEX by_stage ON rows (stage, step);
CREATE INDEX by_file ON rows (file);
"""
_INSERT = f"INSERT INTO rows VALUES ({', '.join('?' * (13 + REWARDS))})"


@dataclass(frozen=True)
class Progress:
    """How far an index is."""

    done: int  # files
    of: int
    rows: int

    @property
    def is_whole(self) -> bool:
        return self.done == self.of


def index_path(run: Path, is_beside: bool = True) -> Path:
    """Beside the run's own files; where nothing can or is to be written there, in the user's temporary directory."""
    if is_beside and os.access(run, os.W_OK):
        return run / NAME
    owner = hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:16]
    return _own_folder() / f"{owner}.sqlite"


def _own_folder() -> Path:
    """A directory for temporary indexes that is this user's alone. Raises OSError where there is none."""
    folder = Path(tempfile.gettempdir()) / f"temper-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a directory of this user's alone")
    return folder


def connect(path: Path) -> sqlite3.Connection:
    """For reading. Raises sqlite3.Error where there is no index."""
    return sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=5)


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


class Index:
    """The index of one run, kept up to date by one writer at a time."""

    def __init__(self, run: Path, is_beside: bool = True):
        self.run, self.path = run, index_path(run, is_beside)
        self._lock = threading.Lock()
        self._progress = Progress(0, 0, 0)
        self.problem = ""  # why it could not be written, the last time

    @property
    def progress(self) -> Progress:
        return self._progress

    def update(self, sources: Sequence[Source], stop: Callable[[], bool] = lambda: False) -> None:
        """Read what is new in `sources`, and forget what is gone. Raises sqlite3.Error or OSError where the index
        cannot be written."""
        with self._lock, contextlib.closing(self._open()) as connection:
            known = {path: (number, signature) for number, path, signature in
                     connection.execute("SELECT id, path, signature FROM files")}  # fmt: skip
            wanted = {self._name(source.path): source for source in sources}
            for path in [path for path in known if path not in wanted]:
                _forget(connection, known.pop(path)[0])
            todo = []
            for path, source in wanted.items():
                signature = signature_of(source.path)
                if path not in known or known[path][1] != signature:
                    todo.append((source, signature, known.get(path, (None, None))[0]))
            rows = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
            self._progress = Progress(len(wanted) - len(todo), len(wanted), rows)
            writer = Writer(connection, self._name)
            for source, signature, old in todo:
                if stop():
                    return
                if old is not None:
                    rows -= _forget(connection, old)
                rows += writer.add(source, signature)
                self._progress = Progress(self._progress.done + 1, len(wanted), rows)
            connection.commit()
            if todo:
                connection.execute("ANALYZE")
                connection.commit()
            self.problem = ""

    def _name(self, path: Path) -> str:
        """A file as it is called in the index: a run that was moved keeps its own."""
        return os.path.relpath(path, self.run)

    def _open(self) -> sqlite3.Connection:
        """The index for writing, with its tables; one of another version, or damaged, is made anew."""
        for _ in range(2):
            connection = sqlite3.connect(self.path, timeout=30)
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == VERSION:
                    connection.execute("SELECT max(id) FROM rows").fetchone()
                    _tune(connection)
                    return connection
                if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    os.chmod(self.path, 0o600)
                    _tune(connection)
                    connection.executescript(_TABLES + f"PRAGMA user_version = {VERSION};")
                    return connection
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                    connection.close()
                    raise
            connection.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        raise sqlite3.DatabaseError(f"{self.path} cannot be made anew")


def _tune(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")  # readers see what was whole while one writes
    connection.execute("PRAGMA synchronous = OFF")  # it can be made anew
    connection.execute("PRAGMA cache_size = -32000")


def signature_of(path: Path) -> str:
    """Changes when a file does."""
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{about.st_size}:{about.st_mtime_ns}"


def _forget(connection: sqlite3.Connection, file: int) -> int:
    """Drop a file's rows and say how many. Their words stay until the index is made anew and are found no more: a row's
    number is never used twice."""
    connection.execute("DELETE FROM bodies WHERE id IN (SELECT id FROM rows WHERE file = ?)", (file,))
    dropped = connection.execute("DELETE FROM rows WHERE file = ?", (file,)).rowcount
    connection.execute("DELETE FROM files WHERE id = ?", (file,))
    return dropped


class Writer:
    """Adds files of completions to an index."""

    def __init__(self, connection: sqlite3.Connection, name: Callable[[Path], str]):
        """`name` is what a file is called in the index."""
        self.connection, self.name = connection, name
        self._names = {(kind, name): number for number, kind, name in
                       connection.execute("SELECT id, kind, name FROM names")}  # fmt: skip
        self._places = {name: place for place, name in enumerate(reward_names(connection))}
        highest = "SELECT max(coalesce((SELECT max(id) FROM rows), 0), coalesce((SELECT max(id) FROM bodies), 0))"
        used = connection.execute("SELECT coalesce(max(id), 0) FROM words_docsize").fetchone()[0]
        self._next = max(used, connection.execute(highest).fetchone()[0]) + 1

    def add(self, source: Source, signature: str) -> int:
        """Index one file; how many rows it has. The file counts as read once all of them are in."""
        stage = self.number("stage", source.stage)
        inserted = self.connection.execute(
            "INSERT INTO files (path, signature, stage, step, task) VALUES (?, ?, ?, ?, ?)",
            (self.name(source.path), signature, source.stage, source.step, source.task),
        ).lastrowid
        count = 0
        for batch in batches(read_lines(source.path), ROWS_AT_ONCE):
            self._insert(batch, int(inserted or 0), stage, source)
            count += len(batch)
        self.connection.commit()
        return count

    def _insert(self, batch: Sequence[Mapping[str, Any]], file: int, stage: int, source: Source) -> None:
        rows, bodies, words = [], [], []
        for row in batch:
            number, self._next = self._next, self._next + 1
            rows.append((number, file, stage, *self._columns(row, source)))
            body = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
            bodies.append((number, zlib.compress(body, 1)))
            text = f"{row.get('prompt') or ''} {row.get('reply') or ''}"[:MOST_TEXT]
            words.append((number, text.encode("utf-8", "replace").decode()))
        self.connection.executemany(_INSERT, rows)
        self.connection.executemany("INSERT INTO bodies VALUES (?, ?)", bodies)
        self.connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", words)

    def _columns(self, row: Mapping[str, Any], source: Source) -> tuple[Any, ...]:
        task = self.number("task", str(row.get("task") or source.task or ""))
        prompt = self.number("prompt", prompt_key(source.task or row.get("task"), row.get("prompt_id")))
        rewards: list[float | None] = [None] * REWARDS
        given = row.get("rewards")
        for name, value in given.items() if isinstance(given, dict) else ():
            place = self._place(str(name))
            if place is not None:
                rewards[place] = number_of(value)
        return (
            -1 if source.step is None else source.step,
            task,
            prompt,
            whole_of(row.get("sample")),
            is_right(dict(row)),  # 1, 0, or null of an open prompt
            self.number("language", main_language(_thought(row.get("reply")))),
            int(row.get("finish_reason") == "length"),
            whole_of(row.get("tokens")),
            number_of(row.get("total")),
            number_of(row.get("advantage")),
            *rewards,
        )

    def _place(self, name: str) -> int | None:
        """The column of a reward; None for one too many."""
        if name not in self._places and len(self._places) < REWARDS:
            self._places[name] = len(self._places)
            self.number("reward", name)
        return self._places.get(name)

    def number(self, kind: str, name: str) -> int:
        """The number of a name, given when it is first met."""
        key = (kind, name.encode("utf-8", "replace").decode())
        if key not in self._names:
            made = self.connection.execute("INSERT INTO names (kind, name) VALUES (?, ?)", key).lastrowid
            self._names[key] = int(made or 0)
        return self._names[key]


def _thought(reply: Any) -> str:
    """What the language of a reply is told by: its beginning, without a tag."""
    return str(reply or "").lstrip().removeprefix("<think>")


def prompt_key(task: object, prompt_id: object) -> str:
    """What tells a prompt from all others of a run."""
    return f"{task}\n{prompt_id}"


def reward_names(connection: sqlite3.Connection) -> list[str]:
    """The rewards that have a column, in the columns' order."""
    return [name for (name,) in connection.execute("SELECT name FROM names WHERE kind = 'reward' ORDER BY id")]


def number_of(value: Any) -> float | None:
    """A finite number, or none.

    >>> number_of(1), number_of(float("nan")), number_of("1"), number_of(True)
    (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < float("inf") else None


def whole_of(value: Any) -> int | None:
    """A whole number that SQLite holds, or none."""
    return value if type(value) is int and abs(value) < 1 << 62 else None


def batches(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
