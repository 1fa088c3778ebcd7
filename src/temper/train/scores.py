"""A number for positions of a packed batch: what reward models and value models say, with a gradient.

Shapes: N packed tokens, M targets, K positions asked for, E hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from temper.data.batching import Batch, Layout, make_batch, packed_tokens
from temper.errors import ConfigError, Fault
from temper.kernels.packed import AttentionPlan
from temper.models.load import supports_shared_prefix
from temper.models.scalar import SharedTrunk, apply_head, head_of
from temper.train.forward import Scored, plan_batch, run_packed, take_model_apart
from temper.train.head import score_hidden
from temper.train.plain import plain_hidden
from temper.types import Example


@dataclass(frozen=True)
class AskedExample(Example):
    """An `Example` whose reply is what `mask` marks; `asked` are the tokens, by index, that a number is wanted at."""

    asked: tuple[int, ...]


def score_positions(model: Any, batch: Batch, plan: AttentionPlan, positions_K: Tensor) -> Tensor:
    """What the scalar model says at the packed positions `positions_K`, float32, [K].

    A value model says the value of the state before target m at position `batch.sources[m]`: the prompt's last token
    for the first. Tokens that follow a position never change what is said there.
    """
    inner = _inside(model)
    return apply_head(head_of(inner), _hidden(inner, batch, plan, positions_K))


def score_shared(
    model: SharedTrunk, batch: Batch, plan: AttentionPlan, positions_K: Tensor, temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Scored, Tensor]:  # fmt: skip
    """`score_targets` of the policy, and the values [K] of its value head, by one forward pass.

    Raises ConfigError for a policy whose head cannot be told from its backbone.
    """
    parts = take_model_apart(model.policy)
    if parts is None:
        what = f"`{model.config.model_type}` cannot share its trunk with a value head"
        raise ConfigError(Fault(what, fix="use a separate value model"))
    hidden = run_packed(parts.backbone, batch, plan).last_hidden_state[0]
    chosen, entropy = score_hidden(parts.head, hidden[batch.sources], batch.targets, temperature)
    scored = Scored(chosen, entropy if entropy_gradient else entropy.detach())
    return scored, apply_head(model.value_head, hidden[positions_K])


def score_shared_positions(model: SharedTrunk, batch: Batch, plan: AttentionPlan, positions_K: Tensor) -> Tensor:
    """The values [K] of the value head alone."""
    return apply_head(model.value_head, _hidden(_inside(model.policy), batch, plan, positions_K))


def _inside(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's wrapper has one


def _hidden(model: Any, batch: Batch, plan: AttentionPlan, positions_K: Tensor) -> Tensor:
    if supports_shared_prefix(model):
        return run_packed(model.base_model, batch, plan).last_hidden_state[0, positions_K]
    return plain_hidden(model.base_model, batch, positions_K)


def packed_position(layout: Layout, index: int) -> int:
    """Where token `index` of an example stands in the packed row.

    >>> packed_position(Layout(prefix=range(0, 2), own=range(5, 9)), 3)
    6
    """
    shared = len(layout.prefix)
    return layout.prefix[index] if index < shared else layout.own[index - shared]


def asked_batch(examples: Sequence[AskedExample], device: torch.device | str = "cpu") -> tuple[Batch, Tensor]:
    """The examples packed, and the packed position of everything they ask for, in order.

    >>> rows = [AskedExample((1, 2, 3, 4), (False, False, True, True), asked=(3,)),
    ...         AskedExample((1, 2, 5), (False, False, True), asked=(2,))]
    >>> batch, positions = asked_batch(rows)
    >>> batch.tokens[positions].tolist()
    [4, 5]
    """
    batch = make_batch(examples)
    places = [
        packed_position(layout, index)
        for example, layout in zip(examples, batch.layouts, strict=True)
        for index in example.asked
    ]
    return batch.to(device), torch.tensor(places, device=device)


def score_asked(model: Any, examples: Sequence[AskedExample]) -> Tensor:
    """What the scalar model says at everything that `examples` ask for, in order, [K]."""
    batch, positions = asked_batch(examples, model.device)
    return score_positions(model, batch, plan_batch(batch), positions)


def split_asked(units: Sequence[Sequence[AskedExample]], budget: int) -> list[list[int]]:
    """Indices of units (a pair, or a row alone) in micro-batches of at most `budget` tokens: a unit is never cut, and
    lengths are kept similar. The tokens before a reply count once a unit.

    >>> one = lambda *tokens: [AskedExample(tokens, (False,) + (True,) * (len(tokens) - 1), (1,))]
    >>> split_asked([one(1, 2), one(1, 2, 3, 4), one(3, 4)], 4)
    [[0, 2], [1]]
    """
    costs = [unit_tokens(unit) for unit in units]
    parts: list[list[int]] = []
    used = budget + 1
    for index in sorted(range(len(units)), key=lambda i: costs[i]):
        if used + costs[index] > budget:
            parts.append([])
            used = 0
        parts[-1].append(index)
        used += costs[index]
    return parts


def unit_tokens(unit: Iterable[AskedExample]) -> int:
    """Tokens of a unit laid down, those before a reply once."""
    return packed_tokens(list(unit))
