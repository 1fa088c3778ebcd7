"""The optimisers a recipe can name, and their state as named tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from temper.errors import Exit, Fault, TemperError
from temper.kernels import update
from temper.models.forks import shared_like

OptimizerName = Literal["adamw", "adamw_8bit"]
SHARED = 64 << 20  # bytes of moments up to which a fork costs more if they lie in memory of this process alone


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
    return AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=True)


class AdamW(torch.optim.AdamW):
    """torch's, which in main memory clips and moves float32 weights in one pass.

    Moments of small models lie in memory that a fork shares: of other pages it makes copies, as each is written to.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._homes: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def move(self, share: Tensor) -> bool:
        """One step by `share` of the gradients; False, and nothing is done, where torch's own is to do it."""
        places = [(group, weight) for group in self.param_groups for weight in group["params"]]
        gradients = [weight.grad for _, weight in places]
        if not places or not update.fits(weight for _, weight in places):
            return False
        if any(gradient is None for gradient in gradients) or not update.fits(gradients):  # type: ignore[arg-type]
            return False
        if not self._homes:
            self._find_homes([weight for _, weight in places])
        moved = []
        for (group, weight), gradient in zip(places, gradients, strict=True):
            state = self._at_home(weight)
            state["step"] += 1
            assert gradient is not None
            moments = state["exp_avg"], state["exp_avg_sq"]
            moved.append(update.Moved(weight, gradient, *moments, group["weight_decay"], int(state["step"])))
        group = self.param_groups[0]  # the others differ in their decay alone
        update.adamw(moved, float(share), group["lr"], group["betas"], group["eps"])
        return True

    def _find_homes(self, weights: list[Tensor]) -> None:
        wanted = [moment for weight in weights for moment in (weight, weight)]
        is_small = sum(moment.nbytes for moment in wanted) <= SHARED
        made = shared_like(wanted) if is_small else [torch.zeros_like(moment) for moment in wanted]
        self._homes = {weight: (made[2 * i], made[2 * i + 1]) for i, weight in enumerate(weights)}

    def _at_home(self, weight: Tensor) -> dict[str, Any]:
        """The state of a weight, whose moments lie where they were given room."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
        for name, place in zip(("exp_avg", "exp_avg_sq"), self._homes[weight], strict=True):
            if (found := state.get(name)) is not place:
                place.zero_() if found is None else place.copy_(found)
                state[name] = place
        return state


def take_step(optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], norm: Tensor, most: float) -> None:
    """Move what the `optimizer` holds, by gradients that together are no longer than `most`; `norm` is that of the
    gradients of all `weights`."""
    if isinstance(optimizer, AdamW) and optimizer.move((most / (norm + 1e-6)).clamp(max=1.0)):
        return
    torch.nn.utils.clip_grads_with_norm_(weights, most, norm)
    optimizer.step()


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
