"""Group-relative policy optimisation with verifiable rewards (DeepSeekMath 2402.03300; DeepSeek-R1 2501.12948), and the
algorithms that differ from it in a choice: `preset` names them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.advantages import ADVANTAGES, decoupled
from temper.algorithms.aggregation import AGGREGATIONS
from temper.algorithms.kl import k1, k3
from temper.config import ModelRef, RewardName, TaskName
from temper.errors import ConfigError, Fault
from temper.models.adapters import without_adapters
from temper.models.device import on_device
from temper.rewards.steps import StepScorer
from temper.rollout.open import open_engine
from temper.rollout.statistics import Advantages, dead_share
from temper.rollout.steps import JudgedSteps, judge_steps, step_advantages, step_metrics, step_notes
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_guards, idle_optimizer, idle_policy, idle_rollouts
from temper.stages.models import check_model, check_training, finish_model, open_learner, open_reference
from temper.stages.presets import PRESETS, preset_values
from temper.stages.prompts import known_prompts
from temper.stages.rewards import check_step_rewards, golds_of, how_graded, open_step_rewards, reward_label
from temper.stages.rollouts import Clock, RolloutConfig, Rollouts, check_rollouts, policy_examples
from temper.stages.served import remote_of
from temper.text.chat import ChatFormat
from temper.train.learner import Learner, OptimizerConfig, over_updates
from temper.train.loop import resumable_steps
from temper.train.memory import memory_by_part
from temper.train.policy import (
    PolicyBatch,
    PolicyConfig,
    PolicyLoss,
    policy_batches,
    score_examples,
    with_old,
    with_reference,
)
from temper.types import Group, PolicyExample

VERSION = 3
POOLED = ("std", "std_population", "none")  # advantages that mean something for step rewards pooled, of any number
ANCHORED = ("reference_update_steps", "reference_update_share", "offload_reference")  # keys of a reference
Share = Annotated[float, Field(gt=0, le=1)]


class Config(OptimizerConfig, RolloutConfig, PolicyConfig):
    """The defaults marked R1 are those of Nature 645:633, methods. Its clip of 10, 16 mini-batches and reference
    replaced every 400 steps are not: here clip 0.2, one update, a frozen reference. A preset's values stand where a key
    is not written."""

    model: ModelRef
    preset: Literal[tuple(PRESETS)] | None = None  # type: ignore[valid-type]
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-6  # R1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    num_train_epochs: Annotated[float, Field(gt=0)] | None = None  # in place of max_steps: draws of all prompts
    num_generations: Annotated[
        int, Field(ge=2, description="an advantage compares the completions of one prompt: one alone has no other")
    ] = 16  # R1
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0  # R1
    advantage: Literal[tuple(ADVANTAGES)] = "std"  # type: ignore[valid-type]
    reward_aggregation: Literal["sum", "decoupled"] = "sum"  # decoupled: each reward normalised by itself (GDPO)
    supervision: Literal["outcome", "process"] = "outcome"  # process: every step of a completion earns by itself
    step_rewards: list[RewardName] = []  # what judges the steps; what judges completions comes with the last step
    step_reward_weights: list[float] | None = None  # one a step reward; all 1.0 when not given
    aggregation: Literal[tuple(AGGREGATIONS)] = "sequence_mean"  # type: ignore[valid-type]
    mask_truncated: bool = False  # completions cut off at the limit count in the group, but train nothing (DAPO)
    kl_penalty: Annotated[float, Field(ge=0)] | dict[TaskName, Annotated[float, Field(ge=0)]] = 0.001  # R1; by task
    measure_kl: bool = False  # the drift from the reference is measured where kl_penalty is 0 and nothing is charged
    kl_placement: Literal["loss", "reward"] = "loss"  # reward: the sum of k1 over the completion is subtracted
    reference_update_steps: Annotated[int, Field(ge=0)] = 0  # optimiser updates; 0: frozen; R1 replaced it every 400
    reference_update_share: Share = 1.0  # of the policy in the new reference; below 1 a moving average
    offload_reference: bool = False  # on CUDA: its weights are in main memory but for the moment they are asked
    num_mini_batches: Annotated[int, Field(ge=1)] = 1  # optimiser updates a pass over the step's groups; R1: 16
    num_iterations: Annotated[int, Field(ge=1)] = 1  # passes over the step's groups (μ in DeepSeekMath)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {**preset_values(values), **values}

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
        if isinstance(self.kl_penalty, dict) and set(self.kl_penalty) != set(self.tasks):
            raise ValueError(f"kl_penalty names {', '.join(self.kl_penalty)}, the tasks are {', '.join(self.tasks)}")
        if self.reward_aggregation == "decoupled" and self.kl_placement == "reward":
            raise ValueError("kl_placement `reward` with reward_aggregation `decoupled`: there is no total to charge")
        return self

    @model_validator(mode="after")
    def _supervised(self) -> Config:
        names, weights, process = self.step_rewards, self.step_reward_weights, self.supervision == "process"
        if process != bool(names):
            raise ValueError(f"supervision `{self.supervision}` with step_rewards {names}: only `process` needs some")
        if weights is not None and len(weights) != len(names):
            raise ValueError(f"step_reward_weights has {len(weights)} values for {len(names)} step_rewards")
        if process and self.advantage not in POOLED:
            raise ValueError(f"advantage `{self.advantage}` with supervision `process`: one of {', '.join(POOLED)}")
        if process and self.reward_aggregation == "decoupled":
            raise ValueError("reward_aggregation `decoupled` with supervision `process`: rewards of a step are summed")
        return self

    @property
    def kl_penalties(self) -> dict[str, float]:
        """The coefficient of each task."""
        return self.kl_penalty if isinstance(self.kl_penalty, dict) else dict.fromkeys(self.tasks, self.kl_penalty)

    @property
    def has_kl(self) -> bool:
        return any(self.kl_penalties.values())

    @property
    def has_reference(self) -> bool:
        return self.has_kl or self.measure_kl

    @property
    def has_kl_loss(self) -> bool:
        return self.has_kl and self.kl_placement == "loss"


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
    elif config.kl_placement == "reward":
        yield Idle("kl_estimator", "kl_placement `reward` charges the sum of k1 over the completion")
    if config.has_kl and config.measure_kl:
        yield Idle("measure_kl", "kl_penalty is above 0: what is charged is measured", harmless=True)
    if not config.reference_update_steps:
        yield Idle("reference_update_share", "reference_update_steps is 0: the reference never moves")


def check(config: Config, ctx: StageContext) -> list[Fault]:
    """Faults of the rewards, the prompts and the model that can be known before anything runs."""
    faults = check_training(config) + check_model(config.model, ctx) + check_rollouts(config, ctx)
    golds = golds_of(config.reward_funcs, ctx, config, config.tasks)
    return faults + check_step_rewards(
        config.step_rewards, ctx, config, lambda: known_prompts(config.tasks, "train", ctx, golds, config.reply)
    )


def run(config: Config, ctx: StageContext) -> None:
    """Per step: draw prompts, sample a group for each, score, turn rewards into advantages, update."""
    source = ctx.inputs[config.model]
    chat = ChatFormat.load(source)
    rollouts = Rollouts(config, chat, ctx)
    steps = config.max_steps or epoch_steps(config, rollouts)
    updates = steps * config.num_mini_batches * config.num_iterations
    learner = open_learner(source, config, updates, ctx)
    policy = learner.model
    reference = open_reference(source, policy, config, config.offload_reference) if config.has_reference else None
    judge = StepScorer(open_step_rewards(config.step_rewards, ctx, config), config.step_reward_weights)
    loss = PolicyLoss(config, config.temperature)
    others = {"reference": reference} if reference is not None and config.reference_update_steps else {}
    with open_engine(policy, lambda: learner.step, remote_of(config, config.model, ctx, trains=True)) as engine:
        for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping, others, steps):
            clock = Clock(engine)
            groups = rollouts.collect(engine, step)
            clock.mark_sampled()
            anchors = ask_reference(config, groups, reference, policy.device)
            charged = anchors if config.has_kl else []
            judged = judge_steps(chat, judge, groups) if config.supervision == "process" else []
            advantages = advantages_of(config, groups, judged, total_rewards(config, groups, charged))
            parts = mini_batches(config, groups, advantages, (ctx.seed, ctx.name, "mini-batches", step))
            before = learner.step
            metrics = update(config, learner, loss, reference, parts)
            if anchors:
                metrics["policy/kl_divergence"] = mean_divergence(groups, anchors)
            if charged:
                earned = advantages_of(config, groups, judged, total_rewards(config, groups, ()))
                metrics["groups/dead"] = dead_share(earned)  # what is charged differs in every group
            if judged:
                metrics |= step_metrics(groups, judged)
            if reference is not None and reference_is_due(config, before, learner.step):
                move_reference(reference, policy, config.reference_update_share)
            if step == 0:
                metrics |= memory_by_part(learner, reference)
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
        ours.lerp_(theirs, share)


# -- from rewards to a gradient ----------------------------------------------------------------------------------------


def ask_reference(config: Config, groups: Sequence[Group], reference: Any, device: torch.device) -> list[list[Tensor]]:
    """log π_ref of the tokens of every completion, where the reward is charged for the divergence, or nothing is and it
    is measured; else []."""
    if config.has_kl_loss or reference is None:
        return []
    examples = [group.example(rollout) for group in groups for rollout in group.rollouts]
    with without_adapters(reference), on_device(reference, device):
        found = iter(score_examples(reference, examples, config.micro_batch_tokens, config.temperature))
    return [[torch.tensor(next(found)) for _ in group.rollouts] for group in groups]


def total_rewards(config: Config, groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]]) -> Tensor:
    """[N, G]: each completion's weighted sum of rewards, less β Σ_t k1 where there are `anchors`."""
    totals_NG = torch.tensor([[r.total for r in group.rollouts] for group in groups], dtype=torch.float64)
    if not anchors:
        return totals_NG
    k1_NG = torch.tensor(over_completions(groups, anchors, lambda ours, theirs: k1(ours, theirs).sum().item()))
    betas_N = torch.tensor([config.kl_penalties[group.prompt.task] for group in groups], dtype=torch.float64)
    return totals_NG - betas_N[:, None] * k1_NG


