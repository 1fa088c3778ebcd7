"""Numbers of an evaluation: pass@k, cons@k, and intervals that know several samples share a prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 − C(n−c, k)/C(n, k): the chance that k of the n samples hold a right one (Codex 2107.03374, equation 1).

    Raises ValueError if k > n.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 4), pass_at_k(4, 0, 2)
    (0.25, 1.0, 0.0)
    """
    if k > samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority_is_right(answers: Sequence[Hashable | None], right: Sequence[bool]) -> float:
    """1 if the most frequent parsed answer is right; ties share the point; answers that did not parse do not vote.

    >>> majority_is_right([5, 5, 7, None], [True, True, False, False]), majority_is_right([5, 7], [True, False])
    (1.0, 0.5)
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    verdicts = dict(zip(answers, right, strict=True))
    return sum(verdicts[answer] for answer in winners) / len(winners)


def interval(per_prompt: Sequence[float], samples: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of the mean of `per_prompt` (each the mean of `samples` draws in [0, 1]).

    Samples of one prompt are not independent, so Wilson's n is the effective one: p(1−p) over the variance of the mean
    as the prompts show it, between the number of prompts and the number of samples.

    >>> low, high = interval([1.0] * 50, 4)
    >>> round(low, 3), high
    (0.929, 1.0)
    """
    prompts = len(per_prompt)
    mean = sum(per_prompt) / prompts
    effective = float(prompts)
    if prompts > 1 and 0 < mean < 1:
        variance = sum((value - mean) ** 2 for value in per_prompt) / (prompts - 1) / prompts
        if variance > 0:
            effective = min(max(mean * (1 - mean) / variance, prompts / 1.0), float(prompts * samples))
    centre = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
    spread = z / (1 + z * z / effective) * math.sqrt(mean * (1 - mean) / effective + z * z / (4 * effective**2))
    return max(0.0, centre - spread), min(1.0, centre + spread)
