"""metrics.jsonl: one JSON object a step, appended and flushed, steps strictly rising; a torn last line is dropped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.errors import Fault, ResourceError

Row = dict[str, Any]
RL_KINDS = ("grpo", "ppo")  # kinds of stages whose rows tell of rewards


def clean(value: Any) -> Any:
    """A JSON value for a metric: integers stay, floats are finite or None, sequences become lists of the same.

    >>> clean(0.5), clean(float("nan")), clean((1, float("inf")))
    (0.5, None, [1, None])
    """
    if value is None or isinstance(value, int):
        return value if value is None else int(value)
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    number = float(value)  # numpy and torch scalars too
    return number if math.isfinite(number) else None


def parse_row(line: str | bytes) -> Row | None:
    """The row that `line` holds, None when it is torn or is not a row (an object with an integer `step`).

    >>> parse_row('{"step": 1, "loss": NaN}'), parse_row('{"step": 2, "lo')
    ({'step': 1, 'loss': None}, None)
    """
    try:
        row = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and not isinstance(row["step"], bool)
    return row if is_row else None


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file, steps strictly rising; torn and foreign lines are left out; [] without a file."""
    return [row for row, _ in _read(path)]


def _read(path: Path) -> list[tuple[Row, bytes]]:
    try:
        content = path.read_bytes()
    except OSError:
        return []
    kept: list[tuple[Row, bytes]] = []
    for line in content.splitlines():
        row = parse_row(line)
        if row is not None and (not kept or row["step"] > kept[-1][0]["step"]):
            kept.append((row, line))
    return kept


class MetricsFile:
    """Appends rows to one file. What a killed run left there is repaired when the file is first touched.

    Raises ResourceError when the file cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        kept = _read(path)
        self.rows: list[Row] = [row for row, _ in kept]  # those of an earlier process included
        self._lines = [line for _, line in kept]
        self._repaired = False

    def append(self, step: int, total: int, metrics: Mapping[str, Any]) -> Row:
        """Write the row of `step`; rows of this step or later that are already there are dropped first."""
        if not self._repaired or (self.rows and self.rows[-1]["step"] >= step):
            self.keep_until(step - 1)
        row: Row = {"step": int(step), "of": int(total)} | {name: clean(value) for name, value in metrics.items()}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
        try:
            with self.path.open("ab") as file:
                file.write(line + b"\n")
        except OSError as error:
            raise _unwritable(self.path, error, step) from error
        self.rows.append(row)
        self._lines.append(line)
        return row

    def restore(self, copy: Path, step: int) -> bool:
        """Take the rows up to `step` from `copy`, an earlier state of this file; whether they were others here."""
        if not copy.is_file():
            return False
        kept = [(row, line) for row, line in _read(copy) if row["step"] <= step]
        count = sum(row["step"] <= step for row in self.rows)
        if [line for _, line in kept] == self._lines[:count]:
            return False
        self.rows, self._lines = [row for row, _ in kept], [line for _, line in kept]
        return True

    def keep_until(self, step: int) -> None:
        """Drop the rows after `step`, and any torn line; the file changes in one rename."""
        kept = sum(row["step"] <= step for row in self.rows)  # steps rise, so these come first
        del self.rows[kept:], self._lines[kept:]
        self._repaired = True
        wanted = b"".join(line + b"\n" for line in self._lines)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if (self.path.read_bytes() if self.path.exists() else b"") == wanted:
                return
            temporary = self.path.with_name(self.path.name + ".tmp")
            with temporary.open("wb") as file:
                file.write(wanted)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error, step) from error


def _unwritable(path: Path, error: OSError, step: int) -> ResourceError:
    return ResourceError(
        Fault(
            f"cannot write metrics: {error.strerror or error}",
            where=str(path),
            why=f"step {step} could not be recorded",
            fix="free disk space or make the run directory writable, then run the same command: it goes on from the "
            "last checkpoint",
        )
    )
