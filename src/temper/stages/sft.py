"""Supervised fine-tuning on conversations: the cold start, the second SFT, a student on the harvest; or on the gold
answers of tasks, which shows a model the form of a reply."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from temper.algorithms.losses import negative_log_likelihood
from temper.config import DataRef, ModelRef, TaskName
from temper.data.batching import make_batch, packed_tokens, split_by_tokens
from temper.errors import Fault
from temper.models.forks import cpu_seconds
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_optimizer
from temper.stages.models import check_model, check_training, finish_model, open_learner
from temper.stages.prompts import check_conversations, check_golds, conversation_examples, gold_examples
from temper.text.chat import ChatFormat
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.losses import LossSum
from temper.types import Example

VERSION = 1


class Config(OptimizerConfig):
    """Two epochs as R1's second SFT (2501.12948, section 2.3.3)."""

    model: ModelRef
    data: DataRef | None = None  # conversations
    columns: dict[str, str] = {}  # our name of a column -> the file's
    tasks: list[TaskName] = []  # in place of data: their gold answers are the replies
    max_prompts: Annotated[int, Field(ge=1)] | None = None  # with tasks: the first of each alone
    num_train_epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 32  # conversations an optimiser step
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        if (self.data is None) == (not self.tasks):
            raise ValueError("`data` or `tasks`: one of the two says what is learned")
        return self


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_optimizer(config)
    if config.data is not None and config.max_prompts is not None:
        yield Idle("max_prompts", "it counts the prompts of `tasks`, and this stage learns from `data`")
    if config.tasks and config.columns:
        yield Idle("columns", "it names columns of `data`; those of a task are the task's own")


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = check_training(config) + check_model(config.model, ctx)
    if config.data is None:
        return faults + check_golds(config.tasks, ctx)
    return faults + check_conversations(config.data, config.columns, ctx)


def run(config: Config, ctx: StageContext) -> None:
    """Per step: a batch of conversations, −log π of every assistant token, averaged over the step's tokens."""
    source = ctx.inputs[config.model]
    chat = ChatFormat.load(source)
    examples = read_examples(config, chat, ctx)
    steps_per_epoch = -(-len(examples) // config.batch_size)
    learner = open_learner(source, config, config.num_train_epochs * steps_per_epoch, ctx)
    for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping):
        began, began_cpu = time.perf_counter(), cpu_seconds()
        epoch, at = divmod(step, steps_per_epoch)
        order = shuffled(len(examples), (ctx.seed, ctx.name, epoch))
        chosen = [examples[i] for i in order[at * config.batch_size : (at + 1) * config.batch_size]]
        metrics = update(learner, chosen)
        seconds = time.perf_counter() - began
        tokens = sum(len(example.token_ids) for example in chosen)
        timing = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - began_cpu,
            "tokens_per_second": tokens / seconds,
        }
        ctx.log.step(step + 1, learner.total_steps, metrics | timing)
    what = "conversations" if config.data is not None else "gold answers"
    finish_model(learner, chat, ctx, config.model, [f"supervised fine-tuning on {len(examples)} {what}"])


def read_examples(config: Config, chat: ChatFormat, ctx: StageContext) -> list[Example]:
    """The training rows of the file or of the tasks."""
    if config.data is None:
        return gold_examples(config.tasks, config.max_prompts, chat, ctx)
    return conversation_examples(ctx.inputs[config.data], config.columns, chat, ctx.log.note)


def update(learner: Learner, examples: list[Example]) -> dict[str, float]:
    """One optimiser step on the mean −log π over all target tokens of `examples`."""

    def loss(chosen: list[Example]) -> LossSum:
        batch = make_batch(chosen).to(learner.model.device)
        scored = score_targets(learner.model, batch, plan_batch(batch))
        return LossSum(negative_log_likelihood(scored.logprobs_M).sum())

    budget = learner.budget(packed_tokens(examples))
    parts = [[examples[i] for i in indices] for indices in split_by_tokens(examples, budget)]
    targets = sum(sum(example.mask) for example in examples)
    return learner.update([lambda part=part: loss(part) for part in parts], divisor=targets)
