"""The policy gradient of one micro-batch, and what it needs from before the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from temper.algorithms.kl import k3
from temper.algorithms.losses import clipped_share, clipped_surrogate
from temper.data.batching import Batch, make_batch, split_by_tokens
from temper.models.packed import AttentionPlan
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import LossSum
from temper.types import PolicyExample


@dataclass(frozen=True)
class PolicyBatch:
    """A micro-batch with one value per target token [M] from each source.

    `old_logprobs_M` is None where one update is made per rollout: π_old is then π_θ itself and the ratio exactly 1.
    `reference_logprobs_M` is None where the KL coefficient is 0.
    """

    batch: Batch
    plan: AttentionPlan
    advantages_M: Tensor
    sampler_logprobs_M: Tensor
    old_logprobs_M: Tensor | None = None
    reference_logprobs_M: Tensor | None = None


@dataclass(frozen=True)
class PolicyLoss:
    """The objective's constants: clip bounds, KL coefficient β, and the temperature the tokens were drawn at."""

    clip_low: float
    clip_high: float
    kl_penalty: float
    temperature: float

    def __call__(self, model: Any, part: PolicyBatch) -> LossSum:
        """Σ_i (1/|o_i|) Σ_t −(min[ρA, clip(ρ)A] − β·k3): the learner divides by the sequences of the whole step."""
        scored = score_targets(model, part.batch, part.plan, self.temperature)
        logprobs = scored.logprobs_M
        old = logprobs.detach() if part.old_logprobs_M is None else part.old_logprobs_M
        weights = 1.0 / part.batch.lengths
        per_token = clipped_surrogate(logprobs, old, part.advantages_M, self.clip_low, self.clip_high)
        gap = (old - part.sampler_logprobs_M).abs()  # `old` is the trainer's view of what was sampled
        sums = {"policy/entropy": scored.entropy_M, "policy/mismatch_mean": gap}
        if part.reference_logprobs_M is not None:
            divergence = k3(logprobs, part.reference_logprobs_M)
            per_token = per_token + self.kl_penalty * divergence
            sums["policy/kl_divergence"] = divergence.detach()
        sums["policy/clip_fraction"] = clipped_share(
            logprobs.detach(), old, part.advantages_M, self.clip_low, self.clip_high
        )
        return LossSum(
            (per_token * weights).sum(),
            {name: float((value * weights).sum()) for name, value in sums.items()},
            {"policy/mismatch_max": float(gap.max())},
        )


def policy_batches(
    examples: Sequence[PolicyExample], budget: int, device: torch.device | str = "cpu"
) -> list[PolicyBatch]:
    """Micro-batches of at most `budget` tokens; the completions of one prompt share its forward pass."""
    parts = []
    for indices in split_by_tokens(examples, budget):
        chosen = [examples[i] for i in indices]
        batch = make_batch(chosen).to(device)
        parts.append(
            PolicyBatch(
                batch,
                plan_batch(batch),
                torch.tensor([value for example in chosen for value in example.advantages], device=device),
                torch.tensor([value for example in chosen for value in example.sampler_logprobs], device=device),
            )
        )
    return parts


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
