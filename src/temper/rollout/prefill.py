"""Prompts to keys and values: each distinct prompt goes through the model once, packed without padding.

Shapes: R runs (distinct prompts, without the prefix that all begin with), T tokens of the longest, H_kv key heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from temper.kernels.attention import Layers
from temper.kernels.packed import AttentionPlan
from temper.kernels.runs import Row
from temper.models.spare import without_spare
from temper.rollout.memory import TOKENS_A_FORWARD, whole_vectors

COMMON_PREFIX = 64  # tokens that all prompts must begin with for them to be computed once


@dataclass(frozen=True)
class Prefilled:
    """`logits_RV` predict what follows each run; `runs` and `prefix` are keys and values [R or 1, H_kv, T, D], runs
    padded on the right; `cut` is the length of the prefix, 0 where there is none."""

    logits_RV: Tensor
    runs: Layers
    lengths: tuple[int, ...]
    prefix: Layers
    cut: int


def prefill(model: Any, prompts: Sequence[tuple[int, ...]]) -> Prefilled:
    """`prompts` are distinct and not empty."""
    cut = common_prefix(prompts)
    prefix, runs = prompts[0][:cut], [prompt[cut:] for prompt in prompts]
    lengths = tuple(map(len, runs))
    logits: list[Tensor] = []
    laid: Layers = []
    head: Layers = []
    for chunk in chunks(lengths):
        part, packed, places = _forward(model, prefix, [runs[i] for i in chunk])
        logits.append(part)
        if not laid:
            shape = (len(runs), packed[0][0].shape[1], whole_vectors(max(lengths)))
            laid = [(k.new_zeros(*shape, k.shape[-1]), v.new_zeros(*shape, v.shape[-1])) for k, v in packed]
            head = [(k[:cut].transpose(0, 1)[None], v[:cut].transpose(0, 1)[None]) for k, v in packed] if cut else []
        for whole, pair in zip(laid, packed, strict=True):
            for into, tensor in zip(whole, pair, strict=True):
                _lay_out(tensor, places, into[chunk.start : chunk.stop])
    return Prefilled(torch.cat(logits), laid, lengths, head, cut)


def _forward(
    model: Any, prefix: tuple[int, ...], runs: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Layers, list[range]]:
    """Logits after each run, each layer's packed keys and values [N, H_kv, D], and where the runs stand in them."""
    cut = len(prefix)
    tokens, positions, places = list(prefix), list(range(cut)), []
    for run in runs:
        places.append(range(len(tokens), len(tokens) + len(run)))
        tokens += run
        positions += range(cut, cut + len(run))
    first = range(cut)
    rows = [Row(first)] if cut else []
    rows += [Row(place, first) for place in places]
    position_ids = torch.tensor(positions, device=model.device)
    plan = AttentionPlan(rows, position_ids, keep=True)
    logits = model(
        input_ids=torch.tensor([tokens], device=model.device),
        position_ids=position_ids[None],
        attention_plan=plan,
        logits_to_keep=torch.tensor([place.stop - 1 for place in places], device=model.device),
        use_cache=False,
    ).logits[0]
    assert plan.kept is not None
    return without_spare(model, logits), plan.kept, places


def chunks(lengths: Sequence[int]) -> Iterator[range]:
    """Neighbouring runs of at most `TOKENS_A_FORWARD` tokens together (one alone may be longer)."""
    start = tokens = 0
    for i, length in enumerate(lengths):
        if i > start and tokens + length > TOKENS_A_FORWARD:
            yield range(start, i)
            start, tokens = i, 0
        tokens += length
    yield range(start, len(lengths))


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens of the prompts are computed once for all; each keeps at least one of its own.

    >>> common_prefix([(1,) * 70 + (2,), (1,) * 80]), common_prefix([(1, 2), (1, 3)])
    (70, 0)
    """
    low, high = min(prompts), max(prompts)
    shortest = min(map(len, prompts)) - 1
    same = next((i for i in range(shortest) if low[i] != high[i]), shortest)
    return same if same >= COMMON_PREFIX and len(prompts) > 1 else 0


def _lay_out(packed_NHD: Tensor, places: Sequence[range], into_RHTD: Tensor) -> None:
    """Runs to rows; past a run's end stand tokens of another, which no query may see."""
    starts = torch.tensor([place.start for place in places])
    index = starts[:, None] + torch.arange(max(map(len, places)))
    rows = packed_NHD[index.clamp_max(len(packed_NHD) - 1).to(packed_NHD.device)]
    into_RHTD[:, :, : rows.shape[1]] = rows.transpose(1, 2)
