"""Which of two ways to compute the same is faster on this machine: measured once for every shape, and remembered.

Speed that follows from a processor's name holds on that processor. So both ways are tried on the shapes a model really
has, by CPU time, and the answer is kept in the user's cache: sums are rounded otherwise in another order, and a second
run, or one that goes on, must get the bits of the first. Where nothing can be kept, the plain way is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from temper.kernels.compiler import cache_folder, processor

PLAIN, ONEDNN = WAYS = ("default", "onednn")  # of a product
OWN = "own"  # of whole layers: all in one call of ours
LESSER = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")  # what may forbid instructions
GAIN = 0.9  # of the plain way's time, for the other to be taken: what is alike stays plain
SECONDS, TURNS = 0.04, 5  # CPU time to try a way for; and so often at least, or a busy moment would decide for good

_pinned: list[str] = []  # the way that a recipe asks for, if it does
_known: dict[str, dict[str, Any]] = {}  # what this process has looked up, by shape


def pin(way: str, recalled: Mapping[str, Any] | None = None) -> None:
    """From now on take `way` everywhere, or with "auto" the faster one; `recalled` is the `table` of the run that goes
    on."""
    _pinned[:] = [] if way == "auto" else [way]
    _known.clear()
    for shape, found in (recalled or {}).items():
        if isinstance(found, dict) and found.get("way") in (*WAYS, OWN):
            _known[shape] = found


def asked() -> str:
    """What `pin` was told last."""
    return _pinned[0] if _pinned else "auto"


def of_layers(width: int, inner: int, query: int, key: int) -> str:
    """The shape of layers of these sizes."""
    return f"layers {width}x{inner}x{query}x{key}"


def table() -> dict[str, dict[str, Any]]:
    """What was chosen in this process: for each shape the way, and the milliseconds of both, `<way>_ms`."""
    return {} if _pinned else dict(_known)


def chosen(
    shape: str, ways: Callable[[], tuple[Callable[[], object], Callable[[], object]]],
    other: str = ONEDNN, gain: float = GAIN,
) -> str:  # fmt: skip
    """The way for this `shape`, the plain or the `other` one. Where it is not known yet, `ways` makes a trial of each,
    in that order; the other is taken for less than `gain` of the plain one's time."""
    if _pinned:
        return _pinned[0]
    if shape not in _known:
        _known[shape] = remembered().get(shape) or _remember(shape, _measure(*ways(), other, gain))
    return _known[shape]["way"]


def remembered() -> dict[str, dict[str, Any]]:
    """Every shape that was measured on this machine."""
    try:
        with _file().open(encoding="utf-8") as lines:
            return _read(lines)
    except OSError:
        return {}


def _measure(plain: Callable[[], object], second: Callable[[], object], other: str, gain: float) -> dict[str, Any]:
    """In turns, so that a change of the machine's speed meets both; the best of each counts."""
    ways, best, spent = (plain, second), [float("inf")] * 2, 0.0
    for way in ways:
        way()  # what is made once is made
    turns = 0
    while turns < TURNS or spent < 2 * SECONDS:
        for number, way in enumerate(ways):
            began = time.process_time()
            way()
            took = time.process_time() - began
            best[number], spent = min(best[number], took), spent + took
        turns += 1
    way = other if best[1] < gain * best[0] else PLAIN
    named = zip((PLAIN, other), best, strict=True)
    return {"way": way, **{f"{name}_ms": round(1000 * took, 3) for name, took in named}}


def _remember(shape: str, found: dict[str, Any]) -> dict[str, Any]:
    """What is known of the shape from now on: what another process wrote down first, or else `found`."""
    try:
        with _locked() as file:
            first = _read(file).get(shape)
            if first is None:
                file.seek(0, os.SEEK_END)
                file.write(json.dumps({"shape": shape, **found}) + "\n")
            return first or found
    except OSError:
        return {**found, "way": PLAIN}  # it could not be kept, and the next process might find otherwise


@contextlib.contextmanager
def _locked() -> Iterator[Any]:
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _read(lines: Any) -> dict[str, dict[str, Any]]:
    """The first line of each shape counts; a line that was cut off, or is another's, does not."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("way") in (*WAYS, OWN) and isinstance(entry.get("shape"), str):
                found.setdefault(entry.pop("shape"), entry)
    return found


def _file() -> Path:
    """One for each processor and version of torch, and what both are told to do without; torch need not be there."""
    told = [version("torch"), *(os.environ.get(name, "") for name in LESSER), processor()]
    return cache_folder() / f"products-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.jsonl"
