"""From hidden states to log-probs, a chunk of targets at a time: no tensor of targets × vocabulary is ever held.

Shapes: M targets, E hidden size, V tokens of the vocabulary, R targets of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from temper.kernels.product import multiply
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

    def logits(self, hidden_RE: Tensor, temperature: float, out: Tensor) -> Tensor:
        """logits / temperature [R, V], in `out` or in a new tensor. Leaves no gradient."""
        weight, bias = self.weight.detach(), self.linear.bias
        if out.dtype == hidden_RE.dtype:
            out = multiply(hidden_RE, weight, out)
        else:
            out.copy_(hidden_RE @ weight.T)
        if bias is not None:
            out.add_(bias.detach())
        if self.softcap is not None:
            out.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap / temperature)
        elif self.scale != temperature:
            out.mul_(self.scale / temperature)
        return out if self.spare is None else out.index_fill_(-1, self.spare, NEVER)


def score_hidden(
    head: Head, hidden_ME: Tensor, targets_M: Tensor, temperature: float = 1.0, rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """log π(target) and entropy [M] of softmax(logits / temperature), both with a gradient; float32 also for narrower
    hidden states. `rows` targets are done at a time.

    >>> head = Head(nn.Linear(2, 4))
    >>> _ = nn.init.zeros_(head.linear.weight), nn.init.zeros_(head.linear.bias)
    >>> [value.detach() for value in score_hidden(head, torch.ones(1, 2), torch.tensor([3]))]
    [tensor([-1.3863]), tensor([1.3863])]
    """
    weight = head.weight
    rows = rows or rows_a_chunk(weight)
    return _Scores.apply(head.read(hidden_ME), weight, head.linear.bias, targets_M, head, temperature, rows)  # type: ignore


def rows_a_chunk(weight: Tensor) -> int:
    """As many as fit a CPU's cache, but never so few that a product is little but reading the weight."""
    chunk_bytes = 16 << 20 if weight.device.type == "cpu" else 256 << 20
    return max(64, chunk_bytes // (4 * len(weight)))


class _Scores(torch.autograd.Function):
    """Between forward and backward stays the log of each target's sum of powers; backward makes the logits anew."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, t: float, rows: int
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy, logsums = (wide(hidden, len(targets)) for _ in range(3))
        for at, logits, powers in _chunks(hidden, weight, rows):
            logits = head.logits(hidden[at], t, out=logits)
            peak = logits.amax(-1, keepdim=True)
            torch.exp(logits.sub_(peak), out=powers)
            total = powers.sum(-1)
            logsum = total.log()
            logprobs[at] = logits.gather(-1, targets[at, None]).squeeze(-1) - logsum
            entropy[at] = logsum - powers.mul_(logits).sum(-1) / total
            logsums[at] = peak.squeeze(-1) + logsum
        ctx.save_for_backward(hidden, weight, targets, logsums, entropy)
        ctx.head, ctx.temperature, ctx.rows = head, t, rows
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, logsums, entropy = ctx.saved_tensors
        of_logprobs = torch.zeros_like(logsums) if gradients[0] is None else gradients[0]
        of_entropy = gradients[1]
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_hidden = torch.empty_like(hidden) if needs_hidden else None
        of_weight = wide(weight, *weight.shape).zero_() if needs_weight else None
        of_bias = wide(weight, len(weight)).zero_() if needs_bias else None
        for at, logits, gradient in _chunks(hidden, weight, ctx.rows):
            logits = ctx.head.logits(hidden[at], ctx.temperature, out=logits)
            torch.sub(logits, logsums[at, None], out=gradient).exp_()  # the probabilities π
            if of_entropy is None:
                gradient.mul_(-of_logprobs[at, None])
            else:  # dH/dx = −π (log π + H)
                surprise = logits - (logsums - entropy)[at, None]
                gradient.mul_(surprise.mul_(-of_entropy[at, None]).sub_(of_logprobs[at, None]))
            gradient.scatter_add_(-1, targets[at, None], of_logprobs[at, None])
            through_transform(gradient, logits, ctx.head, ctx.temperature)
            narrow = gradient.to(weight.dtype)
            if of_hidden is not None:
                of_hidden[at] = multiply(narrow, weight.T, of_hidden[at])
            if of_weight is not None:
                add_product(of_weight, narrow.T, hidden[at])
            if of_bias is not None:
                of_bias += gradient.sum(0)
        of_weight, of_bias = (None if x is None else x.to(weight.dtype) for x in (of_weight, of_bias))
        return of_hidden, of_weight, of_bias, None, None, None, None


def through_transform(gradient: Tensor, logits: Tensor, head: Head, temperature: float) -> None:
    """From the gradient of logits / temperature to that of what `linear` gave, in place; `logits` is used up."""
    if head.softcap is not None:
        if head.spare is not None:
            logits.index_fill_(-1, head.spare[head.spare < logits.shape[-1]], 0)  # squared, NEVER would be infinite
        gradient.mul_(logits.mul_(temperature / head.softcap).square_().neg_().add_(1))
    if head.scale != temperature:
        gradient.mul_(head.scale / temperature)


def _chunks(hidden: Tensor, weight: Tensor, rows: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Slices of the targets, each with two work spaces [R, V], the same memory every time."""
    count = len(hidden)
    first, second = (wide(hidden, min(rows, count), len(weight)) for _ in range(2))
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        yield slice(start, stop), first[: stop - start], second[: stop - start]


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
