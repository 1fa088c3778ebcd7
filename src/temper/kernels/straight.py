"""Gradients of weights that go straight to where they gather.

autograd wants a gradient of its own from every backward pass and adds it to the weight's `grad` afterwards: of a large
model as much memory as the weights take, made, filled and read once more for every micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_asked = [False]


@contextmanager
def straight(asked: bool = True) -> Iterator[None]:
    """Within it backward passes of this package may add to a weight's `grad` themselves, where it has one. So it must
    gather there whatever the loss: within `backward()`, never within `torch.autograd.grad`."""
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
