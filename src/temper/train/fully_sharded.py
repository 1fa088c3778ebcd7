"""Weights, gradients and moments in parts, one at each rank (FSDP2; ZeRO-3, 1910.02054): for models that do not fit one
device.

A layer's weights are put together when it is computed, forward and again backward, and let go after it; gradients are
summed as they arise, and each rank keeps the sum of its part. The optimiser moves the parts, which are plain tensors to
it: Adam treats every number by itself. A pass needs all ranks, so all make as many: whoever has none left repeats one,
whose loss counts 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from temper.distributed.ranks import ranks, told_bytes
from temper.errors import ConfigError, Fault
from temper.kernels.layers import decoder_layers
from temper.train.checkpoint import read_parts
from temper.train.forward import take_model_apart
from temper.train.precision import Weights, narrow_dtype

MOMENTS = ("exp_avg", "exp_avg_sq")


class _Root(nn.Module):
    """What the head, the embedding and whatever is in no layer are put together for: any work with the model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class ShardedWeights(Weights):
    """The weights of a model of which every rank holds a part. The `masters` are this rank's parts, in float32; layers
    are computed in `dtype`. `whole` is a copy of all of it, rounded to `dtype` and brought up to date by each update,
    where `whole_on` names a device for it."""

    def __init__(
        self, model: Any, dtype: torch.dtype, device: torch.device, whole_on: torch.device | None = None
    ):
        """`model` comes whole, on any device, and lies in parts on `device` afterwards. All ranks call this together.
        Raises ConfigError for an architecture without layers, or with some that `dtype` is too narrow for."""
        self.model, self.scale, self._copies = model, None, []
        self._dtype = dtype
        self._check_width()
        layers = decoder_layers(model)
        take_model_apart(model)  # is found out by a probe of the whole
        self._hollow = _without_weights(model)
        mesh = init_device_mesh(device.type, (ranks().size,))
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        self.root = _Root(model)
        for module in (*layers, self.root):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        with torch.no_grad():
            self.root(lambda: None)  # a first pass settles where parts lie
        self.parts: dict[str, DTensor] = dict(model.named_parameters())  # type: ignore[arg-type]
        self.masters = {name: nn.Parameter(_local(part)) for name, part in self.parts.items()}
        self._padded = sum(math.ceil(len(part) / ranks().size) * part[:1].numel() for part in self.parts.values())
        self.whole = self._filled(whole_on, dtype) if whole_on is not None else None

    def _check_width(self) -> None:
        kept = [
            name for name, weight in self.model.named_parameters()
            if narrow_dtype(self.model, name, weight, self._dtype) != self._dtype
        ]  # fmt: skip
        if kept:
            what = f"`fully_shard` computes a layer in one dtype, and `{kept[0]}` wants another than {self._dtype}"
            raise ConfigError(Fault(what, fix="set `dtype: float32`, or leave `fully_shard` out"))

    # -- passes -------------------------------------------------------------------------------------------------------

    def within(self, work: Callable[[], Any]) -> Any:
        """What `work` with the model returns: a tensor from which gradients can go back, or anything else. All ranks
        call it together."""
        with ranks().watching("a pass of the model in parts"):
            found = self.root(work)
        self._count(self._dtype.itemsize)
        return found

    def back(self, loss: Tensor) -> None:
        """Gradients of `loss`: their mean over the ranks, which FSDP makes, is to be their sum."""
        with ranks().watching("the gradients of the model in parts"):
            (loss * ranks().size).backward()
        self._count(self._dtype.itemsize + 4)

    def _count(self, width: int) -> None:
        ranks().sent += told_bytes(self._padded * width, ranks().size)

    def zero_gradients(self) -> list[Tensor]:
        for name, part in self.parts.items():
            part.grad = self.masters[name].grad = None
        return []

    def take_gradients(self) -> None:
        """Those that the passes have left, in the masters; 0 where there were none."""
        for name, part in self.parts.items():
            master = self.masters[name]
            master.grad = torch.zeros_like(master) if part.grad is None else _local(part.grad)  # type: ignore[arg-type]

    def norm(self) -> Tensor:
        """Of all parts at all ranks."""
        own = torch.nn.utils.get_total_norm(self.gradients()).double().square()
        ranks().add_up([own])
        return own.sqrt().float()

    # -- the whole ----------------------------------------------------------------------------------------------------

    def round_into_model(self) -> None:
        """The whole copy, where there is one, as the masters are now. Gradients are freed: sampling needs room."""
        self.zero_gradients()
        if self.whole is not None:
            places = dict(self.whole.named_parameters())
            for name, full in self._gathered(self._dtype):
                places[name].data.copy_(full)

    @torch.no_grad()
    def _gathered(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Every weight in full, one after the other, at every rank."""
        self._count(dtype.itemsize)
        for name, part in self.parts.items():
            with ranks().watching("the whole of the model in parts"):
                whole: Any = part.detach().to(dtype)
                full = whole.full_tensor()
            yield name, full

    def _filled(self, device: torch.device, dtype: torch.dtype) -> Any:
        whole = self._hollow.to(device)
        places = dict(whole.named_parameters())
        for name, full in self._gathered(dtype):
            places[name].data = full.to(device, copy=True)
        return whole

    def widened(self) -> Any:
        """At rank 0 the whole model in float32, in main memory; elsewhere one without weights. The sampled copy is used
        up."""
        self.whole = None
        self._hollow.to("cpu")
        places = dict(self._hollow.named_parameters())
        for name, full in self._gathered(torch.float32):
            places[name].data = full.cpu() if not ranks().rank else torch.empty(0)
        return self._hollow

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        return {}  # all of it is in parts

    def spread(self, state: Mapping[Tensor, Mapping[str, Any]]) -> dict[str, Tensor]:
        """This rank's parts of the weights and of their moments in an optimiser's `state`, as parts of a whole."""
        found: dict[str, Tensor] = {f"model.{name}": part.detach() for name, part in self.parts.items()}
        for name, part in self.parts.items():
            for moment in MOMENTS if self.masters[name] in state else ():
                found[f"optimizer.{name}.{moment}"] = _part_like(part, state[self.masters[name]][moment])
        return found

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor], folder: Path | None) -> dict[str, Tensor]:
        """Take on the weights that a checkpoint holds, whole in `tensors` or in parts in `folder`; what it says of the
        optimiser comes back, this rank's part of it."""
        if folder is None:
            for name, master in self.masters.items():
                master.copy_(_part_of(tensors[f"model.{name}"]))
            moments = {key: _part_of(value) for key, value in tensors.items() if value.ndim}
        else:
            moments = {
                f"optimizer.{name}.{moment}": _part_like(part, torch.zeros_like(_local(part)))
                for name, part in self.parts.items()
                for moment in MOMENTS
            }
            read_parts(folder, {f"model.{name}": part.detach() for name, part in self.parts.items()} | moments)
            moments = {key: _local(part) for key, part in moments.items()}
        self.round_into_model()
        return {**tensors, **moments}


def _part_of(full: Tensor) -> Tensor:
    """What of a whole tensor is this rank's: rows, as FSDP deals them."""
    parts = full.chunk(ranks().size)
    return parts[ranks().rank] if ranks().rank < len(parts) else full[:0]


def _part_like(part: DTensor, local: Tensor) -> DTensor:
    """`local` as the part of a tensor of the shape of `part`'s whole."""
    return DTensor.from_local(
        local, part.device_mesh, [Shard(0)], run_check=False, shape=part.shape, stride=part.stride()
    )


def _local(part: Any) -> Tensor:
    return part.detach().to_local()


def _without_weights(model: nn.Module) -> Any:
    """A copy of the model, buffers and all, but its weights hold nothing yet."""
    empty = {
        id(weight): nn.Parameter(torch.empty(0), requires_grad=weight.requires_grad) for weight in model.parameters()
    }
    return copy.deepcopy(model, empty)
