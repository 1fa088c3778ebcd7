"""From hidden states to log-probs, a piece of the vocabulary at a time: no tensor of targets × vocabulary is ever held.

Products of all targets with a piece are near what the machine can do; those of a few targets with a whole vocabulary
are little but reading the weight. And a piece's gradient of the weight is whole when it is done.

Shapes: M targets, E hidden size, V tokens of the vocabulary, P of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from temper.kernels import head as own
from temper.kernels.product import multiply
from temper.kernels.straight import place_of
from temper.models.spare import NEVER
from temper.models.wide import WideLinear

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # as config.json calls them
SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")  # factors in some models, divisors in others
_LOUD = 256  # the probe's second volume: at it a softcap shows, at the first a bias


@dataclass(frozen=True)
class Head:
    """How a model turns hidden states into logits: `linear`, times `scale`, then softcap·tanh(x / softcap). The rows
    `spare` are no token and get no probability."""

    linear: nn.Linear
    scale: float = 1.0
    softcap: float | None = None
    spare: Tensor | None = None

    @property
    def is_wide(self) -> bool:
        """Whether its product is in float32 whatever its weights are kept in."""
        return isinstance(self.linear, WideLinear)

    @property
    def weight(self) -> Tensor:
        """[V, E] as it is computed with."""
        return self.linear.weight.float() if self.is_wide else self.linear.weight

    def read(self, hidden_ME: Tensor) -> Tensor:
        """Hidden states as it takes them."""
        return hidden_ME.float() if self.is_wide else hidden_ME

    def logits(self, hidden_ME: Tensor, temperature: float, out: Tensor, piece: Piece | None = None) -> Tensor:
        """logits / temperature [M, V], or [M, P] of a piece, in `out` or in a new tensor. Leaves no gradient."""
        tokens, spare = (slice(None), self.spare) if piece is None else piece
        weight, bias = self.weight.detach()[tokens], self.linear.bias
        if out.dtype == hidden_ME.dtype:
            out = multiply(hidden_ME, weight, out)
        else:
            out.copy_(hidden_ME @ weight.T)
        if bias is not None:
            out.add_(bias.detach()[tokens])
        if self.softcap is not None:
            out.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap / temperature)
        elif self.scale != temperature:
            out.mul_(self.scale / temperature)
        return out if spare is None else out.index_fill_(-1, spare, NEVER)

    def way(self, temperature: float) -> own.Way:
        """What becomes of a product, for `kernels/head.py`."""
        if self.softcap is None:
            return own.Way(self.scale / temperature, None, self.spare)
        return own.Way(self.softcap / temperature, self.scale / self.softcap, self.spare)

    def pieces(self, size: int) -> list[Piece]:
        """The vocabulary in pieces of about `size` tokens, all but the last alike."""
        tokens = len(self.linear.weight)
        count = -(-tokens // size)
        size = -(-tokens // count)
        found = [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
        if self.spare is None:
            return [Piece(piece, None) for piece in found]
        within = [(self.spare >= piece.start) & (self.spare < piece.stop) for piece in found]
        return [Piece(piece, self.spare[kept] - piece.start) for piece, kept in zip(found, within, strict=True)]


class Piece(NamedTuple):
    """A part of the vocabulary, and which of its tokens are none, counted from its first."""

    tokens: slice
    spare: Tensor | None


def score_hidden(
    head: Head, hidden_ME: Tensor, targets_M: Tensor, temperature: float = 1.0, piece: int | None = None
) -> tuple[Tensor, Tensor]:
    """log π(target) and entropy [M] of softmax(logits / temperature), both with a gradient; float32 also for narrower
    hidden states. `piece` tokens of the vocabulary are done at a time.

    >>> head = Head(nn.Linear(2, 4))
    >>> _ = nn.init.zeros_(head.linear.weight), nn.init.zeros_(head.linear.bias)
    >>> [value.detach() for value in score_hidden(head, torch.ones(1, 2), torch.tensor([3]))]
    [tensor([-1.3863]), tensor([1.3863])]
    """
    hidden_ME, weight, bias = head.read(hidden_ME), head.weight, head.linear.bias
    is_whole = head.linear.weight.dtype == torch.float32  # else its `weight` was made of it
    if piece is None and is_whole and own.serves(hidden_ME, weight, bias, _plainly):
        return own.score(hidden_ME, weight, bias, targets_M, head.way(temperature))
    pieces = head.pieces(piece or tokens_a_piece(hidden_ME))
    return _Scores.apply(hidden_ME, weight, bias, targets_M, head, temperature, pieces)  # type: ignore


def _plainly(
    hidden_ME: Tensor, weight: Tensor, bias: Tensor | None, targets_M: Tensor, way: own.Way
) -> tuple[Tensor, Tensor]:
    """For `kernels/head.py` to try itself against."""
    linear = nn.Linear(1, 1, bias=bias is not None)
    linear.weight = nn.Parameter(weight.detach())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach())
    scale, softcap = (way.scale, None) if way.cap is None else (way.cap * way.scale, way.scale)
    head = Head(linear, scale, softcap, way.spare)
    pieces = head.pieces(tokens_a_piece(hidden_ME))
    return _Scores.apply(hidden_ME, weight, bias, targets_M, head, 1.0, pieces)  # type: ignore


def tokens_a_piece(hidden_ME: Tensor) -> int:
    """As many as let a piece's logits fit a CPU's cache, but never so few that a product has no rows to speak of."""
    piece_bytes = 8 << 20 if hidden_ME.device.type == "cpu" else 256 << 20
    return max(512, piece_bytes // (4 * max(1, len(hidden_ME))))


class _Scores(torch.autograd.Function):
    """The softmax is summed up piece by piece (1805.02867, algorithm 3), and with it Σ exp(x − peak) (x − peak) for the
    entropy. Between forward and backward stays the log of each target's sum of powers; backward makes the logits anew.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, t: float,
        pieces: list[Piece],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        sums: _Sums | None = None
        for piece, logits, powers in _spaces(hidden, pieces):
            logits = head.logits(hidden, t, logits, piece)
            sums = _summed(sums, logits, powers, targets - piece.tokens.start)
        assert sums is not None, "a vocabulary has tokens"
        logsums = sums.total.log()
        logprobs, entropy = sums.chosen - logsums, logsums - sums.weighted / sums.total
        ctx.save_for_backward(hidden, weight, targets, sums.peak + logsums, entropy)
        ctx.head, ctx.temperature, ctx.pieces = head, t, pieces
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, logsums, entropy = ctx.saved_tensors
        of_logprobs = torch.zeros_like(logsums) if gradients[0] is None else gradients[0]
        of_entropy = gradients[1]
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_hidden = wide(hidden, *hidden.shape).zero_() if needs_hidden else None
        gathered = place_of(weight) if needs_weight else None
        of_weight = torch.empty_like(weight) if needs_weight and gathered is None else None
        of_bias = weight.new_empty(len(weight)) if needs_bias else None
        for piece, logits, gradient in _spaces(hidden, ctx.pieces):
            tokens = piece.tokens
            logits = ctx.head.logits(hidden, ctx.temperature, logits, piece)
            torch.sub(logits, logsums[:, None], out=gradient).exp_()  # the probabilities π
            if of_entropy is None:
                gradient.mul_(-of_logprobs[:, None])
            else:  # dH/dx = −π (log π + H)
                surprise = logits - (logsums - entropy)[:, None]
                gradient.mul_(surprise.mul_(-of_entropy[:, None]).sub_(of_logprobs[:, None]))
            here, places = _within(targets - tokens.start, gradient)
            gradient.scatter_add_(-1, places, (of_logprobs * here)[:, None])
            through_transform(gradient, logits, ctx.head, ctx.temperature, piece.spare)
            narrow = gradient.to(weight.dtype)
            if of_hidden is not None:
                add_product(of_hidden, narrow, weight[tokens])
            if gathered is not None:
                gathered[tokens].addmm_(narrow.T, hidden)
            if of_weight is not None:
                torch.mm(narrow.T, hidden, out=of_weight[tokens])
            if of_bias is not None:
                of_bias[tokens] = gradient.sum(0)
        of_hidden = None if of_hidden is None else of_hidden.to(hidden.dtype)
        return of_hidden, of_weight, of_bias, None, None, None, None


