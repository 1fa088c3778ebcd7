"""Whether a large model's layers are faster in one call, by `trunk.py`, than torch's products of them alone.

Of a small model that was measured once and for all (decision 16); of a large one products are nearly all of the time,
and a library may know a processor better. Tried with the first layer, on tokens enough for some tenths of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from temper.kernels import choice
from temper.kernels.product import linear
from temper.kernels.stack import Trunk, sizes_of
from temper.kernels.straight import straight

NUMBERS = 1 << 31  # tokens times weights of the trial
FEWEST, MOST, ROW = 256, 512, 64  # tokens of it, and of a row
SAVED = 1.1  # layers that take no more than 1.1 of their products' time are ahead: what torch does beside takes longer
Run = Callable[[Trunk, Tensor, int], Tensor]  # of a trunk, for tokens in rows of so many


def is_faster(trunk: Trunk, run: Run) -> bool:
    """Whether `run`, forward and backward, is the faster way here; asked once for every shape of layers."""
    width, heads, key_heads, size = sizes_of(trunk)
    inner = trunk.layers[0].mlp.gate_proj.out_features
    shape = choice.of_layers(width, inner, heads * size, key_heads * size)
    return choice.chosen(shape, partial(_ways, trunk, run), choice.OWN, SAVED) == choice.OWN


def _ways(trunk: Trunk, run: Run) -> tuple[Callable[[], object], Callable[[], object]]:
    one = replace(trunk, layers=trunk.layers[:1], rotaries=trunk.rotaries[:1])
    found = one.layers[0].weights().values()
    weights = [weight for weight in found if weight is not None and weight.ndim == 2]
    tokens = max(FEWEST, min(MOST, NUMBERS // sum(weight.numel() for weight in weights))) // ROW * ROW
    inputs = [torch.ones(tokens, weight.shape[1], requires_grad=True) for weight in weights]

    def products() -> None:
        with torch.enable_grad():
            for x, weight in zip(inputs, weights, strict=True):
                _back(linear(x, weight), [x, weight])

    places = [torch.zeros_like(weight) for weight in weights]

    def layers() -> None:
        with torch.enable_grad(), straight(), _gathering(weights, places):
            _back(run(one, inputs[0], ROW), inputs[:1])

    return products, layers


@contextmanager
def _gathering(weights: Sequence[Tensor], places: Sequence[Tensor]) -> Iterator[None]:
    """Gradients of `weights` are added to `places`, as an update adds them to where they gather."""
    before = [weight.grad for weight in weights]
    try:
        for weight, place in zip(weights, places, strict=True):
            weight.grad = place
        yield
    finally:
        for weight, place in zip(weights, before, strict=True):
            weight.grad = place


def _back(said: Tensor, inputs: Sequence[Tensor]) -> None:
    asked = [tensor for tensor in inputs if tensor.requires_grad]  # a frozen weight is not
    torch.autograd.grad(said, asked, torch.ones_like(said))
