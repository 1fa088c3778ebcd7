"""Faster forwards on a GPU: the layers that `fast.py` recognises, with Triton between their products.

Recognised the same way, by what a module computes: a float32 copy of it is asked for a few random rows. Then the model
as a whole is asked, with its own weights in its own precision, and what does not say the same is left out. Between
layers the residual and what is to be added to it travel apart, so that adding them is part of the next norm's launch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from temper.kernels import fused_triton
from temper.kernels.attention import Options
from temper.kernels.fast import ROWS, Forward, Forwards, Overhear, find_mlp, find_norm, is_plain, same
from temper.kernels.fused_triton import HeadNorms, Places
from temper.kernels.joined import join, product

FAR = (0, 1, 17, 4_000, 131_000)  # positions at which a table of angles is looked at
NEAR = 0.05  # of the model as a whole, in its own precision: norm of the difference to norm of what is expected
TOKENS = 5  # that the model is asked about

_known: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], Forwards]] = WeakKeyDictionary()


class Sum(NamedTuple):
    """What one layer hands to the next: a residual [..., S], and what has not been added to it yet."""

    residual: Tensor
    added: Tensor


def fast_forwards(model: nn.Module) -> Forwards:
    """As `fast.fast_forwards`, for a model on a device that Triton serves. Weights of layers with one input are laid
    side by side, at once and whenever they have moved."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    kinds = {(weight.device, weight.dtype) for weight in weights}
    if len(kinds) != 1 or any(hasattr(weight, "to_local") for weight in weights):
        return ()
    ((device, dtype),) = kinds
    if not fused_triton.serves(device) or dtype not in fused_triton.DTYPES:
        return ()
    key = sum(1 for _ in model.modules()), device, dtype  # adapters add some
    if model not in _known or _known[model][0] != key:
        _known[model] = key, _find(model, device)
    forwards = _known[model][1]
    for module, _ in forwards:
        for layers in _side_by_side(module):
            join([layer.weight for layer in layers])
            if layers[0].bias is not None:
                join([layer.bias for layer in layers])
    return forwards


def _find(model: nn.Module, device: torch.device) -> Forwards:
    devices = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(0)
        parts = {module: forward for module in model.modules() if (forward := _faster(module)) is not None}
        layers = {module: forward for module in model.modules() if (forward := _chained(module, parts)) is not None}
        for found in ({**parts, **layers}, parts):
            if found and _says_the_same(model, list(found.items())):
                return list(found.items())
    return ()


def _faster(module: Any) -> Forward | None:
    kinds = {"inv_freq": _find_angles, "gate_proj": partial(find_mlp, _mlp), "q_proj": _find_attention}
    recognise = next((kinds[name] for name in kinds if hasattr(module, name)), None)
    if [weight.ndim for weight in module.parameters()] == [1]:
        recognise = partial(find_norm, _norm)
    try:
        made = None if recognise is None else recognise(_widened(module))
    except Exception:  # it lacks what it was asked for, or fails on it in whatever way: it is another kind
        return None
    return None if made is None else partial(made.func, module, *made.args[1:])


def _widened(module: Any) -> Any:
    """A copy of `module` in float32, of which nothing is dropped."""
    shared = {id(config): config for config in [getattr(module, "config", None)] if config is not None}
    return copy.deepcopy(module, shared).float().eval()


def _side_by_side(module: Any) -> Iterator[list[Any]]:
    """Linear layers inside `module` that have the same input, and either all a bias or none."""
    for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        layers: list[Any] = [getattr(module, name) for name in names if hasattr(module, name)]
        alike = {(layer.bias is None, layer.in_features) for layer in layers if is_plain(layer)}
        if len(layers) == len(names) and all(map(is_plain, layers)) and len(alike) == 1:
            yield layers


def _product(layers: Sequence[Any], x_NI: Tensor) -> Tensor:
    if all(map(is_plain, layers)):
        return product(x_NI, layers)
    return torch.cat([layer(x_NI) for layer in layers], -1)


# -- norms and angles --------------------------------------------------------------------------------------------------


