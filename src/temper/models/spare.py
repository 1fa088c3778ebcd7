"""Rows of a model's head that are no token: an embedding padded to a round number, or resized beyond its tokenizer.

They are left out of every softmax, where tokens are drawn and where log-probs are computed alike: whatever their logits
are, such an id is never sampled and takes no probability from those that mean something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from temper.models.checks import token_ids

NEVER = -1e30  # the logit of what cannot be drawn: finite, so that 0 · logit is 0
_NAME = "temper_spare_ids"


def find_spare(model: Any, path: Path) -> str | None:
    """Look up in the tokenizer of the directory `path` which rows of the model's head are no token, and keep that with
    the model. What there is to be told of it, or None."""
    head = model.get_output_embeddings()
    known = set(token_ids(path).values())
    if head is None or not known:
        return None
    rows = len(head.weight)
    spare = [row for row in range(rows) if row not in known]
    setattr(model, _NAME, {torch.device("cpu"): torch.tensor(spare)} if spare else {})
    if not spare:
        return None
    return f"{len(spare):,} of the model's {rows:,} rows are no token of its tokenizer: they are never drawn or counted"


def spare_ids(model: Any) -> Tensor | None:
    """The ids of the head's rows that are no token, on the model's device; None where there are none."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's wrapper has one
    kept: dict[torch.device, Tensor] = getattr(inner, _NAME, {})
    if not kept:
        return None
    if model.device not in kept:
        kept[model.device] = next(iter(kept.values())).to(model.device)
    return kept[model.device]


def without_spare(model: Any, logits: Tensor) -> Tensor:
    """`logits` [..., V] with those of no token at NEVER."""
    spare = spare_ids(model)
    return logits if spare is None else logits.index_fill(-1, spare, NEVER)
