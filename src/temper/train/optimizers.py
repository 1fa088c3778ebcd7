"""The optimisers a recipe can name, and their state as named tensors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from temper.errors import Exit, Fault, TemperError

OptimizerName = Literal["adamw", "adamw_8bit"]


def make_optimizer(
    name: OptimizerName, weights: Mapping[str, nn.Parameter], rate: float, betas: tuple[float, float], decay: float,
    epsilon: float = 1e-8,
) -> torch.optim.Optimizer:  # fmt: skip
    """AdamW over `weights`; `decay` is applied to matrices, not to biases and norms.

    Raises TemperError with exit code 9 where its library is not installed.
    """
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    vectors = [weight for weight in weights.values() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    if name == "adamw_8bit" and weights:
        return _adamw_8bit()([group for group in groups if group["params"]], lr=rate, betas=betas, eps=epsilon)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=True)


def _adamw_8bit() -> Any:
    if faults := missing_optimizer("adamw_8bit"):
        raise TemperError(faults, Exit.OPTIONAL_PART)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels for inference
    import bitsandbytes  # type: ignore[import-not-found]

    return bitsandbytes.optim.AdamW8bit  # type: ignore[attr-defined]


def missing_optimizer(name: OptimizerName) -> list[Fault]:
    """The fault, if the library behind `name` is not installed."""
    if name == "adamw" or find_spec("bitsandbytes") is not None:
        return []
    what, fix = f"`optim: {name}` needs bitsandbytes, which is not installed", 'pip install "temper-rl[8bit]"'
    return [Fault(what, fix=fix, code=Exit.OPTIONAL_PART)]


def optimizer_state(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Moments, scales and counts of each weight that has any, by `optimizer.<weight>.<key>`."""
    return {
        f"optimizer.{name}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Go on from `optimizer_state` as it was saved, as far as it is of these weights."""
    counts_on_device = isinstance(optimizer, torch.optim.AdamW)  # bitsandbytes counts its steps in a Python int
    optimizer.state.clear()
    for place, value in tensors.items():
        kind, _, rest = place.partition(".")
        name, _, key = rest.rpartition(".")
        if kind == "optimizer" and name in weights:
            is_count = key == "step" and not counts_on_device
            state = optimizer.state[weights[name]]
            state[key] = int(value) if is_count else value.to(weights[name].device, copy=True)
