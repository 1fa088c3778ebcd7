"""The policy gradient of one micro-batch, and what it needs from before the update. Every algorithm of the family is a
choice from the tables of `algorithms/`; this is the one place that puts them together."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.entropy import uncertain
from temper.algorithms.kl import KL
from temper.algorithms.losses import SURROGATES, Bounds, bound_share
from temper.algorithms.ratios import LEVELS, RATIOS, accepted, off_policy_mask, powers, sampler_weights
from temper.config import StrictModel
from temper.data.batching import Batch, make_batch, split_by_tokens, tensor_of
from temper.kernels.packed import AttentionPlan
from temper.train.forward import Scored, plan_batch, score_targets
from temper.train.losses import LossSum
from temper.train.team import Team, Together, run_all
from temper.types import Example, PolicyExample

AnyExample = TypeVar("AnyExample", bound=PolicyExample)
Positive = Annotated[float, Field(gt=0)]
CORRECTIONS = ("none", *(f"{level}_{how}" for level in LEVELS for how in ("truncate", "mask")))


class PolicyConfig(StrictModel):
    """The objective, token by token: the keys of every stage that follows a policy gradient."""

    surrogate: Literal[tuple(SURROGATES)] = "clip"  # type: ignore[valid-type]
    ratio: Literal[tuple(RATIOS)] = "token"  # type: ignore[valid-type]  # sequence: GSPO; product: of all its tokens
    # π_old of the ratio: the trainer's own, before the step's updates, or the log-probs the tokens were drawn with, so
    # that one ratio covers updates since and what sampler and trainer disagree by (ScaleRL)
    ratio_against: Literal["trainer", "sampler"] = "trainer"
    clip_range: Positive = 0.2  # PPO; R1 used 10
    clip_range_high: Positive | None = None  # the upper bound, if it differs
    clip_range_negative: Annotated[float, Field(gt=1)] | None = None  # the largest ratio of a negative advantage
    ratio_cap: Positive = 5.0  # cispo's; ScaleRL (2510.13786) found 4 to 8 alike
    sapo_temperature: Positive = 1.0  # of SAPO's gate for positive advantages; 2511.20347
    sapo_temperature_negative: Positive = 1.05  # for the others, whose gate is to fade sooner
    kl_estimator: Literal["k2", "k3", "k3_corrected"] = "k3"  # in the loss; k1 has no gradient there
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.0  # × the entropy of each token, weighed as its loss
    # Samples of another policy than the one trained: a sampler that rounds otherwise, or updates since
    sampler_correction: Literal[tuple(CORRECTIONS)] = "none"  # type: ignore[valid-type]
    sampler_correction_min: Annotated[float, Field(ge=0)] = 0.0
    sampler_correction_max: Positive = 2.0
    sampler_rejection: Literal["none", "token", "sequence", "geometric"] = "none"  # outside the band nothing is trained
    sampler_rejection_min: Annotated[float, Field(ge=0)] = 0.5
    sampler_rejection_max: Positive = 2.0
    off_policy_threshold: Positive | None = None  # V3.2: negative completions further off are masked

    @model_validator(mode="after")
    def _bounds_fit(self) -> PolicyConfig:
        for name in ("sampler_correction", "sampler_rejection"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low >= high:
                raise ValueError(f"{name}_min ({low:g}) is not below {name}_max ({high:g})")
        if self.ratio_against == "sampler" and self.sampler_correction != "none":
            raise ValueError(
                f"sampler_correction `{self.sampler_correction}` with ratio_against `sampler`: the ratio holds already "
                "what sampler and trainer differ by, and would count it twice"
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
    shares_M: Tensor  # in a sum over completions of each one's mean, which is what is logged
    count: int  # completions
    old_logprobs_M: Tensor | None = None
    reference_logprobs_M: Tensor | None = None
    kept_M: Tensor | None = None  # 1 where the surrogate and the bonus are to count, else 0; None: everywhere


@dataclass(frozen=True)
class PolicyLoss:
    """The objective as the config has it; `temperature` is the one the tokens were drawn at, `entropy_bonus` stands in
    place of the config's where it changes from update to update."""

    config: PolicyConfig
    temperature: float = 1.0
    entropy_bonus: float | None = None

    @cached_property
    def bounds(self) -> Bounds:
        config = self.config
        high = config.clip_range if config.clip_range_high is None else config.clip_range_high
        negative = math.inf if config.clip_range_negative is None else config.clip_range_negative
        gates = config.sapo_temperature, config.sapo_temperature_negative
        return Bounds(config.clip_range, high, negative, config.ratio_cap, *gates)

    @property
    def bonus(self) -> float:
        """c, the coefficient of the entropy."""
        return self.config.entropy_bonus if self.entropy_bonus is None else self.entropy_bonus

    def __call__(self, model: Any, part: PolicyBatch) -> LossSum:
        """Σ_tokens weight · (surrogate + β·KL − c·entropy): the learner divides by the divisor of the whole step."""
        scored = score_targets(model, part.batch, part.plan, self.temperature, self.bonus > 0)
        return self.of(scored, part)

    def of(self, scored: Scored, part: PolicyBatch) -> LossSum:
        """The same of what a forward has said already."""
        config, logprobs = self.config, scored.logprobs_M
        old = logprobs.detach() if part.old_logprobs_M is None else part.old_logprobs_M
        log_ratio = logprobs - (part.sampler_logprobs_M if config.ratio_against == "sampler" else old)
        ratio = RATIOS[config.ratio](log_ratio, part.batch.rows)
        per_token = SURROGATES[config.surrogate](logprobs, ratio, part.advantages_M, self.bounds)
        gap = old - part.sampler_logprobs_M  # `old` is the trainer's view of what was sampled
        sums = {"policy/entropy": scored.entropy_M.detach(), **mismatch(gap)}
        per_token = self._correct(per_token, logprobs, gap, part, sums)
        if part.kept_M is not None:
            per_token = per_token * part.kept_M
        if part.reference_logprobs_M is not None:
            divergence = KL[config.kl_estimator](logprobs, part.reference_logprobs_M, log_ratio)
            per_token = per_token + part.kl_penalties_M * divergence
            sums["policy/kl_divergence"] = KL["k3"](logprobs.detach(), part.reference_logprobs_M, log_ratio)
        if self.bonus:
            kept = 1.0 if part.kept_M is None else part.kept_M
            per_token = per_token - self.bonus * kept * scored.entropy_M
        sums["policy/clip_fraction"] = bound_share(ratio.detach(), part.advantages_M, config.surrogate, self.bounds)
        return LossSum(
            (per_token * part.weights_M).sum(),
            {name: float((value * part.shares_M).sum()) for name, value in sums.items()},
            count=part.count,
            peaks={"policy/mismatch_max": float(gap.abs().max())},
        )

    def _correct(
        self, per_token: Tensor, logprobs: Tensor, gap: Tensor, part: PolicyBatch, sums: dict[str, Tensor]
    ) -> Tensor:
        """The surrogate weighed, or masked, for how far the policy that sampled is from the one that is trained; what
        was done is added to `sums`."""
        config, rows = self.config, part.batch.rows
        if config.sampler_correction != "none":
            low, high = config.sampler_correction_min, config.sampler_correction_max
            sums["policy/correction_weight"] = sampler_weights(gap, rows, config.sampler_correction, low, high)
            per_token = per_token * sums["policy/correction_weight"]
        if config.sampler_rejection != "none":
            low, high = config.sampler_rejection_min, config.sampler_rejection_max
            keep = accepted(gap, rows, config.sampler_rejection, low, high)
            sums["policy/rejected"] = 1 - keep
            per_token = per_token * keep
        if config.off_policy_threshold is not None:
            threshold = config.off_policy_threshold
            keep = off_policy_mask(logprobs, part.sampler_logprobs_M, part.advantages_M, rows, threshold)
            per_token = per_token * keep
        return per_token


