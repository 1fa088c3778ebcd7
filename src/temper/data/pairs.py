"""Preference pairs out of scored replies to one prompt, of comparable length, and balanced over a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """A reply with its score, and its length in tokens."""

    text: str
    score: float
    length: int


@dataclass(frozen=True)
class Candidate:
    """Two replies of one prompt, the better one first; `margin` is by how much."""

    chosen: Scored
    rejected: Scored
    margin: float

    @property
    def longer(self) -> int:
        """1 where the chosen reply is the longer one, −1 where it is the shorter, else 0."""
        return (self.chosen.length > self.rejected.length) - (self.chosen.length < self.rejected.length)

    @property
    def ratio(self) -> float:
        """How much longer the longer one is: 1 or more."""
        lengths = sorted((max(1, self.chosen.length), max(1, self.rejected.length)))
        return lengths[1] / lengths[0]


def candidates(replies: Sequence[Scored], min_margin: float, max_length_ratio: float) -> list[Candidate]:
    """The pairs of one prompt worth keeping, at most three: the best of those whose chosen reply is the longer, the
    shorter, and as long. Best is the largest margin, then the nearest lengths, then the earlier replies.

    >>> replies = [Scored("a", 1.0, 10), Scored("b", 0.0, 12), Scored("c", 0.5, 8), Scored("d", 0.0, 50)]
    >>> [(pair.chosen.text, pair.rejected.text, pair.margin) for pair in candidates(replies, 0.5, 1.5)]
    [('a', 'c', 0.5), ('a', 'b', 1.0)]
    """
    best: dict[int, Candidate] = {}
    for chosen in replies:
        for rejected in replies:
            pair = Candidate(chosen, rejected, chosen.score - rejected.score)
            if pair.margin < min_margin or pair.margin <= 0 or pair.ratio > max_length_ratio:
                continue
            known = best.get(pair.longer)
            if known is None or (pair.margin, -pair.ratio) > (known.margin, -known.ratio):
                best[pair.longer] = pair
    return [best[side] for side in (1, -1, 0) if side in best]


def balance(options: Sequence[Sequence[Candidate]], exactly: bool) -> list[Candidate | None]:
    """One pair for each prompt out of its `options`, so that the chosen reply is the longer one about as often as the
    shorter. None for a prompt without options and, if `exactly`, for those of the commoner side that are too many: the
    pairs of the smallest margin go first.

    >>> longer = Candidate(Scored("a", 1.0, 12), Scored("b", 0.0, 10), 1.0)
    >>> shorter = Candidate(Scored("c", 0.8, 10), Scored("d", 0.0, 12), 0.8)
    >>> [pair and pair.chosen.text for pair in balance([[longer], [longer, shorter], [], [longer]], exactly=True)]
    ['a', 'c', None, None]
    """
    picked: list[Candidate | None] = [max(of, key=lambda pair: pair.margin) if of else None for of in options]
    lean = sum(pair.longer for pair in picked if pair is not None)
    for i in sorted(range(len(options)), key=lambda i: _cost(options[i])):  # where a change costs least margin, first
        here = picked[i]
        if here is None or lean == 0:
            continue
        others = lean - here.longer
        change = min(options[i], key=lambda pair: (abs(others + pair.longer), -pair.margin))
        after = others + change.longer
        if abs(after) < abs(lean):
            picked[i], lean = change, after
    if exactly and lean:
        common = [(pair.margin, -i) for i, pair in enumerate(picked) if pair is not None and pair.longer * lean > 0]
        for _, number in sorted(common)[: abs(lean)]:
            picked[-number] = None
    return picked


def _cost(options: Sequence[Candidate]) -> float:
    """The margin that is lost where the second best is taken."""
    margins = sorted((pair.margin for pair in options), reverse=True)
    return margins[0] - margins[1] if len(margins) > 1 else 0.0
