"""How training work is cut on a CPU, by arithmetic: a stage cuts with it, and `temper plan` tells what it takes."""

from __future__ import annotations

import math
import sys

SMALL_MODEL = 8_000_000  # weights up to which one-thread processes are faster than one process with threads
FEWEST_TOKENS, USUAL_TOKENS = 512, 1024  # of a micro-batch: a token of layers in one call costs no less with more
WIDE_TOKENS = 2048  # of a micro-batch of a large model on a CPU
PIECES = 8  # micro-batches of a step that has not tokens enough for as many usual ones
EVEN = 4  # of a longer step their number is a multiple of this: two or four processes are done together
SLACK = 1 / 16  # more than an even share, since completions are not cut; together less than one micro-batch more
ROOM = 256 << 20  # bytes of gradients that wait to be added; never fewer than two gradients


def by_processes(parallel: str, compiled: bool, weights: int) -> bool:
    """Whether a model of so many weights, in main memory, is trained by one-thread processes, or by one process with
    all its threads. It never depends on how many threads there are: sums are rounded otherwise then."""
    if sys.platform != "linux" or compiled or parallel == "threads":
        return False
    return parallel == "processes" or weights <= SMALL_MODEL


def even_budget(tokens: int, most: int) -> int:
    """Tokens of a micro-batch, where one-thread processes share out a step of `tokens`: pieces of one size, as many for
    one process as for sixty.

    >>> even_budget(16_832, 8192), even_budget(5000, 8192), even_budget(300, 8192), even_budget(5000, 500)
    (1085, 665, 300, 500)
    """
    usual = EVEN * round(tokens / USUAL_TOKENS / EVEN)
    return _budget(tokens, most, max(usual, min(PIECES, -(-tokens // FEWEST_TOKENS))))


def wide_budget(tokens: int, most: int) -> int:
    """The same where one process computes with all its threads: with more rows than `WIDE_TOKENS` products are no
    faster, and activations are most of what training holds.

    >>> wide_budget(2240, 8192), wide_budget(16_832, 8192), wide_budget(300, 8192)
    (1190, 1975, 300)
    """
    return _budget(tokens, most, -(-tokens // min(most, WIDE_TOKENS)))


def shared_budget(tokens: int, most: int, ranks: int) -> int:
    """The same where `ranks` share it out, each with a device or all its threads: as large as may be, and as many for
    each rank.

    >>> shared_budget(16_832, 8192, 1), shared_budget(16_832, 8192, 2), shared_budget(16_832, 8192, 8)
    (5962, 4471, 2236)
    """
    return _budget(tokens, most, ranks * -(-tokens // (most * ranks)))


def _budget(tokens: int, most: int, pieces: int) -> int:
    size = tokens if pieces < 2 else math.ceil((1 + min(SLACK, 1 / (2 * pieces))) * tokens / pieces)
    return max(1, min(most, size))


def places_for(gradient_bytes: int) -> int:
    """How many gradients may wait to be added.

    >>> places_for(4_000_000), places_for(200_000_000)
    (67, 2)
    """
    return max(2, ROOM // max(1, gradient_bytes))
