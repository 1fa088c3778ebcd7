"""What a stage costs, measured while it runs (before: `estimate.py`)."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WATCH_SECONDS = 0.2  # at least, between two looks at the children
# A look walks over every page they hold: 10 ms for a small model's. Of a stage, so many seconds go into looks at that
# distance, which see what a short one needs; then they are as rare as this share of its time asks.
WATCH_BUDGET, WATCH_SHARE = 0.1, 0.01


@dataclass(frozen=True)
class Cost:
    """Wall seconds; CPU seconds, user and system, children included; the most memory held at once, in bytes.

    >>> Cost(1, 2, 300) + Cost(1, 1, 200)
    Cost(seconds=2, cpu_seconds=3, peak_memory_bytes=300)
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        peak = max(self.peak_memory_bytes, other.peak_memory_bytes)
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, peak)

    def __sub__(self, other: Cost) -> Cost:
        """What is left without `other`; the peak stays."""
        seconds, cpu = self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds
        return Cost(max(seconds, 0.0), max(cpu, 0.0), self.peak_memory_bytes)

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 3) for key, value in asdict(self).items()}

    @staticmethod
    def read(values: Any) -> Cost:
        """The cost that a JSON object records; what is not there counts as 0."""
        values = values if isinstance(values, Mapping) else {}
        seconds, cpu, peak = (
            value if isinstance(value := values.get(key), (int, float)) else 0 for key in asdict(Cost())
        )
        return Cost(seconds, cpu, int(peak))


class Meter:
    """Measures from when it is made, or from the start of the process.

    As a context it also looks at this process's children every now and then: sampler processes share the weights, so
    what counts of them is the memory that they alone hold.
    """

    def __init__(self, whole_process: bool = False):
        self.began = time.monotonic()
        self.cpu_began = 0.0 if whole_process else _cpu()
        self._children_bytes = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_children, daemon=True)
        if not whole_process:
            with contextlib.suppress(OSError):  # Linux: lets the peak be that of this stage alone
                Path("/proc/self/clear_refs").write_text("5")

    def __enter__(self) -> Meter:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def _watch_children(self) -> None:
        looks, pause = 0.0, WATCH_SECONDS
        while not self._ended.wait(pause):
            began = time.thread_time()
            self._children_bytes = max(self._children_bytes, children_bytes())
            took = time.thread_time() - began
            looks += took
            pause = pause_after(took, looks)

    def spent(self) -> Cost:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + self._children_bytes
        return Cost(time.monotonic() - self.began, _cpu() - self.cpu_began, peak)


def pause_after(took: float, looks: float) -> float:
    """Seconds until the next look at the children, after one that took so many of the CPU seconds of all `looks`.

    >>> pause_after(0.01, 0.05), pause_after(0.01, 0.5), pause_after(0.0001, 0.5)
    (0.2, 1.0, 0.2)
    """
    return max(WATCH_SECONDS, took / WATCH_SHARE if looks > WATCH_BUDGET else 0.0)


def children_bytes() -> int:
    """Bytes that the children of this process's main thread hold and share with nobody; 0 where the system does not
    say (it is not Linux)."""
    lines = [line for text in _of_children("smaps_rollup") for line in text.splitlines()]
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _of_children(name: str) -> list[str]:
    """The file /proc/PID/`name` of each living child of the main thread."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with contextlib.suppress(OSError):  # it has just ended
                found.append(Path(f"/proc/{child}/{name}").read_text())
    return found


def _cpu() -> float:
    """CPU seconds of this process and of its children; `times` knows those of a child once it has ended."""
    times = os.times()
    ended = times.user + times.system + times.children_user + times.children_system
    stats = [text.rpartition(")")[2].split() for text in _of_children("stat")]
    return ended + sum(int(ticks) for stat in stats for ticks in stat[11:15]) / os.sysconf("SC_CLK_TCK")


def memory_available() -> int | None:
    """Bytes of memory that could be used now; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def show_bytes(count: float | None) -> str:
    """A number of bytes for the eye.

    >>> show_bytes(5_000_000), show_bytes(2**31), show_bytes(None)
    ('5 MB', '2.1 GB', 'unknown')
    """
    if count is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size and unit == "GB" else f"{count / size:.0f} {unit}"
    return f"{count:.0f} bytes"
