"""All layers of a Llama-like model in one call, forward and backward, by `trunk.c`: float32 on a CPU.

Layer by layer, torch writes whatever a product is made of and whatever comes of it to memory and reads it again. Here
tokens go through in pieces that stay in the cache. A model is recognised as `stack.py` does it, and served only where
the first call said what its own layers say, gradients included. Threads share pieces out; no sum depends on how many.

Shapes: N packed tokens, E hidden size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from temper.kernels import fused, rows
from temper.kernels.compiler import Functions
from temper.kernels.fast import fast_forwards
from temper.kernels.forwards import Forwards, in_place
from temper.kernels.packed import AttentionPlan
from temper.kernels.product import apply
from temper.kernels.runs import Row
from temper.kernels.spaces import space
from temper.kernels.stack import Tables, Trunk, fill_layer, find_trunk, sizes_of
from temper.kernels.step import LayerC
from temper.kernels.straight import embed, place_of
from temper.kernels.trial import is_faster

SOURCE = Path(__file__).with_name("trunk.c")
SMALL = 8_000_000  # weights up to which it is faster wherever there are vectors; above that it is tried (`trial.py`)
ROUND = 64  # positions, to a multiple of which tables of cosines are made
TOLERANCE = 1e-4  # of the largest value

TablesBySize = dict[int, list[Tables] | None]  # by how many positions they have; None if there are none for positions


@dataclass
class _Found:
    """What is known of a model; it names no module that holds it whole, or it would be kept for good."""

    count: int  # of its modules: adapters add some
    trunk: Trunk | None
    is_held: bool  # its gradients have been held against those of its own layers
    tables: TablesBySize = field(default_factory=dict)


_known: WeakKeyDictionary[nn.Module, _Found] = WeakKeyDictionary()


def trunk_forwards(model: nn.Module, checkpointing: bool = False, trains: bool = True) -> Forwards:
    """The backbone in `model`, with a forward that runs all its layers in one call; nothing where there is none. With
    `checkpointing` it keeps what each layer is given, and runs it again in the backward pass. For a model that is not
    trained here no room is taken for gradients of its weights."""
    if not fast_forwards(model):  # asked each time: it may have been moved or rounded since
        return ()
    count = sum(1 for _ in model.modules())
    found = _known.get(model)
    if found is None or found.count != count:
        is_small = sum(weight.numel() for weight in model.parameters()) <= SMALL
        found = _known[model] = _Found(count, _find(model, is_small, trains or is_small), trains or is_small)
    if found.trunk is not None and trains and not found.is_held:
        found.trunk = found.trunk if _says_the_same(model, found.trunk, True) else None
        found.is_held = True
    if found.trunk is None:
        return ()
    backbone = _backbone(model)
    return [(backbone, partial(_forward, found.trunk, backbone, found.tables, checkpointing))]


def _backbone(model: nn.Module) -> Any:
    from transformers import PreTrainedModel

    models: list[Any] = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    return next((inner for inner in models if inner.base_model is inner), None)


def _find(model: nn.Module, is_small: bool, with_gradients: bool) -> Trunk | None:
    backbone = None if not _functions.available else _backbone(model)
    trunk = None if backbone is None else find_trunk(backbone, fast_forwards(model))
    if trunk is None or not _fits(trunk) or not (is_small or is_faster(trunk, _run)):
        return None
    return trunk if _says_the_same(model, trunk, with_gradients) else None


def _run(trunk: Trunk, x: Tensor, row: int) -> Tensor:
    """For `trial.py`."""
    rows = [Row(range(first, first + row)) for first in range(0, len(x), row)]
    plan = AttentionPlan(rows, torch.arange(row).repeat(len(rows)))
    with torch.no_grad():
        tables = trunk.tables(row)
    assert tables is not None, "`find_trunk` has heard them"
    return apply(_Trunk, x, trunk, tables, plan, False, *(weight for _, _, weight in _weights(trunk)))


def _fits(trunk: Trunk) -> bool:
    """Whether its attention is of a kind that `trunk.c` has, and every weight float32 in main memory without gaps."""
    softcaps = any(layer.options.softcap is not None for layer in trunk.layers)
    plain = all(weight.dtype == torch.float32 and weight.is_contiguous() for _, _, weight in _weights(trunk))
    return plain and not softcaps and sizes_of(trunk)[-1] % rows.WIDTH == 0


def _forward(
    trunk: Trunk, backbone: Any, tables: TablesBySize, checkpointing: bool,
    input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, attention_plan: Any = None, **options: Any,
) -> Any:  # fmt: skip
    """The backbone's forward. `tables`: those made so far."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    found = None
    if isinstance(attention_plan, AttentionPlan) and _serves(trunk, backbone, attention_plan):
        count = -(-attention_plan.longest // ROUND) * ROUND
        if count not in tables:
            with torch.no_grad():
                tables[count] = trunk.tables(count)
        found = tables[count]
    if found is None:
        asked = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_plan": attention_plan}
        return type(backbone).forward(backbone, **asked, **options)
    weights = [weight for _, _, weight in _weights(trunk)]
    x = embed(trunk.embedding, input_ids) if inputs_embeds is None else inputs_embeds  # type: ignore[arg-type]
    said = apply(_Trunk, x[0].contiguous(), trunk, found, attention_plan, checkpointing, *weights)
    normed = fused.rms_norm(said, trunk.norm.scale(), trunk.norm.eps)
    return BaseModelOutputWithPast(last_hidden_state=normed[None])  # type: ignore[arg-type]


def _serves(trunk: Trunk, backbone: nn.Module, plan: AttentionPlan) -> bool:
    """Whether a pass by this plan can be done here: one that keeps no keys, backward by one thread only, of layers that
    nobody listens to."""
    windows = (layer.options.window for layer in trunk.layers)
    short = plan.most_keys <= rows.MOST and not any(window and window < plan.longest for window in windows)
    if not short or plan.kept is not None:
        return False
    inside = (module for module in backbone.modules() if module is not backbone)
    return not any(module._forward_hooks or module._forward_pre_hooks for module in inside)


def _weights(trunk: Trunk) -> Iterator[tuple[int, str, nn.Parameter]]:
    """Every weight of the layers: whose it is, and what C calls it."""
    for number, layer in enumerate(trunk.layers):
        named = layer.weights() | {name: norm.weight for name, norm in layer.norms.items()}
        yield from ((number, name, weight) for name, weight in named.items() if weight is not None)  # type: ignore


class _Trunk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, trunk: Trunk, tables: list[Tables], plan: AttentionPlan, checkpointing: bool,
        *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        call, out = _Call(trunk, tables, plan), torch.empty_like(x)
        is_trained = any(getattr(ctx, "needs_input_grad", ()))
        inputs = x.new_empty(len(trunk.layers), *x.shape) if is_trained and checkpointing else None
        keeps = is_trained and inputs is None
        memory = space(call.floats(keeps))
        given = (part.data_ptr() for part in (x, out, memory))
        where = None if inputs is None else inputs.data_ptr()
        _functions["trunk_forward"](*call.told, *given, where, keeps, torch.get_num_threads())
        ctx.save_for_backward(memory if inputs is None else inputs, *weights)
        ctx.call, ctx.runs_again = call, inputs is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (memory, *weights), of_x = ctx.saved_tensors, gradient.clone(memory_format=torch.contiguous_format)
        asked = ctx.needs_input_grad[-len(weights) :]
        straight = [place_of(weight) if needs else None for weight, needs in zip(weights, asked, strict=True)]
        apart = [needs and place is None for needs, place in zip(asked, straight, strict=True)]
        sizes = [weight.numel() * own for weight, own in zip(weights, apart, strict=True)]
        found = of_x.new_zeros(sum(sizes)).split(sizes)
        places = (LayerC * len(ctx.call.trunk.layers))()
        for (number, name, _), own, place, other in zip(_weights(ctx.call.trunk), apart, found, straight, strict=True):
            if own or other is not None:
                setattr(places[number], name, (place if other is None else other).data_ptr())
        again = of_x.new_empty(ctx.call.floats(False)) if ctx.runs_again else None
        where = (memory.data_ptr(), None) if again is None else (again.data_ptr(), memory.data_ptr())
        _functions["trunk_backward"](*ctx.call.told, places, of_x.data_ptr(), *where, torch.get_num_threads())
        parts = zip(found, weights, apart, strict=True)
        return of_x, None, None, None, None, *(part.view_as(like) if own else None for part, like, own in parts)


class _Call:
    """What C is told of the layers and of the tokens, and what must live as long."""

    def __init__(self, trunk: Trunk, tables: list[Tables], plan: AttentionPlan):
        self.trunk, self.kept = trunk, [plan.table_R4, plan.positions_N]
        layers = (LayerC * len(trunk.layers))()
        for into, layer, table in zip(layers, trunk.layers, tables, strict=True):
            fill_layer(into, layer, table, self._at)
        self.tokens = len(plan.positions_N)
        table, positions = plan.table_R4.data_ptr(), plan.positions_N.data_ptr()
        told = _TokensC(table, positions, len(plan.table_R4), self.tokens, plan.most_keys)
        self.told = _TrunkC(layers, len(layers), *sizes_of(trunk)), told

    def _at(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self.kept.append(tensor)
        return tensor.data_ptr()

    def floats(self, keeps: bool) -> int:
        return _functions["trunk_kept"](self.told[0], self.tokens, keeps)


class _TrunkC(ctypes.Structure):
    """`struct trunk`."""

    names = ("count", "width", "heads", "key_heads", "size")
    _fields_ = [("layers", ctypes.POINTER(LayerC)), *((name, ctypes.c_long) for name in names)]


class _TokensC(ctypes.Structure):
    """`struct tokens`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("rows", "positions")),
        *((name, ctypes.c_long) for name in ("rows_count", "count", "most")),
    ]


# -- is it right? -----------------------------------------------------------------------------------------------------


def _says_the_same(model: nn.Module, trunk: Trunk, with_gradients: bool) -> bool:
    """Of made-up rows with a prefix and without, up to rounding: hidden states, and gradients of all weights."""
    backbone, forwards = _backbone(model), fast_forwards(model)
    forward = partial(_forward, trunk, backbone, {}, False)
    size = len(backbone.get_input_embeddings().weight)
    ids = (7 + 31 * torch.arange(13)) % size
    prefix = range(2)
    runs = [Row(prefix), Row(range(2, 6), prefix), Row(range(6, 8), prefix), Row(range(8, 13))]
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 2, 3, 0, 1, 2, 3, 4])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ways = forwards, [*forwards, (backbone, forward)]
        plan = AttentionPlan(runs, positions)
        one, other = (_values(backbone, way, ids, plan, with_gradients) for way in ways)
    finally:
        torch.set_num_threads(before)
    return all(starmap(_alike, zip(one, other, strict=True)))


def _values(
    backbone: Any, forwards: Forwards, ids: Tensor, plan: AttentionPlan, with_gradients: bool
) -> list[Tensor]:  # fmt: skip
    """Hidden states, and gradients."""
    weights = list(backbone.parameters())
    asked = [weight.requires_grad for weight in weights]
    with in_place(forwards), torch.set_grad_enabled(with_gradients):
        for weight in weights:
            weight.requires_grad_(True)
        try:
            positions = plan.positions_N[None]
            given = {"input_ids": ids[None], "position_ids": positions, "attention_plan": plan, "use_cache": False}
            hidden = backbone.forward(**given).last_hidden_state[0]  # nobody's hooks are told
            if not with_gradients:
                return [hidden]
            weighted = hidden * torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
            found = torch.autograd.grad(weighted.sum(), weights, allow_unused=True, materialize_grads=True)
            return [hidden.detach(), *found]
        finally:
            for weight, was in zip(weights, asked, strict=True):
                weight.requires_grad_(was)


def _alike(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


_pointer, _number, _trunk, _tokens = ctypes.c_void_p, ctypes.c_long, ctypes.POINTER(_TrunkC), ctypes.POINTER(_TokensC)
_functions = Functions(
    SOURCE,
    {
        "trunk_kept": [_trunk, _number, _number],
        "trunk_forward": [_trunk, _tokens, _pointer, _pointer, _pointer, _pointer, _number, _number],
        "trunk_backward": [_trunk, _tokens, ctypes.POINTER(LayerC), _pointer, _pointer, _pointer, _number],
    },
    {"trunk_kept": _number},
)
