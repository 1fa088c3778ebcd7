"""Ranks as forked processes, for tests of what they do together."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from temper.distributed.ranks import TIMEOUT_VARIABLE, Ranks, join


def at_every_rank(size: int, folder: Path, work: Callable[[Ranks], Any], timeout: float = 60) -> list[Any]:
    """What `work` returns, or raises, at each of `size` forked processes."""
    context = multiprocessing.get_context("fork")
    lines = [context.Pipe(duplex=False) for _ in range(size)]

    def live(rank: int) -> None:
        for other, (_, theirs) in enumerate(lines):
            if other != rank:
                theirs.close()
        faulthandler.dump_traceback_later(50)  # what it is at, should it hang
        torch.set_num_threads(1)
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", TIMEOUT_VARIABLE: str(timeout)}
        joined = join(f"file://{folder}/meet", rank, size)
        try:
            found = work(joined)
        except Exception as error:
            found = error
        lines[rank][1].send_bytes(pickle.dumps(found))  # tensors by value: this process ends
        os._exit(0)

    started = [context.Process(target=live, args=(rank,), daemon=True) for rank in range(size)]
    for process in started:
        process.start()
    for _, theirs in lines:
        theirs.close()
    return [_received(line) for line, _ in lines]


def _received(line: Any) -> Any:
    """What a rank sent; None if it was killed. Raises TimeoutError if it says nothing."""
    if not line.poll(60):
        raise TimeoutError("a rank has not answered within 60 s")
    try:
        return pickle.loads(line.recv_bytes())
    except EOFError:
        return None