def mean_divergence(groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]]) -> float:
    """The mean of k3 over each completion's tokens, over completions, as the loss would log it."""
    found = over_completions(groups, anchors, lambda ours, theirs: k3(ours, theirs).mean().item())
    return fmean(value for of_group in found for value in of_group)


def over_completions(
    groups: Sequence[Group], anchors: Sequence[Sequence[Tensor]], measure: Callable[[Tensor, Tensor], float]
) -> list[list[float]]:
    """`measure` of log π as each completion was sampled and log π_ref."""
    return [
        [
            measure(torch.tensor(rollout.completion.sampler_logprobs), anchor)
            for rollout, anchor in zip(group.rollouts, of_group, strict=True)
        ]
        for group, of_group in zip(groups, anchors, strict=True)
    ]


def advantages_of(
    config: Config, groups: Sequence[Group], judged: Sequence[Sequence[JudgedSteps]], totals_NG: Tensor
) -> Advantages:
    """The advantage of every token, by what its completion earned, or its steps where they are `judged`."""
    if judged:
        return step_advantages(groups, judged, totals_NG, ADVANTAGES[config.advantage])
    return outcome_advantages(config, totals_NG, groups)


def outcome_advantages(config: Config, totals_NG: Tensor, groups: Sequence[Group]) -> Advantages:
    """Outcome supervision: every token of a completion gets the completion's advantage."""
    if config.reward_aggregation == "decoupled":
        values_NG = decoupled(*reward_table(config, groups))
    else:
        try:
            values_NG = ADVANTAGES[config.advantage](totals_NG)
        except ValueError as problem:
            raise ConfigError(Fault(str(problem), fix="another `advantage`, or other rewards")) from None
    return [
        [(value,) * len(r.completion.token_ids) for r, value in zip(group.rollouts, values, strict=True)]
        for group, values in zip(groups, values_NG.tolist(), strict=True)
    ]


