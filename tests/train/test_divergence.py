"""Divergences from a teacher: the formulas' gradients, and the chunked form equal to the one with all logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn
from train.test_head import Largest

from temper.algorithms.distillation import DIVERGENCES, forward_kl, reverse_kl
from temper.data.batching import make_batch
from temper.train.divergence import Divergence, DivergenceName, diverge_hidden, diverge_targets
from temper.train.forward import plan_batch
from temper.train.head import Head
from temper.types import Example

NAMES: tuple[DivergenceName, ...] = ("forward_kl", "reverse_kl")
TRANSFORMS: list[tuple[float, float | None]] = [(1.0, None), (0.25, None), (4.0, 2.0)]  # scale, softcap


def test_numbers_by_hand() -> None:
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert forward_kl(student, teacher).item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert reverse_kl(student, teacher).item() == pytest.approx(0.5 * math.log(5 / 9) + 0.5 * math.log(5))
    # at temperature 1/2 probabilities are squared and made to sum to 1: 0.81 and 0.01 of 0.82
    sharp = 81 / 82
    wanted = sharp * math.log(2 * sharp) + (1 - sharp) * math.log(2 * (1 - sharp))
    assert forward_kl(student, teacher, 0.5).item() == pytest.approx(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_positive_and_zero_only_at_equality(name: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 50, 11, dtype=torch.float64)
    assert (DIVERGENCES[name](student, teacher, 0.7) > 0).all()
    shifted = teacher + 3  # the same distribution
    assert DIVERGENCES[name](shifted, teacher, 0.7).abs().max() < 1e-14


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gradients_are_the_stated_ones_and_the_teacher_gets_none(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = (x.requires_grad_() for x in torch.randn(2, 5, 7, dtype=torch.float64))
    p, q = ((x.detach() / temperature).softmax(-1) for x in (student, teacher))
    [found] = torch.autograd.grad(forward_kl(student, teacher, temperature).sum(), student)
    assert torch.allclose(found, (p - q) / temperature, atol=1e-12)
    values = reverse_kl(student, teacher, temperature)
    [found] = torch.autograd.grad(values.sum(), student)
    wanted = p * (p.log() - q.log() - values.detach()[:, None]) / temperature
    assert torch.allclose(found, wanted, atol=1e-12)
    assert not forward_kl(student.detach(), teacher).requires_grad
    for divergence in (forward_kl, reverse_kl):
        assert torch.autograd.gradcheck(lambda x, f=divergence: f(x, teacher.detach(), temperature), student)


def heads(dtype: torch.dtype, transform: tuple[float, float | None]) -> tuple[Head, Tensor, Head, Tensor]:
    """A student and a teacher of other width, other transform and more (padding) rows."""
    torch.manual_seed(0)
    student, teacher = Head(nn.Linear(6, 11, dtype=dtype), *transform), Head(nn.Linear(4, 13, dtype=dtype), 2.0, 5.0)
    return student, (2 * torch.randn(7, 6)).to(dtype).requires_grad_(), teacher, (3 * torch.randn(7, 4)).to(dtype)


def naive(head: Head, hidden: Tensor) -> Tensor:
    logits = head.linear(hidden) * head.scale
    return logits if head.softcap is None else torch.tanh(logits / head.softcap) * head.softcap


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 3, None])
@pytest.mark.parametrize("vocabulary", [9, 11])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_chunks_give_the_values_and_gradients_of_the_whole(
    name: DivergenceName, rows: int | None, vocabulary: int, transform: tuple[float, float | None]
) -> None:
    head, hidden, teacher, told = heads(torch.float64, transform)
    found = diverge_hidden(head, hidden, teacher, told, Divergence(name, 0.7, vocabulary), rows)
    expected = DIVERGENCES[name](naive(head, hidden)[:, :vocabulary], naive(teacher, told)[:, :vocabulary], 0.7)
    assert torch.allclose(found, expected, atol=1e-12)
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)
    of = [hidden, *head.linear.parameters()]
    ours, theirs = (torch.autograd.grad((values * weights).sum(), of) for values in (found, expected))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))
    assert [parameter.grad for parameter in teacher.linear.parameters()] == [None, None]


def test_bfloat16_heads_give_a_float32_divergence() -> None:
    head, hidden, teacher, told = heads(torch.bfloat16, (1.0, None))
    found = diverge_hidden(head, hidden, teacher, told, Divergence("reverse_kl", 1.0, 11), rows=3)
    assert found.dtype == torch.float32
    expected = reverse_kl((hidden @ head.linear.weight.T + head.linear.bias), naive(teacher, told)[:, :11])
    assert torch.allclose(found, expected, atol=0.05, rtol=0.05)


def batch_of(*replies: tuple[int, ...]) -> Any:
    return make_batch([Example((5, 6, 7, *reply), (False,) * 3 + (True,) * len(reply)) for reply in replies])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("student", "teacher"), [("llama", "qwen3"), ("gemma2", "llama")])
def test_two_models_give_the_gradient_of_their_plain_logits(name: DivergenceName, student: str, teacher: str) -> None:
    replies = [(9, 10, 11), (12,), (13, 14, 15, 16)]
    batch = batch_of(*replies)
    ours, plain, told = tiny_model(student), tiny_model(student, "eager"), tiny_model(teacher, "eager")
    found = diverge_targets(ours, tiny_model(teacher), batch, plan_batch(batch), Divergence(name, 0.8, 100))
    expected = []
    for reply in replies:
        ids = torch.tensor([[5, 6, 7, *reply]])
        with torch.no_grad():
            anchor = told(ids).logits[0, 2:-1]
        expected.append(DIVERGENCES[name](plain(ids).logits[0, 2:-1], anchor, 0.8))
    assert torch.allclose(found, torch.cat(expected), atol=1e-4, rtol=1e-4)
    found.sum().backward()
    torch.cat(expected).sum().backward()
    a, b = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (ours, plain))
    assert (a - b).norm() <= 2e-5 * b.norm()


def test_a_model_that_is_called_whole_gives_the_same() -> None:
    batch, wanted = batch_of((9, 10), (11,)), Divergence("reverse_kl", 1.0, 100)
    student, teacher = tiny_model("llama"), tiny_model("qwen3")
    expected = diverge_targets(student, teacher, batch, plan_batch(batch), wanted)
    for whole in (tiny_model("llama"), tiny_model("qwen3")):
        whole.lm_head.register_forward_hook(lambda module, inputs, output: output)
        pair = (whole, teacher) if whole.config.model_type == "llama" else (student, whole)
        assert torch.allclose(diverge_targets(*pair, batch, plan_batch(batch), wanted), expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_of_targets_times_vocabulary_is_made(name: DivergenceName) -> None:
    head = Head(nn.Linear(4, 16384, bias=False))
    hidden = torch.randn(2000, 4, requires_grad=True)
    with Largest() as largest:
        diverge_hidden(head, hidden, head, hidden.detach() + 1, Divergence(name, 1.0, 16384)).sum().backward()
    assert largest.elements * 4 <= 16 << 20 < 2000 * 16384 * 4
