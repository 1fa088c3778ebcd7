"""From hidden states to log-probs and entropies in one call, forward and backward, by `head.c`: float32 on a CPU.

What torch does to all logits of a piece of the vocabulary, a pass over memory each, is done here to those that are in
the cache, and the logits of the first pieces are kept for the backward pass. The same bits for any number of threads.

Shapes: M targets, E hidden size, V tokens of the vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from temper.kernels import choice
from temper.kernels.compiler import Functions
from temper.kernels.kept import kept_bytes
from temper.kernels.product import apply
from temper.kernels.spaces import space
from temper.kernels.straight import place_of

SOURCE = Path(__file__).with_name("head.c")
SMALL = 8_000_000  # weights up to which it is faster wherever there are vectors; above that it is tried
FEW, LARGE = 4, 1 << 20  # fewer targets than that do not pay for laying out more weights than that
TRIED_ROWS, TRIED_NUMBERS = 480, 1 << 20  # targets and weights of a trial
TOLERANCE = 1e-4  # of the largest value


class Way(NamedTuple):
    """From what the weight gives to logits / temperature: times `scale`; or, with a cap, tanh(x · cap) · scale. The
    rows `spare` are no token."""

    scale: float
    cap: float | None = None
    spare: Tensor | None = None


Score = Callable[[Tensor, Tensor, Tensor | None, Tensor, Way], tuple[Tensor, Tensor]]


def score(hidden_ME: Tensor, weight: Tensor, bias: Tensor | None, targets_M: Tensor, way: Way) -> tuple[Tensor, Tensor]:
    """log π(target) and entropy [M], both with a gradient."""
    return apply(_Head, hidden_ME, weight, bias, targets_M, way)  # type: ignore


def serves(hidden_ME: Tensor, weight: Tensor, bias: Tensor | None, plain: Score) -> bool:
    """Whether it is to be done here, and not in the `plain` way."""
    floats = [tensor for tensor in (hidden_ME, weight, bias) if tensor is not None]
    usual = all(_is_usual(tensor) for tensor in floats)
    if not usual or not len(hidden_ME) or not weight.is_contiguous() or not _is_right(plain):
        return False
    if len(hidden_ME) < FEW and weight.numel() > LARGE:
        return False
    tokens, width = weight.shape
    return tokens * width <= SMALL or _is_faster(tokens, width, plain)


def _is_usual(tensor: Tensor) -> bool:
    is_plain = type(tensor) in (Tensor, nn.Parameter)  # no part of a tensor of several ranks
    return is_plain and tensor.dtype == torch.float32 and tensor.device.type == "cpu"


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, way: Way
    ) -> tuple[Tensor, Tensor]:
        call, count, functions = _Call(hidden, weight, bias, targets, way), len(hidden), _functions
        a_piece = functions["head_kept"](call.head, count)
        keeps = kept_bytes(weight.nbytes) // (4 * a_piece) if any(getattr(ctx, "needs_input_grad", ())) else 0
        keeps = min(keeps, functions["head_pieces"](call.head))
        kept, threads = space(keeps * a_piece), torch.get_num_threads()
        room = hidden.new_empty(functions["head_forward_room"](call.head, count, threads))
        found = hidden.new_empty(3, count)
        logprobs, entropy, logsums = found
        places = (tensor.data_ptr() for tensor in (room, logprobs, entropy, logsums))
        functions["head_forward"](call.head, call.targets, kept.data_ptr(), keeps, *places, threads)
        ctx.save_for_backward(hidden, weight, bias, targets, entropy.clone(), logsums, kept)
        ctx.way, ctx.keeps = way, keeps
        return logprobs.clone(), entropy.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, entropy, logsums, kept = ctx.saved_tensors
        call = _Call(hidden, weight, bias, targets, ctx.way)
        of_logprobs = torch.zeros_like(logsums) if gradients[0] is None else gradients[0].contiguous()
        of_entropy = None if gradients[1] is None else gradients[1].contiguous()
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_hidden = torch.zeros_like(call.hidden) if needs_hidden else None
        gathered = place_of(weight) if needs_weight else None
        of_weight = torch.empty_like(weight) if needs_weight and gathered is None else None
        of_bias = torch.empty_like(bias) if needs_bias else None
        given = _GivenC(*map(_at, (logsums, entropy, of_logprobs, of_entropy, kept)), ctx.keeps)
        place = of_weight if gathered is None else gathered
        wanted = _WantedC(*map(_at, (of_hidden, place, of_bias)), gathered is not None)
        room = hidden.new_empty(_functions["head_backward_room"](call.head, len(hidden), wanted))
        threads = torch.get_num_threads()
        _functions["head_backward"](call.head, call.targets, given, wanted, room.data_ptr(), threads)
        return of_hidden, of_weight, of_bias, None, None


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _Call:
    """What C is told of a head and its targets, and what must live as long."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, way: Way):
        self.hidden, self.of = hidden.contiguous(), targets.contiguous()
        self.kept = weight, None if bias is None else bias.contiguous(), way.spare
        spares = 0 if way.spare is None else len(way.spare)
        shape, cap = weight.shape, way.cap or 0.0
        self.head = _HeadC(*map(_at, self.kept), spares, *shape, way.scale, cap)
        self.targets = _TargetsC(_at(self.hidden), _at(self.of), len(hidden))


