"""From the timings of all rounds to the figures that are shown: medians over every timed step of every round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

from draws import Draws
from floor import Floor, Rates, sampling_floor, step_floor
from workloads import Workload

Result = Mapping[str, Any]  # what a measured process sends at its end


@dataclass(frozen=True)
class Figures:
    """One library on one workload."""

    steps: list[float]
    seconds: float
    cpu_seconds: float
    sampling_seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    others_cpu_seconds: float  # a second of the timed steps: CPU time that other processes took meanwhile

    @property
    def four(self) -> dict[str, float]:
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "tokens_per_second": self.tokens_per_second,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    @property
    def spread(self) -> dict[str, Any]:
        return {
            "seconds_min": min(self.steps),
            "seconds_max": max(self.steps),
            "sampling_seconds": self.sampling_seconds,
            "training_seconds": self.seconds - self.sampling_seconds,
            "others_cpu_seconds": round(self.others_cpu_seconds, 3),
            "steps": [round(seconds, 4) for seconds in self.steps],
        }


def figures(results: Sequence[Result]) -> Figures:
    """The rounds of one library, taken together."""
    timings = [timing for result in results for timing in result["timings"]]
    seconds = median(timing["seconds"] for timing in timings)
    return Figures(
        [timing["seconds"] for timing in timings],
        seconds,
        median(timing["cpu_seconds"] for timing in timings),
        median(timing["sampling_seconds"] for timing in timings),
        mean(timing["tokens"] for timing in timings) / seconds,
        max(result["peak_memory_bytes"] for result in results),
        sum(timing["others_cpu_seconds"] for timing in timings) / sum(timing["seconds"] for timing in timings),
    )


def mean_floor(work: Workload, steps: Sequence[Draws], rates: Rates, sample_only: bool) -> Floor:
    """The floor of the timed steps, phase by phase."""
    floors = [
        sampling_floor(work, draws.lengths, rates)
        if sample_only
        else step_floor(work, draws.lengths, draws.alive, rates)
        for draws in steps
    ]
    return Floor(*(mean(values) for values in zip(*(asdict(floor).values() for floor in floors), strict=True)))


def floor_keys(temper: Figures, floor: Floor, rates: Rates) -> dict[str, Any]:
    """The floor's part of the JSON line, after the share."""
    return {
        "floor": {"seconds": floor.seconds, **asdict(floor)},
        "rates": {"flops_per_second": rates.flops, "bytes_per_second": rates.bytes},
        "floor_share_sampling": (floor.prefill + floor.decode) / temper.sampling_seconds,
    }


def step_line(
    workload: str,
    peer: str | None,
    temper: Figures,
    other: Figures | None,
    floor: Floor,
    rates: Rates,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON line of `run.py`; `more` comes after the keys that are promised. Without a peer there is no ratio."""
    return {
        "workload": workload,
        "peer": peer,
        "temper": temper.four,
        "other": other and other.four,
        "ratio": other and other.seconds / temper.seconds,
        "floor_share": floor.seconds / temper.seconds,
        **floor_keys(temper, floor, rates),
        "spread": {"temper": temper.spread, **({"other": other.spread} if other else {})},
        **more,
    }


def sampler_line(
    workload: str,
    temper: Figures,
    others: Mapping[str, Figures | str],
    floor: Floor,
    rates: Rates,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON line of `sampler.py`; a sampler that could not run has why in place of its figures, and no ratio."""
    return {
        "workload": workload,
        "temper": temper.four,
        "others": {name: {"error": found} if isinstance(found, str) else found.four for name, found in others.items()},
        "ratios": {
            name: None if isinstance(found, str) else found.seconds / temper.seconds for name, found in others.items()
        },
        "floor_share": floor.seconds / temper.seconds,
        **floor_keys(temper, floor, rates),
        "spread": {
            "temper": temper.spread,
            **{name: found.spread for name, found in others.items() if not isinstance(found, str)},
        },
        **more,
    }


def table(rows: Mapping[str, Figures | str], sample_only: bool) -> str:
    """The figures for people, a row a library; the first row is what the others are compared with."""
    parts = "" if sample_only else f"{'sampling':>10}{'training':>10}"
    lines = [f"{'':22}{'seconds':>9}{'min':>9}{'max':>9}{parts}{'CPU s':>9}{'tokens/s':>11}{'memory':>10}{'ratio':>8}"]
    first = next(found for found in rows.values() if not isinstance(found, str))
    for name, found in rows.items():
        if isinstance(found, str):
            lines.append(f"{name:22}{found}")
            continue
        training = found.seconds - found.sampling_seconds
        parts = "" if sample_only else f"{found.sampling_seconds:10.3f}{training:10.3f}"
        lines.append(
            f"{name:22}{found.seconds:9.3f}{min(found.steps):9.3f}{max(found.steps):9.3f}{parts}"
            f"{found.cpu_seconds:9.2f}{found.tokens_per_second:11,.0f}{found.peak_memory_bytes / 1e9:7.2f} GB"
            f"{found.seconds / first.seconds:8.2f}"
        )
    return "\n".join(lines)


def busy_text(rows: Mapping[str, Figures | str]) -> str:
    """A warning if other processes took CPU time during the timed steps; empty if hardly any."""
    taken = {name: found.others_cpu_seconds for name, found in rows.items() if not isinstance(found, str)}
    worst = max(taken, key=lambda name: taken[name])
    if taken[worst] < 0.1:
        return ""
    return f"warning: other processes took {taken[worst]:.2f} CPU seconds a second while {worst} was timed"


def floor_text(temper: Figures, floor: Floor, rates: Rates) -> str:
    """One line about the floor."""
    return (
        f"floor {floor.seconds:.3f} s, {floor.seconds / temper.seconds:.0%} of temper's time, "
        f"at {rates.flops / 1e9:,.0f} GFLOP/s and {rates.bytes / 1e9:,.1f} GB/s measured now"
    )
