"""The one forward pass of training: a packed batch in, a log-prob for every target out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from temper.algorithms import logprobs
from temper.data.batching import Batch
from temper.models.attention import AttentionPlan, Row, plan_attention


def plan_batch(batch: Batch) -> AttentionPlan:
    """A prefix attends to itself; what follows attends to its prefix and to itself."""
    prefixes = dict.fromkeys(layout.prefix for layout in batch.layouts if len(layout.prefix))
    rows = [Row(prefix, (prefix,)) for prefix in prefixes]
    rows += [Row(layout.own, (layout.prefix, layout.own)) for layout in batch.layouts]
    return plan_attention(rows, batch.positions)


@dataclass(frozen=True)
class Scored:
    """What the forward says of each of the M targets."""

    logprobs_M: Tensor
    entropy_M: Tensor  # detached: a metric


def score_targets(model: Any, batch: Batch, plan: AttentionPlan, temperature: float = 1.0) -> Scored:
    """log π(target) and entropy at `temperature` for every target of `batch`, float32, [M].

    The head is applied to the positions that predict a target and to no other.
    """
    logits = model(
        input_ids=batch.tokens[None],
        position_ids=batch.positions[None],
        attention_plan=plan,
        logits_to_keep=batch.sources,
        use_cache=False,
    ).logits[0]
    with torch.no_grad():
        entropy = logprobs.entropy(logits, temperature)
    return Scored(logprobs.chosen_logprobs(logits, batch.targets, temperature), entropy)