class _HeadC(ctypes.Structure):
    """`struct head`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "spare")),
        *((name, ctypes.c_long) for name in ("spares", "tokens", "width")),
        *((name, ctypes.c_float) for name in ("scale", "cap")),
    ]


class _TargetsC(ctypes.Structure):
    """`struct targets`."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("hidden", "of")), ("count", ctypes.c_long)]


class _GivenC(ctypes.Structure):
    """`struct given`."""

    names = ("logsums", "entropy", "of_logprobs", "of_entropy", "kept")
    _fields_ = [*((name, ctypes.c_void_p) for name in names), ("keeps", ctypes.c_long)]


class _WantedC(ctypes.Structure):
    """`struct wanted`."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("hidden", "weight", "bias")), ("adds", ctypes.c_long)]


# -- is it right, and faster? -----------------------------------------------------------------------------------------


@functools.cache
def _is_right(plain: Score) -> bool:
    """Up to rounding, values and gradients; False where there is no library."""
    if not _functions.available:
        return False
    random = torch.Generator().manual_seed(0)
    numbers = torch.randn(29 * 21 + 70 * 21 + 70, generator=random).split([29 * 21, 70 * 21, 70])
    given = [part.view(shape) for part, shape in zip(numbers, ((29, 21), (70, 21), (70,)), strict=True)]
    targets, spare = 2 * torch.arange(29) + 1, torch.tensor([0, 44])
    for way in (Way(0.7, None, spare), Way(3.0, 0.25, spare)):
        found, expected = (_tried(one, given, targets, way) for one in (score, plain))
        if not all((a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in zip(found, expected, strict=True)):
            return False
    return True


def _tried(one: Score, given: list[Tensor], targets: Tensor, way: Way) -> list[Tensor]:
    """What a way says of them, and gradients."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in given]
        hidden, weight, *bias = inputs
        values = one(hidden, weight, bias[0] if bias else None, targets, way)
        loss = sum((value * torch.linspace(-1, 2, len(value))).sum() for value in values)
        return [*(value.detach() for value in values), *torch.autograd.grad(loss, inputs)]  # type: ignore[arg-type]


def _is_faster(tokens: int, width: int, plain: Score) -> bool:
    """Asked once for every shape of heads."""
    return choice.chosen(f"head {width}x{tokens}", partial(_ways, tokens, width, plain), choice.OWN) == choice.OWN


def _ways(tokens: int, width: int, plain: Score) -> tuple[Callable[[], object], Callable[[], object]]:
    tokens = min(tokens, max(2 * TRIED_ROWS, TRIED_NUMBERS // width))
    given = [torch.ones(TRIED_ROWS, width), torch.ones(tokens, width)]
    targets = torch.arange(TRIED_ROWS) % tokens
    return partial(_tried, plain, given, targets, Way(1.0)), partial(_tried, score, given, targets, Way(1.0))


_floats, _number = ctypes.c_void_p, ctypes.c_long
_head, _targets, _given, _wanted = (ctypes.POINTER(one) for one in (_HeadC, _TargetsC, _GivenC, _WantedC))
_functions = Functions(
    SOURCE,
    {
        "head_pieces": [_head],
        "head_kept": [_head, _number],
        "head_forward_room": [_head, _number, _number],
        "head_backward_room": [_head, _number, _wanted],
        "head_forward": [_head, _targets, _floats, _number, _floats, _floats, _floats, _floats, _number],
        "head_backward": [_head, _targets, _given, _wanted, _floats, _number],
    },
    dict.fromkeys(("head_pieces", "head_kept", "head_forward_room", "head_backward_room"), _number),
)