def reward_table(config: Config, groups: Sequence[Group]) -> tuple[Tensor, list[float]]:
    """[K, N, G] of each reward by itself, nan where it does not apply, and the weights [K]."""
    given = config.reward_weights or [1.0] * len(config.reward_funcs)
    weights = dict(zip(map(reward_label, config.reward_funcs), given, strict=True))
    weights |= {"overlong": 1.0} if config.overlong_cache else {}
    rewards_KNG = [[[r.rewards.get(name, math.nan) for r in group.rollouts] for group in groups] for name in weights]
    return torch.tensor(rewards_KNG, dtype=torch.float64), list(weights.values())


MiniBatch = tuple[list[list[PolicyExample]], float]  # the examples of each group, and the divisor


def mini_batches(
    config: Config, groups: Sequence[Group], advantages: Advantages, key: tuple[int | str, ...]
) -> list[MiniBatch]:
    """The step's groups in `num_mini_batches` parts, drawn at random as R1 does; one optimiser update each."""
    size = len(groups) // config.num_mini_batches
    order = shuffled(len(groups), key) if config.num_mini_batches > 1 else range(len(groups))
    penalties = config.kl_penalties if config.has_kl_loss else {}
    parts = []
    for start in range(0, len(groups), size):
        chosen = order[start : start + size]
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


def update(
    config: Config, learner: Learner, loss: PolicyLoss, reference: Any, parts: Sequence[MiniBatch]
) -> dict[str, float]:
    """All updates of one step: `num_iterations` passes over its mini-batches.

    Examples that cannot move a weight are not computed: those that weigh 0, and those that have neither a KL nor an
    entropy term and whose advantage is 0 in every token, as in dead groups. The divisor counts them all the same, so
    the gradient is that of the whole step.
    """
    anchored = reference is not None and config.has_kl_loss
    minibatches: list[tuple[list[PolicyBatch], float]] = []
    for groups, divisor in parts:
        alive = [
            example
            for group in groups
            for example in group
            if example.weight and (example.kl_penalty or config.entropy_bonus or any(example.advantages))
        ]
        batches = policy_batches(alive, config.micro_batch_tokens, learner.model.device)
        if len(parts) * config.num_iterations > 1:
            batches = with_old(batches, learner.model, config.temperature)
        if anchored:
            with without_adapters(reference), on_device(reference, learner.model.device):
                batches = with_reference(batches, reference, config.temperature)
        minibatches.append((batches, divisor))
    history = []
    for _ in range(config.num_iterations):
        for batches, divisor in minibatches:
            makers = [lambda part=part: loss(learner.model, part) for part in batches]
            history.append(learner.update(makers, divisor))
    return over_updates(history)
