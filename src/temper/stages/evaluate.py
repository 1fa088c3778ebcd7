"""Held-out evaluation of several models under one declared sampling setting, and the verdict of each claim."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from temper.config import ModelRef, RewardName, StrictModel, TaskName
from temper.errors import Fault, Preempted
from temper.models.device import DeviceConfig, missing_device, placed
from temper.models.load import load_model
from temper.report.rollouts import read_rows, write_rows
from temper.rewards import REWARDS, Reward
from temper.rewards.score import Scorer
from temper.rewards.values import parse_answer
from temper.rollout.collect import collect, rollout_row
from temper.rollout.measures import interval, majority_is_right, pass_at_k
from temper.rollout.open import open_engine
from temper.rollout.options import SamplingConfig, sampling_of
from temper.stages.context import StageContext
from temper.stages.shared import (
    check_lengths,
    check_model,
    check_rewards,
    check_tasks,
    open_prompts,
    open_rewards,
    reward_label,
)
from temper.text.chat import ChatFormat
from temper.types import Group, Prompt

VERSION = 1
MEASURED = ("accuracy", "format", "tag_count", "reasoning_steps", "language_consistency", "repetition_penalty")


class Claim(StrictModel):
    """Something the table should show: a metric of a model on a task, in a range or below another model's."""

    model: str
    task: TaskName
    metric: str = "accuracy"
    at_least: float | None = None
    at_most: float | None = None
    below: str | None = None  # a model whose metric must be higher …
    by: float = 0.0  # … by this much


class Config(SamplingConfig, DeviceConfig):
    """T 0.6 and top-p 0.95 are R1's evaluation setting."""

    models: list[ModelRef] = Field(min_length=1)
    tasks: list[TaskName] = Field(min_length=1)
    num_samples: Annotated[int, Field(ge=1)] = 4  # k: completions a prompt
    pass_k: Annotated[int, Field(ge=1)] | None = None  # the k of pass@k: `num_samples` if not given
    max_prompts: Annotated[int, Field(ge=1)] | None = None  # the first ones of each task's test file; all if not given
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    reward_funcs: list[RewardName] = []  # measured too, beside those of temper; a claim's `metric` may name one
    claims: list[Claim] = []

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.pass_k is not None and self.pass_k > self.num_samples:
            raise ValueError(f"pass_k ({self.pass_k}) is more than num_samples ({self.num_samples})")
        names = {ref.removeprefix("@") for ref in self.models}
        for claim in self.claims:
            for name in (claim.model, claim.below):
                if name is not None and name not in names:
                    raise ValueError(f"a claim names the model `{name}`, which is not among `models`")
        return self


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = missing_device(config.device) + check_tasks(config.tasks, "test", ctx)
    faults += check_rewards(config.reward_funcs, ctx)
    for ref in config.models:
        faults += check_model(ref, ctx)
    return faults


def run(config: Config, ctx: StageContext) -> None:
    """Per model and task: k completions of every held-out prompt, measured. A finished model is not measured twice."""
    models: list[dict[str, Any]] = []
    prompts = open_prompts(config.tasks, "test", ctx)
    total = len(config.models) * len(config.tasks)
    own = [name for name in config.reward_funcs if name not in MEASURED]
    more = {reward_label(name): reward for name, reward in open_rewards(own, ctx, config).items()}
    for ref in config.models:
        stage = ref.removeprefix("@")
        tasks: dict[str, Any] = {}
        for name in config.tasks:
            rows_file = ctx.work / "samples" / f"{len(models):02d}.{name}.jsonl"
            note_file = rows_file.with_suffix(".json")
            if not note_file.exists():
                chosen = prompts[name][: config.max_prompts]
                measured, rows = evaluate_model(
                    ctx.inputs[ref], chosen, config, (ctx.seed, ctx.name), ctx.log.warn, more
                )
                write_rows(rows_file, rows)
                write_rows(note_file, [measured])
            tasks[name] = read_rows(note_file)[0]
            write_rows(ctx.out / "samples" / f"{stage}.{name}.jsonl", read_rows(rows_file))
            shown = {f"{stage}/{name}/{key}": tasks[name][key] for key in ("accuracy", "format")}
            ctx.log.step(len(models) * len(config.tasks) + len(tasks), total, shown)
            if ctx.stopping():
                raise Preempted(f"measured {stage} on {name}; the rest is left")
        models.append({"stage": stage, "tasks": tasks})
    evaluation = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "min_p": config.min_p,
        "k": config.num_samples,
        "models": models,
        "claims": [judge(claim, models) for claim in config.claims],
    }
    (ctx.out / "evaluation.json").write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")


