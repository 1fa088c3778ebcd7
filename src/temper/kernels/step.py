"""`step.c` for Python: what it is told of a model and of the rows that are decoded, and its two calls.

Who fills these in keeps the tensors alive whose addresses they hold.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from temper.kernels.compiler import OPENMP, Functions
from temper.kernels.spaces import space

SOURCE = Path(__file__).with_name("step.c")
FLAGS = (*OPENMP, "-fno-associative-math")  # so that a sum is the same for any number of rows

WHOLE, HALVED = 1, 2  # how a stack's weights are `laid`; 0: not
LARGE = 1 << 30  # bytes of such a copy, from which on it lies in what training has freed, and not in pages of its own

_pointer, _number, _real = ctypes.c_void_p, ctypes.c_long, ctypes.c_float


class LayerC(ctypes.Structure):
    """`struct layer`; None where a layer has no such weight."""

    tensors = (
        "before_attention", "query", "query_bias", "key", "key_bias", "value", "value_bias", "query_norm", "key_norm",
        "out", "out_bias", "after_attention", "before_mlp", "gate", "gate_bias", "up", "up_bias", "down", "down_bias",
        "after_mlp", "cosine", "sine",
    )  # fmt: skip
    reals = ("scale", "softcap", "eps", "head_eps", "a", "b")
    _fields_ = [(name, _pointer) for name in tensors] + [("window", _number), ("inner", _number)] + [
        (name, _real) for name in reals
    ]  # fmt: skip


class StackC(ctypes.Structure):
    """`struct stack`."""

    numbers = ("count", "width", "heads", "key_heads", "size", "vocabulary", "spares", "threads", "laid")
    _fields_ = [
        ("layers", ctypes.POINTER(LayerC)),
        *((name, _pointer) for name in ("embedding", "norm", "head", "head_bias", "spare")),
        *((name, _number) for name in numbers),
        *((name, _real) for name in ("embedding_scale", "eps", "softcap")),
    ]


class SharedC(ctypes.Structure):
    """`struct shared`."""

    _fields_ = [
        ("keys", ctypes.POINTER(_pointer)),
        ("values", ctypes.POINTER(_pointer)),
        ("run", _pointer),
        ("lengths", _pointer),
        ("tokens", _number),
        ("start", _number),
    ]


class FlightC(ctypes.Structure):
    """`struct flight`."""

    _fields_ = [
        ("shared", ctypes.POINTER(SharedC)),
        ("keys", ctypes.POINTER(_pointer)),
        ("values", ctypes.POINTER(_pointer)),
        *((name, _pointer) for name in ("tokens", "positions", "row", "draw_keys", "limits", "stops", "drawn")),
        *((name, _pointer) for name in ("all_tokens", "all_logprobs", "logits", "scratch")),
        *((name, _number) for name in ("shares", "rows", "columns", "column", "visible")),
        *((name, _number) for name in ("longest", "step", "stop_count")),
        ("temperature", _real),
    ]


def addresses(tensors: Sequence[Tensor]) -> Any:
    """A C array of where the tensors lie."""
    return (_pointer * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def available() -> bool:
    """Whether the functions of this module can be called here."""
    return _functions.available


def scratch(stack: StackC, flight: FlightC) -> int:
    """Floats that `flight.scratch` has to have room for."""
    return _functions["step_scratch"](ctypes.byref(stack), ctypes.byref(flight))


def laid(shapes: Sequence[Sequence[int]], weights: Iterable[Tensor], way: int) -> list[Tensor]:
    """Weights [out, in] of these shapes as a stack takes them whose weights are `laid`, side by side for products."""
    sizes = [_functions["step_laid"](*shape, way) for shape in shapes]
    together = 4 * sum(sizes) < LARGE
    panels = list(space(sum(sizes)).split(sizes)) if together else [torch.empty(size) for size in sizes]
    for weight, to in zip(weights, panels, strict=True):
        weight = weight.contiguous()
        _functions["step_lay"](weight.data_ptr(), to.data_ptr(), *weight.shape, way, torch.get_num_threads())
    return panels


def fits_half(weight: Tensor) -> bool:
    """Whether bfloat16 has all numbers of a weight, as of one that was stored in it."""
    count, threads = weight.numel(), torch.get_num_threads()
    return weight.is_contiguous() and bool(_functions["step_fits_half"](weight.data_ptr(), count, threads))


def forward(stack: StackC, flight: FlightC) -> None:
    """Logits of one step; nothing is drawn, and `flight` moves on by a column."""
    _functions["step_forward"](ctypes.byref(stack), ctypes.byref(flight))


def decode(stack: StackC, flight: FlightC, steps: int) -> int:
    """Steps with their draws, until a row ends or there have been `steps`; how many there were."""
    return _functions["step_decode"](ctypes.byref(stack), ctypes.byref(flight), steps)


def draw(stack: StackC, flight: FlightC, row_B: Tensor, tokens_B: Tensor) -> None:
    """Draws of requests that share rows: request b draws `tokens_B[b]` from the logits of row `row_B[b]`, which become
    weights."""
    of, to = row_B.data_ptr(), tokens_B.data_ptr()
    _functions["step_draw"](ctypes.byref(stack), ctypes.byref(flight), of, len(row_B), to)


_stack, _flight = ctypes.POINTER(StackC), ctypes.POINTER(FlightC)
_functions = Functions(
    SOURCE,
    {
        "step_forward": [_stack, _flight],
        "step_decode": [_stack, _flight, _number],
        "step_draw": [_stack, _flight, _pointer, _number, _pointer],
        "step_scratch": [_stack, _flight],
        "step_laid": [_number, _number, _number],
        "step_lay": [_pointer, _pointer, _number, _number, _number, _number],
        "step_fits_half": [_pointer, _number, _number],
    },
    dict.fromkeys(("step_decode", "step_scratch", "step_laid", "step_fits_half"), _number),
    FLAGS,
)
