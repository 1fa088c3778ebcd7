"""One optimiser step. The only place that divides: losses arrive as sums, the divisor counts the whole step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.config import StrictModel


class OptimizerConfig(StrictModel):
    """The optimiser keys every training stage has."""

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, down to min_lr_ratio
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192  # speed and memory only: the gradient does not depend on it
    save_steps: Annotated[int, Field(ge=1)] = 20


@dataclass(frozen=True)
class LossSum:
    """The summed loss of one micro-batch and sums to be logged, all to be divided by the step's divisor; `peaks` are
    logged as the largest of the step."""

    loss: Tensor
    sums: Mapping[str, float]
    peaks: Mapping[str, float] = field(default_factory=dict)


class Learner:
    """A model and its optimiser; `step` counts the updates made."""

    def __init__(self, model: Any, config: OptimizerConfig, total_steps: int):
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.step = 0
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            fused=True,
        )

    def update(self, losses: Iterable[Callable[[], LossSum]], divisor: float) -> dict[str, float]:
        """Back-propagate each loss divided by `divisor`, clip, step. An empty `losses` is a step with gradient 0.

        Raises FloatingPointError, before any weight changes, if the gradient is not finite.
        """
        self.optimizer.zero_grad(set_to_none=False)
        metrics = {"loss": 0.0}
        for make_loss in losses:
            part = make_loss()
            (part.loss / divisor).backward()
            for name, value in {"loss": float(part.loss.detach()), **part.sums}.items():
                metrics[name] = metrics.get(name, 0.0) + value / divisor
            for name, value in part.peaks.items():
                metrics[name] = max(metrics.get(name, value), value)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(_not_finite(self.model))
        rate = learning_rate(self.config, self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        return {**metrics, "gradient_norm": norm, "learning_rate": rate}

    def state(self) -> dict[str, Tensor]:
        """Everything an exact resume needs, by name."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():
                tensors[f"optimizer.{names[id(parameter)]}.{key}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from `state()` as saved after `step` updates."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
                moments = {
                    key: tensors[f"optimizer.{name}.{key}"].clone()
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{name}.{key}" in tensors
                }
                if moments:
                    self.optimizer.state[parameter] = moments
        self.step = step


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The rate of update number `step` (from 0): a linear warm-up, then the schedule.

    >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=2, lr_scheduler_type="linear", min_lr_ratio=0.0)
    >>> [learning_rate(config, step, 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    if config.lr_scheduler_type == "constant":
        left = 1.0
    elif config.lr_scheduler_type == "linear":
        left = 1.0 - done
    else:
        left = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * left)


def _not_finite(model: Any) -> str:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"the gradient of `{name}` is not finite"
    return "the norm of the gradient is not finite"
