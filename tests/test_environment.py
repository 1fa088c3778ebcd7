"""Memory that training has freed: it serves again, instead of coming from the system page by page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys, torch
from temper.environment import keep_freed_memory
if sys.argv[1] != "plain":
    keep_freed_memory(forks=sys.argv[1] == "forks")
def pages(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(megabytes << 18) for _ in range(10)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
found = [pages(int(sys.argv[2])) for _ in range(8)]
print(found[0], sum(found[-3:]) // 3)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to")
@pytest.mark.parametrize(("way", "megabytes"), [("forks", 5), ("threads", 40)])
def test_blocks_that_were_freed_serve_again(way: str, megabytes: int) -> None:
    first, later = _pages(way, megabytes)
    assert first > 2000 * megabytes
    assert later < first / 2
    assert later < _pages("plain", 40)[1] / 2


def _pages(way: str, megabytes: int) -> tuple[int, ...]:
    """That came from the system for the first blocks, and for later ones as large."""
    run = [sys.executable, "-c", ROUNDS, way, str(megabytes)]
    return tuple(map(int, subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout.split()))
