"""The gradient of an embedding goes to the rows of its tokens, where it gathers, or by autograd, the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from temper.kernels.straight import embed, straight

IDS = (7 * torch.arange(900) % 41)[None]  # every row many times, so that another order would have other bits


def embedding(**options: int | bool) -> nn.Embedding:
    torch.manual_seed(0)
    made = nn.Embedding(60, 24, **options)  # type: ignore[arg-type]
    made.weight.grad = torch.full_like(made.weight, 0.25)
    return made


def gradient(made: nn.Embedding, asked: bool, plainly: bool = False) -> Tensor:
    said = made(IDS) if plainly else embed(made, IDS)
    with straight(asked):
        (said * torch.linspace(-1, 2, said.numel()).view_as(said)).sum().backward()
    assert made.weight.grad is not None
    return made.weight.grad


@pytest.mark.parametrize("options", [{}, {"padding_idx": 7}, {"scale_grad_by_freq": True}], ids=str)
@pytest.mark.parametrize("asked", [False, True])
def test_the_gradient_is_that_of_the_embedding_itself_to_the_bit(options: dict[str, int], asked: bool):
    expected = gradient(embedding(**options), False, plainly=True)
    assert torch.equal(gradient(embedding(**options), asked), expected)


def test_no_tensor_of_the_whole_vocabulary_is_made_where_gradients_go_straight():
    made, other = embedding(), embedding()
    places = [made.weight.grad, other.weight.grad]
    heard: list[Tensor] = []
    other.weight.register_hook(heard.append)
    assert gradient(made, True) is places[0]
    gradient(other, True)  # listened to: autograd hands over a whole one
    assert [tuple(whole.shape) for whole in heard] == [(60, 24)]


def test_no_bit_depends_on_the_number_of_threads():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            found.append(gradient(embedding(), True))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_without_gradients_it_is_what_the_embedding_says():
    made = embedding()
    with torch.no_grad():
        assert torch.equal(embed(made, IDS), made(IDS))
    assert torch.equal(embed(made, IDS), made(IDS))
