"""Group-relative policy optimisation with verifiable rewards (DeepSeekMath 2402.03300; DeepSeek-R1 2501.12948), and the
algorithms that differ from it in a choice: `preset` names them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.aggregation import AGGREGATIONS
from temper.algorithms.entropy import EntropyTarget
from temper.config import ModelRef
from temper.data.batching import packed_tokens
from temper.errors import Fault
from temper.models.adapters import without_adapters
from temper.models.device import on_device
from temper.rewards.steps import StepScorer
from temper.rollout.open import open_engine
from temper.rollout.statistics import Advantages, dead_share
from temper.rollout.steps import judge_steps, step_metrics, step_notes
from temper.stages.ahead import AheadRollouts, StaleConfig, check_ahead, open_rollouts
from temper.stages.context import StageContext
from temper.stages.credit import CreditConfig, advantages_of, mean_divergence
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_guards, idle_optimizer, idle_policy, idle_rollouts
from temper.stages.models import check_model, check_training, finish_model, open_learner, open_reference
from temper.stages.presets import PRESETS, preset_values
from temper.stages.prompts import known_prompts
from temper.stages.rewards import check_step_rewards, golds_of, how_graded, open_step_rewards, scoring_models
from temper.stages.rollouts import Clock, Rollouts, check_rollouts, may_merge, policy_examples
from temper.stages.served import remote_of
from temper.text.chat import ChatFormat
from temper.train.entropy import EntropyControl
from temper.train.learner import Learner, OptimizerConfig, over_updates
from temper.train.loop import resumable_steps
from temper.train.memory import memory_by_part
from temper.train.policy import (
    PolicyBatch,
    PolicyLoss,
    merged,
    policy_batches,
    score_examples,
    with_old,
    with_reference,
    with_uncertain,
)
from temper.types import Group, PolicyExample

VERSION = 3
ANCHORED = ("reference_update_steps", "reference_update_share", "offload_reference")  # keys of a reference
Share = Annotated[float, Field(gt=0, le=1)]


class Config(OptimizerConfig, CreditConfig, StaleConfig):
    """The defaults marked R1 are those of Nature 645:633, methods. Its clip of 10, 16 mini-batches and reference
    replaced every 400 steps are not: here clip 0.2, one update, a frozen reference. A preset's values stand where a key
    is not written."""

    model: ModelRef
    preset: Literal[tuple(PRESETS)] | None = None  # type: ignore[valid-type]
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-6  # R1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    num_train_epochs: Annotated[float, Field(gt=0)] | None = None  # in place of max_steps: draws of all prompts
    warmup_rollouts: Annotated[int, Field(ge=1)] | None = None  # a warm-up in steps of the stage, not in updates
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0  # R1
    aggregation: Literal[tuple(AGGREGATIONS)] = "sequence_mean"  # type: ignore[valid-type]
    drop_dead_groups: bool = False  # out of the divisor too: the mean is over groups that differ (ScaleRL)
    mask_truncated: bool = False  # completions cut off at the limit count in the group, but train nothing (DAPO)
    measure_kl: bool = False  # the drift from the reference is measured where kl_penalty is 0 and nothing is charged
    reference_update_steps: Annotated[int, Field(ge=0)] = 0  # optimiser updates; 0: frozen; R1 replaced it every 400
    reference_update_share: Share = 1.0  # of the policy in the new reference; below 1 a moving average
    top_entropy_share: Share = 1.0  # the most uncertain tokens of an update, which alone are trained (2506.01939: 0.2)
    entropy_target: Annotated[float, Field(gt=0)] | None = None  # entropy_bonus is then a start, and follows it
    entropy_target_step: Annotated[float, Field(gt=0)] = 0.005  # of the coefficient, an update; Skywork-OR1
    entropy_target_max: Annotated[float, Field(gt=0)] = 1.0  # the largest coefficient
    offload_reference: bool = False  # on CUDA: its weights are in main memory but for the moment they are asked
    num_mini_batches: Annotated[int, Field(ge=1)] = 1  # optimiser updates a pass over the step's groups; R1: 16
    num_iterations: Annotated[int, Field(ge=1)] = 1  # passes over the step's groups (μ in DeepSeekMath)

    @property
    def has_reference(self) -> bool:
        return self.has_kl or self.measure_kl

    @property
    def has_kl_loss(self) -> bool:
        return self.has_kl and self.kl_placement == "loss"

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {**preset_values(values), **values}

    @model_validator(mode="after")
    def _warm(self) -> Config:
        """`warmup_rollouts` in updates, as the learner counts them."""
        if self.warmup_rollouts is not None:
            updates = self.warmup_rollouts * self.num_mini_batches * self.num_iterations
            if self.warmup_ratio or self.warmup_steps not in (0, updates):
                raise ValueError(
                    f"warmup_rollouts {self.warmup_rollouts} are {updates} updates: warmup_steps and warmup_ratio say "
                    "otherwise; leave one of them"
                )
            object.__setattr__(self, "warmup_steps", updates)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.prompts_per_step % self.num_mini_batches:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) is not divisible by "
                f"num_mini_batches ({self.num_mini_batches})"
            )
        if (self.max_steps is None) == (self.num_train_epochs is None):
            raise ValueError("max_steps or num_train_epochs: one of the two says how long the stage is")
        if self.lora is not None and self.reference_update_steps:
            raise ValueError("reference_update_steps with lora: the reference is the model without its adapters")
        return self


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_optimizer(config)
    yield from idle_rollouts(config, config.max_steps)
    yield from idle_policy(config, config.num_mini_batches * config.num_iterations)
    yield from idle_guards(config.has_reference, config.supervision == "process")
    if config.reward_aggregation == "decoupled":
        why = "reward_aggregation `decoupled` standardises every reward by itself: `sum` has an advantage to choose"
        yield Idle("advantage", why)
    if not config.has_kl:
        for key in ("kl_estimator", "kl_placement", *(() if config.measure_kl else ANCHORED)):
            why = "nothing is charged" if config.measure_kl else "there is no reference; `measure_kl` asks one"
            yield Idle(key, f"kl_penalty is 0: {why}", harmless=True)
    elif config.kl_placement != "loss":
        yield Idle("kl_estimator", f"kl_placement `{config.kl_placement}` charges k1")
    if config.retire_above is not None and "accuracy" not in config.reward_funcs:
        yield Idle("retire_above", "no reward `accuracy` says which completions are right")
    if config.entropy_target is None:
        for key in ("entropy_target_step", "entropy_target_max"):
            yield Idle(key, "entropy_target is not set: the coefficient is `entropy_bonus` and stays")
    if config.has_kl and config.measure_kl:
        yield Idle("measure_kl", "kl_penalty is above 0: what is charged is measured", harmless=True)
    if not config.reference_update_steps:
        yield Idle("reference_update_share", "reference_update_steps is 0: the reference never moves")


def check(config: Config, ctx: StageContext) -> list[Fault]:
    """Faults of the rewards, the prompts and the model that can be known before anything runs."""
    faults = check_training(config) + check_model(config.model, ctx) + check_rollouts(config, ctx)
    faults += check_ahead(config, config.device)
    golds = golds_of(config.reward_funcs, ctx, config, config.tasks)
    return faults + check_step_rewards(
        config.step_rewards, ctx, config, lambda: known_prompts(config.tasks, "train", ctx, golds, config.reply)
    )


def run(config: Config, ctx: StageContext) -> None:
    """Per step: draw prompts, sample a group for each, score, turn rewards into advantages, update."""
    source = ctx.inputs[config.model]
    chat = ChatFormat.load(source)
    rollouts = open_rollouts(config, chat, ctx)
    steps = config.max_steps or epoch_steps(config, rollouts)
    updates = steps * config.num_mini_batches * config.num_iterations
    learner = open_learner(source, config, updates, ctx, samples=True, served=config.engine is not None)
    policy = learner.whole
    offload = config.offload_reference
    reference = open_reference(source, learner.model, config, offload) if config.has_reference else None
    judge = StepScorer(open_step_rewards(config.step_rewards, ctx, config), config.step_reward_weights)
    loss = PolicyLoss(config, config.temperature)
    control = entropy_control(config)
    others = {"reference": reference} if reference is not None and config.reference_update_steps else {}
    others |= {} if control is None else {"entropy": control}
    others |= {} if rollouts.retired is None else {"retired": rollouts.retired}
    others |= {"ahead": rollouts} if isinstance(rollouts, AheadRollouts) else {}
    remote = remote_of(config, config.model, ctx, trains=True)
    with open_engine(policy, lambda: learner.step, remote, config.max_staleness > 0) as engine:
        for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping, others, steps):
            clock = Clock(engine)
            groups = rollouts.collect(engine, step, steps)
            clock.mark_sampled()
            drawn = rollouts.measured(groups, learner.step)
            anchors = ask_reference(config, groups, reference, learner)
            charged = anchors if config.has_kl else []
            judged = judge_steps(chat, judge, groups) if config.supervision == "process" else []
            advantages = advantages_of(config, groups, judged, charged)
            parts = mini_batches(config, groups, advantages, (ctx.seed, ctx.name, "mini-batches", step))
            before = learner.step
            metrics = update(config, learner, loss, reference, parts, control) | drawn
            if anchors:
                metrics["policy/kl_divergence"] = mean_divergence(groups, anchors)
            if charged:
                earned = advantages_of(config, groups, judged, ())
                metrics["groups/dead"] = dead_share(earned)  # what is charged differs in every group
            if judged:
                metrics |= step_metrics(groups, judged)
            if reference is not None and reference_is_due(config, before, learner.step):
                move_reference(reference, policy, config.reference_update_share)
            if step == 0:
                metrics |= memory_by_part(learner, reference, scoring=scoring_models(rollouts.rewards, judge.rewards))
            notes = step_notes(groups, judged) if judged else None
            rollouts.log(step, steps, groups, advantages, metrics, clock, notes)
    tasks, rewards = ", ".join(config.tasks), ", ".join(config.reward_funcs)
    how = [f"GRPO: {steps} steps on {tasks}, rewards {rewards}", *how_graded(config.reward_funcs)]
    finish_model(learner, chat, ctx, config.model, how)


def epoch_steps(config: Config, rollouts: Rollouts) -> int:
    """The steps in which as many prompts are drawn as `num_train_epochs` passes over all tasks have."""
    assert config.num_train_epochs is not None
    prompts = sum(map(len, rollouts.prompts.values()))
    return math.ceil(config.num_train_epochs * prompts / config.prompts_per_step)


# -- the reference ----------------------------------------------------------------------------------------------------


def reference_is_due(config: Config, before: int, after: int) -> bool:
    """Whether a multiple of `reference_update_steps` lies among the updates made since `before`."""
    every = config.reference_update_steps
    return every > 0 and after // every > before // every


@torch.no_grad()
def move_reference(reference: Any, policy: Any, share: float) -> None:
    """The reference becomes the policy, or moves towards it by `share` of the way."""
    for ours, theirs in zip(reference.parameters(), policy.parameters(), strict=True):
        ours.lerp_(theirs.to(ours.device), share)


def ask_reference(config: Config, groups: Sequence[Group], reference: Any, learner: Learner) -> list[list[Tensor]]:
    """log π_ref of the tokens of every completion, where the reward is charged for the divergence, or nothing is and it
    is measured; else []."""
    if config.has_kl_loss or reference is None:
        return []
    examples = [group.example(rollout) for group in groups for rollout in group.rollouts]
    budget = learner.budget(packed_tokens(examples))
    with without_adapters(reference), on_device(reference, learner.model.device):
        found = iter(score_examples(reference, examples, budget, config.temperature, learner.team))
    return [[torch.tensor(next(found)) for _ in group.rollouts] for group in groups]


# -- from advantages to a gradient ------------------------------------------------------------------------------------


MiniBatch = tuple[list[list[PolicyExample]], float]  # the examples of each group, and the divisor


def mini_batches(
    config: Config, groups: Sequence[Group], advantages: Advantages, key: tuple[int | str, ...]
) -> list[MiniBatch]:
    """The step's groups in `num_mini_batches` parts, drawn at random as R1 does; one optimiser update each. With
    `drop_dead_groups` a part is the mean over those of its groups that have a signal."""
    size = len(groups) // config.num_mini_batches
    order = shuffled(len(groups), key) if config.num_mini_batches > 1 else range(len(groups))
    penalties = config.kl_penalties if config.has_kl_loss else {}
    parts = []
    for start in range(0, len(groups), size):
        chosen = order[start : start + size]
        if config.drop_dead_groups:
            chosen = [i for i in chosen if any(map(any, advantages[i]))]
        if not chosen:
            parts.append(([], 1.0))
            continue
        parts.append(
            policy_examples(
                [groups[i] for i in chosen],
                [advantages[i] for i in chosen],
                config.aggregation,
                config.max_completion_length,
                penalties,
                config.mask_truncated,
            )
        )
    return parts


def entropy_control(config: Config) -> EntropyControl | None:
    """What moves the entropy's coefficient, where it has a target."""
    if config.entropy_target is None:
        return None
    rule = EntropyTarget(config.entropy_target, config.entropy_target_step, config.entropy_target_max)
    return EntropyControl(rule, config.entropy_bonus)


