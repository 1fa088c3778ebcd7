"""Ranks: processes that run the same stage on the same numbers, and share out what a step costs.

Every rank holds the whole model. Prompts and micro-batches are dealt out in turn, what each rank made is told to all,
and gradients are added up; everything else of a step is computed by every rank alike. Draws are named by the seed, the
step, the prompt and the sample, never by a rank: any number of them takes the same samples. With one rank, nothing here
does anything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from temper.errors import ConfigError, Fault, ResourceError

T = TypeVar("T")
TIMEOUT = 1800.0  # seconds that a rank waits for the others before it gives up
TIMEOUT_VARIABLE = "TEMPER_RANK_TIMEOUT"  # of the environment: other seconds
GRACE = 2.0  # seconds in which those who waited, too, say so
BUCKET = 256 << 20  # bytes of tensors that are added up in one message, unless one alone has more


@dataclass
class Ranks:
    """Rank `rank` of `size`; `lost` says, where somebody knows, which one has ended and how. `sent` counts the bytes
    of tensors that this rank sent, as rings send them."""

    rank: int = 0
    size: int = 1
    lost: Callable[[], str] = field(default=lambda: "")
    sent: int = 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of what is to be done: every `size`-th, so that neighbours go to different ranks.

        >>> Ranks(1, 2).share("abcde"), Ranks().share("abc")
        ('bd', 'abc')
        """
        return items if self.size == 1 else items[self.rank :: self.size]

    def together(self, work: Callable[[], Sequence[T]]) -> list[T]:
        """What `work` made of each rank's share, in the order of the whole. What one rank raises, all raise."""
        if self.size == 1:
            return list(work())
        try:
            mine: Any = list(work())
        except Exception as error:
            mine = _crossing(error)
        parts = self._exchange(mine)
        for rank, part in enumerate(parts):
            if isinstance(part, BaseException):
                part.add_note(f"on rank {rank} of {self.size}")
                raise part
        return interleaved(parts)

    def send(self, value: T | None) -> T:
        """What rank 0 sends, at every rank."""
        if self.size == 1:
            return value  # type: ignore[return-value]
        import torch.distributed as dist

        box = [value]
        with self._waiting("what rank 0 tells"):
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def add_up(self, tensors: Sequence[Any]) -> None:
        """Every tensor becomes the sum of what the ranks have in its place."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        for same in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with self._waiting("a sum of tensors"):
                dist.all_reduce(flat)
            self.sent += summed_bytes(flat.nbytes, self.size)
            for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def spread(self, tensors: Sequence[Any], source: int) -> None:
        """Every rank has the `tensors` of rank `source` in the place of its own."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        for same in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with self._waiting("tensors of another rank"):
                dist.broadcast(flat, src=source)
            self.sent += spread_bytes(flat.nbytes, self.size)
            if self.rank != source:
                for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def bring(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """At rank 0 the tensors of all ranks by their names, which differ, in main memory; elsewhere nothing."""
        import torch
        import torch.distributed as dist

        told = [(name, tensor.shape, tensor.dtype, tensor.device.type) for name, tensor in tensors.items()]
        found = {name: tensor.detach().cpu() for name, tensor in tensors.items()} if self.rank == 0 else {}
        for rank, theirs in enumerate(self._exchange(told)):
            for name, shape, dtype, device in theirs if rank and self.rank in (0, rank) else ():
                with self._waiting("state for rank 0"):
                    if self.rank == rank:
                        dist.send(tensors[name].detach().contiguous(), dst=0)
                    else:
                        place = torch.empty(shape, dtype=dtype, device=device)
                        dist.recv(place, src=rank)
                        found[name] = place.cpu()
        return found

    def all_of(self, tensors: Sequence[Any]) -> list[list[Any]]:
        """What every rank has in the place of `tensors`, which are of one dtype, in the order of the ranks."""
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        found = [torch.empty_like(flat) for _ in range(self.size)]
        with self._waiting("tensors of all ranks"):
            dist.all_gather(found, flat)
        self.sent += told_bytes(flat.nbytes, self.size)
        sizes = [tensor.numel() for tensor in tensors]
        return [[part.view_as(tensor) for part, tensor in zip(one.split(sizes), tensors, strict=True)] for one in found]

    def _exchange(self, mine: Any) -> list[Any]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with self._waiting("what each rank has done"):
            dist.all_gather_object(found, mine)
        return found

    @contextlib.contextmanager
    def _waiting(self, operation: str) -> Iterator[None]:
        """A rank that has ended, or answers nothing in time, is a fault that names it and what it did not come to."""
        try:
            yield
        except RuntimeError as error:
            raise self._loss(error, operation) from None

    @contextlib.contextmanager
    def watching(self, operation: str) -> Iterator[None]:
        """For work in which torch itself waits for other ranks: what tells that one is gone is a fault that names it;
        other errors stay what they are."""
        try:
            yield
        except RuntimeError as error:
            import torch.distributed as dist

            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise self._loss(error, operation) from None
            raise

    def _loss(self, error: RuntimeError, operation: str) -> ResourceError:
        why = self.lost() or self._absent(operation) or " ".join(str(error).split())[:200]
        fix = "see what it said last, then run the same command again: it goes on from the last checkpoint"
        return ResourceError(Fault(f"a rank of {self.size} was lost", why=why, fix=fix))

    def _absent(self, operation: str) -> str:
        """Which ranks did not come to an operation that failed: all others say so where they met."""
        import torch.distributed as dist

        with contextlib.suppress(Exception):  # the place where they meet may be gone, too
            store = dist.distributed_c10d._get_default_store()
            store.set(f"temper/left/{self.rank}", operation)
            time.sleep(GRACE)
            gone = [rank for rank in range(self.size) if not store.check([f"temper/left/{rank}"])]
            if gone:
                names = f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
                return f"{names} did not come to `{operation}`: gone, or hung for {timeout_seconds():g} seconds"
        return ""


def buckets(tensors: Sequence[Any]) -> Iterator[list[Any]]:
    """The tensors in groups of one dtype and at most `BUCKET` bytes, in order; a larger one is alone."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        group: list[Any] = []
        for tensor in (tensor for tensor in tensors if tensor.dtype == dtype):
            if group and sum(one.nbytes for one in group) + tensor.nbytes > BUCKET:
                yield group
                group = []
            group.append(tensor)
        yield group


def summed_bytes(count: int, size: int) -> int:
    """What each of `size` ranks sends so that all have the sum of `count` bytes: around a ring, and around again.

    >>> summed_bytes(1000, 4), summed_bytes(1000, 1)
    (1500, 0)
    """
    return 2 * count * (size - 1) // size


def told_bytes(count: int, size: int) -> int:
    """What each of `size` ranks sends so that all have its `count` bytes, and it passes on those of the others.

    >>> told_bytes(1000, 4), told_bytes(1000, 1)
    (3000, 0)
    """
    return count * (size - 1)


def spread_bytes(count: int, size: int) -> int:
    """What a rank sends on average so that all of `size` have `count` bytes of one of them: each passes them on, but
    for the last.

    >>> spread_bytes(1000, 4), spread_bytes(1000, 1)
    (750, 0)
    """
    return count * (size - 1) // size


def interleaved(parts: Sequence[Sequence[T]]) -> list[T]:
    """The whole that was dealt out by `share`.

    >>> interleaved(["ace", "bd"])
    ['a', 'b', 'c', 'd', 'e']
    """
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def _crossing(error: Exception) -> Exception:
    """The exception as it can be told to other ranks."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


_present = Ranks()


def ranks() -> Ranks:
    """Those of this process."""
    return _present


def timeout_seconds() -> float:
    """How long a rank waits for the others. Raises ConfigError where the environment names no such time."""
    told = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(told or TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 1e6:
        raise ConfigError(Fault(f"{TIMEOUT_VARIABLE} is `{told}`", fix="seconds from 1 on, or leave it unset"))
    return seconds


def join(where: str, rank: int, size: int, local: int = 0) -> Ranks:
    """Become rank `rank` of `size`, that meet at `where` (`env://`, or `file://` a path that all can reach); `local` is
    the number of the device on this machine. Raises ResourceError where the others do not come in time."""
    global _present
    import torch
    import torch.distributed as dist

    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(local % torch.cuda.device_count())
    _present = Ranks(rank, size)
    with _present._waiting("the meeting of all ranks"):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_cuda else "gloo",
            init_method=where, rank=rank, world_size=size, timeout=datetime.timedelta(seconds=timeout_seconds()),
        )  # fmt: skip
    return _present


def leave() -> None:
    """Be alone again."""
    global _present
    import torch.distributed as dist

    if _present.size > 1 and dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
    _present = Ranks()


def given() -> tuple[int, int, int] | None:
    """(rank, size, number on this machine) where a launcher such as torchrun has said so; None without one."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    values = [os.environ.get(name, "") for name in names]
    if not all(value.isascii() and value.isdigit() for value in values[:2]) or int(values[1]) < 2:
        return None
    return int(values[0]), int(values[1]), int(values[2] or 0) if values[2].isdigit() else 0
