"""Faster forwards for the modules of a Llama-like model: the same numbers from fewer passes over memory.

A module is recognised by what it computes, never by the name of its class: it is asked for a few random rows, and the
faster forward takes its place only where that says the same. What is not recognised stays as it is. For float32 on a
CPU; put in place by `forwards.in_place` for as long as a pass takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from temper.kernels import fused
from temper.kernels.attention import Options
from temper.kernels.forwards import Forward, Forwards
from temper.kernels.product import has_onednn, linear

TOLERANCE = 1e-5  # of the largest value
ROWS = 6  # random rows to ask for

_known: WeakKeyDictionary[nn.Module, tuple[int, Forwards]] = WeakKeyDictionary()


def fast_forwards(model: nn.Module) -> Forwards:
    """The modules of `model` that have a faster forward, each with it; looked for once a model, while it is whole."""
    if any(hasattr(weight, "to_local") for weight in model.parameters()):
        return ()
    if any(weight.device.type != "cpu" or weight.dtype != torch.float32 for weight in model.parameters()):
        return ()
    count = sum(1 for _ in model.modules())  # adapters add some
    if model not in _known or _known[model][0] != count:
        _known[model] = count, _find(model)
    return _known[model][1]


def _find(model: nn.Module) -> Forwards:
    training = [module for module in model.modules() if module.training]
    model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = [(module, forward) for module in model.modules() if (forward := _faster(module)) is not None]
    for module in training:
        module.training = True
    return found


def _faster(module: Any) -> Forward | None:
    if is_plain(module):
        return partial(_linear, module) if has_onednn() else None
    if not fused.available():
        return None
    for recognise in (partial(find_norm, _norm), partial(find_mlp, _mlp), _find_attention):
        try:
            if (forward := recognise(module)) is not None:
                return forward
        except Exception:  # it lacks what it was asked for, or fails on it in whatever way: it is another kind
            continue
    return None


def is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and not module._forward_pre_hooks and not module._forward_hooks


def same(found: Tensor, expected: Tensor) -> bool:
    """Up to rounding, and not all 0."""
    largest = expected.abs().max()
    return found.shape == expected.shape and bool(
        (largest > 0) & ((found - expected).abs().max() <= TOLERANCE * largest)
    )


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    if x.ndim == 2:
        return linear(x, module.weight, module.bias)
    return linear(x.reshape(-1, x.shape[-1]), module.weight, module.bias).view(*x.shape[:-1], -1)


def _side_by_side(layers: Sequence[Any], x_NI: Tensor) -> Tensor:
    """What linear layers say of the same rows, in one tensor: one product, where that costs less than it saves."""
    if all(map(is_plain, layers)) and len({layer.bias is None for layer in layers}) == 1 and len(x_NI) > x_NI.shape[1]:
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return linear(x_NI, torch.cat([layer.weight for layer in layers]), bias)
    return torch.cat([layer(x_NI) for layer in layers], -1)


# x · weight / √(mean(x²) + eps), or (1 + weight) instead of weight


def find_norm(norm: Forward, module: Any) -> partial[Any] | None:
    """`norm` with the module, its eps and its offset, if that is what the module computes."""
    if [name for name, _ in module.named_parameters()] != ["weight"] or module.weight.ndim != 1:
        return None
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    rows = torch.randn(ROWS, len(module.weight))
    rows[0] *= eps**0.5  # a row in which eps counts
    expected = type(module).forward(module, rows)
    for offset in (0.0, 1.0):
        forward = partial(norm, module, eps, offset)
        if all(map(same, forward(rows), expected)):
            return forward
    return None


def _norm(module: Any, eps: float, offset: float, x: Tensor) -> Tensor:
    scale = module.weight + offset if offset else module.weight
    return fused.rms_norm(x.reshape(-1, x.shape[-1]), scale, eps).view(x.shape)


# down(activation(gate(x)) · up(x))


def find_mlp(mlp: Forward, module: Any) -> partial[Any] | None:
    """`mlp` with the module and its activation, if that is what the module computes."""
    rows = torch.randn(ROWS, module.gate_proj.in_features)
    rows *= 2 / module.gate_proj(rows).std()  # where activations differ from one another
    expected = type(module).forward(module, rows)
    for activation in fused.ACTIVATIONS:
        forward = partial(mlp, module, activation)
        if same(forward(rows), expected):
            return forward
    return None


def _mlp(module: Any, activation: str, x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    mixed = fused.gated(_side_by_side((module.gate_proj, module.up_proj), rows), activation)
    return module.down_proj(mixed).view(*x.shape[:-1], -1)


# queries, keys and values of one input; heads normed, where it has norms for that; positions; mixed by a plan


class Overhear:
    """A plan that keeps what it is asked, and answers with something that depends on all of it."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        self.layer, self.options = layer, options
        self.heard = query, key, value
        shared = query.shape[1] // key.shape[1]
        return (query + (key - value).repeat_interleave(shared, 1)).transpose(1, 2)


def _find_attention(module: Any) -> Forward | None:
    width = module.q_proj.in_features
    cosine, sine = torch.randn(2, 1, ROWS, module.head_dim)
    asked = {"hidden_states": torch.randn(1, ROWS, width), "position_embeddings": (cosine, sine)}
    theirs, ours = Overhear(), Overhear()
    expected, _ = type(module).forward(module, **asked, attention_mask=None, attention_plan=theirs)
    forward = partial(_attention, module, theirs.layer, theirs.options)
    found, _ = forward(**asked, attention_plan=ours)
    return forward if same(found, expected) and all(map(same, ours.heard, theirs.heard)) else None


def _attention(
    module: Any, layer: int, options: Options, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor],
    attention_plan: Any, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    before, size = hidden_states.shape[:-1], module.head_dim
    rows = hidden_states.reshape(-1, hidden_states.shape[-1])
    projections = module.q_proj, module.k_proj, module.v_proj
    parts = _side_by_side(projections, rows).split([layer.out_features for layer in projections], -1)
    query, key, value = (part.unflatten(-1, (-1, size)) for part in parts)
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    cosine, sine = (x.expand(*before, size).reshape(-1, size) for x in position_embeddings)
    query, key = fused.rotated(query, cosine, sine), fused.rotated(key, cosine, sine)
    query, key, value = (x.view(*before, -1, size).transpose(1, 2) for x in (query, key, value))
    mixed = attention_plan.attend(layer, query, key, value, options)
    return module.o_proj(mixed.reshape(*before, -1)), None
