"""A model that is one hash, trained by hashing; checkpoints, resume and preemption as real stages have them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from temper.config import DataRef, ModelRef, RewardName, StrictModel, TaskName
from temper.errors import DataError, Fault, Preempted
from temper.record.checkpoints import NOTE, owner_of, remove, steps_in
from temper.rng import seed_for
from temper.sealed import seal, trusted
from temper.stages.context import StageContext

VERSION = 1


class Schedule(StrictModel):
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    shape: str = "constant"


class Config(StrictModel):
    model: ModelRef | None = None
    data: DataRef | None = None
    mix: list[DataRef] = Field(default_factory=list)
    tasks: list[TaskName] = Field(default_factory=list)
    reward_funcs: list[RewardName] = Field(default_factory=list)
    steps: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    num_generations: Annotated[int, Field(ge=2, description="a group of one has nothing to compare with")] = 4
    batch: Annotated[int, Field(ge=1)] = 4
    kl_penalty: Annotated[float, Field(ge=0)] = 0.0
    limit: Annotated[int, Field(ge=1)] | None = None
    shuffle: bool = True
    language: str = "en"
    pair: tuple[int, int] = (1, 2)
    schedule: Schedule = Schedule()
    save_steps: Annotated[int, Field(ge=1)] = 2
    sleep: float = 0.0  # a step, in seconds
    fail: str = ""

    @model_validator(mode="after")
    def _divisible(self) -> Config:
        if self.batch % self.num_generations:
            raise ValueError(f"batch ({self.batch}) is not divisible by num_generations ({self.num_generations})")
        return self


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = []
    for ref in (config.data, *config.mix):
        path = ctx.inputs.get(ref or "")
        if path is not None and not path.read_text(encoding="utf-8").strip():
            faults += DataError(Fault(f"{path.name} has 0 rows", str(path))).faults
    if config.language == "xx":
        ctx.log.warn("language xx is ignored")
    return faults


def run(config: Config, ctx: StageContext) -> None:
    state, start = _newest(ctx) or (_start(config, ctx), 0)
    ctx.log.resume_at(start)
    if config.fail == "bug":
        raise KeyError("a bug")
    for step in range(start, config.steps):
        time.sleep(config.sleep)
        parts = f"{state}{seed_for(ctx.seed, ctx.name, step)}{config.learning_rate}"
        state = hashlib.sha256(parts.encode()).hexdigest()
        ctx.log.step(step + 1, config.steps, {"loss": 1.0 / (step + 1), "seconds": 0.1})
        stop = ctx.stopping()
        if stop or (step + 1) % config.save_steps == 0:
            _save(ctx.work, step + 1, state)
        if stop:
            raise Preempted(f"checkpoint saved after step {step + 1} of {config.steps}")
        if config.fail == "nan" and step == 2:
            raise FloatingPointError("the loss is nan at step 3")
    (ctx.out / "config.json").write_text("{}", encoding="utf-8")
    (ctx.out / "model.safetensors").write_text(state, encoding="utf-8")


def _start(config: Config, ctx: StageContext) -> str:
    files = [ctx.inputs[ref] for ref in (config.data, *config.mix) if ref]
    files += [path for name in config.tasks for path in (ctx.tasks[name].train, ctx.tasks[name].test) if path]
    if config.model:
        files.append(ctx.inputs[config.model] / "model.safetensors")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _save(work: Path, step: int, state: str) -> None:
    """As `train/checkpoint.py` does it, without tensors."""
    folder = work / "checkpoints"
    folder.mkdir(exist_ok=True)
    aside = folder / f".writing-{step:06d}"
    aside.mkdir(exist_ok=True)
    (aside / NOTE).write_bytes(seal(NOTE, {"step": step, "owner": owner_of(work), "state": state}))
    final = folder / f"step-{step:06d}"
    if remove(final):
        os.rename(aside, final)


def _newest(ctx: StageContext) -> tuple[str, int] | None:
    for step, path in steps_in(ctx.work / "checkpoints"):
        note = trusted(path / NOTE)
        if (note.get("step"), note.get("owner")) == (step, owner_of(ctx.work)):
            return note["state"], step
        ctx.log.warn(f"checkpoint {path / NOTE} is damaged, using the one before it")
    return None
