"""The divergence of a student from its teacher at every target, a chunk of them at a time: no tensor of targets ×
vocabulary is ever held, neither of the student's logits nor of the teacher's.

Shapes: M targets, E hidden size (the two models' may differ), V tokens of the vocabulary, R targets of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temper.algorithms.distillation import DIVERGENCES
from temper.data.batching import Batch
from temper.kernels.packed import AttentionPlan
from temper.kernels.product import multiply
from temper.train.forward import take_model_apart, target_hidden, target_logits
from temper.train.head import Head, add_product, through_transform, wide

DivergenceName = Literal["forward_kl", "reverse_kl"]


@dataclass(frozen=True)
class Divergence:
    """Which divergence, at which temperature, over the first `vocabulary` tokens that both models have logits for."""

    name: DivergenceName
    temperature: float
    vocabulary: int


def diverge_targets(student: Any, teacher: Any, batch: Batch, plan: AttentionPlan, wanted: Divergence) -> Tensor:
    """The divergence [M] of `student` from `teacher` at every target of `batch`, float32; the student's gradient only.

    Two models of different padding behind one tokenizer are compared on the tokens they share.
    """
    ours, theirs = take_model_apart(student), take_model_apart(teacher)
    if ours is not None and theirs is not None:
        with torch.no_grad():
            told = target_hidden(theirs, batch, plan)
        return diverge_hidden(ours.head, target_hidden(ours, batch, plan), theirs.head, told, wanted)
    with torch.no_grad():
        teacher_logits = target_logits(teacher, batch, plan)[:, : wanted.vocabulary]
    student_logits = target_logits(student, batch, plan)[:, : wanted.vocabulary]
    return DIVERGENCES[wanted.name](student_logits, teacher_logits, wanted.temperature)


def diverge_hidden(
    head: Head, hidden_ME: Tensor, teacher: Head, teacher_hidden_ME: Tensor, wanted: Divergence, rows: int | None = None
) -> Tensor:
    """The divergence [M] of softmax(logits / temperature), float32 also for narrower hidden states.

    >>> head = Head(torch.nn.Linear(2, 4))
    >>> diverge_hidden(head, torch.ones(1, 2), head, torch.ones(1, 2), Divergence("reverse_kl", 1.0, 4)).item()
    0.0
    """
    weight = head.weight
    rows = rows or rows_a_chunk(weight)
    told = teacher.read(teacher_hidden_ME.detach())
    inputs = (head.read(hidden_ME), weight, head.linear.bias, head, teacher, told, wanted, rows)
    return _Divergences.apply(*inputs)  # type: ignore


def rows_a_chunk(weight: Tensor) -> int:
    """As many targets as fit a CPU's cache, but never so few that a product is little but reading the weight."""
    chunk_bytes = 16 << 20 if weight.device.type == "cpu" else 256 << 20
    return max(64, chunk_bytes // (4 * len(weight)))


class _Divergences(torch.autograd.Function):
    """Between forward and backward stay three numbers a target; backward makes both models' logits anew."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        teacher: Head,
        told: Tensor,
        wanted: Divergence,
        rows: int,
    ) -> Tensor:
        values, logsums, teacher_logsums = (wide(hidden, len(hidden)) for _ in range(3))
        for at, logits, teacher_logits, work in _chunks(hidden, weight, teacher, wanted.vocabulary, rows):
            ours = head.logits(hidden[at], wanted.temperature, out=logits)[:, : wanted.vocabulary]
            theirs = teacher.logits(told[at], wanted.temperature, out=teacher_logits)[:, : wanted.vocabulary]
            for found, sums in ((ours, logsums), (theirs, teacher_logsums)):
                sums[at] = found.logsumexp(-1)
                found.sub_(sums[at, None])
            first, second = (theirs, ours) if wanted.name == "forward_kl" else (ours, theirs)
            powers = torch.exp(first, out=work[:, : wanted.vocabulary])
            values[at] = powers.mul_(first.sub_(second)).sum(-1)
        ctx.save_for_backward(hidden, weight, told, values, logsums, teacher_logsums)
        ctx.head, ctx.teacher, ctx.wanted, ctx.rows = head, teacher, wanted, rows
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, told, values, logsums, teacher_logsums = ctx.saved_tensors
        wanted: Divergence = ctx.wanted
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = wide(weight, *weight.shape).zero_() if ctx.needs_input_grad[1] else None
        of_bias = wide(weight, len(weight)).zero_() if ctx.needs_input_grad[2] else None
        for at, logits, teacher_logits, work in _chunks(hidden, weight, ctx.teacher, wanted.vocabulary, ctx.rows):
            ours = ctx.head.logits(hidden[at], wanted.temperature, out=logits)[:, : wanted.vocabulary]
            theirs = ctx.teacher.logits(told[at], wanted.temperature, out=teacher_logits)[:, : wanted.vocabulary]
            theirs.sub_(teacher_logsums[at, None])  # log p of the teacher
            gradient = torch.sub(ours, logsums[at, None], out=work[:, : wanted.vocabulary])  # and of the student
            if wanted.name == "forward_kl":
                gradient.exp_().sub_(theirs.exp_())
            else:
                surprise = theirs.sub_(gradient).neg_().sub_(values[at, None])
                gradient.exp_().mul_(surprise)
            gradient.mul_(gradients[0][at, None])
            spare = ctx.head.spare
            spare = None if spare is None else spare[spare < wanted.vocabulary]
            through_transform(gradient, ours, ctx.head, wanted.temperature, spare)
            work[:, wanted.vocabulary :] = 0
            narrow = work.to(weight.dtype)
            if of_hidden is not None:
                of_hidden[at] = multiply(narrow, weight.T, of_hidden[at])
            if of_weight is not None:
                add_product(of_weight, narrow.T, hidden[at])
            if of_bias is not None:
                of_bias += work.sum(0)
        of_weight, of_bias = (None if x is None else x.to(weight.dtype) for x in (of_weight, of_bias))
        return of_hidden, of_weight, of_bias, None, None, None, None, None


def _chunks(
    hidden: Tensor, weight: Tensor, teacher: Head, vocabulary: int, rows: int
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Slices of the targets, each with work spaces for the student's logits, the teacher's, and one more like the
    student's; the same memory every time."""
    count = len(hidden)
    sizes = (len(weight), len(teacher.linear.weight), len(weight))
    spaces = [wide(hidden, min(rows, count), size) for size in sizes]
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        logits, teacher_logits, work = (space[: stop - start] for space in spaces)
        yield slice(start, stop), logits, teacher_logits, work
