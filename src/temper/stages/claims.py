"""Claims of an evaluation: what its table should show, and whether it does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from temper.config import StrictModel, TaskName
from temper.rollout.paired import PromptScore, paired

Scored = Mapping[tuple[str, str], Sequence[PromptScore]]  # by model and task


class Claim(StrictModel):
    """Something the table should show: a metric of a model on a task, in a range, below another model's, or so far
    above another's (or its own by another metric) that the whole paired interval of the difference is."""

    model: str
    task: TaskName
    metric: str = "accuracy"  # one of SCORES, a reward, `pass@K`, `cons@K`, `budget@N`, `extended@N`
    at_least: float | None = None
    at_most: float | None = None
    below: str | None = None  # a model whose metric must be higher …
    difference: str | None = None  # a model whose metric must be lower, the 95 % interval of the difference above 0 …
    than: str | None = None  # in a `difference`, the metric of that model, where it is another one
    by: float = 0.0  # … by this much; below 0, a difference whose whole interval is above it: nothing is lost

    @model_validator(mode="after")
    def _one_question(self) -> Claim:
        if self.below is not None and self.difference is not None:
            raise ValueError("a claim has `below` or `difference`, not both")
        if self.than is not None and self.difference is None:
            raise ValueError("`than` is the metric of the model that `difference` names")
        return self


def score_of(task: Mapping[str, Any], metric: str) -> float | None:
    """A metric of one model on one task, from what `measure` gave."""
    if match := re.fullmatch(r"pass@(\d+)", metric):
        return task["pass_at"][match[1]]["value"]
    if match := re.fullmatch(r"cons@(\d+)", metric):
        return task["cons_at"][match[1]]["value"]
    if metric == "cons@k":
        return task["cons_at_k"]
    if forced := task.get("forced", {}).get(metric):
        return forced["value"]
    return task[metric] if metric in task else task["rewards"].get(metric)


def judge(claim: Claim, models: Sequence[dict], scored: Scored | None = None) -> dict[str, Any]:
    """The verdict of one claim, with its numbers. `scored` is what a `difference` is made of."""
    by_name = {model["stage"]: model["tasks"][claim.task] for model in models}
    value = score_of(by_name[claim.model], claim.metric)
    name = f"{claim.model}: {claim.metric.replace('_', ' ')} on {claim.task}"
    targets, holds, more = [], value is not None, {}
    if claim.difference is not None:
        mine, others = ((scored or {})[model, claim.task] for model in (claim.model, claim.difference))
        found = paired(mine, others, claim.metric, claim.than)
        value, more = found["difference"], {"interval": found["interval"]}
        low, high = found["interval"]
        than = "" if claim.than is None else f" - {claim.than.replace('_', ' ')}"
        name = f"{claim.model} - {claim.difference}: {claim.metric.replace('_', ' ')}{than} on {claim.task}"
        least = min(claim.by, 0.0)
        more_than = f"above {claim.by:g}, " if claim.by >= 0 else ""
        targets.append(f"{more_than}interval ({low:.3f} to {high:.3f}) above {least:g}")
        holds = low > least and value >= claim.by
    if claim.at_least is not None:
        targets.append(f"≥ {claim.at_least:g}")
        holds = holds and value is not None and value >= claim.at_least
    if claim.at_most is not None:
        targets.append(f"≤ {claim.at_most:g}")
        holds = holds and value is not None and value <= claim.at_most
    if claim.below is not None:
        other = score_of(by_name[claim.below], claim.metric)
        shown = "not measured" if other is None else f"{other:.3f}"
        targets.append(f"below {claim.below} ({shown}) by {claim.by:g}")
        holds = holds and value is not None and other is not None and value <= other - claim.by
    return {"claim": name, "value": value, "target": " and ".join(targets), "holds": bool(holds), **more}
