"""Work in pieces that a kill does not undo, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from temper.errors import Preempted
from temper.record.rollouts import read_rows, write_rows
from temper.stages.context import StageContext
from temper.types import Prompt


def chunked_rows(
    prompts: Sequence[Prompt], size: int, make_rows: Callable[[Sequence[Prompt]], list[dict]], ctx: StageContext
) -> Iterator[tuple[int, int, list[dict]]]:
    """(number from 1, of how many, rows) for each `size` prompts, in order. What `make_rows` makes of them is kept on
    disk, and not made again after a kill. Raises Preempted between chunks once asked to stop."""
    chunks = -(-len(prompts) // size)
    for number in range(chunks):
        file = ctx.work / "chunks" / f"{number:05d}.jsonl"
        if not file.exists():
            write_rows(file, make_rows(prompts[number * size : (number + 1) * size]))
        yield number + 1, chunks, read_rows(file)
        if ctx.stopping():
            raise Preempted(f"sampled {number + 1} of {chunks} chunks of prompts")


def listed(verdicts: Mapping[str, int]) -> str:
    """Counts by name, the largest first.

    >>> listed({"truncated": 2, "kept": 1200})
    'kept 1,200, truncated 2'
    """
    return ", ".join(f"{name} {count:,}" for name, count in sorted(verdicts.items(), key=lambda item: -item[1]))
