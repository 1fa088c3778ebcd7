"""Held-out evaluation of several models under one declared sampling setting, and the verdict of each claim."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from temper.config import ModelRef, RewardName, TaskName
from temper.errors import Fault, Preempted
from temper.models.device import missing_device, placed
from temper.models.load import load_model
from temper.record.checkpoints import owner_of
from temper.record.rollouts import write_rows, write_sealed
from temper.rewards import MEASURED, REWARDS, Reward, load_rewards
from temper.rewards.gym import is_of_set
from temper.rewards.score import Scorer
from temper.rewards.worker import Limits
from temper.rollout.collect import Collecting, collect, rollout_row
from temper.rollout.engine import Engine
from temper.rollout.forcing import CLOSINGS, Forcing
from temper.rollout.measures import interval, mean_interval
from temper.rollout.open import Remote, open_engine
from temper.rollout.options import ServedConfig, sampling_of
from temper.rollout.paired import PromptScore, main_metric, paired, prompt_score, read_score, set_hash
from temper.rollout.statistics import verdict_metrics
from temper.stages.chunks import kept_rows
from temper.stages.claims import Claim, Scored, judge
from temper.stages.context import StageContext
from temper.stages.forced import DRAWN, ForcedConfig, Length, force, in_order, length_of, scored_by, without_thoughts
from temper.stages.idle import Idle, idle_greedy, idle_judge
from temper.stages.models import check_model
from temper.stages.programs import (
    accuracy_but,
    by_rewards,
    is_set,
    knows_by_heart,
    programs_of,
    right_by_set,
    right_by_tests,
    votes,
    with_tests,
    without_golds,
)
from temper.stages.prompts import check_lengths, check_tasks, in_form, known_prompts, open_prompts
from temper.stages.rewards import RewardsConfig, check_reward_tasks, check_rewards, golds_of, open_rewards, reward_label
from temper.stages.served import check_served, remote_of
from temper.text.chat import ChatFormat
from temper.types import Group, Prompt, ReplyForm

VERSION = 2
SCORES = (*MEASURED, "truncated", "mean_tokens", "reflection_words")  # and pass@K, cons@K
Count = Annotated[int, Field(ge=1)]


class Config(ServedConfig, RewardsConfig, ForcedConfig):
    """T 0.6 and top-p 0.95 are R1's evaluation setting."""

    models: list[ModelRef] = Field(min_length=1)
    tasks: list[TaskName] = Field(min_length=1)
    num_samples: Count = 4  # k: completions a prompt
    pass_k: Count | Annotated[list[Count], Field(min_length=1)] | None = None  # of pass@k: `num_samples` if not given
    max_prompts: Count | None = None  # the first ones of each task's test file; all if not given
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    reply: ReplyForm | dict[str, ReplyForm] | None = None  # the form in which replies are read; or by model, without @
    reward_funcs: list[RewardName] = []  # measured too, beside MEASURED; claims and tables name them without the @
    claims: list[Claim] = []

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if max(self.ks) > self.num_samples:
            raise ValueError(f"pass_k ({max(self.ks)}) is more than num_samples ({self.num_samples})")
        check_reward_tasks(self, self.reward_funcs, self.tasks)
        self.check_budgets(self.max_completion_length)
        if self.engine is not None and self.engine.weights == "keep" and len(self.models) > 1:
            raise ValueError("engine.weights is `keep`, and the servers can keep one model only: `send` brings each")
        names = {ref.removeprefix("@") for ref in self.models}
        if unknown := [name for name in self.replies if name not in names]:
            raise ValueError(f"reply names the model `{unknown[0]}`, which is not among `models`")
        for claim in self.claims:
            for name in (claim.model, claim.below, claim.difference):
                if name is not None and name not in names:
                    raise ValueError(f"a claim names the model `{name}`, which is not among `models`")
            if claim.task not in self.tasks:
                raise ValueError(f"a claim names the task `{claim.task}`, which is not among `tasks`")
            for metric in (claim.metric, claim.than):
                if metric is not None and metric not in (known := self.metrics):
                    raise ValueError(f"a claim names the metric `{metric}`: there are {', '.join(known)}")
        return self

    @property
    def replies(self) -> dict[str, ReplyForm]:
        """The form in which a model's replies are read, for models that are told one."""
        if isinstance(self.reply, dict):
            return {name.removeprefix("@"): form for name, form in self.reply.items()}
        return {} if self.reply is None else {ref.removeprefix("@"): self.reply for ref in self.models}

    @property
    def ks(self) -> list[int]:
        """Every k of pass@k, rising."""
        given = self.num_samples if self.pass_k is None else self.pass_k
        return sorted(set([given] if isinstance(given, int) else given))

    @property
    def programs(self) -> list[str]:
        """The tasks whose replies are programs: being right is to pass the tests."""
        return programs_of(self.reward_funcs, self.tasks, self.reward_tasks)

    @property
    def metrics(self) -> list[str]:
        """What a claim can name."""
        own = [reward_label(name) for name in self.reward_funcs]
        at = [f"{kind}@{k}" for kind in ("pass", "cons") for k in self.ks]
        return [*SCORES, *own, *at, "cons@k", f"cons@{self.num_samples}", *self.forced]


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_judge(config, config.reward_funcs)
    yield from idle_greedy(config)
    if config.temperature == 0 and config.num_samples > 1:
        yield Idle("num_samples", "temperature 0 gives the same completion each time", harmless=True)