def mismatch(gap_M: Tensor) -> dict[str, Tensor]:
    """How far apart trainer and sampler are on the tokens that were drawn, from log π − log π_sampler: the size of the
    difference, and its KL divergence from the sampler, e^gap − 1 − gap, which is never negative."""
    gap = gap_M.detach()
    return {"policy/mismatch_mean": gap.abs(), "policy/mismatch_kl": powers(gap) - 1 - gap}


def merged(examples: Sequence[AnyExample]) -> list[AnyExample]:
    """Equal completions of one prompt that are trained alike as one, which weighs what they weigh together: the same
    gradient, computed once. Of a policy that is sure most are equal.

    >>> one, two = (PolicyExample((7, 8), (False, True), (a,), (-0.5,), 0.25) for a in (1.0, -1.0))
    >>> [(example.advantages, example.weight, example.copies) for example in merged([one, two, one, one])]
    [((1.0,), 0.75, 3), ((-1.0,), 0.25, 1)]
    """
    copies = Counter(examples)
    return [replace(one, weight=n * one.weight, copies=n * one.copies) if n > 1 else one for one, n in copies.items()]


def policy_batches(
    examples: Sequence[PolicyExample], budget: int, device: torch.device | str = "cpu"
) -> list[PolicyBatch]:
    """Micro-batches of at most `budget` tokens; the completions of one prompt share its forward pass."""
    return [policy_batch([examples[i] for i in indices], device) for indices in split_by_tokens(examples, budget)]


