"""Where a model is computed, and with what numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from temper.config import StrictModel
from temper.errors import Exit, Fault, ResourceError

DeviceName = Literal["auto", "cpu", "cuda"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


class DeviceConfig(StrictModel):
    """The keys of every stage that computes with a model."""

    device: DeviceName = "auto"  # a CUDA device if there is one
    dtype: DtypeName = "auto"  # of the weights to compute with: bfloat16 on CUDA, float32 on a CPU


def pick_device(name: DeviceName) -> torch.device:
    """Where to compute. Raises ResourceError if there is no CUDA device and `name` asks for one."""
    if faults := missing_device(name):
        raise ResourceError(faults)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def missing_device(name: DeviceName) -> list[Fault]:
    """The fault, if this machine does not have what `name` asks for."""
    if name != "cuda" or torch.cuda.is_available():
        return []
    why = "this PyTorch was built without CUDA" if not torch.backends.cuda.is_built() else "PyTorch finds none"
    fix = "`device: auto` uses one where there is one"
    return [Fault("`device: cuda`, but there is no CUDA device", why=why, fix=fix, code=Exit.RESOURCES)]


def pick_dtype(name: DtypeName, device: torch.device) -> Literal["float32", "bfloat16", "float16"]:
    """What weights on `device` are computed with.

    >>> pick_dtype("auto", torch.device("cpu")), pick_dtype("bfloat16", torch.device("cpu"))
    ('float32', 'bfloat16')
    """
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return name


def placed(config: DeviceConfig) -> tuple[Literal["float32", "bfloat16", "float16"], str]:
    """(dtype, device) as `load_model` takes them. Raises ResourceError."""
    device = pick_device(config.device)
    return pick_dtype(config.dtype, device), str(device)


def pin(model: Any) -> Any:
    """`model`, its weights in main memory that a CUDA device reads fast; where there is no such device, as it is."""
    if torch.cuda.is_available():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.pin_memory()
    return model


@contextmanager
def on_device(model: Any, device: torch.device) -> Iterator[Any]:
    """Within it the weights of `model` are on `device`; after it they are where they were, and the copies are freed.

    For a model that is used now and then. Its weights must not be changed within.
    """
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.device != device]
    home = [tensor.data for tensor in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.to(device, non_blocking=True)
    try:
        yield model
    finally:
        for tensor, data in zip(tensors, home, strict=True):
            tensor.data = data