def golds_wanted(config: Config, ctx: StageContext) -> dict[str, str | None]:
    """By task, what asks for gold answers: a reward or a claim that needs them in every row, or None where the rows
    without one are open prompts. Programs and sets of reasoning-gym are judged without."""
    by_answer = [task for task in config.tasks if task not in config.programs and not is_set(ctx, task)]
    wanted: dict[str, str | None] = dict.fromkeys(by_answer)
    named = {claim.task: claim.metric for claim in config.claims if re.match(r"accuracy$|(?:pass|cons)@", claim.metric)}
    asked = golds_of(config.reward_funcs, ctx, config, config.tasks)
    return wanted | {task: name for task, name in (named | asked).items() if task in wanted}


def check(config: Config, ctx: StageContext) -> list[Fault]:
    golds = golds_wanted(config, ctx)
    faults = check_served(config) + missing_device(config.device) + check_tasks(config.tasks, "test", ctx, golds)
    faults += check_rewards(config.reward_funcs, ctx, config, lambda: known_prompts(config.tasks, "test", ctx, golds))
    for ref in config.models:
        faults += check_model(ref, ctx)
        faults += thoughtless(config, ref.removeprefix("@"), ctx) if config.forced else []
    return faults


def thoughtless(config: Config, model: str, ctx: StageContext) -> list[Fault]:
    """A fault for each task whose replies of that model are read in a form without a thought."""
    forms: dict[str, ReplyForm] = {task: ctx.tasks[task].config.reply for task in config.tasks if task in ctx.tasks}
    forms |= dict.fromkeys(forms, config.replies[model]) if model in config.replies else {}
    return [without_thoughts(form, model, task) for task, form in forms.items() if form not in CLOSINGS]


def run(config: Config, ctx: StageContext) -> None:
    """Per model and task: k completions of every held-out prompt, measured. A finished model is not measured twice."""
    models: list[dict[str, Any]] = []
    scored: dict[tuple[str, str], list[PromptScore]] = {}
    golds = golds_wanted(config, ctx)
    found = with_tests(open_prompts(config.tasks, "test", ctx, golds), config.programs, ctx.log.warn)
    prompts = {name: of_task[: config.max_prompts] for name, of_task in found.items()}
    for name, of_task in prompts.items():
        if name in golds and (told := without_golds(name, of_task)):
            ctx.log.info(told)
    total = len(config.models) * len(config.tasks)
    own = [name for name in config.reward_funcs if name not in MEASURED]
    more = {reward_label(name): reward for name, reward in open_rewards(own, ctx, config).items()}
    called = ctx.labels(config.models)
    for ref in config.models:
        stage = called[ref]
        tasks: dict[str, Any] = {}
        for name in config.tasks:
            kept = ctx.work / "samples" / f"{len(models):02d}.{name}"
            found = kept_of(kept, ctx)
            if found is None:
                key = (ctx.seed, ctx.name)
                asked = in_form(prompts[name], config.replies.get(ref.removeprefix("@")))
                remote = remote_of(config, ref, ctx)
                keep(evaluate_model(ctx.inputs[ref], asked, config, key, ctx.log.warn, more, remote), kept, ctx)
                found = kept_of(kept, ctx)
                assert found is not None
            tasks[name], scored[stage, name], samples = found
            write_scored(ctx.out, stage, name, scored[stage, name], samples)
            shown = {f"{stage}/{name}/{key}": tasks[name][key] for key in ("accuracy", "format")
                     if tasks[name][key] is not None}  # fmt: skip
            ctx.log.step(len(models) * len(config.tasks) + len(tasks), total, shown)
            if told := knows_by_heart(stage, name, tasks[name]):
                ctx.log.warn(told)
            if ctx.stopping():
                raise Preempted(f"measured {stage} on {name}; the rest is left")
        models.append({"stage": stage, "tasks": tasks})
    write_evaluation(ctx.out, evaluation(called_so(config, called), models, scored, prompts))