def policy_batch(examples: Sequence[PolicyExample], device: torch.device | str = "cpu") -> PolicyBatch:
    """One micro-batch of all `examples`."""
    batch = make_batch(examples).to(device)
    names = ("advantages", "sampler_logprobs", "weight", "kl_penalty", "copies")
    *values, copies_M = (per_token(examples, name, device) for name in names)
    count = sum(example.copies for example in examples)
    return PolicyBatch(batch, plan_batch(batch), *values, shares_M=copies_M / batch.lengths, count=count)


def per_token(examples: Sequence[PolicyExample], name: str, device: torch.device | str = "cpu") -> Tensor:
    """[M] of a field of the examples: a value that every token has, or that its example has."""
    values = [getattr(example, name) for example in examples]
    if isinstance(values[0], tuple):
        return tensor_of(list(chain.from_iterable(values)), "f").to(device)
    counts = [len(example.advantages) for example in examples]
    return torch.from_numpy(np.repeat(np.array(array("f", values)), counts)).to(device)  # torch's wakes its threads


def with_reference(
    parts: Sequence[PolicyBatch], reference: Any, temperature: float, team: Team | Together | None = None
) -> list[PolicyBatch]:
    """The same micro-batches, scored by the anchor π_ref."""
    found = _score(reference, parts, temperature, team, "reference")
    return [replace(part, reference_logprobs_M=scored.logprobs_M) for part, scored in zip(parts, found, strict=True)]


def with_old(
    parts: Sequence[PolicyBatch], policy: Any, temperature: float, team: Team | Together | None = None
) -> list[PolicyBatch]:
    """The same micro-batches, scored by the policy as it sampled, before any of the step's updates."""
    found = _score(policy, parts, temperature, team, "old")
    return [replace(part, old_logprobs_M=scored.logprobs_M) for part, scored in zip(parts, found, strict=True)]


def with_uncertain(
    parts: Sequence[PolicyBatch], policy: Any, temperature: float, share: float, team: Team | Together | None = None
) -> list[PolicyBatch]:
    """The same micro-batches, of whose tokens the `share` of the highest entropy is kept, over all of them together."""
    entropies = [scored.entropy_M for scored in _score(policy, parts, temperature, team, "uncertain")]
    if not entropies:
        return list(parts)
    kept = uncertain(torch.cat(entropies), share).split([len(values) for values in entropies])
    return [replace(part, kept_M=keep) for part, keep in zip(parts, kept, strict=True)]


@torch.no_grad()
def _score(
    model: Any, parts: Sequence[PolicyBatch], temperature: float, team: Team | Together | None, kind: str
) -> list[Scored]:
    def score(part: PolicyBatch) -> Scored:
        return score_targets(model, part.batch, part.plan, temperature)

    return run_all(team, [partial(score, part) for part in parts], kind)


@torch.no_grad()
def score_examples(
    model: Any, examples: Sequence[Example], budget: int, temperature: float, team: Team | Together | None = None
) -> list[list[float]]:
    """log π of every target of each example, in order: for what must be known before batches are made. Equal examples
    are computed once."""
    once = list(dict.fromkeys(examples))

    def score(indices: Sequence[int]) -> tuple[list[int], list[float]]:
        batch = make_batch([once[i] for i in indices]).to(model.device)
        logprobs = score_targets(model, batch, plan_batch(batch), temperature).logprobs_M
        return [indices[row] for row in batch.rows.tolist()], logprobs.tolist()

    found: list[list[float]] = [[] for _ in once]
    tasks = [partial(score, indices) for indices in split_by_tokens(once, budget)]
    for places, logprobs in run_all(team, tasks, "examples"):
        for place, value in zip(places, logprobs, strict=True):
            found[place].append(value)
    known = dict(zip(once, found, strict=True))
    return [known[example] for example in examples]
