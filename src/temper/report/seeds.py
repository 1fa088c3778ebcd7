"""What a few seeds say: intervals of a mean, and differences between settings on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

# two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of what several seeds gave, by Student's t; None for fewer than two.

    Two seeds have a wide one, as they should:

    >>> mean_interval([0.8, 0.9]), mean_interval([0.8, 0.85, 0.9]), mean_interval([0.8])
    ((0.2147, 1.4853), (0.7258, 0.9742), None)
    """
    if len(values) < 2:
        return None
    quantile = T_95[min(len(values) - 1, len(T_95)) - 1]
    mean, half = fmean(values), quantile * stdev(values) / len(values) ** 0.5
    return round(mean - half, 4), round(mean + half, 4)


def differences(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of every setting but the first: each held-out score less that of the first setting with the same seed, the mean
    over seeds and its 95 % interval. What seeds have in common, such as the cold start and the problems, is taken out.

    >>> of = lambda lr, seed, score: {"values": {"lr": lr}, "seed": seed, "held_out": {"accuracy": score}}
    >>> [row] = differences([of(1, 0, 0.5), of(1, 1, 0.7), of(2, 0, 0.6), of(2, 1, 0.8), of(2, 2, 0.9)])
    >>> row["values"], row["seeds"], row["held_out"]["accuracy"]["mean"]
    ({'lr': 2}, 2, 0.1)
    """
    by_value: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        by_value.setdefault(repr(point["values"]), []).append(point)
    first, *others = by_value.values()
    base = {point["seed"]: point["held_out"] for point in first if point.get("held_out")}
    found = []
    for of_value in others:
        pairs = [(p["held_out"], base[p["seed"]]) for p in of_value if p.get("held_out") and p["seed"] in base]
        names = dict.fromkeys(name for ours, theirs in pairs for name in ours if name in theirs)
        scores = {}
        for name in names:
            values = [ours[name] - theirs[name] for ours, theirs in pairs if name in ours and name in theirs]
            scores[name] = {"mean": round(fmean(values), 6), "interval": mean_interval(values)}
        found.append({"values": of_value[0]["values"], "seeds": len(pairs), "held_out": scores})
    return found


def drawn_by_step(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """How many completions had been drawn at each logged step of RL, those that dynamic sampling threw away included:
    settings that draw more of them a step are compared by this. {} where it cannot be known.

    >>> drawn_by_step([{"step": 1, "tokens_per_second": 50.0, "seconds": 2.0, "completion/length": 10.0}])
    {1: 10.0}
    """
    total, found = 0.0, {}
    for row in rows:
        names = ("tokens_per_second", "seconds", "completion/length")
        numbers = [number for name in names if isinstance(number := row.get(name), (int, float)) and number > 0]
        if len(numbers) < len(names):
            return {}
        speed, seconds, length = numbers
        total += speed * seconds / length * row.get("groups/draws", 1)
        found[row["step"]] = round(total, 1)
    return found
