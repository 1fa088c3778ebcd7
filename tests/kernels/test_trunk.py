"""All layers in one call say what the layers say, forward and backward, and stand aside where they cannot."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_models import SIZES, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from temper.data.batching import make_batch
from temper.kernels import attention, trunk
from temper.kernels.forwards import in_place
from temper.kernels.layers import training_forwards
from temper.kernels.packed import AttentionPlan
from temper.kernels.runs import Row
from temper.models.adapters import LoraConfig, add_adapters
from temper.train.forward import plan_batch, run_packed, score_targets
from temper.types import Example

pytestmark = pytest.mark.skipif(not trunk._functions.available, reason="no C compiler")
SERVED = ("llama", "qwen2", "qwen3", "gemma3_text", "mistral")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def odd_model():
    """Sizes that fill no panel, biases everywhere."""
    attention.register()
    sizes = SIZES | {"hidden_size": 42, "intermediate_size": 70, "num_attention_heads": 3, "num_key_value_heads": 1}
    config = AutoConfig.for_model("llama", **sizes, head_dim=16, attention_bias=True, mlp_bias=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.15)
        if weight.ndim == 1:
            weight.data += 1
    return model.eval()


def examples(lengths: list[tuple[int, int, int]], size: int = 100) -> list[Example]:
    """For each (prompt, its length, reply's length); the same prompt has the same tokens."""
    found = []
    for number, (prompt, before, after) in enumerate(lengths):
        tokens = [(7 * prompt + 3 * i) % size for i in range(before)] + [(11 * number + i) % size for i in range(after)]
        found.append(Example(tuple(tokens), (False,) * before + (True,) * after))
    return found


def scores_and_gradients(model, batch, forwards) -> list[Tensor]:
    model.zero_grad()
    with in_place(forwards):
        scored = score_targets(model, batch, plan_batch(batch))
    (scored.logprobs_M * torch.linspace(-1, 2, len(scored.logprobs_M))).sum().backward()
    return [scored.logprobs_M.detach(), *(weight.grad.clone() for weight in model.parameters())]


def both(model, rows: list[Example]) -> tuple[list[Tensor], list[Tensor]]:
    batch, found = make_batch(rows), trunk.trunk_forwards(model)
    assert found
    ours = scores_and_gradients(model, batch, training_forwards(model, False, False))
    return ours, scores_and_gradients(model, batch, [(found[0][0], type(found[0][0]).forward.__get__(found[0][0]))])


def assert_alike(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Where sums cancel out, up to what rounding leaves of their terms."""
    largest = max(float(other.abs().max()) for other in theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 3e-5 * max(float(other.abs().max()), 0.1 * largest)


@pytest.mark.parametrize("architecture", SERVED)
def test_log_probs_and_gradients_are_those_of_the_layers(architecture: str):
    rows = examples([(0, 2, 4), (0, 2, 1), (1, 1, 5), (2, 3, 3)])  # within a window of 6
    assert_alike(*both(tiny_model(architecture), rows))


@settings(deadline=None, max_examples=15, phases=[Phase.generate])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20), st.integers(1, 40)), min_size=1, max_size=9))
def test_any_rows_of_a_model_whose_sizes_fill_no_panel(lengths: list[tuple[int, int, int]]):
    assert_alike(*both(odd_model(), examples(lengths)))


def test_more_tokens_than_a_block():
    assert_alike(*both(odd_model(), examples([(i % 3, 9, 30 + i) for i in range(18)])))


def calls(monkeypatch) -> list[int]:
    """The tokens of each call of C from now on."""
    heard: list[int] = []
    floats = trunk._Call.floats

    def listen(self, keeps: bool) -> int:
        heard.append(self.tokens)
        return floats(self, keeps)

    monkeypatch.setattr(trunk._Call, "floats", listen)
    return heard


def test_a_pass_without_gradient_keeps_one_layer_and_says_the_same_with_any_threads(monkeypatch):
    model, batch = odd_model(), make_batch(examples([(i % 2, 9, 60) for i in range(9)]))
    heard, said = calls(monkeypatch), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with torch.no_grad():
            said.append(score_targets(model, batch, plan_batch(batch)).logprobs_M)
    assert all(torch.equal(one, said[0]) for one in said)
    assert heard[-3:] == [len(batch.tokens)] * 3


def test_a_row_says_the_same_wherever_it_stands():
    model, rows = odd_model(), examples([(0, 5, 9), (1, 8, 12), (2, 3, 7)])
    with torch.no_grad():
        ours, turned = (
            score_targets(model, batch, plan_batch(batch)).logprobs_M
            for batch in (make_batch(rows), make_batch(rows[::-1]))
        )
    by_row = zip(ours.split([9, 12, 7]), turned.split([7, 12, 9])[::-1], strict=True)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-6) for one, other in by_row)


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text"])
def test_rows_longer_than_a_window_are_the_layers_own(architecture: str, monkeypatch):
    model = tiny_model(architecture)
    rows, heard = examples([(0, 4, 12)]), calls(monkeypatch)
    assert_alike(*both(model, rows))
    assert 16 not in heard


def test_a_pass_that_keeps_keys_is_the_layers_own(monkeypatch):
    model, batch = tiny_model("llama"), make_batch(examples([(0, 3, 17)]))
    trunk.trunk_forwards(model)
    heard = calls(monkeypatch)
    plan = AttentionPlan([Row(range(20))], batch.positions, keep=True)
    with torch.no_grad():
        run_packed(model, batch, plan)
    assert not heard
    assert plan.kept is not None
    assert len(plan.kept) == SIZES["num_hidden_layers"]


def test_what_is_of_other_parts_is_not_served():
    assert not trunk.trunk_forwards(tiny_model("gemma2"))  # a softcap in its attention
    assert not trunk.trunk_forwards(tiny_model("llama").double())


def test_a_model_that_was_served_is_not_once_its_weights_are_others():
    model = tiny_model("llama")
    assert trunk.trunk_forwards(model)
    assert trunk.trunk_forwards(model, checkpointing=True)
    model.bfloat16()
    assert not trunk.trunk_forwards(model)
    assert model.model not in dict(training_forwards(model, checkpointing=True, compiled=False))


def test_adapters_are_not_served():
    pytest.importorskip("peft")
    assert not trunk.trunk_forwards(add_adapters(tiny_model("llama"), LoraConfig(r=2), 0))


def test_a_layer_that_does_more_than_it_seems_to_is_found_out():
    model = tiny_model("llama")
    layer = model.model.layers[1]
    own = type(layer).forward
    layer.forward = lambda *given, **named: own(layer, *given, **named) * 1.01
    assert not trunk.trunk_forwards(model)


def test_layers_that_are_run_again_in_the_backward_pass_say_the_same_to_the_bit():
    model, batch = odd_model(), make_batch(examples([(i % 3, 9, 30 + i) for i in range(9)]))
    kept, again = (
        scores_and_gradients(model, batch, training_forwards(model, checkpointing, False))
        for checkpointing in (False, True)
    )
    assert all(map(torch.equal, kept, again))


def test_layers_that_somebody_listens_to_are_called(monkeypatch):
    model, batch, called = tiny_model("llama"), make_batch(examples([(0, 3, 17)])), []
    forwards, heard = training_forwards(model, False, False), calls(monkeypatch)
    model.model.layers[0].register_forward_hook(lambda *_: called.append(True))
    scores_and_gradients(model, batch, forwards)
    assert called
    assert len(batch.tokens) not in heard


def test_a_model_that_was_served_can_be_forgotten():
    model = tiny_model("llama")
    assert trunk.trunk_forwards(model)
    assert trunk.trunk_forwards(model.model)
    gone = [weakref.ref(model), weakref.ref(model.model)]
    del model
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_a_frozen_weight_gets_no_gradient():
    model, batch = tiny_model("llama"), make_batch(examples([(0, 2, 4)]))
    frozen = model.model.layers[0].mlp.down_proj.weight.requires_grad_(False)
    with in_place(training_forwards(model, False, False)):
        score_targets(model, batch, plan_batch(batch)).logprobs_M.sum().backward()
    assert frozen.grad is None
    assert model.model.layers[1].mlp.down_proj.weight.grad.abs().max() > 0
