"""What follows the backward passes of an update, by `update.c`: float32 in main memory, each in one pass over it.

torch goes over every gradient once for each that is added, and over their sum for its norm, for the clip and for the
step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from temper.kernels.compiler import Functions

SOURCE = Path(__file__).with_name("update.c")
SMALL = 1 << 18  # floats that one thread is done with before a second has begun


def fits(tensors: Iterable[Tensor]) -> bool:
    """Whether there is a library for all these tensors here."""
    return _functions.available and all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        for tensor in tensors
    )  # fmt: skip


def add_up(sums: Sequence[Tensor], parts: Sequence[Sequence[Tensor]]) -> None:
    """Add to the `sums` the tensors of the first of the `parts`, then those of the second, and so on.

    >>> sums = [torch.tensor([1.0, 2.0])]
    >>> add_up(sums, [[torch.tensor([3.0, 4.0])], [torch.tensor([0.5, 0.5])]])
    >>> sums
    [tensor([4.5000, 6.5000])]
    """
    if not fits(sums) or not all(map(fits, parts)):
        for part in parts:
            for total, tensor in zip(sums, part, strict=True):
                total.add_(tensor)
        return
    sizes = _sizes(sums)
    given = _pointers(sums), _pointers([tensor for part in parts for tensor in part])
    _functions["add_up"](*given, sizes, len(sums), len(parts), _threads(sum(sizes)))


def blank(tensors: Sequence[Tensor]) -> None:
    """Set all to 0.

    >>> tensors = [torch.ones(2)]
    >>> blank(tensors)
    >>> tensors
    [tensor([0., 0.])]
    """
    if fits(tensors):
        _functions["blank"](_pointers(tensors), _sizes(tensors), len(tensors))
    else:
        for tensor in tensors:
            tensor.zero_()


class Moved(NamedTuple):
    """A weight that is to be moved, with its gradient and moments; `step` counts its updates, this one included."""

    weight: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    decay: float
    step: int


def adamw(moved: Sequence[Moved], share: float, rate: float, betas: tuple[float, float], epsilon: float) -> None:
    """One step of AdamW, as torch's, by `share` of the gradients. For what `fits`."""
    rows = (_MovedC * len(moved))()
    for row, one in zip(rows, moved, strict=True):
        row.weight, row.mean, row.square = one.weight.data_ptr(), one.mean.data_ptr(), one.square.data_ptr()
        row.gradient, row.size = one.gradient.data_ptr(), one.weight.numel()
        row.kept, row.step = 1 - rate * one.decay, rate / (1 - betas[0] ** one.step)
        row.root = (1 - betas[1] ** one.step) ** 0.5
    threads = _threads(sum(row.size for row in rows))
    _functions["adamw"](rows, len(rows), share, *betas, epsilon, threads)


def _threads(size: int) -> int:
    return 1 if size <= SMALL else torch.get_num_threads()


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _sizes(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_long * len(tensors))(*(tensor.numel() for tensor in tensors))


class _MovedC(ctypes.Structure):
    """`struct moved`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "mean", "square", "gradient")),
        ("size", ctypes.c_long),
        *((name, ctypes.c_float) for name in ("kept", "step", "root")),
    ]


_number, _real, _double = ctypes.c_long, ctypes.c_float, ctypes.c_double
_pointer_list, _size_list = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(_number)
_functions = Functions(
    SOURCE,
    {
        "add_up": [_pointer_list, _pointer_list, _size_list, _number, _number, _number],
        "blank": [_pointer_list, _size_list, _number],
        "adamw": [ctypes.POINTER(_MovedC), _number, _real, _double, _double, _real, _number],
    },
)
