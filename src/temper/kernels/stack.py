"""A whole model of Llama-like layers as `step.c` takes it, put together from what `fast.py` recognises.

Which norm stands where, and what the embedding is multiplied by, is read from names and checked by whoever uses it: a
`Stack` is a guess until a step of it has said what the model says (`rollout/compiled.py`).

Shapes: N positions, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from temper.kernels import fast, fused, step
from temper.kernels.attention import Options
from temper.kernels.forwards import Forwards, in_place
from temper.kernels.low_rank import is_adapted, is_linear, whole_weight
from temper.kernels.step import LayerC, StackC

Weights = dict[str, Tensor | None]


@dataclass(frozen=True)
class Norm:
    """x · (weight + offset) / √(mean(x²) + eps)."""

    weight: nn.Parameter
    eps: float
    offset: float

    def scale(self) -> Tensor:
        return self.weight + self.offset if self.offset else self.weight


@dataclass(frozen=True)
class Layer:
    """One layer's modules."""

    attention: Any
    mlp: Any
    norms: dict[str, Norm]  # before_attention, after_attention, before_mlp, after_mlp; those that it has
    options: Options
    activation: tuple[float, float]

    def linear(self) -> dict[str, Any]:
        """Its linear layers, by the names that C has for their weights."""
        attention, mlp = self.attention, self.mlp
        linear = {"query": attention.q_proj, "key": attention.k_proj, "value": attention.v_proj}
        return linear | {"out": attention.o_proj, "gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj}

    def weights(self) -> Weights:
        """Matrices, and biases; without what adapters add."""
        linear = self.linear()
        return {name: module.weight for name, module in linear.items()} | {
            f"{name}_bias": module.bias for name, module in linear.items()
        }


@dataclass(frozen=True)
class Rotary:
    """What was called for the cosines and sines of some layers, and what for."""

    module: nn.Module
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    positions: Tensor
    found: tuple[Tensor, Tensor]

    def table(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines [N, D] of the first `count` positions; None if those of a position depend on the others."""
        before = self.positions.shape[1]
        asked = torch.arange(max(count, before))[None]
        arguments = [asked if value is self.positions else value for value in self.arguments]
        named = {name: asked if value is self.positions else value for name, value in self.named.items()}
        made = tuple(part[0].contiguous() for part in self.module(*arguments, **named))
        same = all(
            torch.allclose(part[:before], known[0], atol=1e-6) for part, known in zip(made, self.found, strict=True)
        )
        return (made[0], made[1]) if same else None


Tables = tuple[Tensor, Tensor]  # cosines and sines [N, D] of the first N positions


@dataclass(frozen=True)
class Trunk:
    """Modules of a model between its token ids and its last hidden states, found once."""

    embedding: Any
    layers: list[Layer]
    norm: Norm
    rotaries: list[Rotary]  # of each layer

    def tables(self, count: int) -> list[Tables] | None:
        """Those of each layer, for rows that stand before position `count`; None if there are none for positions."""
        made: dict[int, Tables] = {}
        for rotary in self.rotaries:
            if id(rotary) not in made:
                table = rotary.table(count)
                if table is None:
                    return None
                made[id(rotary)] = table
        return [made[id(rotary)] for rotary in self.rotaries]


@dataclass(frozen=True)
class Laid:
    """Weights as products take them, the head's the last; how is told by `step.py`."""

    way: int
    panels: Sequence[Tensor]


@dataclass(frozen=True)
class Stack:
    """Modules of a whole model, found once; `fill` says where their weights lie now."""

    trunk: Trunk
    head: Any
    embedding_scale: float
    softcap: float

    def lay(self, way: int) -> Laid:
        """A copy of the weights, side by side as products take them; adapters are added up in it."""
        modules = self.linear()
        return Laid(way, step.laid([module.weight.shape for module in modules], map(whole_weight, modules), way))

    def fill(self, positions: int, spare: Tensor | None, laid: Laid | None) -> Filled | None:
        """For rows that stand before position `positions`. `spare` are ids that are no token. Without a copy `laid` of
        the weights None is returned where layers have adapters."""
        tables = self.trunk.tables(positions)
        if tables is None:
            return None
        kept: list[Tensor] = []

        def at(tensor: Tensor | None) -> int | None:
            if tensor is None:
                return None
            kept.append(tensor if tensor.is_contiguous() else tensor.contiguous())
            return kept[-1].data_ptr()

        trunk = self.trunk
        made = (LayerC * len(trunk.layers))()
        for into, layer, table in zip(made, trunk.layers, tables, strict=True):
            fill_layer(into, layer, table, at)
        head = self.head.weight
        if laid is not None:
            *panels, head = laid.panels
            each = iter(panels)
            for into, layer in zip(made, trunk.layers, strict=True):
                for name in layer.linear():
                    setattr(into, name, at(next(each)))
        elif any(map(is_adapted, self.linear())):
            return None
        stack = StackC(
            made, at(trunk.embedding.weight), at(trunk.norm.scale()), at(head), at(self.head.bias),
            at(spare), len(made), *sizes_of(trunk), len(self.head.weight), 0 if spare is None else len(spare),
            torch.get_num_threads(), laid.way if laid else 0, self.embedding_scale, trunk.norm.eps, self.softcap,
        )  # fmt: skip
        return Filled(stack, kept, made)

    def linear(self) -> list[Any]:
        """All linear layers, the head the last."""
        return [module for layer in self.trunk.layers for module in layer.linear().values()] + [self.head]

    def weights(self) -> int:
        """Those that products read."""
        return sum(module.weight.numel() for module in self.linear())

    def fits_half(self) -> bool:
        """Whether bfloat16 has all of those, as of a model that was stored in it and not trained since."""
        return not any(is_adapted(module) or not step.fits_half(module.weight) for module in self.linear())


def sizes_of(trunk: Trunk) -> tuple[int, int, int, int]:
    """Width, heads, key heads, and the size of a head."""
    first = trunk.layers[0].attention
    heads, key_heads = (layer.out_features // first.head_dim for layer in (first.q_proj, first.k_proj))
    return first.q_proj.in_features, heads, key_heads, first.head_dim


@dataclass(frozen=True)
class Filled:
    """What C reads, and what must live as long."""

    c: StackC
    kept: Sequence[Tensor]
    layers: Any


def fill_layer(into: LayerC, layer: Layer, table: Tables, at: Callable[[Tensor | None], int | None]) -> None:
    """Where the layer's weights lie is what `at` says of them."""
    weights: Weights = {"cosine": table[0], "sine": table[1], **layer.weights()}
    weights |= {name: norm.scale() for name, norm in layer.norms.items()}
    for name, tensor in weights.items():
        setattr(into, name, at(tensor))
    eps = {norm.eps for name, norm in layer.norms.items() if name not in ("query_norm", "key_norm")}
    head_eps = {norm.eps for name, norm in layer.norms.items() if name in ("query_norm", "key_norm")}
    into.eps, into.head_eps = *eps, *(head_eps or {0.0})
    into.scale, into.softcap = layer.options.scale, layer.options.softcap or 0.0
    into.window, into.inner = layer.options.window or 0, layer.mlp.gate_proj.out_features
    into.a, into.b = layer.activation


def find_stack(model: nn.Module) -> Stack | None:
    """The parts of `model`, if all of it is of such parts."""
    try:
        return _assemble(model)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):  # it has other parts
        return None


def _assemble(model: Any) -> Stack | None:
    head = model.get_output_embeddings()
    trunk = find_trunk(model, fast.fast_forwards(model), is_linear) if is_linear(head) else None
    if trunk is None:
        return None
    config, embedding = model.config.get_text_config(), trunk.embedding
    few = torch.arange(min(64, len(embedding.weight)))
    scale = float(embedding(few).detach().abs().max() / embedding.weight[few].detach().abs().max())
    softcap = getattr(config, "final_logit_softcapping", None) or 0.0
    return Stack(trunk, head, scale, softcap)


def find_trunk(
    model: nn.Module, forwards: Forwards, is_known: Callable[[nn.Module], bool] = fast.is_plain
) -> Trunk | None:
    """Those below the head, of a model or of its backbone, in which `forwards` have been found, if each linear layer
    `is_known`."""
    known = {module: forward for module, forward in forwards if isinstance(forward, partial)}
    try:
        return _assemble_trunk(model, known, is_known)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):  # it has other parts
        return None


def _assemble_trunk(model: Any, known: dict[Any, Any], is_known: Callable[[nn.Module], bool]) -> Trunk | None:
    layers = [
        _layer(module, known)
        for module in model.modules()
        if getattr(module, "self_attn", None) in known and getattr(module, "mlp", None) in known
    ]
    mixers = sum(forward.func is fast._attention for forward in known.values())
    inside = {id(norm.weight) for layer in layers for norm in layer.norms.values()}
    norms = [norm for module in known if (norm := _norm(module, known)) and id(norm.weight) not in inside]
    alike = {(layer.attention.head_dim, layer.attention.q_proj.out_features, layer.attention.k_proj.out_features)
             for layer in layers}  # fmt: skip
    all_known = all(is_known(module) for layer in layers for module in layer.linear().values())
    if not all_known or len(layers) != mixers or len(norms) != 1 or len(alike) != 1:
        return None
    return Trunk(model.get_input_embeddings(), layers, norms[0], _rotaries(model, layers, known))


def _norm(module: Any, known: dict[Any, Any]) -> Norm | None:
    forward = known.get(module)
    if forward is None or forward.func is not fast._norm:
        return None
    _, eps, offset = forward.args
    return Norm(module.weight, eps, offset)


def _layer(module: Any, known: dict[Any, Any]) -> Layer:
    """Llama's norms stand before attention and MLP, Gemma's before and after, OLMo 2's after."""
    attention, mlp = known[module.self_attn], known[module.mlp]
    names = {"input_layernorm": "before_attention", "post_attention_layernorm": "before_mlp"}
    if hasattr(module, "post_feedforward_layernorm"):
        names |= {"post_attention_layernorm": "after_attention", "pre_feedforward_layernorm": "before_mlp"}
        names |= {"post_feedforward_layernorm": "after_mlp"}
    found = {to: _norm(getattr(module, name), known) for name, to in names.items() if hasattr(module, name)}
    if hasattr(module.self_attn, "q_norm"):
        mixer = module.self_attn
        found |= {"query_norm": _norm(mixer.q_norm, known), "key_norm": _norm(mixer.k_norm, known)}
    _, _, options = attention.args
    norms = {name: norm for name, norm in found.items() if norm is not None}
    if len(norms) != len(found):
        raise ValueError("a norm of another kind")
    return Layer(module.self_attn, module.mlp, norms, options, fused.ACTIVATIONS[mlp.args[1]])


class _Heard(Exception):
    """The last layer has been reached."""


def _rotaries(model: Any, layers: Sequence[Layer], known: dict[Any, Any]) -> list[Rotary]:
    """What each layer's cosines and sines come from: found by listening to a forward."""
    made: list[Rotary] = []
    heard: list[Any] = []
    positions = torch.arange(5)[None]

    def listen(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        if isinstance(out, tuple) and len(out) == 2 and all(isinstance(part, Tensor) for part in out):
            made.append(Rotary(module, arguments, named, positions, out))

    def note(forward: Any, **named: Any) -> Any:
        heard.append(named["position_embeddings"])
        if len(heard) == len(layers):
            raise _Heard
        return forward(**named)

    modules = [module for module in model.modules() if not any(True for _ in module.parameters())]
    hooks = [module.register_forward_hook(listen, with_kwargs=True) for module in modules]
    forwards = [(layer.attention, partial(note, known[layer.attention])) for layer in layers]
    try:
        with in_place(list(known.items())), in_place(forwards), torch.no_grad():
            model(input_ids=positions, position_ids=positions, attention_plan=_Nothing(), use_cache=False)
    except _Heard:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return [next(one for one in made if one.found[0] is cosine) for cosine, _ in heard]


class _Nothing:
    """An attention plan that mixes nothing in."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        return query.transpose(1, 2)
