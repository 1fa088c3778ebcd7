"""Group-relative policy optimisation with verifiable rewards (DeepSeekMath 2402.03300; DeepSeek-R1 2501.12948)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from temper.algorithms.advantages import ADVANTAGES
from temper.config import ModelRef, RewardName, TaskName
from temper.errors import DataError, Fault
from temper.models.adapters import without_adapters
from temper.models.device import on_device, pick_dtype, pin
from temper.models.load import load_model
from temper.report.metrics import read_rows
from temper.report.rollouts import write_rows
from temper.rewards.score import Scorer
from temper.rollout.collect import collect, rollout_row
from temper.rollout.open import cpu_seconds, open_engine
from temper.rollout.options import SamplingConfig, sampling_of
from temper.rollout.statistics import count_tokens, rollout_metrics
from temper.stages.context import StageContext
from temper.stages.shared import (
    check_lengths,
    check_model,
    check_rewards,
    check_tasks,
    check_training,
    draw_prompts,
    finish_model,
    open_learner,
    open_prompts,
    open_rewards,
    too_few,
)
from temper.text.chat import ChatFormat
from temper.train.guards import Guards, watch
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.policy import PolicyBatch, PolicyLoss, policy_batches, with_old, with_reference
from temper.types import Group, PolicyExample

VERSION = 1


class Config(OptimizerConfig, SamplingConfig):
    """Defaults are R1's where it states them (Nature 645:633, methods), else TRL's."""

    model: ModelRef
    tasks: list[TaskName] = Field(min_length=1)
    reward_funcs: list[RewardName] = Field(default=["accuracy", "format"], min_length=1)
    reward_weights: list[float] | None = None  # one a reward; all 1.0 when not given
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-6  # R1
    max_steps: Annotated[int, Field(ge=1)]
    num_generations: Annotated[
        int, Field(ge=2, description="an advantage compares the completions of one prompt: one alone has no other")
    ] = 16  # R1
    prompts_per_step: Annotated[int, Field(ge=1)] = 32  # R1
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0  # R1
    advantage: Literal["std", "none"] = "std"
    clip_range: Annotated[float, Field(gt=0)] = 0.2  # PPO; R1 used 10
    clip_range_high: Annotated[float, Field(gt=0)] | None = None  # the upper bound, if it differs
    kl_penalty: Annotated[float, Field(ge=0)] = 0.001  # R1
    reference_update_steps: Annotated[int, Field(ge=0)] = 0  # 0: frozen; R1 replaced it every 400 steps
    offload_reference: bool = False  # on CUDA: its weights are in main memory but for the moment they are asked
    num_mini_batches: Annotated[int, Field(ge=1)] = 1  # optimiser updates a pass over the step's groups; R1: 16
    num_iterations: Annotated[int, Field(ge=1)] = 1  # passes over the step's groups (μ in DeepSeekMath)
    guards: Guards = Guards()
    keep_rollouts_steps: Annotated[int, Field(ge=1)] = 10  # completions of every n-th step stay on disk

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"reward_weights has {len(self.reward_weights)} values for {len(self.reward_funcs)} reward_funcs"
            )
        if self.prompts_per_step % self.num_mini_batches:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) is not divisible by "
                f"num_mini_batches ({self.num_mini_batches})"
            )
        if self.lora is not None and self.reference_update_steps:
            raise ValueError("reference_update_steps with lora: the reference is the model without its adapters")
        return self


def check(config: Config, ctx: StageContext) -> list[Fault]:
    """Faults of the rewards, the prompts and the model that can be known before anything runs."""
    faults = check_training(config) + check_model(config.model, ctx) + check_tasks(config.tasks, "train", ctx)
    if not faults and all(ctx.tasks[name].train is not None for name in config.tasks):
        faults += too_few(open_prompts(config.tasks, "train", ctx), config.prompts_per_step)
    return faults + check_rewards(config.reward_funcs, ctx)


def run(config: Config, ctx: StageContext) -> None:
    """Per step: draw prompts, sample a group for each, score, turn rewards into advantages, update."""
    source = ctx.inputs[config.model]
    chat = ChatFormat.load(source)
    learner = open_learner(source, config, config.max_steps, ctx)
    policy, reference = learner.model, open_reference(source, config, learner)
    prompts = open_prompts(config.tasks, "train", ctx)
    if few := too_few(prompts, config.prompts_per_step):
        raise DataError(few)
    check_lengths([prompt for of_task in prompts.values() for prompt in of_task], chat)
    scorer = Scorer(open_rewards(config.reward_funcs, ctx), config.reward_weights)
    sampling = sampling_of(config, chat)
    loss = PolicyLoss(
        config.clip_range, config.clip_range_high or config.clip_range, config.kl_penalty, config.temperature
    )
    others = {"reference": reference} if reference is not None and config.reference_update_steps else {}
    with open_engine(policy, version=lambda: learner.step) as engine:
        for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping, others):
            began, began_cpu = time.perf_counter(), time.process_time() + cpu_seconds(engine)
            drawn = draw_prompts(prompts, config.prompts_per_step, step, (ctx.seed, ctx.name))
            groups = collect(engine, chat, scorer, drawn, config.num_generations, sampling, (ctx.seed, ctx.name, step))
            sampled = time.perf_counter()
            examples = [to_examples(group, config.advantage) for group in groups]
            metrics = update(config, learner, loss, reference, examples)
            replaced = config.reference_update_steps and (step + 1) % config.reference_update_steps == 0
            if reference is not None and replaced:
                reference.load_state_dict(policy.state_dict())
            if step % config.keep_rollouts_steps == 0 or step + 1 == config.max_steps:
                write_rows(ctx.work / "rollouts" / f"step-{step + 1:06d}.jsonl.gz", rows(step + 1, groups, examples))
            metrics = rollout_metrics(groups, examples) | metrics
            ended = time.perf_counter()
            metrics |= {
                "tokens_per_second": count_tokens(groups) / (ended - began),
                "seconds": ended - began,
                "seconds/sampling": sampled - began,
                "cpu_seconds": time.process_time() + cpu_seconds(engine) - began_cpu,
            }
            ctx.log.step(step + 1, config.max_steps, metrics)
            if config.guards != Guards():
                watch(config.guards, read_rows(ctx.work / "metrics.jsonl"))
    tasks, rewards = ", ".join(config.tasks), ", ".join(config.reward_funcs)
    how = [f"GRPO: {config.max_steps} steps on {tasks}, rewards {rewards}"]
    finish_model(learner, chat, ctx, config.model, how)


def open_reference(source: Path, config: Config, learner: Learner) -> Any:
    """π_ref, or None without a KL term. With adapters it is the policy itself, which `update` asks without them."""
    if config.kl_penalty == 0 or config.lora is not None:
        return learner.model if config.kl_penalty else None
    device = learner.model.device
    dtype = pick_dtype(config.dtype, device)
    return pin(load_model(source, dtype)) if config.offload_reference else load_model(source, dtype, str(device))


def to_examples(group: Group, advantage: str) -> list[PolicyExample]:
    """Outcome supervision: every token of a completion gets the completion's advantage."""
    rewards = torch.tensor([rollout.total for rollout in group.rollouts], dtype=torch.float64)
    examples = []
    for rollout, value in zip(group.rollouts, ADVANTAGES[advantage](rewards).tolist(), strict=True):
        ids = rollout.completion.token_ids
        examples.append(
            PolicyExample(
                token_ids=group.prompt_ids + ids,
                mask=(False,) * len(group.prompt_ids) + (True,) * len(ids),
                advantages=(value,) * len(ids),
                sampler_logprobs=rollout.completion.sampler_logprobs,
            )
        )
    return examples


