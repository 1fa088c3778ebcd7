"""Which setting of a sweep is best, by how much, and whether the seeds bear it out: what its tables do not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from temper.report.seeds import mean_interval

Json = Mapping[str, Any]


def best_settings(points: Sequence[Json], stage: str) -> list[dict[str, Any]]:
    """For each held-out accuracy of the swept stage's model (of every model, where it was not measured itself): the
    setting with the highest mean over its seeds, and of every other one how far it is behind on the same seeds, with
    the 95 % interval of that (None for one seed).

    >>> of = lambda lr, seed, score: {"values": {"lr": lr}, "seed": seed, "held_out": {"rl/sums/accuracy": score}}
    >>> runs = [of(1, 0, 0.50), of(1, 1, 0.52), of(2, 0, 0.90), of(2, 1, 0.91), of(3, 0, 0.88), of(3, 1, 0.92)]
    >>> [found] = best_settings(runs, "rl")
    >>> found["score"], found["values"], [(o["values"], o["interval"]) for o in found["others"]]
    ('rl/sums/accuracy', {'lr': 2}, [({'lr': 3}, (-0.1956, 0.1856)), ({'lr': 1}, (-0.4585, -0.3315))])
    """
    scored = [point for point in points if point.get("held_out")]
    names = dict.fromkeys(name for point in scored for name in point["held_out"] if name.endswith("/accuracy"))
    own = [name for name in names if name.startswith(f"{stage}/")]
    found = [_best(scored, name) for name in own or names]
    return [best for best in found if best is not None]


def _best(points: Sequence[Json], name: str) -> dict[str, Any] | None:
    by_value: dict[str, dict[Any, float]] = {}
    values: dict[str, Json] = {}
    for point in points:
        if name in point["held_out"]:
            values.setdefault(key := repr(point["values"]), point["values"])
            by_value.setdefault(key, {})[point["seed"]] = point["held_out"][name]
    if len(by_value) < 2:
        return None
    means = {key: fmean(of.values()) for key, of in by_value.items()}
    first, *others = sorted(means, key=lambda key: -means[key])
    behind = []
    for key in others:
        gaps = [by_value[key][seed] - score for seed, score in by_value[first].items() if seed in by_value[key]]
        if gaps:
            of = {"difference": round(fmean(gaps), 6), "interval": mean_interval(gaps), "seeds": len(gaps)}
            behind.append({"values": values[key], "mean": round(means[key], 6), **of})
    return {"score": name, "values": values[first], "mean": round(means[first], 6), "others": behind}


def sentences(best: Sequence[Json], name_of: Callable[[Json], str]) -> list[str]:
    """What may be said of each score, a line each; `name_of` gives a setting its name.

    >>> other = {"values": {"lr": 1}, "mean": 0.51, "difference": -0.4, "interval": (-0.46, -0.33), "seeds": 2}
    >>> found = {"score": "rl/sums/accuracy", "values": {"lr": 2}, "mean": 0.905, "others": [other]}
    >>> print(*sentences([found], lambda values: f"lr {values['lr']}"))
    rl/sums/accuracy: lr 2 is best (0.905); lower beyond the noise of 2 seeds: lr 1 (-0.400 [-0.460, -0.330])
    """
    lines = []
    for found in best:
        told = {"lower beyond the noise of {} seeds": [], "too close to call on {} seeds": [], "behind on one seed": []}
        lower, close, single = told
        for other in found["others"]:
            interval = other["interval"]
            kind = single if interval is None else lower if interval[1] < 0 else close
            told[kind].append(f"{name_of(other['values'])} ({_gap(other)})")
        seeds = max((other["seeds"] for other in found["others"]), default=1)
        parts = [f"{kind.format(seeds)}: {', '.join(of)}" for kind, of in told.items() if of]
        lines.append("; ".join([f"{found['score']}: {name_of(found['values'])} is best ({found['mean']:.3f})", *parts]))
    if any(other["interval"] is None for found in best for other in found["others"]):
        lines.append("One seed says nothing of the noise between seeds: `--seeds 0,1,2` measures it.")
    return lines


def _gap(other: Json) -> str:
    interval = other["interval"]
    return f"{other['difference']:+.3f}" + ("" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]")
