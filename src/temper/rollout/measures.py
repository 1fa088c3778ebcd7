"""Numbers of an evaluation: pass@k, cons@k, and intervals that know several samples share a prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import torch

from temper.rng import seed_for

DRAWS = 4000  # of a bootstrap: the ends of a 95 % interval then stand on a hundred draws each


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


def cons_at_k(votes: Sequence[Hashable | None], right: Sequence[bool], k: int) -> float:
    """The chance that the majority of k samples is right: the mean of `majority_is_right` over the whole blocks of k
    samples, in the order in which they were drawn.

    Raises ValueError if k is more than there are.

    >>> votes, right = [5, 5, 7, 8, 8, 7], [True, True, False, False, False, False]
    >>> cons_at_k(votes, right, 1) == 2 / 6, cons_at_k(votes, right, 2), cons_at_k(votes, right, 3)
    (True, 0.3333333333333333, 0.5)
    """
    if k > len(votes):
        raise ValueError(f"cons@{k} needs at least {k} samples, there are {len(votes)}")
    starts = range(0, len(votes) - k + 1, k)
    return sum(majority_is_right(votes[at : at + k], right[at : at + k]) for at in starts) / len(starts)


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


def bootstrap_interval(per_prompt: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `per_prompt`: prompts drawn anew with replacement (Efron 1979).

    The draws are named by the number of prompts alone, so the same values give the same interval, and two scores of the
    same prompts are resampled alike. Values that are all equal give an interval without width: see `mean_interval`.

    >>> bootstrap_interval([0.5] * 20)
    (0.5, 0.5)
    >>> low, high = bootstrap_interval([0.0, 1.0] * 50)
    >>> round(low, 2), round(high, 2)
    (0.4, 0.6)
    """
    values = torch.tensor(per_prompt, dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed_for("bootstrap", len(per_prompt)))
    means = []
    for _ in range(0, DRAWS, 100):  # at most 100 × prompts indices at once
        means.append(values[torch.randint(len(values), (100, len(values)), generator=draw)].mean(1))
    low, high = torch.quantile(torch.cat(means), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def mean_interval(per_prompt: Sequence[float]) -> tuple[float, float]:
    """`bootstrap_interval` of values in [0, 1]; where all are equal, and resampling can show no doubt, Wilson's.

    >>> low, high = mean_interval([1.0] * 50)
    >>> round(low, 3), high
    (0.929, 1.0)
    """
    return interval(per_prompt, 1) if len(set(per_prompt)) == 1 else bootstrap_interval(per_prompt)
