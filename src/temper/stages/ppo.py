"""Proximal policy optimisation with a learned value model (1707.06347; on language models 1909.08593, 2203.02155)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.aggregation import AGGREGATIONS
from temper.algorithms.gae import explained_variance, generalized_advantages, token_rewards, whitened
from temper.algorithms.kl import k3
from temper.config import AnyModelRef, ModelRef
from temper.data.batching import packed_tokens
from temper.errors import ArtifactError, Fault
from temper.models.adapters import without_adapters
from temper.models.device import on_device, pick_device
from temper.models.load import load_model
from temper.models.scalar import SharedTrunk, load_scalar
from temper.rng import seed_for
from temper.rollout.open import open_engine
from temper.stages.ahead import AheadRollouts, StaleConfig, check_ahead, open_rollouts
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_guards, idle_optimizer, idle_policy, idle_rollouts
from temper.stages.models import check_model, check_training, finish_model, open_learner, open_reference
from temper.stages.rewards import how_graded, scoring_models
from temper.stages.rollouts import Clock, check_rollouts, may_merge, policy_examples
from temper.stages.served import remote_of
from temper.text.chat import ChatFormat
from temper.train.actor_critic import (
    ActorCritic,
    Judged,
    OneTrunk,
    PPOExample,
    TwoModels,
    ValueLoss,
    judge,
    ppo_batches,
)
from temper.train.learner import Learner, OptimizerConfig, over_updates
from temper.train.loop import resumable_steps
from temper.train.memory import memory_by_part
from temper.train.policy import PolicyLoss, merged, score_examples
from temper.types import Example, Group, Rollout

VERSION = 1
Share = Annotated[float, Field(ge=0, le=1)]


class Config(OptimizerConfig, StaleConfig):
    """A step is of as many completions as R1's GRPO (Nature 645:633, methods), each of another prompt: a value model
    needs no group. `warmup_steps` and the schedule count updates, of which a step makes several."""

    model: ModelRef
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-6  # R1's GRPO; TRL's PPO
    max_steps: Annotated[int, Field(ge=1)]
    num_generations: Annotated[int, Field(ge=1)] = 1
    prompts_per_step: Annotated[int, Field(ge=1)] = 512  # R1's 32 prompts × 16
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    aggregation: Literal[tuple(AGGREGATIONS)] = "token_mean"  # type: ignore[valid-type]  # PPO: over time steps
    num_mini_batches: Annotated[int, Field(ge=1)] = 1  # optimiser updates a pass over the step's prompts
    num_iterations: Annotated[int, Field(ge=1)] = 4  # passes over the step's prompts; 1909.08593's code
    gamma: Share = 1.0  # 1909.08593; a reward at the end is not to fade with length
    gae_lambda: Share = 1.0  # R1 found 0.95 worse than GRPO, 1.0 as good
    kl_penalty: Annotated[float, Field(ge=0)] = 0.001  # of k1, inside the reward of every token; R1's of GRPO
    measure_kl: bool = False  # the drift from the reference is measured where kl_penalty is 0 and nothing is charged
    kl_estimator: Literal["k1"] = "k1"  # type: ignore[assignment]  # in a reward the others are biased
    offload_reference: bool = False  # on CUDA: its weights are in main memory but for the moment they are asked
    whiten_advantages: bool = True  # mean 0, standard deviation 1 over the step's tokens; 1909.08593's code
    value_model: Literal["separate", "shared"] = "separate"  # shared: a head on the policy's last hidden states
    value_model_from: AnyModelRef | None = None  # separate: a reward model, say; else from `model`
    value_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None  # separate; `learning_rate` if not given
    value_coefficient: Annotated[float, Field(gt=0)] = 0.1  # of the value loss beside the policy's; 1909.08593's code
    value_clip_range: Annotated[float, Field(gt=0)] | None = None  # off: 2006.05990, section 3.2, found it to harm
    value_warmup_steps: Annotated[int, Field(ge=0)] = 0  # separate: first steps that train the value model alone

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.fully_shard:
            raise ValueError("fully_shard: PPO trains its models whole; pretrain, sft, distill and grpo can shard them")
        if self.prompts_per_step % self.num_mini_batches:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) is not divisible by "
                f"num_mini_batches ({self.num_mini_batches})"
            )
        if self.dynamic_sampling_tries and self.num_generations == 1:
            raise ValueError("dynamic_sampling_tries with num_generations 1: it compares the completions of a prompt")
        if self.value_warmup_steps >= self.max_steps:
            raise ValueError(
                f"value_warmup_steps ({self.value_warmup_steps}) is not below max_steps ({self.max_steps})"
            )
        if self.value_model == "shared":
            foreign = ("value_model_from", "value_learning_rate", "value_warmup_steps", "lora")
            if given := [name for name in foreign if getattr(self, name)]:
                raise ValueError(f"{given[0]} with value_model `shared`: only a separate value model has it")
        return self

    @property
    def has_reference(self) -> bool:
        return self.kl_penalty > 0 or self.measure_kl

    @property
    def updates(self) -> int:
        """Optimiser updates a step."""
        return self.num_mini_batches * self.num_iterations


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_optimizer(config)
    yield from idle_rollouts(config, config.max_steps)
    yield from idle_policy(config, config.updates)
    yield from idle_guards(config.has_reference, has_steps=False)
    if config.kl_penalty and config.measure_kl:
        yield Idle("measure_kl", "kl_penalty is above 0: what is charged is measured", harmless=True)
    if not config.kl_penalty:
        keys = ("kl_estimator",) if config.measure_kl else ("kl_estimator", "offload_reference")
        yield from (Idle(key, "kl_penalty is 0", harmless=True) for key in keys)


def check(config: Config, ctx: StageContext) -> list[Fault]:
    """Faults of the rewards, the prompts and the model that can be known before anything runs."""
    faults = check_training(config) + check_model(config.model, ctx) + check_rollouts(config, ctx)
    return faults + check_ahead(config, config.device)


def run(config: Config, ctx: StageContext) -> None:
    """Per step: sample, ask policy, reference and value model of every token, estimate advantages, then several passes
    of updates over the same completions."""
    source = ctx.inputs[config.model]
    chat = ChatFormat.load(source)
    models, learner, others = open_models(source, config, ctx)
    policy = models.policy
    reference = open_reference(source, policy, config, config.offload_reference) if config.has_reference else None
    rollouts = open_rollouts(config, chat, ctx)
    kept = {**others, **({"ahead": rollouts} if isinstance(rollouts, AheadRollouts) else {})}
    remote = remote_of(config, config.model, ctx, trains=True)
    with open_engine(policy, lambda: learner.step, remote, config.max_staleness > 0) as engine:
        for step in resumable_steps(
            learner, ctx.work / "checkpoints", ctx.log, ctx.stopping, kept, total=config.max_steps
        ):
            clock = Clock(engine)
            groups = rollouts.collect(engine, step, config.max_steps)
            clock.mark_sampled()
            drawn = rollouts.measured(groups, learner.step)
            lessons = draw_lessons(config, groups, models, reference)
            metrics = lesson_metrics(lessons) | drawn
            advantages = [[tuple(lesson.advantages_T.tolist()) for lesson in group] for group in lessons]
            if config.whiten_advantages:
                lessons = whiten(lessons)
            train_policy = step >= config.value_warmup_steps
            metrics |= update(config, models, groups, lessons, (ctx.seed, ctx.name, "mini-batches", step), train_policy)
            if step == config.value_warmup_steps:
                scoring = scoring_models(rollouts.rewards)
                metrics |= memory_by_part(learner, reference, others.get("value_model"), scoring)
            rollouts.log(step, config.max_steps, groups, advantages, metrics, clock)
    how = f"PPO: {config.max_steps} steps on {', '.join(config.tasks)}, rewards {', '.join(config.reward_funcs)}"
    finish_model(learner, chat, ctx, config.model, [how, *how_graded(config.reward_funcs)])


def open_models(source: Path, config: Config, ctx: StageContext) -> tuple[ActorCritic, Learner, dict[str, Learner]]:
    """Policy and value model, the learner of the policy, and the further one that a checkpoint must hold. New value
    heads say 0 of everything."""
    policy_updates = (config.max_steps - config.value_warmup_steps) * config.updates
    policy_loss = PolicyLoss(config, config.temperature)
    value_loss = ValueLoss(config.value_coefficient, config.value_clip_range)
    device = str(pick_device(config.device))
    if config.value_model == "shared":
        trunk = SharedTrunk(load_model(source, "float32", device, warn=ctx.log.warn))
        learner = open_learner(trunk, config, policy_updates, ctx)
        return OneTrunk(learner, policy_loss, value_loss), learner, {}
    actor = open_learner(source, config, policy_updates, ctx)
    rate = config.value_learning_rate or config.learning_rate
    settings = config.model_copy(update={"learning_rate": rate, "lora": None})
    origin = source if config.value_model_from is None else ctx.inputs[config.value_model_from]
    value_model = load_scalar(origin, device=device, warn=ctx.log.warn)
    sizes = [model.get_input_embeddings().num_embeddings for model in (actor.model, value_model)]
    if sizes[0] != sizes[1]:
        why = f"its vocabulary has {sizes[1]:,} tokens, the policy's {sizes[0]:,}: they must be the same"
        raise ArtifactError(Fault("the value model does not fit the policy", where=str(origin), why=why))
    seed = seed_for(ctx.seed, ctx.name, "value_model")
    critic = Learner(value_model, settings, config.max_steps * config.updates, seed, ctx.log.warn)
    return TwoModels(actor, critic, policy_loss, value_loss), actor, {"value_model": critic}


# -- from rewards to advantages ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    """What a completion teaches, one value a token: of the policy and of the value model before the step's updates, and
    what came of it. `divergence` from the reference is the mean of k3 over its tokens, None without one."""

    old_logprobs_T: Tensor
    old_values_T: Tensor
    advantages_T: Tensor
    returns_T: Tensor
    divergence: float | None


def draw_lessons(config: Config, groups: Sequence[Group], models: ActorCritic, reference: Any) -> list[list[Lesson]]:
    """Token rewards with the KL penalty inside, and GAE, of every completion of every group."""
    examples = [group.example(rollout) for group in groups for rollout in group.rollouts]
    judged = iter(judge(models, examples, models.learner.budget(packed_tokens(examples))))
    anchors = iter(reference_logprobs(config, reference, examples, models.learner))
    return [[_lesson(config, rollout, next(judged), next(anchors)) for rollout in group.rollouts] for group in groups]


def reference_logprobs(
    config: Config, reference: Any, examples: Sequence[Example], learner: Learner
) -> list[Tensor | None]:
    """log π_ref of the targets of each example; None without a reference."""
    if reference is None:
        return [None] * len(examples)
    budget = learner.budget(packed_tokens(examples))
    with without_adapters(reference), on_device(reference, learner.model.device):
        found = score_examples(reference, examples, budget, config.temperature, learner.team)
    return [torch.tensor(values) for values in found]


def _lesson(config: Config, rollout: Rollout, judged: Judged, anchor_T: Tensor | None) -> Lesson:
    old_T = judged.old_logprobs_T
    rewards_T = token_rewards(rollout.total, old_T, anchor_T, config.kl_penalty)
    last_value = 0.0 if rollout.completion.finish_reason == "stop" else judged.last_value
    found = generalized_advantages(rewards_T, judged.values_T, last_value, config.gamma, config.gae_lambda)
    divergence = None if anchor_T is None else float(k3(old_T, anchor_T).mean())
    return Lesson(old_T, judged.values_T, found.advantages_T, found.returns_T, divergence)


def whiten(lessons: Sequence[Sequence[Lesson]]) -> list[list[Lesson]]:
    """The same with advantages of mean 0 and standard deviation 1 over all tokens of the step."""
    flat = [lesson for group in lessons for lesson in group]
    lengths = [len(lesson.advantages_T) for lesson in flat]
    made = iter(whitened(torch.cat([lesson.advantages_T for lesson in flat])).split(lengths))
    return [[replace(lesson, advantages_T=next(made)) for lesson in group] for group in lessons]


def lesson_metrics(lessons: Sequence[Sequence[Lesson]]) -> dict[str, float]:
    """How far the policy is from its reference, and what the value model knew of the returns."""
    flat = [lesson for group in lessons for lesson in group]
    values, returns = (torch.cat([getattr(one, name) for one in flat]) for name in ("old_values_T", "returns_T"))
    divergences = [lesson.divergence for lesson in flat if lesson.divergence is not None]
    return {
        **({"policy/kl_divergence": fmean(divergences)} if divergences else {}),
        "value/mean": float(values.mean()),
        "value/return": float(returns.mean()),
        "value/explained_variance": explained_variance(values, returns),
    }


# -- from advantages to a gradient ------------------------------------------------------------------------------------


def update(
    config: Config, models: ActorCritic, groups: Sequence[Group], lessons: Sequence[Sequence[Lesson]],
    key: tuple[int | str, ...], train_policy: bool = True,
) -> dict[str, float]:  # fmt: skip
    """All updates of one step: `num_iterations` passes over its prompts, in `num_mini_batches` parts drawn anew."""
    size = len(groups) // config.num_mini_batches
    history = []
    for iteration in range(config.num_iterations):
        order = shuffled(len(groups), (*key, iteration)) if config.num_mini_batches > 1 else range(len(groups))
        for start in range(0, len(groups), size):
            chosen = order[start : start + size]
            examples, divisor = ppo_examples(config, [groups[i] for i in chosen], [lessons[i] for i in chosen])
            parts = ppo_batches(examples, models.learner.budget(packed_tokens(examples)), models.policy.device)
            history.append(models.update(parts, divisor, train_policy))
    return over_updates(history)


def ppo_examples(
    config: Config, groups: Sequence[Group], lessons: Sequence[Sequence[Lesson]]
) -> tuple[list[PPOExample], float]:
    """What one update is made from: the completions, weighed, equal ones as one, and the divisor of their sum."""
    advantages = [[tuple(lesson.advantages_T.tolist()) for lesson in group] for group in lessons]
    weighed, divisor = policy_examples(groups, advantages, config.aggregation, config.max_completion_length, {})
    examples = [
        PPOExample(
            **vars(example),
            old_logprobs=tuple(lesson.old_logprobs_T.tolist()),
            old_values=tuple(lesson.old_values_T.tolist()),
            returns=tuple(lesson.returns_T.tolist()),
        )
        for of_group, of_lessons in zip(weighed, lessons, strict=True)
        for example, lesson in zip(of_group, of_lessons, strict=True)
    ]
    return merged(examples) if may_merge(config) else examples, divisor