def evaluate_model(
    path: Any,
    prompts: Sequence[Prompt],
    config: Config,
    key: Sequence[int | str],
    warn: Callable[[str], None],
    more: Mapping[str, Reward] | None = None,
) -> tuple[dict[str, Any], list[dict]]:
    """(the numbers of one model on one task, its completions as rows). `more` are further rewards to be measured."""
    rewards = {**{name: REWARDS[name] for name in MEASURED}, **(more or {})}
    scorer = Scorer(rewards, [float(name == "accuracy") for name in rewards])
    chat = ChatFormat.load(path)
    model = load_model(path, *placed(config), warn=warn)
    check_lengths(prompts, chat)
    with open_engine(model) as engine:
        groups = collect(engine, chat, scorer, prompts, config.num_samples, sampling_of(config, chat), key)
    rows = [rollout_row(rollout, i) for group in groups for i, rollout in enumerate(group.rollouts)]
    return measure(groups, config), rows


def measure(groups: Sequence[Group], config: Config) -> dict[str, Any]:
    """Everything the table shows of one model on one task. Means are over prompts, then over the samples of each."""
    k, pass_k = config.num_samples, config.pass_k or config.num_samples
    count = len(groups) * k

    def per_prompt(name: str) -> list[float]:
        return [sum(rollout.rewards[name] for rollout in group.rollouts) / k for group in groups]

    rewards = {name: sum(per_prompt(name)) / len(groups) for name in groups[0].rollouts[0].rewards}
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    correct = [sum(rollout.rewards["accuracy"] == 1.0 for rollout in group.rollouts) for group in groups]
    thought = [rollout.rewards["language_consistency"] for rollout in rollouts if rollout.reply.thinking]
    return {
        "n": len(groups),
        "k": k,
        "temperature": config.temperature,
        "accuracy": rewards["accuracy"],
        "accuracy_interval": list(interval(per_prompt("accuracy"), k)),
        "format": rewards["format"],
        "format_interval": list(interval(per_prompt("format"), k)),
        "language_consistency": sum(thought) / len(thought) if thought else None,  # of the replies that hold a thought
        "truncated": sum(rollout.completion.finish_reason == "length" for rollout in rollouts) / count,
        "mean_tokens": sum(len(rollout.completion.token_ids) for rollout in rollouts) / count,
        "pass_k": pass_k,
        "pass_at_k": sum(pass_at_k(k, c, pass_k) for c in correct) / len(groups),
        "cons_at_k": sum(_consensus(group) for group in groups) / len(groups),
        "rewards": rewards,
    }


def _consensus(group: Group) -> float:
    answers = [
        None if rollout.reply.answer is None else _vote(rollout.reply.answer, rollout.prompt.answer_type)
        for rollout in group.rollouts
    ]
    return majority_is_right(answers, [rollout.rewards["accuracy"] == 1.0 for rollout in group.rollouts])


def _vote(answer: str, answer_type: str) -> str | None:
    """What a majority counts as the same answer: equal values, or equal text up to case and white space."""
    if answer_type == "text":
        return " ".join(answer.casefold().split()) or None
    value = parse_answer(answer)
    return None if value is None else repr(value)


def _metric(values: Mapping[str, Any], name: str) -> Any:
    return values[name] if name in values else values["rewards"][name]


def judge(claim: Claim, models: Sequence[dict]) -> dict[str, Any]:
    """The verdict of one claim, with its numbers."""
    by_name = {model["stage"]: model["tasks"][claim.task] for model in models}
    value = _metric(by_name[claim.model], claim.metric)
    targets, holds = [], value is not None
    if claim.at_least is not None:
        targets.append(f"≥ {claim.at_least:g}")
        holds = holds and value >= claim.at_least
    if claim.at_most is not None:
        targets.append(f"≤ {claim.at_most:g}")
        holds = holds and value <= claim.at_most
    if claim.below is not None:
        other = _metric(by_name[claim.below], claim.metric)
        targets.append(f"below {claim.below} ({other:.3f}) by {claim.by:g}")
        holds = holds and value <= other - claim.by
    name = f"{claim.model}: {claim.metric.replace('_', ' ')} on {claim.task}"
    return {"claim": name, "value": value, "target": " and ".join(targets), "holds": bool(holds)}