def _norm(module: Any, eps: float, offset: float, x: Tensor | Sum) -> Tensor:
    if isinstance(x, Sum):
        return _settled(module, eps, offset, x)[1]
    return fused_triton.rms_norm(x.reshape(-1, x.shape[-1]), module.weight, eps, offset).view(x.shape)


def _settled(module: Any, eps: float, offset: float, x: Sum) -> tuple[Tensor, Tensor]:
    """(the sum, its norm)."""
    shape = x.residual.shape
    residual, added = (part.reshape(-1, shape[-1]) for part in x)
    total, normed = fused_triton.add_norm(residual, added, module.weight, eps, offset)
    return total.view(shape), normed.view(shape)


def _find_angles(module: Any) -> partial[Any] | None:
    if not hasattr(module, "inv_freq") or any(True for _ in module.parameters()):
        return None
    positions = torch.tensor([FAR])
    x = torch.zeros(1, len(FAR), 1)
    forward = partial(_angles, module)
    found, expected = forward(x, positions), type(module).forward(module, x, positions)  # theirs may change the module
    return forward if all(map(same, found, expected)) else None


def _angles(module: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    made = fused_triton.angles(position_ids, module.inv_freq, float(module.attention_scaling), x.dtype)
    return made[0].view(*position_ids.shape, -1), made[1].view(*position_ids.shape, -1)


# -- down(activation(gate(x)) · up(x)) ---------------------------------------------------------------------------------


def _mlp(module: Any, activation: str, x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    mixed = fused_triton.gated(_product((module.gate_proj, module.up_proj), rows), activation)
    return module.down_proj(mixed).view(*x.shape[:-1], -1)


# -- queries, keys and values of one input; heads normed, where it has norms for that; positions; mixed by a plan ------


def _find_attention(module: Any) -> partial[Any] | None:
    width, size = module.q_proj.in_features, module.head_dim
    norms = None
    if hasattr(module, "q_norm"):
        of_query, of_key = find_norm(_norm, module.q_norm), find_norm(_norm, module.k_norm)
        if of_query is None or of_key is None or of_query.args[1:] != of_key.args[1:]:
            return None
        norms = of_query.args[1:]
    cosine, sine = torch.randn(2, 1, ROWS, size)
    asked: dict[str, Any] = {"hidden_states": torch.randn(1, ROWS, width), "position_embeddings": (cosine, sine)}
    theirs, ours = Overhear(), Overhear()
    expected, _ = type(module).forward(module, **asked, attention_mask=None, attention_plan=theirs)
    forward = partial(_attention, module, norms, theirs.layer, theirs.options)
    found, _ = forward(**asked, attention_plan=ours)
    return forward if same(found, expected) and all(map(same, ours.heard, theirs.heard)) else None


def _attention(
    module: Any, norms: tuple[float, float] | None, layer: int, options: Options, hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor], attention_plan: Any, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    before, size = hidden_states.shape[:-1], module.head_dim
    rows = _product((module.q_proj, module.k_proj, module.v_proj), hidden_states.reshape(-1, hidden_states.shape[-1]))
    cosine, sine = (x.expand(*before, size).reshape(-1, size) for x in position_embeddings)
    heads = module.q_proj.out_features // size
    places: Places | None = attention_plan.places(layer) if hasattr(attention_plan, "places") else None
    if places is not None:  # a decode step: keys and values go where they are kept
        query = fused_triton.placed(rows, cosine, sine, heads, _head_norms(module, norms), places)[0]
        return module.o_proj(attention_plan.look(layer, query, options).reshape(*before, -1)), None
    if norms is not None and torch.is_grad_enabled():
        rows = _heads_normed(module, norms, rows, heads)
        norms = None
    if norms is None:
        made = fused_triton.rotated(rows, cosine, sine, heads)
    else:
        made = fused_triton.placed(rows, cosine, sine, heads, _head_norms(module, norms), None)
    query, key, value = (x.view(*before, -1, size).transpose(1, 2) for x in made)
    mixed = attention_plan.attend(layer, query, key, value, options)
    return module.o_proj(mixed.reshape(*before, -1)), None


def _head_norms(module: Any, norms: tuple[float, float] | None) -> HeadNorms | None:
    return None if norms is None else HeadNorms(module.q_norm.weight, module.k_norm.weight, *norms)


def _heads_normed(module: Any, norms: tuple[float, float], rows: Tensor, heads: int) -> Tensor:
    """`rows` with the heads of queries and keys normed, with a gradient."""
    size = module.head_dim
    key_heads = (rows.shape[1] // size - heads) // 2
    query, key, value = rows.split([heads * size, key_heads * size, key_heads * size], -1)
    query, key = (
        fused_triton.rms_norm(part.reshape(-1, size), norm.weight, *norms).view(len(rows), -1)
        for part, norm in ((query, module.q_norm), (key, module.k_norm))
    )
    return torch.cat([query, key, value], -1)


# -- residual + attention(norm(residual)), and that + mlp(norm(that)) --------------------------------------------------


def _chained(module: Any, parts: dict[nn.Module, Forward]) -> Forward | None:
    """A layer of recognised parts, where it puts them together as Llama's or as Gemma 2's."""
    try:
        mixer, mlp, first = module.self_attn, module.mlp, module.input_layernorm
        norms = [first, module.post_attention_layernorm]
        if hasattr(module, "pre_feedforward_layernorm"):
            norms += [module.pre_feedforward_layernorm, module.post_feedforward_layernorm]
        if not all(part in parts for part in (mixer, mlp, *norms)):
            return None
        settings = [parts[norm].args[1:] for norm in norms]  # type: ignore[attr-defined]
        return partial(_layer, module, settings) if _puts_together(_widened(module), settings) else None
    except Exception:  # it is put together otherwise
        return None


def _puts_together(module: Any, settings: Sequence[tuple[float, float]]) -> bool:
    """Whether the layer's own forward says what `_layer` says, with its own parts in both."""
    rows = torch.randn(1, ROWS, module.self_attn.q_proj.in_features)
    asked = {"position_embeddings": tuple(torch.randn(2, 1, ROWS, module.self_attn.head_dim)), "attention_mask": None}
    expected = type(module).forward(module, rows, **asked, attention_plan=Overhear())
    found = _layer(module, settings, rows, **asked, attention_plan=Overhear())
    return same(found.residual + found.added, expected)


def _layer(module: Any, norms: Sequence[tuple[float, float]], hidden_states: Tensor | Sum, **named: Any) -> Sum:
    """`norms` are (eps, offset) of those before attention and before the MLP; of four, where it has four, in order."""
    residual, normed = _begun(module.input_layernorm, norms[0], hidden_states)
    mixed, _ = module.self_attn(hidden_states=normed, **named)
    if len(norms) == 2:
        residual, normed = _settled(module.post_attention_layernorm, *norms[1], Sum(residual, mixed))
        return Sum(residual, module.mlp(normed))
    mixed = _norm(module.post_attention_layernorm, *norms[1], mixed)
    residual, normed = _settled(module.pre_feedforward_layernorm, *norms[2], Sum(residual, mixed))
    return Sum(residual, _norm(module.post_feedforward_layernorm, *norms[3], module.mlp(normed)))


def _begun(module: Any, norm: tuple[float, float], x: Tensor | Sum) -> tuple[Tensor, Tensor]:
    return _settled(module, *norm, x) if isinstance(x, Sum) else (x, _norm(module, *norm, x))


# -- the model as a whole ----------------------------------------------------------------------------------------------


class _Nothing:
    """An attention plan that mixes nothing in."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        return query.transpose(1, 2)


def _says_the_same(model: Any, forwards: Forwards) -> bool:
    """Of a few tokens, up to rounding; False as well where the model cannot be called with them in place."""
    tokens = (7 + 31 * torch.arange(TOKENS))[None] % len(model.get_input_embeddings().weight)
    asked = {"input_ids": tokens, "position_ids": torch.arange(TOKENS)[None], "use_cache": False}
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        expected = model(**asked, attention_plan=_Nothing())[0].float()
        for module, forward in forwards:
            module.forward = forward
        found = model(**asked, attention_plan=_Nothing())[0].float()
        return bool((found - expected).norm() <= NEAR * expected.norm()) and bool(found.isfinite().all())
    except Exception:  # of a kind that cannot be foreseen: a model is called as nobody has called it
        return False
    finally:
        for module, _ in forwards:
            vars(module).pop("forward", None)
        for module in training:
            module.training = True
