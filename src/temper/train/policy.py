"""The policy gradient of one micro-batch, and what it needs from before the update. Every algorithm of the family is a
choice from the tables of `algorithms/`; this is the one place that puts them together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.kl import KL
from temper.algorithms.losses import SURROGATES, Bounds, bound_share
from temper.algorithms.ratios import RATIOS, off_policy_mask, sampler_weights
from temper.config import StrictModel
from temper.data.batching import Batch, make_batch, split_by_tokens
from temper.kernels.packed import AttentionPlan
from temper.train.forward import Scored, plan_batch, score_targets
from temper.train.learner import LossSum
from temper.types import Example, PolicyExample

Positive = Annotated[float, Field(gt=0)]


class PolicyConfig(StrictModel):
    """The objective, token by token: the keys of every stage that follows a policy gradient."""

    surrogate: Literal["clip", "cispo", "reinforce"] = "clip"
    ratio: Literal["token", "sequence"] = "token"  # sequence: GSPO
    clip_range: Positive = 0.2  # PPO; R1 used 10
    clip_range_high: Positive | None = None  # the upper bound, if it differs
    clip_range_negative: Annotated[float, Field(gt=1)] | None = None  # the largest ratio of a negative advantage
    ratio_cap: Positive = 5.0  # cispo's; ScaleRL (2510.13786) found 4 to 8 alike
    kl_estimator: Literal["k2", "k3", "k3_corrected"] = "k3"  # in the loss; k1 has no gradient there
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.0  # × the entropy of each token, weighed as its loss
    # Samples of another policy than the one trained: a sampler that rounds otherwise, or updates since
    sampler_correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "none"
    sampler_correction_min: Annotated[float, Field(ge=0)] = 0.0
    sampler_correction_max: Positive = 2.0
    off_policy_threshold: Positive | None = None  # V3.2: negative completions further off are masked

    @model_validator(mode="after")
    def _bounds_fit(self) -> PolicyConfig:
        if self.sampler_correction_min >= self.sampler_correction_max:
            raise ValueError(
                f"sampler_correction_min ({self.sampler_correction_min:g}) is not below "
                f"sampler_correction_max ({self.sampler_correction_max:g})"
            )
        return self


@dataclass(frozen=True)
class PolicyBatch:
    """A micro-batch with one value per target token [M] from each source.

    `old_logprobs_M` is None where one update is made per rollout: π_old is then π_θ itself and the ratio exactly 1.
    `reference_logprobs_M` is None where no KL term stands in the loss.
    """

    batch: Batch
    plan: AttentionPlan
    advantages_M: Tensor
    sampler_logprobs_M: Tensor
    weights_M: Tensor
    kl_penalties_M: Tensor
    old_logprobs_M: Tensor | None = None
    reference_logprobs_M: Tensor | None = None


@dataclass(frozen=True)
class PolicyLoss:
    """The objective as the config has it; `temperature` is the one the tokens were drawn at."""

    config: PolicyConfig
    temperature: float = 1.0

    @cached_property
    def bounds(self) -> Bounds:
        config = self.config
        high = config.clip_range if config.clip_range_high is None else config.clip_range_high
        negative = math.inf if config.clip_range_negative is None else config.clip_range_negative
        return Bounds(config.clip_range, high, negative, config.ratio_cap)

    def __call__(self, model: Any, part: PolicyBatch) -> LossSum:
        """Σ_tokens weight · (surrogate + β·KL − c·entropy): the learner divides by the divisor of the whole step."""
        scored = score_targets(model, part.batch, part.plan, self.temperature, self.config.entropy_bonus > 0)
        return self.of(scored, part)

    def of(self, scored: Scored, part: PolicyBatch) -> LossSum:
        """The same of what a forward has said already."""
        config, logprobs = self.config, scored.logprobs_M
        old = logprobs.detach() if part.old_logprobs_M is None else part.old_logprobs_M
        log_ratio = logprobs - old
        ratio = RATIOS[config.ratio](log_ratio, part.batch.rows)
        per_token = SURROGATES[config.surrogate](logprobs, ratio, part.advantages_M, self.bounds)
        per_token = self._correct(per_token, logprobs, old, part)
        sums = {"policy/entropy": scored.entropy_M.detach()}
        if part.reference_logprobs_M is not None:
            divergence = KL[config.kl_estimator](logprobs, part.reference_logprobs_M, log_ratio)
            per_token = per_token + part.kl_penalties_M * divergence
            sums["policy/kl_divergence"] = KL["k3"](logprobs.detach(), part.reference_logprobs_M, log_ratio)
        if config.entropy_bonus:
            per_token = per_token - config.entropy_bonus * scored.entropy_M
        gap = (old - part.sampler_logprobs_M).abs()  # `old` is the trainer's view of what was sampled
        sums["policy/mismatch_mean"] = gap
        sums["policy/clip_fraction"] = bound_share(ratio.detach(), part.advantages_M, config.surrogate, self.bounds)
        share = 1.0 / part.batch.lengths  # what is logged is a mean over completions of each one's mean
        return LossSum(
            (per_token * part.weights_M).sum(),
            {name: float((value * share).sum()) for name, value in sums.items()},
            count=len(part.batch.layouts),
            peaks={"policy/mismatch_max": float(gap.max())},
        )

    def _correct(self, per_token: Tensor, logprobs: Tensor, old: Tensor, part: PolicyBatch) -> Tensor:
        """The surrogate weighed, or masked, for how far the policy that sampled is from the one that is trained."""
        config, rows = self.config, part.batch.rows
        if config.sampler_correction != "none":
            low, high = config.sampler_correction_min, config.sampler_correction_max
            gap = old - part.sampler_logprobs_M
            per_token = per_token * sampler_weights(gap, rows, config.sampler_correction, low, high)
        if config.off_policy_threshold is not None:
            threshold = config.off_policy_threshold
            keep = off_policy_mask(logprobs, part.sampler_logprobs_M, part.advantages_M, rows, threshold)
            per_token = per_token * keep
        return per_token


def policy_batches(
    examples: Sequence[PolicyExample], budget: int, device: torch.device | str = "cpu"
) -> list[PolicyBatch]:
    """Micro-batches of at most `budget` tokens; the completions of one prompt share its forward pass."""
    return [policy_batch([examples[i] for i in indices], device) for indices in split_by_tokens(examples, budget)]


def policy_batch(examples: Sequence[PolicyExample], device: torch.device | str = "cpu") -> PolicyBatch:
    """One micro-batch of all `examples`."""
    batch = make_batch(examples).to(device)
    names = ("advantages", "sampler_logprobs", "weight", "kl_penalty")
    return PolicyBatch(batch, plan_batch(batch), *(per_token(examples, name, device) for name in names))


def per_token(examples: Sequence[PolicyExample], name: str, device: torch.device | str = "cpu") -> Tensor:
    """[M] of a field of the examples: a value that every token has, or that its example has."""
    values: list[float] = []
    for example in examples:
        value = getattr(example, name)
        values.extend(value if isinstance(value, tuple) else (value,) * len(example.advantages))
    return torch.tensor(values, device=device)


@torch.no_grad()
def with_reference(parts: Sequence[PolicyBatch], reference: Any, temperature: float) -> list[PolicyBatch]:
    """The same micro-batches, scored by the anchor π_ref."""
    return [
        replace(part, reference_logprobs_M=score_targets(reference, part.batch, part.plan, temperature).logprobs_M)
        for part in parts
    ]


@torch.no_grad()
def with_old(parts: Sequence[PolicyBatch], policy: Any, temperature: float) -> list[PolicyBatch]:
    """The same micro-batches, scored by the policy as it sampled, before any of the step's updates."""
    return [
        replace(part, old_logprobs_M=score_targets(policy, part.batch, part.plan, temperature).logprobs_M)
        for part in parts
    ]


@torch.no_grad()
def score_examples(model: Any, examples: Sequence[Example], budget: int, temperature: float) -> list[list[float]]:
    """log π of every target of each example, in order: for what must be known before batches are made."""
    found: list[list[float]] = [[] for _ in examples]
    for indices in split_by_tokens(examples, budget):
        batch = make_batch([examples[i] for i in indices]).to(model.device)
        logprobs = score_targets(model, batch, plan_batch(batch), temperature).logprobs_M.tolist()
        for row, value in zip(batch.rows.tolist(), logprobs, strict=True):
            found[indices[row]].append(value)
    return found
