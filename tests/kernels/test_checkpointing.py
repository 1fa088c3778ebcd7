"""Layers computed again in the backward pass, or compiled: the same gradient, less memory, and nobody else notices."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model
from torch._dynamo.utils import counters

from temper.data.batching import make_batch
from temper.errors import ConfigError
from temper.kernels.forwards import in_place
from temper.kernels.layers import decoder_layers, training_forwards
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.losses import LossSum
from temper.types import Example


def examples(seed: int, groups: int = 3) -> list[Example]:
    """Groups that share a prompt; every seed has another number of tokens."""
    draw = random.Random(seed)
    made = []
    for _ in range(groups):
        prompt = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(2, 20)))
        for _ in range(4):
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 25)))
            made.append(Example(prompt + reply, (False,) * len(prompt) + (True,) * len(reply)))
    return made


def loss(model: Any, rows: list[Example]) -> LossSum:
    batch = make_batch(rows)
    return LossSum(-score_targets(model, batch, plan_batch(batch)).logprobs_M.sum(), {})


def gradient(model: Any, rows: list[Example], **how: bool) -> torch.Tensor:
    with in_place(training_forwards(model, how.get("checkpointing", False), how.get("compiled", False))):
        loss(model, rows).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpointing_changes_no_bit_of_the_gradient(architecture: str) -> None:
    plain = gradient(tiny_model(architecture), examples(0))
    assert torch.equal(gradient(tiny_model(architecture), examples(0), checkpointing=True), plain)


def test_checkpointing_has_the_same_gradient_in_double_precision() -> None:
    plain, again = (gradient(tiny_model("qwen3").double(), examples(0), checkpointing=on) for on in (False, True))
    assert (plain - again).abs().max() <= 1e-10 * plain.abs().max()


def most_kept(model: Any, rows: list[Example], checkpointing: bool) -> int:
    """Bytes that a forward pass keeps for its backward pass, those of the weights left out."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with in_place(training_forwards(model, checkpointing, False)), hooks:
        total = loss(model, rows).loss
    assert total.requires_grad
    return sum(kept.values())


def test_checkpointing_keeps_a_fraction_of_the_activations() -> None:
    rows = examples(1, groups=8)
    plain, again = (most_kept(tiny_model("llama"), rows, on) for on in (False, True))
    assert again < plain / 3


def test_only_updates_run_the_layers_twice() -> None:
    learner = Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3, gradient_checkpointing=True), 3)
    loss(learner.model, examples(0))  # the first call tries the model out
    calls: list[int] = []
    for layer in decoder_layers(learner.model):
        layer.input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        loss(learner.model, examples(0))
    assert len(calls) == 3
    learner.update([lambda: loss(learner.model, examples(0))], divisor=9)
    assert len(calls) == 3 + 6
    assert all("forward" not in vars(layer) for layer in decoder_layers(learner.model))


def test_layers_are_themselves_again_after_an_error() -> None:
    learner = Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3, gradient_checkpointing=True), 3)

    def fail() -> LossSum:
        raise KeyError

    with pytest.raises(KeyError):
        learner.update([fail], divisor=1)
    assert all("forward" not in vars(layer) for layer in decoder_layers(learner.model))


def test_checkpointing_turns_no_dropout_on() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("opt", vocab_size=100, hidden_size=32, ffn_dim=64, num_hidden_layers=2,
                                  num_attention_heads=2, word_embed_proj_dim=32, dropout=0.5)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(5, 25)[None]
    gradients = []
    for on in (False, True):
        model.zero_grad()
        with in_place(training_forwards(model, on, False)):
            model(input_ids=ids).logits.logsumexp(-1).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(*gradients)


def test_a_model_without_layers_to_checkpoint_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layers"):
        training_forwards(torch.nn.Linear(2, 2), True, False)


# -- compiled ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compilation up to the kernels: everything is traced and guarded, the graphs run as they are."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_have_the_same_gradient(checkpointing: bool) -> None:
    plain = gradient(tiny_model("qwen3"), examples(0))
    found = gradient(tiny_model("qwen3"), examples(0), checkpointing=checkpointing, compiled=True)
    assert counters["stats"]["unique_graphs"] > 0
    assert (found - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_other_token_counts_are_not_compiled_again_and_compiling_takes_no_step(checkpointing: bool) -> None:
    settings = OptimizerConfig(learning_rate=1e-3, compile=True, gradient_checkpointing=checkpointing)
    learner = Learner(tiny_model("llama"), settings, 9)
    plain = Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3), 9)
    tokens = set()
    seen = []
    for step in range(6):
        rows = examples(step, groups=1 + step)
        tokens.add(len(make_batch(rows).tokens))
        metrics = learner.update([lambda rows=rows: loss(learner.model, rows)], divisor=9)
        assert ("seconds/compiling" in metrics) == (step == 0)
        plain.update([lambda rows=rows: loss(plain.model, rows)], divisor=9)
        assert learner.step == plain.step == step + 1
        for ours, theirs in zip(learner.model.parameters(), plain.model.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4 * (step + 1))
        with torch.no_grad():  # the sampler and the reference call the same layers
            loss(learner.model, rows)
        seen.append(dict(counters["stats"]))
    assert len(tokens) == 6
    assert seen[0]["unique_graphs"] > 0
    assert all(stats == seen[0] for stats in seen)
    assert not counters["recompiles"]


def test_without_a_compiler_training_goes_on_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no C++ compiler found\nand much more")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    told: list[str] = []
    settings = OptimizerConfig(learning_rate=1e-3, compile=True)
    learner = Learner(tiny_model("llama"), settings, 3, warn=told.append)
    plain = Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3), 3)
    for each in (learner, plain):
        for step in range(2):
            metrics = each.update([lambda m=each.model, s=step: loss(m, examples(s))], divisor=9)
            assert "seconds/compiling" not in metrics
    assert len(told) == 1
    assert "no C++ compiler found" in told[0]
    assert "\n" not in told[0]
    for ours, theirs in zip(learner.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif("TEMPER_TEST_COMPILE" not in os.environ, reason="TEMPER_TEST_COMPILE=1: half a minute of g++")
def test_real_kernels_have_the_same_gradient() -> None:
    torch._dynamo.reset()
    plain, compiled = tiny_model("llama"), tiny_model("llama")
    for model in (plain, compiled):
        del model.model.layers[1:]
    expected = gradient(plain, examples(0))
    assert (gradient(compiled, examples(0), compiled=True) - expected).abs().max() <= 1e-5 * expected.abs().max()
    torch._dynamo.reset()
