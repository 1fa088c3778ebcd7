"""Completions on disk: one gzipped JSON Lines file a kept training step, one plain file an evaluated model and task."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from temper.artifacts import write_atomically
from temper.sealed import Damaged, seal_rows, unseal_rows


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """Write rows; a file that exists is whole. `.gz` files carry no time stamp, so equal rows make
    equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")
    write_atomically(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_rows(path: Path) -> list[dict]:
    """The rows of a file written by `write_rows`."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.decode("utf-8").split("\n") if line]


def write_sealed(path: Path, rows: Iterable[dict], owner: str) -> None:
    """Write rows that a later process goes on from, and only under this name and for this `owner`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, seal_rows(f"{owner}/{path.name}", rows))


def read_sealed(path: Path, owner: str) -> list[dict]:
    """The rows of a file written by `write_sealed`. Raises Damaged, FileNotFoundError."""
    try:
        return unseal_rows(f"{owner}/{path.name}", path.read_bytes())
    except ValueError as problem:
        raise Damaged(path, str(problem)) from None
