"""A model with LoRA adapters is sampled and scored as it is: the same as with the adapters merged into its weights."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from unpackable_models import unpackable

from temper.data.batching import make_batch
from temper.kernels import step
from temper.rollout import compiled
from temper.rollout.compiled import stack_of
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.open import open_engine
from temper.rollout.plain import PlainEngine, find_memory
from temper.rollout.workers import ParallelEngine
from temper.train.forward import plan_batch, score_targets
from temper.train.plain import plain_logits
from temper.types import Example

peft = pytest.importorskip("peft")

SAMPLING = Sampling(15, 0.9, top_p=0.95, stop_ids=(1, 2, 3, 4))


def adapted(model: Any) -> Any:
    """`model` with adapters that change what it says."""
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wrapped = peft.get_peft_model(model, config)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.3)
    return wrapped.eval()


def merged(model: Any) -> Any:
    return copy.deepcopy(model).merge_and_unload()


def requests() -> list[Request]:
    draw = random.Random(0)
    prompts = [tuple(draw.randrange(5, 100) for _ in range(draw.choice((3, 9)))) for _ in range(5)]
    return [Request(prompt, 10 * i + j) for i, prompt in enumerate(prompts) for j in range(3)]


def tokens(engine: Any) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in engine.generate(requests(), SAMPLING)]


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_completions_are_those_of_the_merged_model(architecture: str) -> None:
    model = adapted(tiny_model(architecture))
    drawn = tokens(NativeEngine(model))
    assert drawn == tokens(NativeEngine(merged(model)))
    assert drawn != tokens(NativeEngine(tiny_model(architecture)))


@pytest.mark.parametrize("architecture", ["llama", "qwen3_next"])
@pytest.mark.filterwarnings("ignore:The following .* keys did not match")  # of experts, whose adapters peft leaves out
def test_the_plain_sampler_takes_adapters_too(architecture: str) -> None:
    bare = tiny_model("llama", "sdpa") if architecture == "llama" else copy.deepcopy(unpackable(architecture))
    model = adapted(bare)
    assert find_memory(model) == "moves"
    assert PlainEngine(model).context == 128
    assert tokens(PlainEngine(model)) == tokens(PlainEngine(merged(model)))


def test_the_engine_is_chosen_by_the_model_inside() -> None:
    for attention, kind in (("temper", ParallelEngine), ("sdpa", PlainEngine)):
        with open_engine(adapted(tiny_model("llama", attention))) as engine:
            assert isinstance(engine, kind)


def test_an_adapter_that_is_switched_off_has_no_effect() -> None:
    model = adapted(tiny_model("llama"))
    with model.disable_adapter():
        assert tokens(NativeEngine(model)) == tokens(NativeEngine(tiny_model("llama")))


@pytest.mark.skipif(not step.available(), reason="no C compiler")
def test_steps_in_c_follow_the_adapters_as_they_move() -> None:
    model = adapted(tiny_model("qwen2"))
    assert stack_of(model) is not None
    first = tokens(NativeEngine(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(1.5)
    drawn = tokens(NativeEngine(model))
    assert drawn == tokens(NativeEngine(merged(model)))
    assert drawn != first


@pytest.mark.parametrize("other", [{"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_are_left_to_torch_though_at_first_they_change_nothing(other: dict[str, bool]) -> None:
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **other)
    assert stack_of(peft.get_peft_model(tiny_model("llama"), config)) is None


def test_adapters_are_left_to_torch_where_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "may_lay", lambda *_: False)
    model = adapted(tiny_model("llama"))
    assert stack_of(model) is None
    assert tokens(NativeEngine(model)) == tokens(NativeEngine(merged(model)))


def examples() -> list[Example]:
    draw = random.Random(1)
    made = []
    for _ in range(3):
        prompt = tuple(draw.randrange(5, 90) for _ in range(6))
        for _ in range(3):
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 12)))
            made.append(Example(prompt + reply, (False,) * len(prompt) + (True,) * len(reply)))
    return made


def test_logprobs_are_those_of_the_merged_model_and_only_adapters_get_gradients() -> None:
    model, batch = adapted(tiny_model("llama")), make_batch(examples())
    scored = score_targets(model, batch, plan_batch(batch), 0.8).logprobs_M
    with torch.no_grad():
        expected = score_targets(merged(model), batch, plan_batch(batch), 0.8).logprobs_M
    assert torch.allclose(scored, expected, atol=1e-5)
    scored.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ("lora_" in name), name


def test_plain_logits_are_those_of_the_merged_model() -> None:
    model, batch = adapted(tiny_model("llama", "sdpa")), make_batch(examples())
    with torch.no_grad():
        assert torch.allclose(plain_logits(model, batch), plain_logits(merged(model), batch), atol=1e-5)
