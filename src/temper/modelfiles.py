"""Reading the small files of a model directory that somebody else wrote: regular, of bounded size, valid JSON."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from temper.errors import ArtifactError, Fault

MAX_JSON = 16 * 2**20  # bytes; a real config.json has a few thousand
MAX_TOKENIZER = 256 * 2**20  # bytes; the largest tokenizer.json in use has some 35 million


def file_fault(path: Path, limit: int | None = None) -> Fault | None:
    """What keeps a file from being read: a directory, a device or pipe, no permission, too large. None if nothing."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Fault(f"`{path.name}` is not a regular file", where=str(path))
        if limit is not None and status.st_size > limit:
            return Fault(f"`{path.name}` has {status.st_size:,} bytes (limit {limit:,})", where=str(path))
        with path.open("rb"):
            return None
    except FileNotFoundError:
        return Fault(f"`{path.name}` is missing", where=str(path.parent))
    except (OSError, ValueError) as problem:
        return Fault(f"`{path.name}` cannot be read", where=str(path), why=getattr(problem, "strerror", "") or "")


def read_text(path: Path, limit: int = MAX_JSON) -> str:
    """The text of a UTF-8 file. Raises ArtifactError."""
    if fault := file_fault(path, limit):
        raise ArtifactError(fault)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        why = f"byte {problem.start} is 0x{problem.object[problem.start]:02x}"
        raise ArtifactError(Fault(f"`{path.name}` is not UTF-8 text", where=str(path), why=why)) from None


def read_json(path: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """The object in a JSON file. Raises ArtifactError: not readable, not JSON, not an object."""
    text = read_text(path, limit)
    try:
        value = json.loads(text)
    except RecursionError:
        raise ArtifactError(Fault(f"`{path.name}` is nested too deeply", where=str(path))) from None
    except ValueError as problem:
        place = f":{problem.lineno}:{problem.colno}" if isinstance(problem, json.JSONDecodeError) else ""
        why = problem.msg if isinstance(problem, json.JSONDecodeError) else str(problem)
        raise ArtifactError(Fault(f"`{path.name}` is not JSON", where=f"{path}{place}", why=why)) from None
    if not isinstance(value, dict):
        found = {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise ArtifactError(Fault(f"`{path.name}` holds {found}, not an object", where=str(path)))
    return value


def read_json_if_there(path: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """`read_json`, and {} where there is no such file."""
    return read_json(path, limit) if path.exists() or path.is_symlink() else {}
