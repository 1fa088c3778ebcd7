"""Large work spaces, in huge pages where the system has them: for what a micro-batch keeps for its backward pass,
and for keys and values of the rows being decoded.

A forked process copies every small page of its parent's that it writes to, and its parent those that it writes to
meanwhile: thousands of them an update. So a space serves again and again within one process, but none that is free
outlives a fork: each process takes new ones, of pages that nobody else has.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import weakref

import torch
from torch import Tensor

HUGE = 2 << 20  # bytes of a page
MOST = 4  # of what is asked: a larger one is left for who asks for more
_free: list[mmap.mmap] = []


def space(floats: int) -> Tensor:
    """So many float32 [floats] with any values. Once nothing refers to them, they serve again.

    >>> space(3).shape
    torch.Size([3])
    """
    if sys.platform != "linux" or 4 * floats < HUGE:
        return torch.empty(floats)
    memory = _taken(4 * floats)
    lent = memoryview(memory)
    weakref.finalize(lent, _free.append, memory).atexit = False
    return torch.frombuffer(lent, dtype=torch.float32, count=floats)


def _taken(size: int) -> mmap.mmap:
    """The least of the free ones that have room and not far too much; or a new one in place of those without."""
    if fitting := [memory for memory in _free if size <= len(memory) <= MOST * max(size, HUGE)]:
        least = min(fitting, key=len)
        _free.remove(least)
        return least
    _free[:] = [memory for memory in _free if len(memory) > size]
    made = mmap.mmap(-1, -(-size // HUGE) * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        made.madvise(mmap.MADV_HUGEPAGE)
    return made


def forget() -> None:
    """Give what is free back to the system."""
    _free.clear()


if sys.platform == "linux":
    os.register_at_fork(before=forget)
