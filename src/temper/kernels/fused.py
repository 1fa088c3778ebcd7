"""What a Llama-like layer does between its matrix products, as autograd functions over `layers.c`: float32 on a CPU.

torch runs each of these as five to ten passes over memory, and as many again in the backward pass.

Shapes: N tokens, S size of what is normed or gated, H heads, D head size.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temper.kernels.compiler import Functions
from temper.kernels.product import apply

SOURCE = Path(__file__).with_name("layers.c")
PARTS = 16  # pieces of the rows whose sums make a weight's gradient
SMALL = 1 << 15  # floats that one thread is done with before a second has begun
# f(g) = g sigmoid(a g + b g³), by the names transformers has for it
ACTIVATIONS = {"silu": (1.0, 0.0), "gelu_tanh": (1.5957691216057308, 0.07135481282052)}


def available() -> bool:
    """Whether the functions of this module can be called here."""
    return _functions.available


def rms_norm(x_NS: Tensor, scale_S: Tensor, eps: float) -> Tensor:
    """x · scale / √(mean(x²) + eps).

    >>> rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0) if available() else None
    tensor([[0.8485, 2.2627]])
    """
    return apply(_RmsNorm, x_NS.contiguous(), scale_S.contiguous(), eps)


def gated(x_N2S: Tensor, activation: str) -> Tensor:
    """[N, S]: activation(gate) · value of rows that hold S gates and then S values.

    >>> gated(torch.tensor([[1.0, 3.0]]), "silu") if available() else None
    tensor([[2.1932]])
    """
    return apply(_Gated, x_N2S.contiguous(), *ACTIVATIONS[activation])


def rotated(x_NHD: Tensor, cosine_ND: Tensor, sine_ND: Tensor) -> Tensor:
    """Rotary positions (2104.09864): of each head (x₁, x₂), two halves, (x₁ cos − x₂ sin, x₂ cos + x₁ sin).

    >>> rotated(torch.tensor([[[1.0, 2.0]]]), torch.zeros(1, 2), torch.ones(1, 2)) if available() else None
    tensor([[[-2.,  1.]]])
    """
    return apply(_Rotated, _rows_apart(x_NHD), cosine_ND.contiguous(), sine_ND.contiguous())


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        out, inverse = torch.empty_like(x), x.new_empty(x.shape[0])
        _call("rms_norm", x, scale, out, inverse, *x.shape, eps, _threads(x))
        ctx.save_for_backward(x, scale, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, inverse = ctx.saved_tensors
        gradient, of_x, of_scale = gradient.contiguous(), torch.empty_like(x), x.new_empty(PARTS, len(scale))
        _call("rms_norm_backward", x, scale, inverse, gradient, of_x, of_scale, *x.shape, PARTS, _threads(x))
        return of_x, of_scale.sum(0), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: float, b: float) -> Tensor:
        rows, size = x.shape[0], x.shape[1] // 2
        out = x.new_empty(rows, size)
        ctx.save_for_backward(x)
        ctx.numbers = (rows, size, a, b, _threads(x))
        _call("gated", x, out, *ctx.numbers)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        of_x = torch.empty_like(x)
        _call("gated_backward", x, gradient.contiguous(), of_x, *ctx.numbers)
        return of_x, None, None


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotate(x, cosine, sine, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _rotate(_rows_apart(gradient), *ctx.saved_tensors, back=True), None, None


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor, back: bool) -> Tensor:
    out = torch.empty(x.shape)
    _call("rotate", x, out, cosine, sine, *x.shape, x.stride(0), out.stride(0), back, _threads(x))
    return out


def _rows_apart(x_NHD: Tensor) -> Tensor:
    """`x_NHD` with the heads of a row side by side, copied if they are not."""
    return x_NHD if x_NHD.stride()[1:] == (x_NHD.shape[2], 1) else x_NHD.contiguous()


def _threads(x: Tensor) -> int:
    return 1 if x.numel() < SMALL else torch.get_num_threads()


def _call(name: str, *arguments: Any) -> None:
    """A function of the C file: tensors go by their address."""
    values = (value.data_ptr() if isinstance(value, Tensor) else value for value in arguments)
    _functions[name](*values)


_pointer, _number, _real = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_functions = Functions(
    SOURCE,
    {
        "rms_norm": [_pointer] * 4 + [_number] * 2 + [_real, _number],
        "rms_norm_backward": [_pointer] * 6 + [_number] * 4,
        "gated": [_pointer] * 2 + [_number] * 2 + [_real] * 2 + [_number],
        "gated_backward": [_pointer] * 3 + [_number] * 2 + [_real] * 2 + [_number],
        "rotate": [_pointer] * 4 + [_number] * 7,
    },
)