class _Sums(NamedTuple):
    """What is known of each target's softmax [M] after some pieces of the vocabulary."""

    peak: Tensor  # the largest logit x
    total: Tensor  # Σ exp(x − peak)
    weighted: Tensor  # Σ exp(x − peak) (x − peak)
    chosen: Tensor  # x − peak of the target, once its piece has been


def _summed(sums: _Sums | None, logits: Tensor, powers: Tensor, targets: Tensor) -> _Sums:
    """With a piece [M, P] more, in which the `targets` have these places; `logits` and `powers` are used up."""
    peak = logits.amax(-1)
    if sums is not None:
        peak = torch.maximum(sums.peak, peak)
    torch.exp(logits.sub_(peak[:, None]), out=powers)
    here, places = _within(targets, logits)
    chosen = logits.gather(-1, places).squeeze(-1)
    total, weighted = powers.sum(-1), powers.mul_(logits).sum(-1)
    if sums is None:
        return _Sums(peak, total, weighted, chosen)
    lower = sums.peak - peak
    scale = lower.exp()
    weighted += scale * (sums.weighted + lower * sums.total)
    return _Sums(peak, total + scale * sums.total, weighted, torch.where(here, chosen, sums.chosen + lower))


def _within(targets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Which targets are tokens of a piece [M], and their places in it [M, 1]; some place for the others."""
    last = logits.shape[-1] - 1
    return (targets >= 0) & (targets <= last), targets.clamp(0, last)[:, None]


def through_transform(gradient: Tensor, logits: Tensor, head: Head, temperature: float, spare: Tensor | None) -> None:
    """From the gradient of logits / temperature to that of what `linear` gave, in place; `logits` is used up. `spare`:
    which of them are of no token."""
    if head.softcap is not None:
        if spare is not None:
            logits.index_fill_(-1, spare, 0)  # squared, NEVER would be infinite
        gradient.mul_(logits.mul_(temperature / head.softcap).square_().neg_().add_(1))
    if head.scale != temperature:
        gradient.mul_(head.scale / temperature)


def _spaces(hidden: Tensor, pieces: list[Piece]) -> Iterator[tuple[Piece, Tensor, Tensor]]:
    """The pieces, each with two work spaces [M, P], the same memory every time."""
    most = max(piece.tokens.stop - piece.tokens.start for piece in pieces)
    first, second = (wide(hidden, len(hidden) * most) for _ in range(2))
    for piece in pieces:
        tokens = piece.tokens.stop - piece.tokens.start
        numbers = len(hidden) * tokens
        yield piece, first[:numbers].view(-1, tokens), second[:numbers].view(-1, tokens)


def wide(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


@dataclass(frozen=True)
class Parts:
    """A causal language model as a backbone, whose last hidden states go into a head and nowhere else."""

    backbone: nn.Module
    head: Head


_known: WeakKeyDictionary[nn.Module, Parts | None] = WeakKeyDictionary()


def take_apart(model: Any, probe: Callable[[nn.Module], Any]) -> Parts | None:
    """The parts of `model` (adapters around it are kept), or None where they do not make up the model.

    Tried once a model: `probe(module)` runs a few tokens through the model or its backbone and returns its output.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's wrapper has one
    linear = inner.get_output_embeddings()
    known = _known.get(model)
    if model not in _known or (known is not None and known.head.linear is not linear):
        known = _known[model] = _parts_if_whole(model, inner.base_model, linear, probe)
    return known


def forget(model: nn.Module) -> None:
    """Try `model` again when next asked: what was found was found while its layers could not be called."""
    _known.pop(model, None)


def _parts_if_whole(
    model: nn.Module, backbone: nn.Module, linear: nn.Module, probe: Callable[[nn.Module], Any]
) -> Parts | None:
    parts = {id(parameter) for part in (backbone, linear) for parameter in part.parameters()}
    if any(id(parameter) not in parts for parameter in model.parameters()):
        return None
    # an adapter on the head starts by adding 0, which no probe sees, but it is another type or a hook
    if type(linear) not in (nn.Linear, WideLinear) or linear._forward_pre_hooks or linear._forward_hooks:
        return None
    training = [module for module in model.modules() if module.training]
    try:
        with torch.no_grad():
            hidden, loud, logits = _overhear(model.eval(), backbone, probe)
            if not _equal(probe(backbone).last_hidden_state, hidden):
                return None
            for head in _candidates(model, linear):  # type: ignore[arg-type]
                found = head.logits(head.read(loud), 1.0, out=torch.empty_like(logits))
                if all(_equal(*halves) for halves in zip(found.chunk(2), logits.chunk(2), strict=True)):
                    return Parts(backbone, head)
    except Exception:  # an architecture that fails here in whatever way is one that is called whole
        return None
    finally:
        for module in training:
            module.training = True
    return None


def _overhear(model: nn.Module, backbone: nn.Module, probe: Callable[[nn.Module], Any]) -> tuple[Tensor, ...]:
    """What the backbone says, the same at two volumes in its place, and the logits [R, V] the model makes of that."""
    heard = []

    def listen(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        output.last_hidden_state = torch.cat([hidden, _LOUD * hidden], dim=1)
        heard.extend([hidden, output.last_hidden_state[0]])
        return output

    handle = backbone.register_forward_hook(listen)
    try:
        logits = probe(model).logits[0]
    finally:
        handle.remove()
    hidden, loud = heard
    return hidden, loud, logits


def _candidates(model: Any, linear: nn.Linear) -> Iterator[Head]:
    """What the model's configuration speaks of first: at logits near 0 the probe may not tell it from no softcap."""
    config = model.config.get_text_config()
    softcaps = [value for name in SOFTCAPS if (value := getattr(config, name, None))]
    scales = [value for name in SCALES if (value := getattr(config, name, None))]
    for softcap, scale in product([*softcaps, None], [*scales, *(1 / scale for scale in scales), 1.0]):
        yield Head(linear, scale, softcap)


def _equal(found: Tensor, expected: Tensor) -> bool:
    """Up to rounding, and not all 0."""
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 2e-2
    largest = expected.abs().max()
    return bool((largest > 0) & ((found - expected).abs().max() <= tolerance * largest))
