"""Distillation of logits: a student learns its teacher's whole distribution, on the teacher's tokens or on its own.

Distillation of *data* (R1's own, 2501.12948 section 2.4) needs no stage of its own: `sft` of the student on a harvest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from temper.config import DataRef, ModelRef, TaskName
from temper.data.batching import make_batch, split_by_tokens
from temper.errors import ArtifactError, DataError, Fault
from temper.models.device import on_device, pick_dtype, pin
from temper.models.load import load_model
from temper.report.rollouts import write_rows
from temper.rewards.score import Scorer
from temper.rollout.collect import collect, rollout_row
from temper.rollout.open import cpu_seconds, open_engine
from temper.rollout.options import SamplingConfig, sampling_of
from temper.rollout.statistics import score_metrics
from temper.stages.context import StageContext
from temper.stages.shared import (
    check_conversations,
    check_lengths,
    check_model,
    check_tasks,
    check_training,
    conversation_examples,
    draw_prompts,
    finish_model,
    open_learner,
    open_prompts,
    open_rewards,
    shuffled,
    too_few,
)
from temper.text.chat import ChatFormat
from temper.train.divergence import Divergence, DivergenceName, diverge_targets
from temper.train.forward import plan_batch
from temper.train.learner import Learner, LossSum, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.types import Example, Group

VERSION = 1
WATCHED = ("accuracy", "format")  # of the student's own replies: shown, not trained on


class Config(OptimizerConfig, SamplingConfig):
    """`forward_kl`: KL(teacher ‖ student) on the tokens of `data`, which the teacher wrote (a harvest of it).
    `on_policy`: KL(student ‖ teacher) on what the student samples for the prompts of `tasks` (GKD 2306.13649 with λ = 1).

    `temperature` is of both softmaxes and, on policy, of the sampling.
    """

    model: ModelRef  # the student
    teacher: ModelRef
    mode: Literal["forward_kl", "on_policy"]
    divergence: DivergenceName | None = None  # another than the mode's own
    data: DataRef | None = None  # forward_kl
    columns: dict[str, str] = {}
    num_train_epochs: Annotated[int, Field(ge=1)] = 2  # forward_kl; as `sft`
    batch_size: Annotated[int, Field(ge=1)] = 32  # forward_kl: conversations an optimiser step
    tasks: list[TaskName] = []  # on_policy
    max_steps: Annotated[int, Field(ge=1)] | None = None  # on_policy
    prompts_per_step: Annotated[int, Field(ge=1)] = 32  # on_policy
    num_generations: Annotated[int, Field(ge=1)] = 1  # on_policy: samples of each prompt
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    offload_teacher: bool = False  # on CUDA: its weights are in main memory but for the moment they are asked
    keep_rollouts_steps: Annotated[int, Field(ge=1)] = 10  # on_policy: samples of every n-th step stay on disk

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        needed = ("data",) if self.mode == "forward_kl" else ("tasks", "max_steps")
        foreign = {"forward_kl": ("tasks", "max_steps", "prompts_per_step", "num_generations"),
                   "on_policy": ("data", "columns", "num_train_epochs", "batch_size")}[self.mode]  # fmt: skip
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"mode `{self.mode}` needs `{missing[0]}`")
        if wrong := [name for name in foreign if name in self.model_fields_set]:
            raise ValueError(f"`{wrong[0]}` says nothing in mode `{self.mode}`")
        return self


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = check_training(config) + check_model(config.model, ctx) + check_model(config.teacher, ctx)
    paths = [ctx.inputs.get(ref) for ref in (config.model, config.teacher)]
    if not faults and not any(ref.startswith("@") for ref in (config.model, config.teacher)) and all(paths):
        student, teacher = (ChatFormat.load(path) for path in paths if path is not None)
        faults += other_vocabulary(student, teacher)
    if config.data is not None:
        return faults + check_conversations(config.data, config.columns, ctx)
    faults += check_tasks(config.tasks, "train", ctx)
    if not faults and all(ctx.tasks[name].train is not None for name in config.tasks):
        faults += too_few(open_prompts(config.tasks, "train", ctx), config.prompts_per_step)
    return faults


def run(config: Config, ctx: StageContext) -> None:
    """Per step: a batch of conversations, or of the student's own samples; its mean divergence over the step's tokens."""
    source, origin = ctx.inputs[config.model], ctx.inputs[config.teacher]
    chat = open_chat(source, origin, ctx)
    (teach, how) = (on_data if config.mode == "forward_kl" else on_policy)(config, chat, ctx)
    learner = open_learner(source, config, how.steps, ctx)
    teacher = open_teacher(origin, config, learner)
    wanted = Divergence(
        config.divergence or ("forward_kl" if config.mode == "forward_kl" else "reverse_kl"),
        config.temperature,
        shared_vocabulary(learner.model, teacher, chat),
    )
    with batches(config, chat, learner, ctx) as batch_of:
        for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping):
            began = time.perf_counter()
