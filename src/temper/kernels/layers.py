"""A model's decoder layers while it is trained: computed again in the backward pass, compiled, or both.

The layers' own forward is put in place for an update and taken away after it, so sampling and scoring never see it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from temper.errors import ConfigError, Fault
from temper.kernels import attention, fast, fast_triton, trunk
from temper.kernels.forwards import Forwards


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of `model` that can be checkpointed one by one. Raises ConfigError if there are none."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        what = f"`{type(model).__name__}` has no layers that can be checkpointed or compiled"
        raise ConfigError(Fault(what, fix="leave out `gradient_checkpointing` and `compile`"))
    return layers


def training_forwards(model: nn.Module, checkpointing: bool, compiled: bool) -> Forwards:
    """For `in_place`: the forwards of `model` in training. Its layers compute their activations again in the backward
    pass, or are compiled; what is not compiled has faster forwards.

    Lengths are dynamic, so other token counts need no other code. Attention is not compiled: its plan is Python.
    """
    if not (checkpointing or compiled):
        return faster_forwards(model)
    forwards = {} if compiled else dict(_of_parts(model))
    if compiled:
        _leave_attention_out()
    for layer in decoder_layers(model):
        forward: Callable[..., Any] = forwards.get(layer, layer.forward)
        if compiled:
            forward = torch.compile(forward, dynamic=True)
        if checkpointing:
            forward = partial(checkpoint, forward, use_reentrant=False)
        forwards[layer] = forward
    together = () if compiled else trunk.trunk_forwards(model, checkpointing=True)
    return [*forwards.items(), *together]


def scoring_forwards(model: nn.Module) -> Forwards:
    """For `in_place`: the forwards of `model` in a pass without gradient; none in an update, which has put its own."""
    if torch.is_grad_enabled() or any("forward" in vars(module) for module in model.modules()):
        return ()
    return faster_forwards(model, trains=False)


def faster_forwards(model: nn.Module, trains: bool = True) -> Forwards:
    """Those of the device that `model` is on: Triton's on a GPU (`kernels/fast_triton.py`), C's on a CPU, of its parts
    and of all its layers together (`kernels/trunk.py`)."""
    return [*_of_parts(model), *trunk.trunk_forwards(model, trains=trains)]


def _of_parts(model: nn.Module) -> Forwards:
    return fast_triton.fast_forwards(model) or fast.fast_forwards(model)


def _leave_attention_out() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, torch.compiler.disable(attention._attention))
