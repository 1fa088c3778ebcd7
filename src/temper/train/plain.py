"""The forward pass of training for a model that cannot be packed: every example in a row of its own.

Shapes: M targets, T tokens of a chunk's longest row, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from temper.data.batching import Batch
from temper.models.causal import takes

ROWS_A_FORWARD = 8  # of similar length


def plain_logits(model: Any, batch: Batch) -> Tensor:
    """The logits [M, V] that predict the targets of `batch`, by the model's own forward, which keeps gradients.

    Rows are padded on the right: no token of a causal model, recurrent or not, depends on what follows it.
    """
    examples = [_tokens_of(batch, row) for row in range(len(batch.layouts))]
    by_length = sorted(batch.rows.unique().tolist(), key=lambda row: len(examples[row]))
    parts, order = [], []
    for start in range(0, len(by_length), ROWS_A_FORWARD):
        chunk = by_length[start : start + ROWS_A_FORWARD]
        logits = _forward(model, batch, [examples[row] for row in chunk], chunk)
        parts.append(logits)
        order.append(_targets_of(batch, chunk))
    return torch.cat(parts)[torch.cat(order).argsort()]


def _targets_of(batch: Batch, chunk: list[int]) -> Tensor:
    return torch.isin(batch.rows, torch.tensor(chunk, device=batch.rows.device)).nonzero().squeeze(-1)


def _forward(model: Any, batch: Batch, rows: list[Tensor], chunk: list[int]) -> Tensor:
    """The logits of the targets of the examples `chunk`, in the order of the batch."""
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    targets = _targets_of(batch, chunk)
    places = batch.positions[batch.sources[targets]]
    first = int(places.min()) if takes(model, "logits_to_keep") else 0
    kept = {"logits_to_keep": tokens.shape[1] - first} if first else {}
    logits = model(input_ids=tokens, use_cache=False, **kept).logits
    row_of = torch.empty(len(batch.layouts), dtype=torch.long, device=tokens.device)
    row_of[torch.tensor(chunk, device=tokens.device)] = torch.arange(len(chunk), device=tokens.device)
    return logits[row_of[batch.rows[targets]], places - first]


def plain_hidden(backbone: Any, batch: Batch, positions_K: Tensor) -> Tensor:
    """The last hidden states [K, E] at packed positions of `batch`, by the backbone's own forward over padded rows."""
    home: dict[int, tuple[int, int]] = {}  # packed position -> (example, its token); a shared prefix is any one's
    for row, layout in enumerate(batch.layouts):
        home |= {place: (row, i) for i, place in enumerate((*layout.prefix, *layout.own))}
    asked = [home[place] for place in positions_K.tolist()]
    rows = sorted({row for row, _ in asked}, key=lambda row: len(_tokens_of(batch, row)))
    found: dict[int, Tensor] = {}
    for start in range(0, len(rows), ROWS_A_FORWARD):
        chunk = rows[start : start + ROWS_A_FORWARD]
        padded = torch.nn.utils.rnn.pad_sequence([_tokens_of(batch, row) for row in chunk], batch_first=True)
        hidden = backbone(input_ids=padded, use_cache=False).last_hidden_state
        found |= dict(zip(chunk, hidden, strict=True))
    return torch.stack([found[row][i] for row, i in asked])


def _tokens_of(batch: Batch, row: int) -> Tensor:
    layout = batch.layouts[row]
    return torch.cat([batch.tokens[part.start : part.stop] for part in (layout.prefix, layout.own)])