def update(
    config: Config, learner: Learner, loss: PolicyLoss, reference: Any, parts: Sequence[MiniBatch],
    control: EntropyControl | None = None,
) -> dict[str, float]:  # fmt: skip
    """All updates of one step: `num_iterations` passes over its mini-batches.

    Examples that cannot move a weight are not computed: those that weigh 0, and those that have neither a KL nor an
    entropy term and whose advantage is 0 in every token, as in dead groups; and equal ones are computed once. The
    divisor counts them all the same, so the gradient is that of the whole step.
    """
    minibatches = [(score_old(config, learner, reference, groups, len(parts)), divisor) for groups, divisor in parts]
    history = []
    for _ in range(config.num_iterations):
        for batches, divisor in minibatches:
            if config.top_entropy_share < 1:
                share = config.top_entropy_share
                batches = with_uncertain(batches, learner.model, config.temperature, share, learner.asked_by)
            now = loss if control is None else replace(loss, entropy_bonus=control.bonus())
            makers = [lambda part=part, now=now: now(learner.model, part) for part in batches]
            history.append(learner.update(makers, divisor))
            if control is not None and "policy/entropy" in history[-1]:
                history[-1]["policy/entropy_bonus"] = now.bonus
                control.see(history[-1]["policy/entropy"])
    return over_updates(history)


def score_old(
    config: Config, learner: Learner, reference: Any, groups: Sequence[Sequence[PolicyExample]], mini_batches: int
) -> list[PolicyBatch]:
    """The micro-batches of what is to be computed of one mini-batch, with the log-probs that its updates need from
    before the first of them."""
    needs_all = config.entropy_bonus > 0 or config.entropy_target is not None or config.top_entropy_share < 1
    alive = [
        example
        for group in groups
        for example in group
        if example.weight and (example.kl_penalty or needs_all or any(example.advantages))
    ]
    if may_merge(config):
        alive = merged(alive)
    batches = policy_batches(alive, learner.budget(packed_tokens(alive)), learner.model.device)
    asks_sampler = config.ratio_against == "sampler" and config.sampler_rejection == "none"
    if mini_batches * config.num_iterations > 1 and not asks_sampler:
        batches = with_old(batches, learner.model, config.temperature, learner.asked_by)
    if reference is not None and config.has_kl_loss:
        with without_adapters(reference), on_device(reference, learner.model.device):
            batches = with_reference(batches, reference, config.temperature, learner.team)
    return batches
