"""Layers in one call say the same to the bit with any number of threads, of large models too, and put gradients where
they gather."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SIZES, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from temper.data.batching import Batch, make_batch
from temper.kernels import attention, choice, trunk
from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards, training_forwards
from temper.kernels.straight import straight
from temper.train.forward import plan_batch, score_targets
from temper.types import Example

pytestmark = pytest.mark.skipif(not trunk._functions.available, reason="no C compiler")
KINDS = ("llama", "qwen2", "qwen3", "gemma3_text", "smol")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def model_of(kind: str) -> Any:
    """A tiny one of the kind; "smol": a layer of SmolLM2-135M's width, uneven heads, 18 panels."""
    if kind != "smol":
        return tiny_model(kind)
    attention.register()
    sizes = SIZES | {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **sizes)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).eval()


def batch_of(kind: str, rows: int = 40) -> Batch:
    """Rows of 13 prompts in turn; within a window of 6. More tokens than a block."""
    lengths = (2, 4) if kind == "gemma3_text" else (5, 13)
    size = len(model_of(kind).get_input_embeddings().weight)
    examples = []
    for number in range(rows):
        before = [(7 * (number % 13) + 3 * i) % size for i in range(lengths[0])]
        after = [(11 * number + i) % size for i in range(lengths[1])]
        examples.append(Example((*before, *after), (False,) * len(before) + (True,) * len(after)))
    return make_batch(examples)


def hidden_and_gradients(model: Any, batch: Batch, checkpointing: bool) -> list[Tensor]:
    """Of the layers' weights: what is outside of them torch sums up by threads."""
    layers = list(model.model.layers.parameters())
    with in_place(training_forwards(model, checkpointing, False)):
        found = model.model(
            input_ids=batch.tokens[None], position_ids=batch.positions[None], attention_plan=plan_batch(batch),
            use_cache=False,
        )  # fmt: skip
    hidden = found.last_hidden_state[0]
    torch.set_num_threads(1)  # the last norm is torch's too
    weighted = hidden * torch.linspace(-1, 2, hidden.numel()).view_as(hidden)
    return [hidden.detach(), *torch.autograd.grad(weighted.sum(), layers)]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_the_number_of_threads(kind: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch):
    model, batch, found = model_of(kind), batch_of(kind), []
    backward = trunk._functions["trunk_backward"]
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        many = partial(lambda n, *given: backward(*given[:-1], n), threads)
        monkeypatch.setitem(trunk._functions._found, "trunk_backward", many)
        found.append(hidden_and_gradients(model, batch, checkpointing))
    assert all(torch.equal(one, other) for more in found[1:] for one, other in zip(found[0], more, strict=True))


def test_rows_of_several_families_are_dealt_apart_and_those_that_see_one_another_are_not():
    """Each number is the same as where the family is alone, up to rounding: a family's sums meet no other's."""
    model = model_of("llama")
    rows = [Example((1, 2, 3 + i, 4, 5), (False, False, True, True, True)) for i in range(6)]
    other = [Example((9, 8, 7, 3 + i, 4), (False, False, False, True, True)) for i in range(5)]
    torch.set_num_threads(3)
    with torch.no_grad():
        both, first, second = (
            score_targets(model, batch, plan_batch(batch)).logprobs_M
            for batch in map(make_batch, (rows + other, rows, other))
        )
    assert torch.allclose(both, torch.cat([first, second]), rtol=0, atol=1e-6)


def test_gradients_that_go_straight_are_those_that_autograd_adds():
    model, batch = model_of("qwen3"), batch_of("qwen3")
    found = []
    for asked in (False, True):
        for number, weight in enumerate(model.parameters()):
            weight.grad = torch.full_like(weight, 0.001 * number)
        places = [weight.grad for weight in model.parameters()]
        with in_place(training_forwards(model, False, False)), straight(asked):
            loss = score_targets(model, batch, plan_batch(batch)).logprobs_M.sum()
            loss.backward()
        assert all(weight.grad is place for weight, place in zip(model.parameters(), places, strict=True))
        found.append([place.clone() for place in places])
    model.zero_grad()
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(one.abs().max()))


def test_a_weight_that_somebody_listens_to_gets_its_gradient_from_autograd():
    model, batch, heard = tiny_model("llama"), batch_of("llama"), []
    weight = model.model.layers[0].mlp.up_proj.weight
    for other in model.parameters():
        other.grad = torch.zeros_like(other)
    weight.register_hook(lambda gradient: heard.append(gradient.abs().max()))
    with in_place(training_forwards(model, False, False)), straight():
        heard.clear()
        score_targets(model, batch, plan_batch(batch)).logprobs_M.sum().backward()
    [largest] = heard
    assert weight.grad is not None
    assert weight.grad.abs().max() == largest > 0


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(trunk, "SMALL", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice.pin("auto")
    yield
    choice.pin("auto")


def test_a_large_model_that_is_only_scored_takes_no_room_for_gradients(
    all_are_large: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trunk, "is_faster", lambda *_: True)
    model, asked, values = tiny_model("llama"), [], trunk._values

    def listen(*given: Any) -> list[Tensor]:
        asked.append(given[-1])
        return values(*given)

    monkeypatch.setattr(trunk, "_values", listen)
    with torch.no_grad():
        assert len(scoring_forwards(model)) > 1
        scoring_forwards(model)
    assert asked == [False, False]
    assert trunk.trunk_forwards(model)
    assert asked == [False, False, True, True]
    assert trunk.trunk_forwards(model)
    assert len(asked) == 4


@pytest.mark.parametrize("way", ["own", "default"])
def test_a_large_model_is_served_where_that_was_faster(all_are_large: None, way: str, monkeypatch: pytest.MonkeyPatch):
    tried = []

    def measure(plain: Any, other: Any, *_: Any) -> dict[str, Any]:
        plain()
        other()
        tried.append(True)
        return {"way": way}

    monkeypatch.setattr(choice, "_measure", measure)
    model = tiny_model("llama")
    first, *others = model.parameters()
    first.grad = torch.ones_like(first)
    assert bool(trunk.trunk_forwards(model)) == (way == "own")
    assert (first.grad == 1).all()  # a trial leaves gradients as they were
    assert all(weight.grad is None for weight in others)
    assert tried
    before = len(tried)
    trunk.trunk_forwards(tiny_model("llama"))  # of the same shape
    assert len(tried) == before
    [found] = (entry for shape, entry in choice.table().items() if shape.startswith("layers"))
    assert found == {"way": way}


def test_where_a_library_is_pinned_a_large_model_is_not_served(all_are_large: None):
    choice.pin("default")
    assert not trunk.trunk_forwards(tiny_model("llama"))
