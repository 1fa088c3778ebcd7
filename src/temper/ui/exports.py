"""What the page shows as a file: JSON Lines, or a log that Inspect's viewer opens."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.masking import masked
from temper.report.inspectlog import write_log
from temper.ui.search import WrongFilter

MOST = 10_000  # completions of one file
AT_ONCE = 500

Json = dict[str, Any]


def collect(page: Callable[[int, int], Sequence[Json]]) -> list[Json]:
    """At most `MOST` rows of `page`, which gives so many from a place on; nothing in them looks like a secret."""
    found: list[Json] = []
    while len(found) < MOST:
        rows = page(len(found), min(AT_ONCE, MOST - len(found)))
        found += rows
        if len(rows) < AT_ONCE:
            break
    return masked(found)


def as_file(kind: str, rows: Sequence[Json], run: str, wanted: Mapping[str, Any]) -> tuple[str, str, bytes]:
    """(name, media type, content) of rows of a run; `wanted` is the filter they fit. Raises WrongFilter."""
    if kind == "jsonl":
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return "completions.jsonl", "application/jsonl", lines.encode("utf-8", "backslashreplace")
    if kind == "eval":
        return "completions.eval", "application/octet-stream", _log(rows, run, wanted)
    raise WrongFilter("`as` is jsonl or eval")


def _log(rows: Sequence[Json], run: str, wanted: Mapping[str, Any]) -> bytes:
    stages = dict.fromkeys(str(row["stage"]) for row in rows)
    tasks = dict.fromkeys(str(row["task"]) for row in rows)
    told = {key: value for key, value in wanted.items() if value not in (None, "")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completions.eval"
        model = f"temper/{run}/{'+'.join(stages) or 'none'}"
        write_log(path, rows, task="+".join(tasks) or "completions", model=model, metadata={"run": run, "filter": told})
        return path.read_bytes()
