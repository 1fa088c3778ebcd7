"""A C kernel for attention over a row's own tokens, compiled when first needed; without a compiler, torch does it.

On a CPU, a decode step meets thousands of very short rows of keys; a library call for each costs more than its work.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from temper.kernels.attention import Options, Partial
from temper.kernels.compiler import load_library

SOURCE = Path(__file__).with_name("decode.c")


def attend_own(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, column: int, options: Options,
    before: Partial,
) -> Tensor | None:  # fmt: skip
    """Attention [B, H, D] of `query` [B, H, 1, D] over the rows' own `keys` [B, H_kv, columns, D], the new one written
    at `column`, merged with what was seen `before`; None, and nothing written, where the kernel cannot do it."""
    kernel = _kernel() if torch.get_num_threads() <= 2 else None  # it uses one thread
    plain = options.softcap is None and query.dtype == torch.float32 and key.shape[-1] == value.shape[-1]
    if kernel is None or not plain or not keys.is_contiguous() or not values.is_contiguous():
        return None
    rows, key_heads, columns, size = keys.shape
    begin = max(0, column + 1 - options.window) if options.window is not None else 0
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    mixed, logsum = before.mixed.contiguous(), before.logsum.contiguous()
    out = torch.empty(rows, query.shape[1], size)
    scores = torch.empty(columns)
    tensors = (query, key, value, keys, values, mixed, logsum, out, scores)
    group = query.shape[1] // key_heads
    kernel(*(t.data_ptr() for t in tensors), rows, key_heads, group, size, columns, column, begin, options.scale)
    return out


def available() -> bool:
    """Whether the kernel is compiled here, or can be."""
    return _kernel() is not None


@functools.cache
def _kernel() -> ctypes._NamedFuncPointer | None:  # type: ignore[name-defined]
    """The compiled function, or None where it cannot be had."""
    library = load_library(SOURCE)
    if library is None:
        return None
    function = library.attend_own
    function.argtypes = [ctypes.c_void_p] * 9 + [ctypes.c_long] * 7 + [ctypes.c_float]
    function.restype = None
    return function
