"""Whether a block of stages that repeats is at its end: its rule, held against what its rounds measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.recipe.recipe import Recipe
from temper.recipe.rounds import Block, Until, numbered
from temper.record.rundir import read_object


@dataclass(frozen=True)
class Verdict:
    """What is known of a block after some of its rounds: what the rule looks at, a value a round, and why it ends the
    block with the last of them ("": it does not)."""

    block: str
    rounds: int
    what: str
    values: tuple[float | None, ...]
    why: str

    def __str__(self) -> str:
        shown = "not measured" if self.values[-1] is None else f"{self.values[-1]:.3f}"
        end = self.why or ("the most there are" if len(self.values) == self.rounds else "another round follows")
        return f"{self.block}: round {len(self.values)} of at most {self.rounds}: {self.what} {shown}: {end}"


def reason_to_end(until: Until, values: Sequence[float | None]) -> str:
    """Why a rule ends a block after the round of the last of `values`, a score a round; "" where it does not.

    >>> rule = Until(stage="check", at_least=0.9, gain_below=0.01)
    >>> reason_to_end(rule, [0.5, 0.7]), reason_to_end(rule, [0.5, 0.7, 0.65]), reason_to_end(rule, [0.95])
    ('', 'it gained -0.050 over the best round before, less than 0.01', 'it is at least 0.9')
    """
    value, before = values[-1], [value for value in values[:-1] if value is not None]
    if value is None:
        return ""
    if until.at_least is not None and value >= until.at_least:
        return f"it is at least {until.at_least:g}"
    if until.at_most is not None and value <= until.at_most:
        return f"it is at most {until.at_most:g}"
    if until.gain_below is not None and before and (gain := value - max(before)) < until.gain_below:
        return f"it gained {gain:+.3f} over the best round before, less than {until.gain_below:g}".replace("+", "")
    return ""


def judge(recipe: Recipe, block: Block, artifacts: Mapping[str, Path]) -> Verdict | None:
    """The verdict on a block after the last round whose evaluation is among `artifacts`; None where it has no rule, or
    no round has been measured."""
    until = block.until
    values: list[float | None] = []
    while until is not None and (folder := artifacts.get(numbered(until.stage, len(values) + 1))) is not None:
        values.append(_score(read_object(folder / "evaluation.json"), until, block, len(values) + 1))
    if until is None or not values:
        return None
    what = " ".join([until.metric, *(f"of {until.model}" for _ in [0] if until.model),
                     *(f"on {until.task}" for _ in [0] if until.task)])  # fmt: skip
    return Verdict(block.name, block.rounds, what, tuple(values), reason_to_end(until, values))


def _score(evaluation: Mapping[str, Any], until: Until, block: Block, round: int) -> float | None:
    from temper.stages.claims import score_of

    model = numbered(until.model, round) if until.model in block.names else until.model
    found = [of for of in evaluation.get("models") or [] if model in (None, of.get("stage"))]
    tasks = found[-1].get("tasks", {}) if found else {}
    task = tasks.get(until.task) if until.task is not None else next(iter(tasks.values()), None)
    return None if task is None else score_of(task, until.metric)
