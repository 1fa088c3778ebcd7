"""The log-prob of every token of a text, and the likeliest in its place: one forward pass, no drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from temper.data.batching import make_batch
from temper.train.forward import plan_batch, target_logits
from temper.types import Example

LOGITS_A_PASS = 1 << 26  # numbers: 256 MB of float32


@dataclass(frozen=True)
class ScoredText:
    """Of each token after the first `start`: its log-prob, and the likeliest tokens there with theirs, the
    likeliest first."""

    logprobs: tuple[float, ...]
    likeliest: tuple[tuple[tuple[int, float], ...], ...]


@torch.no_grad()
def score_text(model: Any, token_ids: Sequence[int], start: int, likeliest: int, temperature: float) -> ScoredText:
    """`start` is at least 1: nothing predicts the first token. Temperature 0 counts as 1, as where tokens are drawn."""
    vocabulary = model.config.get_text_config().vocab_size
    room = max(1, LOGITS_A_PASS // vocabulary)
    chosen: list[float] = []
    top: list[tuple[tuple[int, float], ...]] = []
    for begin in range(start, len(token_ids), room):
        end = min(len(token_ids), begin + room)
        ids = tuple(token_ids[:end])
        batch = make_batch([Example(ids, tuple(i >= begin for i in range(end)))]).to(model.device)
        logits = target_logits(model, batch, plan_batch(batch)).float()
        logprobs = (logits / temperature if temperature > 0 else logits).log_softmax(-1)
        chosen += logprobs.gather(-1, batch.targets[:, None]).squeeze(-1).tolist()
        if likeliest:
            values, tokens = logprobs.topk(min(likeliest, logprobs.shape[-1]))
            rows = zip(tokens.tolist(), values.tolist(), strict=True)
            top += [tuple(zip(row, numbers, strict=True)) for row, numbers in rows]
    return ScoredText(tuple(chosen), tuple(top))