def called_so(config: Config, called: Mapping[str, str]) -> Config:
    """The config with the models of its claims as tables call them."""
    names = {ref.removeprefix("@"): label for ref, label in called.items()}

    def renamed(claim: Claim) -> Claim:
        of = {key: name and names[name] for key in ("model", "below", "difference") for name in [getattr(claim, key)]}
        return claim.model_copy(update=of)

    return config.model_copy(update={"claims": [renamed(claim) for claim in config.claims]})


def evaluation(
    config: Config, models: Sequence[dict], scored: Scored, prompts: Mapping[str, Sequence[Prompt]]
) -> dict[str, Any]:
    """What evaluation.json says: the sampling, the prompts, every score, each model beside the one before it, and the
    verdict of each claim."""
    names = [model["stage"] for model in models]
    own = [reward_label(name) for name in config.reward_funcs]
    return {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "min_p": config.min_p,
        "max_completion_length": config.max_completion_length,
        "stop": config.stop,
        "k": config.num_samples,
        "sets": {task: set_hash(of_task) for task, of_task in prompts.items()},
        "models": list(models),
        "comparisons": [
            {"model": model, "against": before, "task": task, **paired(scored[model, task], scored[before, task], by)}
            for before, model in pairwise(names)
            for task in prompts
            for by in [main_metric(scored[before, task], own)]
        ],
        "claims": [judge(claim, models, scored) for claim in config.claims],
    }


def write_evaluation(folder: Path, found: Mapping[str, Any]) -> None:
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_scored(folder: Path, model: str, task: str, scores: Sequence[PromptScore], samples: Sequence[dict]) -> None:
    """Beside evaluation.json: what every prompt scored, and every completion."""
    write_rows(folder / "prompts" / f"{model}.{task}.jsonl", [score.row() for score in scores])
    write_rows(folder / "samples" / f"{model}.{task}.jsonl", samples)


Measured = tuple[dict[str, Any], list[PromptScore], list[dict]]


def keep(found: Measured, at: Path, ctx: StageContext) -> None:
    """Keep what was measured of one model on one task in files that start with `at`; the numbers, written last, say
    that the rest is whole."""
    measured, scores, samples = found
    kept = {"jsonl": samples, "prompts.jsonl": [score.row() for score in scores], "json": [measured]}
    for ending, rows in kept.items():
        write_sealed(at.with_name(f"{at.name}.{ending}"), rows, owner_of(ctx.work))


def kept_of(at: Path, ctx: StageContext) -> Measured | None:
    """What `keep` kept; None where it did not come to its end, or a file is not as it was written."""
    owner = owner_of(ctx.work)
    measured, scores, samples = (
        kept_rows(at.with_name(f"{at.name}.{ending}"), owner, ctx) for ending in ("json", "prompts.jsonl", "jsonl")
    )
    if measured is None or scores is None or samples is None:
        return None
    return measured[0], [read_score(row) for row in scores], samples


def evaluate_model(
    path: Any,
    prompts: Sequence[Prompt],
    config: Config,
    key: Sequence[int | str],
    warn: Callable[[str], None],
    more: Mapping[str, Reward] | None = None,
    remote: Remote | None = None,
) -> Measured:
    """(the numbers of one model on one task, what every prompt scored, its completions as rows). `more` are rewards
    that are measured beside MEASURED; `remote`, where there is one, samples."""
    chat = ChatFormat.load(path)
    model = load_model(path, *placed(config), warn=warn)
    check_lengths(prompts, chat)
    with open_engine(model, remote=remote) as engine:
        return evaluate_with(engine, chat, prompts, config, key, more)


