"""Every kind of stage there is: a new one is a file here and a line in `STAGES`.

A stage is a function from a typed config to a directory; stages never import one another. What several do alike:
models.py    open what is trained, leave it behind      rewards.py   open and check rewards
prompts.py   read and check the files of tasks          draws.py     which prompts a step draws
chunks.py    work kept on disk in pieces                rollouts.py  sample, score and log a step
context.py   what a stage is given                      presets.py   an algorithm by its paper's values
idle.py      keys that do nothing beside another          programs.py  evaluating programs by their tests
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Makes = Literal["model", "reward_model", "dataset", "evaluation"]


@dataclass(frozen=True)
class StageKind:
    """`module` has VERSION, `class Config(StrictModel)`, `run(config, ctx)` and perhaps `check(config, ctx)`
    and `idle(config)`."""

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
    "edit": StageKind("temper.stages.edit", "dataset", "data.jsonl"),
    "evaluate": StageKind("temper.stages.evaluate", "evaluation", "evaluation.json"),
}
