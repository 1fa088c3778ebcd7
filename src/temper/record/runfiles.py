"""Reading what a run left on disk, finished or not: whatever is torn or absent reads as empty, never as an error."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_ROWS = 200_000  # of one samples file: a report needs a few


def read_json(path: Path) -> Any:
    """The JSON value of a file, None when it is absent, torn or not UTF-8."""
    try:
        return json.loads(path.read_bytes(), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError):
        return None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, {} when there is none."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl or .jsonl.gz file, up to where it is torn; other lines are left out."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for index, line in enumerate(file):
                if index >= MOST_ROWS:
                    return
                try:
                    row = json.loads(line, parse_constant=lambda _: None)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    yield row
    except (OSError, EOFError, zlib.error):
        return


def stage_work(run_dir: Path, name: str) -> Path:
    """The directory `<nn>-<name>` of a stage, whether it exists or not."""
    pattern = re.compile(r"\d+-" + re.escape(name))
    stages = run_dir / "stages"
    found = sorted(p for p in stages.iterdir() if pattern.fullmatch(p.name)) if stages.is_dir() else []
    return found[-1] if found else stages / name


def rollout_files(work: Path) -> list[tuple[int, Path]]:
    """(step, file) of the kept rollouts of a stage, steps rising."""
    found = []
    for path in (work / "rollouts").glob("step-*.jsonl.gz"):
        digits = path.name.removeprefix("step-").removesuffix(".jsonl.gz")
        if digits.isdigit():
            found.append((int(digits), path))
    return sorted(found)