def evaluate_with(
    engine: Engine,
    chat: ChatFormat,
    prompts: Sequence[Prompt],
    config: Config,
    key: Sequence[int | str],
    more: Mapping[str, Reward] | None = None,
) -> Measured:
    """`evaluate_model` of an engine that is open."""
    rewards = {**{name: REWARDS[name] for name in MEASURED}, **(more or {}), "accuracy": accuracy_but(config.programs)}
    if any(map(is_of_set, prompts)):
        rewards |= load_rewards(["gym"], limits=Limits(config.reward_timeout))
    scorer = Scorer(rewards, [float(name == "accuracy") for name in rewards], tasks=config.labelled_tasks)
    sampling, samples = sampling_of(config, chat), config.num_samples

    def judged(groups: Sequence[Group]) -> list[Group]:
        if prompts[0].task in config.programs:
            groups = [right_by_tests(group, config.code_score, config.sandbox) for group in groups]
        groups = [right_by_set(group) if is_of_set(group.prompt) else group for group in groups]
        return [by_rewards(group, list(more or {})) for group in groups]

    groups = judged(collect(engine, chat, scorer, prompts, samples, sampling, key))
    lengths: dict[str, Length] = {}
    if config.forced:
        for name, done, read in force(Forcing(engine, chat, sampling, key, groups), config):
            again = Collecting(engine, chat, scorer, read, samples, sampling, key, done.completions).groups()
            lengths[name] = length_of(chat, judged(again), done.changed)
        lengths[DRAWN] = length_of(chat, groups, (False,) * samples * len(groups))
    rows = [rollout_row(rollout, i) for group in groups for i, rollout in enumerate(group.rollouts)]
    scores = [prompt_score(group, votes(group), scored_by(lengths, i)) for i, group in enumerate(groups)]
    found = measure(groups, scores, config)
    if lengths:
        found["forced"] = {name: lengths[name].row() for name in in_order(config)}
    return found, scores, rows


def measure(groups: Sequence[Group], scores: Sequence[PromptScore], config: Config) -> dict[str, Any]:
    """Everything the table shows of one model on one task. Means are over prompts, then over the samples of each; what
    asks whether a reply is right is over the prompts with a gold answer, None where there is none, and `open` counts
    the others."""
    k = config.num_samples
    names = dict.fromkeys(name for score in scores for name in score.rewards)
    values = {name: [score.rewards[name] for score in scores if name in score.rewards] for name in names}
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    thought = [rollout.rewards["language_consistency"] for rollout in rollouts if rollout.reply.reasoning]
    judged = [score for score in scores if score.consensus is not None]
    pass_at = {str(of): _with_interval([score.value(f"pass@{of}") for score in judged]) for of in config.ks}
    majority = _with_interval([score.value("cons@k") for score in judged])
    cons_at = {str(of): _with_interval([score.value(f"cons@{of}") for score in judged]) for of in config.ks}
    right = values.get("accuracy")
    return {
        "n": len(groups),
        **({"open": len(groups) - len(judged)} if len(judged) < len(groups) else {}),
        **({"coverage": groups[0].prompt.coverage} if groups[0].prompt.coverage else {}),
        "k": k,
        "reply": groups[0].prompt.reply,
        "temperature": config.temperature,
        "accuracy": _mean(right) if right else None,
        "accuracy_interval": list(interval(right, k)) if right else None,
        "format": _mean(values["format"]),
        "format_interval": list(interval(values["format"], k)),
        "language_consistency": _mean(thought) if thought else None,  # of the replies that hold a thought
        "truncated": _mean([score.truncated for score in scores]),
        "mean_tokens": _mean([score.mean_tokens for score in scores]),
        "reflection_words": _mean([score.reflection_words for score in scores]),
        "pass_k": config.ks[-1],
        "pass_at_k": pass_at[str(config.ks[-1])]["value"],
        "pass_at": pass_at,
        "cons_at": cons_at,
        "cons_at_k": majority["value"],
        "cons_at_k_interval": majority["interval"],
        **({"verdicts": verdicts} if (verdicts := verdict_metrics(rollouts)) else {}),
        "rewards": {name: _mean(of_name) for name, of_name in values.items()},
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _with_interval(per_prompt: Sequence[float]) -> dict[str, Any]:
    if not per_prompt:
        return {"value": None, "interval": None}
    return {"value": _mean(per_prompt), "interval": list(mean_interval(per_prompt))}
