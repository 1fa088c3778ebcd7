"""Sampler processes that are started as programs of their own, where a process with threads must not be forked.

Each is told the trainer's model as pickle writes it, but for the weights: those lie in a file that both map, so an
update is seen by every process at once and nothing is copied. Starting one takes the seconds that importing torch does.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import IO, Any

import torch
from torch import Tensor, nn

from temper.kernels.attention import register
from temper.kernels.choice import asked, pin, table
from temper.models.forks import shared_like
from temper.rollout.native import NativeEngine
from temper.rollout.worker import Worker, serve

_BOOT = "import json, sys; path, *told = json.loads(sys.argv[1]); sys.path[:] = path\n"
_BOOT += "from temper.rollout.started import main; main(*told)"


def weights_of(model: nn.Module) -> list[Tensor]:
    """Every parameter and buffer, once."""
    return [*model.parameters(), *model.buffers()]


def share_weights(model: nn.Module, file: int = -1) -> None:
    """Move every weight of `model` into memory that processes forked later see change, or that who maps `file` does."""
    tensors = weights_of(model)
    for tensor, place in zip(tensors, shared_like(tensors, file), strict=True):
        tensor.data = place.copy_(tensor.data)


def start_workers(engine: NativeEngine, count: int) -> list[Worker]:
    """So many processes, with the weights of the engine's model in a file. Raises PicklingError, AttributeError or
    TypeError for a model that pickle does not write."""
    told = _told(engine)
    with _shared_file() as file:
        share_weights(engine.model, file.fileno())
        started = [_start(file.fileno()) for _ in range(count)]
    for connection, _ in started:  # each takes it once it has imported what it needs
        connection.send_bytes(told)
    return [Worker(connection, process) for connection, process in started]


class _Program:
    """A program that was started, as `worker.Process`."""

    def __init__(self, popen: subprocess.Popen[bytes]):
        self._popen = popen

    @property
    def exitcode(self) -> int | None:
        return self._popen.returncode

    def kill(self) -> None:
        self._popen.kill()

    def join(self) -> None:
        self._popen.wait()


def _start(file: int) -> tuple[Connection, _Program]:
    ours, theirs = multiprocessing.Pipe()
    command = [sys.executable, "-c", _BOOT, json.dumps([sys.path, theirs.fileno(), file, os.getpid()])]
    with theirs:
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno(), file],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,  # interrupts are the trainer's
        )  # fmt: skip
    return ours, _Program(popen)


def _shared_file() -> IO[bytes]:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("temper"), "w+b")
    return tempfile.TemporaryFile()


class _Pickler(pickle.Pickler):
    def __init__(self, file: IO[bytes], numbers: dict[int, int]):
        super().__init__(file)
        self._numbers = numbers

    def persistent_id(self, value: Any) -> int | None:
        return self._numbers.get(id(value)) if isinstance(value, Tensor) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], weights: list[Tensor]):
        super().__init__(file)
        self._weights = weights

    def persistent_load(self, number: int) -> Tensor:
        return self._weights[number]


def _told(engine: NativeEngine) -> bytes:
    """What a process has to know: the layout of the file, how products are made, and the engine without weights."""
    tensors, text = weights_of(engine.model), io.BytesIO()
    _Pickler(text, {id(tensor): number for number, tensor in enumerate(tensors)}).dump(
        (engine.model, engine.max_rows, engine.memory, engine.context)
    )
    layout = [(tuple(tensor.shape), tensor.dtype, isinstance(tensor, nn.Parameter)) for tensor in tensors]
    return pickle.dumps((layout, asked(), table(), text.getvalue()))


def main(connection: int, file: int, parent: int) -> None:
    """The life of such a process."""
    torch.set_num_threads(1)
    talk = Connection(connection)
    layout, way, known, text = pickle.loads(talk.recv_bytes())
    register()
    pin(way, known)
    shapes = [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype, _ in layout]
    weights = [
        nn.Parameter(place, requires_grad=False) if is_parameter else place
        for place, (_, _, is_parameter) in zip(shared_like(shapes, file), layout, strict=True)
    ]
    os.close(file)
    model, max_rows, memory, context = _Unpickler(io.BytesIO(text), weights).load()
    serve(NativeEngine(model, max_rows, memory, context), talk, parent)
