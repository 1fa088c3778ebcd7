"""All layers of a small Llama-like model in one call, forward and backward, by `trunk.c`: float32, one thread.

Layer by layer, torch writes whatever a product is made of and whatever comes of it to memory and reads it again. Here
tokens go through in blocks that stay in the cache. A model is recognised as `stack.py` does it, and served only where
the first call said what its own layers say, gradients included.

Shapes: N packed tokens, E hidden size.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from temper.kernels import fused, rows
from temper.kernels.compiler import OPENMP, declared, load_library
from temper.kernels.fast import fast_forwards
from temper.kernels.forwards import Forward, Forwards, in_place
from temper.kernels.packed import AttentionPlan
from temper.kernels.product import apply
from temper.kernels.runs import Row
from temper.kernels.spaces import space
from temper.kernels.stack import Tables, Trunk, fill_layer, find_trunk, sizes_of
from temper.kernels.step import LayerC

SOURCE = Path(__file__).with_name("trunk.c")
MOST_WEIGHTS = 8_000_000  # up to which training is by one-thread processes (`train/sizes.py`)
ROUND = 64  # positions, to a multiple of which tables of cosines are made
TOLERANCE = 1e-4  # of the largest value

TablesBySize = dict[int, list[Tables] | None]  # by how many positions they have; None if there are none for positions
# by model; what is kept of it names no module that holds it whole, or it would be kept for good
_known: WeakKeyDictionary[nn.Module, tuple[int, Trunk | None, TablesBySize]] = WeakKeyDictionary()


def trunk_forwards(model: nn.Module, checkpointing: bool = False) -> Forwards:
    """The backbone in `model`, with a forward that runs all its layers in one call; nothing where there is none. With
    `checkpointing` it keeps what each layer is given, and runs it again in the backward pass."""
    if not fast_forwards(model):  # asked each time: it may have been moved or rounded since
        return ()
    count = sum(1 for _ in model.modules())  # adapters add some
    if model not in _known or _known[model][0] != count:
        _known[model] = count, _find(model), {}
    _, trunk, tables = _known[model]
    if trunk is None:
        return ()
    backbone = _backbone(model)
    return [(backbone, partial(_forward, trunk, backbone, tables, checkpointing))]


def _backbone(model: nn.Module) -> Any:
    from transformers import PreTrainedModel

    models: list[Any] = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    return next((inner for inner in models if inner.base_model is inner), None)


def _find(model: nn.Module) -> Trunk | None:
    if _library() is None or sum(weight.numel() for weight in model.parameters()) > MOST_WEIGHTS:
        return None
    backbone, forwards = _backbone(model), fast_forwards(model)
    trunk = None if backbone is None else find_trunk(backbone, forwards)
    if trunk is None or not _fits(trunk):
        return None
    return trunk if _says_the_same(backbone, forwards, partial(_forward, trunk, backbone, {}, False)) else None


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
    x = trunk.embedding(input_ids) if inputs_embeds is None else inputs_embeds
    said = apply(_Trunk, x[0].contiguous(), trunk, found, attention_plan, checkpointing, *weights)
    normed = fused.rms_norm(said, trunk.norm.scale(), trunk.norm.eps)
    return BaseModelOutputWithPast(last_hidden_state=normed[None])  # type: ignore[arg-type]


def _serves(trunk: Trunk, backbone: nn.Module, plan: AttentionPlan) -> bool:
    """Whether a pass by this plan can be done here: one that keeps no keys, backward by one thread only, of layers that
    nobody listens to."""
    windows = (layer.options.window for layer in trunk.layers)
    short = plan.most_keys <= rows.MOST and not any(window and window < plan.longest for window in windows)
    if not short or plan.kept is not None or (torch.is_grad_enabled() and torch.get_num_threads() > 1):
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
        _functions()["trunk_forward"](*call.told, *given, where, keeps, torch.get_num_threads())
        ctx.save_for_backward(memory if inputs is None else inputs, *weights)
        ctx.call, ctx.runs_again = call, inputs is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (memory, *weights), of_x = ctx.saved_tensors, gradient.clone(memory_format=torch.contiguous_format)
        sizes = [weight.numel() for weight in weights]
        found = of_x.new_zeros(sum(sizes)).split(sizes)
        places = (LayerC * len(ctx.call.trunk.layers))()
        for (number, name, _), place in zip(_weights(ctx.call.trunk), found, strict=True):
            setattr(places[number], name, place.data_ptr())
        again = of_x.new_empty(ctx.call.floats(False)) if ctx.runs_again else None
        where = (memory.data_ptr(), None) if again is None else (again.data_ptr(), memory.data_ptr())
        _functions()["trunk_backward"](*ctx.call.told, places, of_x.data_ptr(), *where)
        shaped = (part.view(weight.shape) for part, weight in zip(found, weights, strict=True))
        return of_x, None, None, None, None, *shaped


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
        return _functions()["trunk_kept"](self.told[0], self.tokens, keeps)


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


def _says_the_same(backbone: Any, forwards: Forwards, forward: Forward) -> bool:
    """Of made-up rows with a prefix and without, up to rounding: hidden states, and gradients of all weights."""
    size = len(backbone.get_input_embeddings().weight)
    ids = (7 + 31 * torch.arange(13)) % size
    prefix = range(2)
    runs = [Row(prefix), Row(range(2, 6), prefix), Row(range(6, 8), prefix), Row(range(8, 13))]
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 2, 3, 0, 1, 2, 3, 4])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ways = forwards, [*forwards, (backbone, forward)]
        one, other = (_values(backbone, way, ids, AttentionPlan(runs, positions)) for way in ways)
    finally:
        torch.set_num_threads(before)
    return all(starmap(_alike, zip(one, other, strict=True)))


def _values(backbone: Any, forwards: Forwards, ids: Tensor, plan: AttentionPlan) -> list[Tensor]:
    """Hidden states, and gradients."""
    weights = list(backbone.parameters())
    asked = [weight.requires_grad for weight in weights]
    with in_place(forwards), torch.enable_grad():
        for weight in weights:
            weight.requires_grad_(True)
        try:
            positions = plan.positions_N[None]
            given = {"input_ids": ids[None], "position_ids": positions, "attention_plan": plan, "use_cache": False}
            hidden = backbone.forward(**given).last_hidden_state[0]  # nobody's hooks are told
            weighted = hidden * torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
            found = torch.autograd.grad(weighted.sum(), weights, allow_unused=True, materialize_grads=True)
            return [hidden.detach(), *found]
        finally:
            for weight, was in zip(weights, asked, strict=True):
                weight.requires_grad_(was)


def _alike(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


@functools.cache
def _library() -> ctypes.CDLL | None:
    return load_library(SOURCE, OPENMP)


@functools.cache
def _functions() -> dict[str, Any]:
    library = _library()
    assert library is not None, "asked only where there is one"
    pointer, number, trunk, tokens = ctypes.c_void_p, ctypes.c_long, ctypes.POINTER(_TrunkC), ctypes.POINTER(_TokensC)
    arguments = {
        "trunk_kept": [trunk, number, number],
        "trunk_forward": [trunk, tokens, pointer, pointer, pointer, pointer, number, number],
        "trunk_backward": [trunk, tokens, ctypes.POINTER(LayerC), pointer, pointer, pointer],
    }
    return declared(library, arguments, {"trunk_kept": number})
