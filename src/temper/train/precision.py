"""Narrow weights to compute with, float32 masters to train: the model's own tensors are rounded copies of the masters.

A step of Adam is often smaller than bfloat16 can tell from 0, and sums of many gradients lose what is added last. So
gradients are summed and weights are moved in float32, and the result is rounded into the model's tensors in place: who
holds those tensors, such as the sampler, sees every update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

HIGHEST_SCALE = 2.0**24
GROWTH_STEPS = 2000  # updates without overflow after which the scale is doubled


class LossScale:
    """What float16 losses are multiplied by so that their gradients do not vanish; a power of two, so it loses nothing.

    >>> scale = LossScale()
    >>> scale.value, scale.lower(), scale.value
    (65536.0, True, 32768.0)
    """

    def __init__(self) -> None:
        self.value = 2.0**16
        self.clean = 0  # updates since it last changed

    def lower(self) -> bool:
        """After an overflow: half the scale. False if it cannot be lowered: the gradient itself is not finite."""
        if self.value <= 1.0:
            return False
        self.value, self.clean = self.value / 2, 0
        return True

    def count(self) -> None:
        """After an update without overflow."""
        self.clean += 1
        if self.clean >= GROWTH_STEPS and self.value < HIGHEST_SCALE:
            self.value, self.clean = self.value * 2, 0

    def state(self) -> Tensor:
        return torch.tensor([self.value, float(self.clean)])

    def load_state(self, state: Tensor) -> None:
        self.value, self.clean = float(state[0]), int(state[1])


class Weights:
    """The trainable weights of a model by name, and the `masters` that the optimiser moves: for each weight narrower
    than float32 a copy, else the weight itself. Gradients gather in the masters' `grad`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        """Rounds the parameters of `model` to `dtype` if it is a narrow one, trained and frozen ones; buffers stay."""
        self.model = model
        self.scale = LossScale() if dtype == torch.float16 else None
        self.masters: dict[str, nn.Parameter] = {}
        self._copies: list[tuple[nn.Parameter, nn.Parameter]] = []  # (weight, master)
        for name, weight in model.named_parameters():
            narrow = narrow_dtype(model, name, weight, dtype)
            if weight.requires_grad:
                self.masters[name] = self._make_master(weight, narrow, copy=self.scale is not None)
            else:
                weight.data = weight.data.to(narrow)

    def _make_master(self, weight: nn.Parameter, narrow: torch.dtype, copy: bool) -> nn.Parameter:
        wide = torch.promote_types(weight.dtype, torch.float32)
        if narrow == wide and not copy:
            return weight
        master = nn.Parameter(weight.data.to(wide))
        weight.data, weight.grad = master.data.to(narrow, copy=True), None
        weight.register_post_accumulate_grad_hook(self._move_gradient_to(master))
        self._copies.append((weight, master))
        return master

    def _move_gradient_to(self, master: nn.Parameter) -> Callable[[Tensor], None]:
        def move(weight: Tensor) -> None:
            assert weight.grad is not None
            share = 1.0 if self.scale is None else 1 / self.scale.value
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            master.grad.add_(weight.grad, alpha=share)
            weight.grad = None

        return move

    def back(self, loss: Tensor) -> None:
        """Gradients of `loss`."""
        (loss if self.scale is None else loss * self.scale.value).backward()

    def norm(self) -> Tensor:
        """Of all gradients together."""
        return torch.nn.utils.get_total_norm(self.gradients())

    def zero_gradients(self) -> list[Tensor]:
        """A gradient of 0 for every master, where the next ones gather."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            else:
                master.grad.zero_()
        return self.gradients()

    def gather_in(self, places: Sequence[Tensor]) -> None:
        """Gather gradients in `places`, one a master, from now on."""
        for master, place in zip(self.masters.values(), places, strict=True):
            master.grad = place

    def gradients(self) -> list[Tensor]:
        return [master.grad for master in self.masters.values() if master.grad is not None]

    @torch.no_grad()
    def round_into_model(self) -> None:
        """Write the masters into the model's own tensors. Their gradients are freed: sampling needs room."""
        for weight, master in self._copies:
            weight.copy_(master)
            master.grad = None

    def widened(self) -> Any:
        """The model with its masters as weights: what was trained, unrounded. Training it ends with this."""
        for weight, master in self._copies:
            weight.data = master.data
        for weight in self.model.parameters():
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
        return self.model

    def state(self) -> dict[str, Tensor]:
        """Everything an exact resume needs, by name: masters alone, since the model's weights follow from them."""
        tensors = {f"model.{name}": master.detach() for name, master in self.masters.items()}
        return tensors if self.scale is None else {**tensors, "loss_scale": self.scale.state()}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        for name, master in self.masters.items():
            master.copy_(tensors[f"model.{name}"])
        if self.scale is not None:
            self.scale.load_state(tensors["loss_scale"])
        self.round_into_model()

    def first_not_finite(self) -> str:
        """What to say of a gradient that is not finite."""
        for name, master in self.masters.items():
            if master.grad is not None and not bool(torch.isfinite(master.grad).all()):
                return f"the gradient of `{name}` is not finite"
        return "the norm of the gradient is not finite"


def narrow_dtype(model: Any, name: str, weight: Tensor, dtype: torch.dtype) -> torch.dtype:
    """What `weight` is computed with: a narrow `dtype`, but where the architecture wants float32; else what it has."""
    if not weight.is_floating_point() or dtype.itemsize > 2 or weight.dtype.itemsize <= 2:
        return weight.dtype
    wide = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        wide |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return weight.dtype if any(part in name for part in wide) else dtype
