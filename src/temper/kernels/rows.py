"""Attention over packed rows in one call, forward and backward, by `attend.h`: float32 on a CPU.

For rows of some tens to hundreds of tokens torch's flash attention spends more on laying them out than on attending.

Shapes: N packed tokens, R rows, H heads, H_kv key heads, D head size.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temper.kernels.compiler import OPENMP, load_library
from temper.kernels.runs import Row

SOURCE = Path(__file__).with_name("trunk.c")  # which has it too
MOST = 1024  # keys of a row, up to which it was measured beside flash attention, which keeps fewer scores
WIDTH = 16  # a head size is a multiple of this


def works_on(query_NHD: Tensor, longest: int) -> bool:
    """Whether `attend_rows` can be called for such queries, and is the faster way for rows that see `longest` keys."""
    kind = query_NHD.dtype == torch.float32 and query_NHD.device.type == "cpu"
    return kind and longest <= MOST and query_NHD.shape[-1] % WIDTH == 0 and _library() is not None


def table_of(rows: Sequence[Row]) -> Tensor:
    """[R, 4]: first token and number of tokens of each row's own run, then of its prefix."""
    numbers = array("q")  # torch.tensor takes seven times as long
    for row in rows:
        numbers.extend((row.own.start, len(row.own), row.prefix.start, len(row.prefix)))
    return torch.frombuffer(numbers, dtype=torch.int64).view(-1, 4) if rows else torch.empty(0, 4, dtype=torch.int64)


def attend_rows(query_NHD: Tensor, key_NHD: Tensor, value_NHD: Tensor, table_R4: Tensor, scale: float) -> Tensor:
    """[N, H, D]: each token mixes the values of its row's prefix and of its row up to itself. With gradients."""
    return _Attend.apply(*map(_heads_beside, (query_NHD, key_NHD, value_NHD)), table_R4, scale)  # type: ignore


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, scale: float) -> Tensor:
        out, logsum = query.new_empty(query.shape), query.new_empty(query.shape[:2])
        shape = _shape(query, key, value, table, scale)
        _call("attend", shape, query, key, value, out, logsum, torch.get_num_threads())
        ctx.save_for_backward(query, key, value, table, out, logsum)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, table, out, logsum = ctx.saved_tensors
        shape = _shape(query, key, value, table, ctx.scale)
        of_query = query.new_empty(query.shape)
        of_key, of_value = key.new_zeros(key.shape), value.new_zeros(value.shape)
        given = query, key, value, out, logsum, gradient.contiguous(), of_query, of_key, of_value
        _call("attend_backward", shape, *given, torch.get_num_threads())
        return of_query, of_key, of_value, None, None


class _Shape(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("count", "key_heads", "group", "size")),
        *((name, ctypes.c_long) for name in ("query_stride", "key_stride", "value_stride", "most")),
        ("scale", ctypes.c_float),
    ]


def _shape(query: Tensor, key: Tensor, value: Tensor, table: Tensor, scale: float) -> _Shape:
    _, key_heads, size = key.shape
    most = int((table[:, 1] + table[:, 3]).max()) if len(table) else 0
    strides = query.stride(0), key.stride(0), value.stride(0)
    return _Shape(table.data_ptr(), len(table), key_heads, query.shape[1] // key_heads, size, *strides, most, scale)


def _heads_beside(x_NHD: Tensor) -> Tensor:
    """`x_NHD` with the heads of a token side by side, copied if they are not."""
    return x_NHD if x_NHD.stride()[1:] == (x_NHD.shape[2], 1) else x_NHD.contiguous()


def _call(name: str, shape: _Shape, *arguments: Any) -> None:
    library = _library()
    assert library is not None, "asked only where `works_on`"
    values = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else ctypes.c_long(x) for x in arguments]
    getattr(library, name)(ctypes.byref(shape), *values)


@functools.cache
def _library() -> ctypes.CDLL | None:
    return load_library(SOURCE, OPENMP)
