"""Linear layers with low-rank adapters around them (`peft`), as one weight: where weights are copied anyway, the
adapters' part can be added to the copy, and products cost what they do without."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from temper.kernels.fast import is_plain


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a plain linear layer, with plain adapters around it or without any."""
    return is_plain(module) or is_adapted(module)


def is_adapted(module: Any) -> bool:
    """Whether `module` is LoRA as it was published, W + scale · B A: no variant, and no bias that is trained along."""
    kind = type(module)
    if kind.__name__ != "Linear" or not kind.__module__.startswith("peft.tuners.lora."):
        return False
    if module._forward_pre_hooks or module._forward_hooks or module.lora_variant:
        return False
    parts = [*module.lora_A.values(), *module.lora_B.values()]
    return is_plain(module.base_layer) and all(is_plain(part) and part.bias is None for part in parts)


def whole_weight(module: Any) -> Tensor:
    """[out, in] that `module` multiplies with now: its own, and what the adapters that are in use add."""
    if is_plain(module):
        return module.weight
    weight = module.base_layer.weight
    if module.disable_adapters or module.merged:
        return weight
    for name in module.active_adapters:
        if name in module.lora_A:
            weight = weight + module.get_delta_weight(name)
    return weight
