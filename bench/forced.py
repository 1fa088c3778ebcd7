"""Completions of given lengths out of transformers' `generate`, by its own means: the end token stops a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class ForcedLengths(LogitsProcessor):
    """Forbids the end token, and forces it as the last token of every row that is to end before `new_tokens`."""

    def __init__(self, lengths: Sequence[int], prompt_tokens: int, new_tokens: int, eos: int, device: str):
        self.prompt_tokens = prompt_tokens
        self.eos = eos
        self.ending: dict[int, Tensor] = {}  # tokens already drawn -> rows whose next token is their last
        for length in set(lengths) - {new_tokens}:
            rows = [row for row, own in enumerate(lengths) if own == length]
            self.ending[length - 1] = torch.tensor(rows, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, self.eos] = float("-inf")  # in place: `generate` hands over a copy of the logits
        rows = self.ending.get(input_ids.shape[1] - self.prompt_tokens)
        if rows is not None:
            scores[rows] = float("-inf")
            scores[rows, self.eos] = 0.0
        return scores
