"""What stages that learn from their own samples do alike: draw prompts, sample, score, keep and log a step's groups."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean as mean
from typing import Annotated, Any

from pydantic import Field, model_validator

from temper.algorithms.advantages import differ
from temper.algorithms.aggregation import AGGREGATIONS
from temper.config import RewardName, TaskName
from temper.errors import DataError, Fault
from temper.models.forks import cpu_seconds
from temper.record.metrics import read_rows
from temper.record.rollouts import write_rows
from temper.rewards.overlong import overlong
from temper.rewards.score import Scorer
from temper.rollout.collect import Collecting, rollout_row
from temper.rollout.engine import Engine
from temper.rollout.open import cpu_seconds as engine_seconds
from temper.rollout.options import ServedConfig, sampling_of
from temper.rollout.statistics import Advantages, count_tokens, rollout_metrics
from temper.stages.context import StageContext
from temper.stages.draws import Retired, fresh_prompts, too_few
from temper.stages.prompts import check_lengths, check_tasks, known_prompts, open_prompts
from temper.stages.rewards import (
    RewardsConfig,
    check_reward_tasks,
    check_rewards,
    golds_of,
    open_rewards,
    reward_label,
    tell_once,
)
from temper.stages.served import check_served
from temper.text.chat import ChatFormat
from temper.train.guards import Guards, watch
from temper.train.learner import OptimizerConfig
from temper.types import Completion, Group, PolicyExample, Prompt, Rollout


class RolloutConfig(ServedConfig, RewardsConfig):
    """Which prompts, how many completions of each, and what they earn."""

    tasks: list[TaskName] = Field(min_length=1)
    reward_funcs: list[RewardName] = Field(default=["accuracy", "format"], min_length=1)
    reward_weights: list[float] | None = None  # one a reward; all 1.0 when not given
    reward_start_steps: dict[str, Annotated[int, Field(ge=0)]] = {}  # R1: preferences from step 1,300 of 1,700 on
    overlong_cache: Annotated[int, Field(ge=0)] = 0  # tokens below the limit over which a penalty grows to −1 (DAPO)
    num_generations: Annotated[int, Field(ge=1)] = 16  # R1
    prompts_per_step: Annotated[int, Field(ge=1)] = 32  # R1
    max_staleness: Annotated[int, Field(ge=0, le=1)] = 0  # steps; 1: the next step is sampled while this one trains
    dynamic_sampling_tries: Annotated[int, Field(ge=0)] = 0  # DAPO: more draws until no group is all right or all wrong
    guards: Guards = Guards()
    keep_rollouts_steps: Annotated[int, Field(ge=1)] = 10  # completions of every n-th step stay on disk

    @model_validator(mode="after")
    def _rewards_fit(self) -> RolloutConfig:
        names = self.reward_funcs
        if self.reward_weights is not None and len(self.reward_weights) != len(names):
            raise ValueError(f"reward_weights has {len(self.reward_weights)} values for {len(names)} reward_funcs")
        if unknown := [name for name in self.reward_start_steps if name not in names]:
            raise ValueError(
                f"reward_start_steps names `{unknown[0]}`, which is not among reward_funcs ({', '.join(names)})"
            )
        check_reward_tasks(self, names, self.tasks)
        if self.overlong_cache >= self.max_completion_length:
            raise ValueError(
                f"overlong_cache ({self.overlong_cache}), the last tokens before the limit that are penalised, is not "
                f"below max_completion_length ({self.max_completion_length})"
            )
        return self

    @model_validator(mode="after")
    def _servers_fit(self) -> RolloutConfig:
        if self.engine is None:
            return self
        if self.engine.weights == "keep":
            raise ValueError("engine.weights is `keep`: a policy that is trained has to be sent (`send`)")
        if self.top_p < 1 or self.top_k or self.min_p:
            raise ValueError(
                "top_p, top_k and min_p cut the distribution, and the log-probs of servers are of what is left: train "
                "without them, or without `engine`"
            )
        return self


def check_rollouts(config: RolloutConfig, ctx: StageContext) -> list[Fault]:
    """Faults of the prompts and the rewards that can be known before anything runs."""
    golds = golds_of(config.reward_funcs, ctx, config, config.tasks)
    faults = check_served(config) + check_tasks(config.tasks, "train", ctx, golds)
    if not faults and all(ctx.tasks[name].train is not None for name in config.tasks):
        faults += too_few(open_prompts(config.tasks, "train", ctx, golds), config.prompts_per_step)

    def prompts() -> dict[str, list[Prompt]]:
        return known_prompts(config.tasks, "train", ctx, golds, config.reply)

    return faults + check_rewards(config.reward_funcs, ctx, config, prompts)


class Rollouts:
    """The groups of each step: a function of (seed, stage, step) and of the policy, so a resume draws the same."""

    def __init__(self, config: RolloutConfig, chat: ChatFormat, ctx: StageContext):
        """Raises DataError for too few prompts or prompts too long, ConfigError for rewards that cannot be loaded."""
        self.config, self.chat, self.ctx = config, chat, ctx
        golds = golds_of(config.reward_funcs, ctx, config, config.tasks)
        self.prompts = open_prompts(config.tasks, "train", ctx, golds, config.reply)
        if few := too_few(self.prompts, config.prompts_per_step):
            raise DataError(few)
        check_lengths([prompt for of_task in self.prompts.values() for prompt in of_task], chat)
        weights = config.reward_weights or [1.0] * len(config.reward_funcs)
        self.weights = dict(zip(config.reward_funcs, weights, strict=True))
        self.rewards = open_rewards(config.reward_funcs, ctx, config)
        self.sampling = sampling_of(config, chat)
        self.tell = tell_once(ctx)
        bound = getattr(config, "retire_above", None)
        self.retired = None if bound is None else Retired(self.prompts, bound)
        self.draws = 0  # of the last step: more than one with dynamic sampling

    def collect(self, engine: Engine, step: int, steps: int) -> list[Group]:
        """The scored groups of `step`, one of so many `steps`. With dynamic sampling, other prompts take the places of
        those whose completions are all right or all wrong, until the step is full or the tries are used up."""
        config, key = self.config, (self.ctx.seed, self.ctx.name)
        groups = [self._earned(group) for group in self._first(engine, step)]
        self.draws = 1
        while self.draws <= config.dynamic_sampling_tries and not all(map(has_signal, groups)):
            number = step * config.dynamic_sampling_tries + self.draws - 1
            known = {group.prompt.id for group in groups}
            drawn = self._begin(engine, number, (*key, "dynamic"), step).groups(self.tell)
            more = [self._earned(group) for group in drawn]
            groups += [group for group in more if has_signal(group) and group.prompt.id not in known]
            groups = sorted(groups, key=has_signal, reverse=True)[: config.prompts_per_step]  # the sort is stable
            self.draws += 1
        return groups

    def _first(self, engine: Engine, step: int) -> list[Group]:
        """The groups of the step's own prompts."""
        return self._begin(engine, step, (self.ctx.seed, self.ctx.name), step).groups(self.tell)

    def _begin(
        self, engine: Engine, number: int, key: Sequence[int | str], step: int, prompts: Sequence[Prompt] = (),
        known: Sequence[Completion] | None = None,
    ) -> Collecting:  # fmt: skip
        """Begin draw `number` of those that `key` names, to be scored as in `step`; or take the `prompts` whose
        completions are `known`."""
        retired = set() if self.retired is None else self.retired.ids
        drawn = prompts or fresh_prompts(self.prompts, self.config.prompts_per_step, number, key, retired)
        samples, scorer = self.config.num_generations, self._scorer(step)
        return Collecting(engine, self.chat, scorer, drawn, samples, self.sampling, (*key, number), known or ())

    def measured(self, groups: Sequence[Group], updates: int) -> dict[str, Any]:
        """What is to be logged of how the groups were drawn, at a policy that has seen so many `updates`."""
        return {}

    def _scorer(self, step: int) -> Scorer:
        config = self.config
        names = [name for name in config.reward_funcs if step >= config.reward_start_steps.get(name, 0)]
        rewards = {reward_label(name): self.rewards[name] for name in names}
        return Scorer(rewards, [self.weights[name] for name in names], tasks=config.labelled_tasks)

    def _earned(self, group: Group) -> Group:
        """The group, less what its long completions are charged."""
        if not self.config.overlong_cache:
            return group

        def scored(rollout: Rollout) -> Rollout:
            length = len(rollout.completion.token_ids)
            value = overlong(length, self.config.max_completion_length, self.config.overlong_cache)
            return replace(rollout, rewards={**rollout.rewards, "overlong": value}, total=rollout.total + value)

        return replace(group, rollouts=tuple(scored(rollout) for rollout in group.rollouts))

    def log(
        self, step: int, total: int, groups: Sequence[Group], advantages: Advantages, metrics: Mapping[str, Any],
        clock: Clock, notes: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:  # fmt: skip
        """Keep the step's completions where they are to be kept (with the `notes` on each, if any), log its metrics,
        take note of solved prompts, stop where a guard says so."""
        config, work = self.config, self.ctx.work
        if self.retired is not None:
            for group in groups:
                self.retired.see(group.prompt.id, pass_rate(group))
        if step % config.keep_rollouts_steps == 0 or step + 1 == total:
            write_rows(work / "rollouts" / f"step-{step + 1:06d}.jsonl.gz", rows(step + 1, groups, advantages, notes))
        found = {**rollout_metrics(groups, advantages), **metrics, **clock.read(count_tokens(groups))}
        if config.dynamic_sampling_tries:
            found["groups/draws"] = self.draws
        if self.retired is not None:
            found["prompts/retired"] = len(self.retired.ids)
        self.ctx.log.step(step + 1, total, found)
        if config.guards != Guards():
            watch(config.guards, read_rows(work / "metrics.jsonl"))


def has_signal(group: Group) -> bool:
    """Whether some of a group's completions are right and some are not; without accuracy, whether totals differ."""
    values = [rollout.rewards.get("accuracy", rollout.total) for rollout in group.rollouts]
    return differ(values)


def pass_rate(group: Group) -> float:
    """The share of a group's completions that are right; 0 where nobody says what is."""
    return mean(float(rollout.rewards.get("accuracy") == 1.0) for rollout in group.rollouts)


def rows(
    step: int, groups: Sequence[Group], advantages: Advantages,
    notes: Sequence[Sequence[Mapping[str, Any]]] | None = None,
) -> list[dict]:  # fmt: skip
    """The step's completions as they are kept on disk, each with the mean advantage of its tokens."""
    notes = notes or [[{}] * len(group.rollouts) for group in groups]
    return [
        {"step": step, **rollout_row(rollout, sample), **note, "advantage": mean(values)}
        for group, *of_group in zip(groups, advantages, notes, strict=True)
        for sample, (rollout, values, note) in enumerate(zip(group.rollouts, *of_group, strict=True))
    ]


def policy_examples(
    groups: Sequence[Group], advantages: Advantages, aggregation: str, max_length: int,
    kl_penalties: Mapping[str, float], mask_truncated: bool = False,
) -> tuple[list[list[PolicyExample]], float]:  # fmt: skip
    """What one optimiser update is made from: the completions of its groups, weighed, and the divisor of their sum.

    `kl_penalties` are the coefficients in the loss, by task. With `mask_truncated` completions cut off weigh 0.
    """

    def trained(rollout: Rollout) -> int:
        cut_off = rollout.completion.finish_reason == "length"
        return 0 if mask_truncated and cut_off else len(rollout.completion.token_ids)

    counts = [[trained(rollout) for rollout in group.rollouts] for group in groups]
    weights, divisor = AGGREGATIONS[aggregation](counts, max_length)
    examples = [
        [
            PolicyExample(
                **vars(group.example(rollout)),
                advantages=values,
                sampler_logprobs=rollout.completion.sampler_logprobs,
                weight=weight if count else 0.0,
                kl_penalty=kl_penalties.get(group.prompt.task, 0.0),
            )
            for rollout, values, weight, count in zip(group.rollouts, *of_group, strict=True)
        ]
        for group, *of_group in zip(groups, advantages, weights, counts, strict=True)
    ]
    return examples, divisor


def may_merge(config: OptimizerConfig) -> bool:
    """Whether equal completions may be trained as one: not where their tokens are ranked among those of the step, or
    each is to meet a dropout of its own."""
    return getattr(config, "top_entropy_share", 1) == 1 and (config.lora is None or config.lora.dropout == 0)


class Clock:
    """Wall and CPU seconds of a step, the engine's processes included."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.began, self.began_cpu = time.perf_counter(), self._cpu()
        self.sampled = self.began

    def _cpu(self) -> float:
        return cpu_seconds() + engine_seconds(self.engine)

    def mark_sampled(self) -> None:
        self.sampled = time.perf_counter()

    def read(self, tokens: int) -> dict[str, float]:
        seconds = time.perf_counter() - self.began
        return {
            "tokens_per_second": tokens / seconds,
            "seconds": seconds,
            "seconds/sampling": self.sampled - self.began,
            "cpu_seconds": self._cpu() - self.began_cpu,
        }
