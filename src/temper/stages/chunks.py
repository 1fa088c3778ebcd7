"""Work in pieces that a kill does not undo, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from temper.errors import Preempted
from temper.record.checkpoints import owner_of
from temper.record.rollouts import read_sealed, write_sealed
from temper.sealed import Damaged
from temper.stages.context import StageContext
from temper.types import Prompt


def chunked_rows(
    prompts: Sequence[Prompt], size: int, make_rows: Callable[[Sequence[Prompt]], list[dict]], ctx: StageContext
) -> Iterator[tuple[int, int, list[dict]]]:
    """(number from 1, of how many, rows) for each `size` prompts, in order. What `make_rows` makes of them is kept on
    disk, and not made again after a kill. Raises Preempted between chunks once asked to stop."""
    chunks, owner = -(-len(prompts) // size), owner_of(ctx.work)
    for number in range(chunks):
        file = ctx.work / "chunks" / f"{number:05d}.jsonl"
        rows = kept_rows(file, owner, ctx)
        if rows is None:
            write_sealed(file, make_rows(prompts[number * size : (number + 1) * size]), owner)
            rows = read_sealed(file, owner)
        yield number + 1, chunks, rows
        if ctx.stopping():
            raise Preempted(f"sampled {number + 1} of {chunks} chunks of prompts")


def kept_rows(file: Path, owner: str, ctx: StageContext) -> list[dict] | None:
    """What an earlier process kept in a file; None, with a warning, if it is not as it was written."""
    try:
        return read_sealed(file, owner)
    except FileNotFoundError:
        return None
    except Damaged as problem:
        ctx.log.warn(f"{problem.file} is damaged and is made again: {problem.reason}")
        return None


def listed(verdicts: Mapping[str, int]) -> str:
    """Counts by name, the largest first.

    >>> listed({"truncated": 2, "kept": 1200})
    'kept 1,200, truncated 2'
    """
    return ", ".join(f"{name} {count:,}" for name, count in sorted(verdicts.items(), key=lambda item: -item[1]))