def rows(step: int, groups: Sequence[Group], examples: Sequence[Sequence[PolicyExample]]) -> list[dict]:
    """The step's completions as they are kept on disk."""
    return [
        {"step": step, **rollout_row(rollout, sample), "advantage": example.advantages[0]}
        for group, of_group in zip(groups, examples, strict=True)
        for sample, (rollout, example) in enumerate(zip(group.rollouts, of_group, strict=True))
    ]


def update(
    config: Config,
    learner: Learner,
    loss: PolicyLoss,
    reference: Any,
    groups: Sequence[Sequence[PolicyExample]],
) -> dict[str, float]:
    """All updates of one step: `num_iterations` passes over `num_mini_batches` parts of its groups.

    A dead group has advantage 0 in every token: without a KL term its gradient is 0, so it is not computed. The divisor
    counts its completions all the same, so the gradient is that of the whole step.
    """
    size = len(groups) // config.num_mini_batches
    minibatches: list[list[PolicyBatch]] = []
    for start in range(0, len(groups), size):
        alive = [
            example
            for group in groups[start : start + size]
            for example in group
            if reference is not None or any(example.advantages)
        ]
        parts = policy_batches(alive, config.micro_batch_tokens, learner.model.device)
        if config.num_mini_batches * config.num_iterations > 1:
            parts = with_old(parts, learner.model, config.temperature)
        if reference is not None:
            with without_adapters(reference), on_device(reference, learner.model.device):
                parts = with_reference(parts, reference, config.temperature)
        minibatches.append(parts)
    history = []
    for _ in range(config.num_iterations):
        for parts in minibatches:
            makers = [lambda part=part: loss(learner.model, part) for part in parts]
            history.append(learner.update(makers, divisor=size * config.num_generations))
    names = dict.fromkeys(name for metrics in history for name in metrics)
    return {name: _over_updates(name, [metrics[name] for metrics in history if name in metrics]) for name in names}


def _over_updates(name: str, values: Sequence[float]) -> float:
    return max(values) if name.endswith("_max") else sum(values) / len(values)
