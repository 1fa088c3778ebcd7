"""Guards that stop a run which has gone wrong: a metric past its bound, on average over a window of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from temper.config import StrictModel
from temper.errors import Exit, Fault, TemperError


class Guards(StrictModel):
    """Bounds; one that is not given does not guard."""

    window: Annotated[int, Field(ge=1)] = 5  # steps that are averaged
    max_kl_divergence: Annotated[float, Field(gt=0)] | None = None
    min_entropy: Annotated[float, Field(ge=0)] | None = None
    max_completion_length: Annotated[float, Field(gt=0)] | None = None
    max_truncated: Annotated[float, Field(ge=0, le=1)] | None = None
    max_steps: Annotated[float, Field(gt=0)] | None = None  # steps of a completion, with process supervision


_WATCHED = {
    "max_kl_divergence": ("policy/kl_divergence", 1),
    "min_entropy": ("policy/entropy", -1),
    "max_completion_length": ("completion/length", 1),
    "max_truncated": ("completion/truncated", 1),
    "max_steps": ("steps/count", 1),
}
_FIX = "lower the learning rate or raise kl_penalty"
_FIXES = {"max_steps": "read what the steps say: their rewards are earned by more steps, not by better ones"}


def watch(guards: Guards, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise TemperError (exit code 7) if the last `window` of the metrics `rows` are, on average, past a bound.

    >>> watch(Guards(window=2, max_kl_divergence=0.1), [{"policy/kl_divergence": 0.3}, {"policy/kl_divergence": 0.1}])
    Traceback (most recent call last):
    temper.errors.TemperError: guard: policy/kl_divergence is 0.2, above 0.1, over the last 2 steps
    """
    if len(rows) < guards.window:
        return
    for key, (metric, sign) in _WATCHED.items():
        bound = getattr(guards, key)
        values = [row[metric] for row in rows[-guards.window :] if row.get(metric) is not None]
        if bound is None or not values:
            continue
        mean = sum(values) / len(values)
        if sign * (mean - bound) > 0:
            side = "above" if sign > 0 else "below"
            raise TemperError(
                Fault(
                    f"guard: {metric} is {mean:.4g}, {side} {bound:g}, over the last {guards.window} steps",
                    why=f"the recipe asks to stop here (`guards.{key}`)",
                    fix=f"{_FIXES.get(key, _FIX)}; the checkpoints before it are kept",
                ),
                Exit.GUARD,
            )
