"""The matrix products of linear layers, by whichever of torch's two libraries is faster for them on this machine.

torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors only; oneDNN, which torch has too,
uses it on all. On a Zen 5 core that is 105 and 235 billion operations a second; on a Zen 4 core 98 and 106, and what
oneDNN's pieces cost is more. So it is measured, once for every shape of weights (`choice`).

oneDNN keeps what it prepared for every shape it has met, half a megabyte each, and packed batches have another number
of rows every time. So it is given pieces of a few sizes only, and MKL the rows left over.

Shapes: N rows, I what goes into a layer, O what comes out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temper.kernels.choice import ONEDNN, chosen

PIECES = (512, 128)  # rows of a piece; fewer are left to MKL, as preparing a call costs more than it saves
TRIED_ROWS, TRIED_NUMBERS = 2000, 1 << 20  # to try a way on: the rows of a micro-batch, or fewer wide ones
WIDEST = 8192  # of a vocabulary so much will do


def linear(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias [N, O], with a gradient.

    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([0.5]))
    tensor([[11.5000]])
    """
    if len(x_NI) < PIECES[-1] or not serves(x_NI, weight_OI):
        return torch.nn.functional.linear(x_NI, weight_OI, bias_O)
    return apply(_Linear, x_NI, weight_OI, bias_O)


def multiply(left: Tensor, right_OI: Tensor, out: Tensor) -> Tensor:
    """left rightᵀ, in `out` or in a new tensor. No gradient."""
    if len(left) < PIECES[-1] or not serves(left, right_OI):
        return torch.mm(left, right_OI.T, out=out)
    return _multiply(left, right_OI, out=out)


def serves(x: Tensor, weight_OI: Tensor) -> bool:
    """Whether oneDNN is the faster one here for products of rows like `x` with this weight, or one of its shape."""
    if x.dtype != torch.float32 or weight_OI.dtype != torch.float32 or x.device.type != "cpu" or not has_onednn():
        return False
    outs, ins = weight_OI.shape
    return chosen(f"{ins}x{outs}", partial(_ways, ins, outs)) == ONEDNN


@functools.cache
def has_onednn() -> bool:
    """Whether oneDNN's operations are here and right: they are not part of torch's public interface."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, gradient = torch.randn(3, 160, 160, generator=torch.Generator().manual_seed(0))
    try:
        found = _multiply(x, weight), _weight_gradient(gradient, x, weight, False)[0]
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(found[0], x @ weight.T, atol=1e-4) and torch.allclose(found[1], gradient.T @ x, atol=1e-4)


def _ways(ins: int, outs: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The three products of a layer of this shape, forward and backward, by torch's default and by oneDNN."""
    ins, outs = min(ins, WIDEST), min(outs, WIDEST)
    rows = max(PIECES[-1], min(TRIED_ROWS, TRIED_NUMBERS // max(ins, outs)))
    x, weight, gradient = torch.ones(rows, ins), torch.ones(outs, ins), torch.ones(rows, outs)

    def plain() -> None:
        torch.mm(x, weight.T)
        torch.mm(gradient, weight)
        torch.mm(gradient.T, x)

    def onednn() -> None:
        _multiply(x, weight)
        _multiply(gradient, weight.T)
        _weight_gradient(gradient, x, weight, False)

    return plain, onednn


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """`function.apply`, or, without gradient, its forward alone: a sampler's step calls many small ones."""
    return function.apply(*inputs) if torch.is_grad_enabled() else function.forward(_Forgetful(), *inputs)  # type: ignore


class _Forgetful:
    """The context of a pass that no backward pass follows."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        pass


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = _multiply(gradient, weight.T) if ctx.needs_input_grad[0] else None
        of_weight, of_bias = None, None
        if ctx.needs_input_grad[1]:
            of_weight, of_bias = _weight_gradient(gradient, x, weight, ctx.needs_input_grad[2])
        elif ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias if ctx.needs_input_grad[2] else None


def _pieces(rows: int) -> tuple[list[slice], slice]:
    """Slices of one size that a product is cut into, and the rows left over.

    >>> _pieces(1100)
    ([slice(0, 512, None), slice(512, 1024, None)], slice(1024, 1100, None))
    """
    size = next((size for size in PIECES if rows >= size), rows + 1)
    whole = rows // size * size
    return [slice(start, start + size) for start in range(0, whole, size)], slice(whole, rows)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    pieces, rest = _pieces(len(x))
    if len(pieces) == 1 and rest.start == rest.stop and out is None:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    out = x.new_empty(len(x), len(weight)) if out is None else out
    for piece in pieces:
        out[piece] = torch.ops.mkldnn._linear_pointwise(x[piece], weight, bias, "none", [], "")
    if rest.start < rest.stop:
        torch.mm(x[rest], weight.T, out=out[rest])
        if bias is not None:
            out[rest] += bias
    return out


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, with_bias: bool) -> tuple[Tensor, Tensor | None]:
    """Of weight and bias; the operation wants its inputs in oneDNN's own tensors."""
    pieces, rest = _pieces(len(x))
    of_weight = torch.mm(gradient[rest].T, x[rest])  # 0 where nothing is left over
    for piece in pieces:
        of_weight += torch.ops.aten.mkldnn_linear_backward_weights(
            gradient[piece].to_mkldnn(), x[piece].to_mkldnn(), weight, False
        )[0]
    return of_weight, gradient.sum(0) if with_bias else None
