"""Gradients of weights that go straight to where they gather.

autograd wants a gradient of its own from every backward pass and adds it to the weight's `grad` afterwards: of a large
model as much memory as the weights take, made, filled and read once more for every micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_asked = [False]


@contextmanager
def straight(asked: bool = True) -> Iterator[None]:
    """Within it, if `asked`, backward passes of this package add to a weight's `grad` themselves, where it has one;
    within `torch.autograd.grad`, too, which then does not return it."""
    before, _asked[0] = _asked[0], asked
    try:
        yield
    finally:
        _asked[0] = before


def place_of(weight: Tensor) -> Tensor | None:
    """Where the gradient of `weight` is to be added; None where it has to go through autograd.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> weight.grad = torch.zeros(2)
    >>> place_of(weight)
    >>> with straight():
    ...     place_of(weight)
    tensor([0., 0.])
    """
    if not _asked[0] or not weight.is_leaf or weight.grad is None:
        return None
    listened_to = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    place = weight.grad
    fits = place.dtype == weight.dtype == torch.float32 and place.device.type == "cpu" and place.is_contiguous()
    return None if listened_to or not fits else place


def embed(embedding: nn.Module, ids: Tensor) -> Tensor:
    """What `embedding` says of `ids`. Of its weight's gradient only their rows are made, with the same bits, where it
    may go straight to where it gathers."""
    is_plain = type(embedding) is nn.Embedding and embedding.max_norm is None
    if not is_plain or embedding.scale_grad_by_freq or embedding.sparse:
        return embedding(ids)
    return _Rows.apply(ids, embedding.weight, embedding.padding_idx)  # type: ignore[return-value]


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids, weight)
        ctx.padding = padding
        return nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ids, weight = ctx.saved_tensors
        dense, place = torch.ops.aten.embedding_dense_backward, place_of(weight)
        if place is None:
            return None, dense(gradient, ids, len(weight), -1 if ctx.padding is None else ctx.padding, False), None
        if ctx.padding is not None:
            is_trained = ids != ctx.padding
            ids, gradient = ids[is_trained], gradient[is_trained]
        rows, places = ids.unique(return_inverse=True)
        place.index_add_(0, rows, dense(gradient, places, len(rows), -1, False))
        return None, None, None
