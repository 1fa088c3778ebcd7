"""Weights of linear layers that have one input, side by side in memory: one product instead of two or three.

The parameters stay what they are and keep their names. They only lie next to one another, so that all of them together
are a matrix too: nothing is held twice, and an update in place is an update of both.

Shapes: N rows, I what goes into the layers, O what comes out of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def join(parts: Sequence[nn.Parameter]) -> None:
    """Lay `parts` side by side; what they hold moves, where it did not lie so already."""
    if joined(parts) is None:
        pieces = torch.cat([part.data for part in parts]).split([len(part) for part in parts])
        for part, piece in zip(parts, pieces, strict=True):
            part.data = piece


def joined(parts: Sequence[Tensor]) -> Tensor | None:
    """All `parts` as one tensor, without a copy and without a gradient; None where they do not lie side by side.

    >>> a, b = torch.arange(6.0).view(3, 2).split([1, 2])
    >>> joined([a, b]), joined([b, a])
    (tensor([[0., 1.],
            [2., 3.],
            [4., 5.]]), None)
    """
    first, at = parts[0], parts[0].data_ptr()
    storage = first.untyped_storage().data_ptr()
    for part in parts:
        here = part.data_ptr() == at and part.untyped_storage().data_ptr() == storage
        if not here or part.dtype != first.dtype or part.shape[1:] != first.shape[1:] or not part.is_contiguous():
            return None
        at += part.numel() * part.element_size()
    return first.detach().as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def product(x_NI: Tensor, layers: Sequence[Any]) -> Tensor:
    """What linear `layers` say of the same rows [N, O], in one product where their weights lie side by side."""
    weights = [layer.weight for layer in layers]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    weight, bias = joined(weights), joined(biases) if biases else None
    if weight is None or len(biases) not in (0, len(layers)) or (biases and bias is None):
        return torch.cat([layer(x_NI) for layer in layers], -1)
    if not torch.is_grad_enabled():
        return nn.functional.linear(x_NI, weight, bias)
    return _Product.apply(x_NI, *weights, *biases)  # type: ignore[return-value]


class _Product(torch.autograd.Function):
    """Of rows and of the parts of a matrix, each of which gets its part of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        weights, biases = _apart(parts)
        ctx.save_for_backward(x, *parts)
        weight = joined(weights)
        assert weight is not None
        return nn.functional.linear(x, weight, joined(biases) if biases else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parts = ctx.saved_tensors
        weights, _ = _apart(parts)
        weight, sizes = joined(weights), [len(part) for part in weights]
        assert weight is not None
        needed = ctx.needs_input_grad
        of_x = gradient @ weight if needed[0] else None
        of_parts: list[Tensor | None] = [None] * len(parts)
        if any(needed[1 : 1 + len(weights)]):
            of_parts[: len(weights)] = (gradient.T @ x).split(sizes)
        if any(needed[1 + len(weights) :]):
            of_parts[len(weights) :] = gradient.sum(0).split(sizes)
        return of_x, *(part if need else None for part, need in zip(of_parts, needed[1:], strict=True))


def _apart(parts: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """(weights, biases)."""
    weights = [part for part in parts if part.ndim == 2]
    return weights, parts[len(weights) :]
