"""Plan and run a recipe. This table is every kind of stage there is; a new one is a file in `stages/` and a line here.

document.py   YAML -> a tree that knows its lines       recipe.py   tree + table -> a typed recipe, or its faults
sources.py    extends, --set                            graph.py    references between stages, and to files
faults.py     what is wrong with a config, in words     preflight.py  all of it, checked before anything runs
plan.py       fingerprints: what runs, and why          run.py      the loop over stages
rundir.py     what is where in a run directory          cost.py     seconds and bytes, spent and to be spent
probe.py      what stages will take, by trying them     rehearsal.py  one of them, a few steps of it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Makes = Literal["model", "reward_model", "dataset", "evaluation"]


@dataclass(frozen=True)
class StageKind:
    """`module` has VERSION, `class Config(StrictModel)`, `run(config, ctx)` and perhaps `check(config, ctx)`."""

    module: str
    makes: Makes
    must_leave: str  # the file without which what it made is not what it says


STAGES: dict[str, StageKind] = {
    "tiny_world": StageKind("temper.stages.tiny_world", "dataset", ""),
    "import_model": StageKind("temper.stages.import_model", "model", "config.json"),
    "pretrain": StageKind("temper.stages.pretrain", "model", "config.json"),
    "sft": StageKind("temper.stages.sft", "model", "config.json"),
    "distill": StageKind("temper.stages.distill", "model", "config.json"),
    "grpo": StageKind("temper.stages.grpo", "model", "config.json"),
    "ppo": StageKind("temper.stages.ppo", "model", "config.json"),
    "reward_model": StageKind("temper.stages.reward_model", "reward_model", "reward_model.json"),
    "sample": StageKind("temper.stages.sample", "dataset", "data.jsonl"),
    "step_labels": StageKind("temper.stages.step_labels", "dataset", "data.jsonl"),
    "preferences": StageKind("temper.stages.preferences", "dataset", "data.jsonl"),
    "evaluate": StageKind("temper.stages.evaluate", "evaluation", "evaluation.json"),
}
