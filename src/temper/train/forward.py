"""The one forward pass of training: a packed batch in, a log-prob for every target out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from temper.algorithms import logprobs
from temper.data.batching import Batch, make_batch
from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards
from temper.kernels.packed import AttentionPlan
from temper.kernels.runs import Row
from temper.models.load import supports_shared_prefix
from temper.models.spare import spare_ids, without_spare
from temper.train.head import Parts, score_hidden, take_apart
from temper.train.plain import plain_logits
from temper.types import Example


def plan_batch(batch: Batch) -> AttentionPlan:
    """A prefix attends to itself; what follows attends to its prefix and to itself."""
    prefixes = dict.fromkeys(layout.prefix for layout in batch.layouts if len(layout.prefix))
    rows = [Row(prefix) for prefix in prefixes]
    rows += [Row(layout.own, layout.prefix) for layout in batch.layouts]
    return AttentionPlan(rows, batch.positions)


@dataclass(frozen=True)
class Scored:
    """What the forward says of each of the M targets."""

    logprobs_M: Tensor
    entropy_M: Tensor  # a metric, detached, unless its gradient was asked for


def score_targets(
    model: Any, batch: Batch, plan: AttentionPlan, temperature: float = 1.0, entropy_gradient: bool = False
) -> Scored:
    """log π(target) and entropy at `temperature` for every target of `batch`, float32, [M].

    The head is applied to the positions that predict a target and to no other, a chunk of them at a time. A model that
    cannot be packed takes the plain way, with all its logits.
    """
    parts = take_model_apart(model)
    if parts is not None:
        chosen, entropy = score_hidden(parts.head, target_hidden(parts, batch, plan), batch.targets, temperature)
    else:
        logits = target_logits(model, batch, plan)
        chosen = logprobs.chosen_logprobs(logits, batch.targets, temperature)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = logprobs.entropy(logits, temperature)
    return Scored(chosen, entropy if entropy_gradient else entropy.detach())


def take_model_apart(model: Any) -> Parts | None:
    """The backbone and the head of a packed model, where they are all of it."""
    parts = take_apart(model, _probe) if supports_shared_prefix(model) else None
    return parts if parts is None else replace(parts, head=replace(parts.head, spare=spare_ids(model)))


def target_hidden(parts: Parts, batch: Batch, plan: AttentionPlan) -> Tensor:
    """The last hidden states [M, E] that predict the targets of `batch`."""
    return run_packed(parts.backbone, batch, plan).last_hidden_state[0, batch.sources]


def target_logits(model: Any, batch: Batch, plan: AttentionPlan) -> Tensor:
    """The logits [M, V] that predict the targets of `batch`, of any model, all at once."""
    if supports_shared_prefix(model):
        logits = run_packed(model, batch, plan, logits_to_keep=batch.sources).logits[0]
    else:
        logits = plain_logits(model, batch)
    return without_spare(model, logits)


def run_packed(module: Any, batch: Batch, plan: AttentionPlan, **options: Any) -> Any:
    """The output of a model, or of its backbone, for the one packed row."""
    with in_place(scoring_forwards(module)):
        return module(
            input_ids=batch.tokens[None],
            position_ids=batch.positions[None],
            attention_plan=plan,
            use_cache=False,
            **options,
        )


def _probe(module: Any) -> Any:
    """A few tokens through a model or its backbone."""
    size = len(module.get_input_embeddings().weight)
    tokens = tuple((7 + 31 * i) % size for i in range(8))
    batch = make_batch([Example(tokens, (False,) * 7 + (True,))]).to(module.device)
    return run_packed(module, batch, plan_batch(batch))
