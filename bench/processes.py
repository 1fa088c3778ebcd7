"""CPU time and memory of a process and all its descendants, read from /proc: the same for every library."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)  # fields of /proc/PID/stat after the name: parent; utime, stime, cutime, cstime


def _stat(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> dict[int, list[str]]:
    """The process `root` and its living descendants, each with its fields of /proc/PID/stat."""
    stats: dict[int, list[str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stats[int(entry)] = _stat(entry)
            except OSError:  # it has just ended
                continue
    found = {root: stats[root]} if root in stats else {}
    grown = True
    while grown:
        children = {pid: stat for pid, stat in stats.items() if pid not in found and int(stat[_PARENT]) in found}
        found |= children
        grown = bool(children)
    return found


def cpu_seconds(root: int) -> float:
    """CPU time used so far by `root`, its living descendants, and those that have ended and were waited for."""
    return sum(sum(map(int, stat[_TIMES])) for stat in tree(root).values()) / _TICK


def machine_cpu_seconds() -> float:
    """CPU time used so far by everything on this machine."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / _TICK  # all but idle and waiting for a disk


def memory(root: int) -> int:
    """Bytes of memory in use by the tree: the sum of Pss, in which a page that n processes share counts 1/n in each."""
    total = 0
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


class MemoryWatch(threading.Thread):
    """Keeps the largest `memory(root)` seen from `start()` to `stop()`, read at both and every 50 ms between them."""

    def __init__(self, root: int, interval: float = 0.05):
        super().__init__(daemon=True)
        self.root = root
        self.interval = interval
        self.peak = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, memory(self.root))
            if self._ended.wait(self.interval):
                break

    def stop(self) -> int:
        """The peak in bytes."""
        self._ended.set()
        if self.ident is not None:
            self.join()
            self.peak = max(self.peak, memory(self.root))
        return self.peak
