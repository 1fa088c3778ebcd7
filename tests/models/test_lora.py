"""Adapters: they alone are trained and saved, the model without them is the reference, merged they are the model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model
from train.test_precision import ROWS, Quiet, loss, take_step

from temper.errors import ConfigError, Exit, Preempted, TemperError
from temper.models.adapters import LoraConfig, add_adapters, merge_adapters, missing_peft, without_adapters
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.stages.grpo import Config as GrpoConfig
from temper.stages.grpo import update
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.policy import PolicyLoss

needs_peft = pytest.mark.usefixtures("peft")


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft")


def new_learner(steps: int = 6, architecture: str = "llama", dropout: float = 0.0, seed: int = 0, **options: Any):
    lora = LoraConfig(r=4, alpha=8, dropout=dropout)
    settings = OptimizerConfig(**{"learning_rate": 1e-2, "save_steps": 2, "lora": lora, **options})
    return Learner(add_adapters(tiny_model(architecture), lora, seed=1), settings, steps, seed)


def logprobs(model: Any) -> torch.Tensor:
    """Of a text, by the packed forward."""
    with torch.no_grad():
        return torch.stack([-loss(model, [row]).loss for row in ROWS])


@needs_peft
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_new_adapters_change_nothing(architecture: str) -> None:
    before = logprobs(tiny_model(architecture))
    model = add_adapters(tiny_model(architecture), LoraConfig(), seed=0)
    assert torch.allclose(logprobs(model), before, rtol=1e-5)  # their layers are called one by one


@needs_peft
def test_adapters_are_drawn_from_their_seed() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(7 * seed + 1)
        model = add_adapters(tiny_model("llama"), LoraConfig(), seed=seed // 2)
        return torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name])

    assert torch.equal(drawn(0), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@needs_peft
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_only_adapters_are_trained_saved_and_given_moments(dtype: str) -> None:
    learner = new_learner(dtype=dtype)
    frozen = {name: p.detach().clone() for name, p in learner.model.named_parameters() if "lora" not in name}
    losses = [take_step(learner)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in learner.model.named_parameters() if "lora" not in name)
    assert all("lora_" in name or name == "loss_scale" for name in learner.state())
    assert len(learner.optimizer.state) == len(learner.weights.masters) == 2 * 7 * 3
    assert {p.dtype for p in learner.model.parameters()} == {getattr(torch, dtype)}
    assert {p.dtype for p in learner.weights.masters.values()} == {torch.float32}


@needs_peft
def test_the_head_and_the_embedding_have_no_adapter() -> None:
    model = add_adapters(tiny_model("qwen2"), LoraConfig(), seed=0)
    named = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("lm_head" in name or "embed" in name for name in named)


@needs_peft
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_the_gradient_of_an_adapter_is_that_of_the_merged_weight(architecture: str) -> None:
    """With W' = W + s B A: dL/dB = s dL/dW' Aᵀ and dL/dA = s Bᵀ dL/dW'."""
    learner = new_learner(architecture=architecture)
    for _ in range(3):
        take_step(learner)
    model = learner.model.double()
    model.zero_grad()
    loss(model, ROWS).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    merged = tiny_model(architecture).double()
    scale = 8 / 4
    inner = model.get_base_model()
    adapted = {name for name, module in inner.named_modules() if hasattr(module, "lora_A")}
    assert len(adapted) == 7 * 3
    with torch.no_grad():
        for name in adapted:
            module = inner.get_submodule(name)
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            merged.get_submodule(name).weight += scale * b @ a
    loss(merged, ROWS).loss.backward()
    for name in adapted:
        module, whole = inner.get_submodule(name), merged.get_submodule(name).weight.grad
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        for key, expected in (("lora_A", scale * b.T @ whole), ("lora_B", scale * whole @ a.T)):
            ours = found[f"base_model.model.{name}.{key}.default.weight"]
            assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


@needs_peft
def test_checkpointing_has_the_same_gradient_with_adapters() -> None:
    plain, again = (new_learner(gradient_checkpointing=on) for on in (False, True))
    for learner in (plain, again):
        for _ in range(3):
            take_step(learner)
    for ours, theirs in zip(again.weights.masters.values(), plain.weights.masters.values(), strict=True):
        assert torch.equal(ours, theirs)


@needs_peft
def test_without_its_adapter_a_model_is_its_own_reference() -> None:
    before = logprobs(tiny_model("llama"))
    learner = new_learner()
    for _ in range(3):
        take_step(learner)
    after = logprobs(learner.model)
    with without_adapters(learner.model):
        assert torch.equal(logprobs(learner.model), before)
    assert not torch.allclose(after, before)
    assert torch.equal(logprobs(learner.model), after)
    take_step(learner)
    assert not torch.equal(logprobs(learner.model), after)


def test_a_model_without_adapters_stays_as_it_is() -> None:
    model = tiny_model("llama")
    before = logprobs(model)
    with without_adapters(model):
        assert torch.equal(logprobs(model), before)
    assert merge_adapters(model, Path("never written")) is model


@needs_peft
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_the_merged_model_in_plain_files(tmp_path: Path, dtype: str) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    learner = new_learner(dtype=dtype)
    for _ in range(3):
        take_step(learner)
    model = learner.trained_model()
    expected = logprobs(model)
    merged = merge_adapters(model, tmp_path / "adapter")
    merged.save_pretrained(tmp_path)
    assert logprobs(merged) == pytest.approx(expected, abs=1e-4)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto", attn_implementation="eager")
    ids = torch.tensor([ROWS[0].token_ids])
    chosen = plain(ids).logits[0, :-1].detach().log_softmax(-1).gather(-1, ids[0, 1:, None])
    assert float(chosen.sum()) == pytest.approx(float(expected[0]), abs=1e-3)
    assert plain.dtype == torch.float32
    assert not any("lora" in name for name, _ in plain.named_parameters())
    base = tiny_model("llama").to(getattr(torch, dtype)).float()
    alone = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    assert torch.allclose(logprobs(alone), expected, atol=1e-3)


@needs_peft
def test_the_saved_adapter_says_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    learner = new_learner()
    take_step(learner)
    learner.model.peft_config["default"].base_model_name_or_path = "/somewhere/else"
    merge_adapters(learner.trained_model(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] is None
    assert settings["target_modules"] == sorted(settings["target_modules"])


@needs_peft
def test_layers_that_are_not_there_are_a_fault_of_the_config() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        add_adapters(tiny_model("llama"), LoraConfig(target_modules=["q_project"]), seed=0)


def run(folder: Path, learner: Learner, stop_after: int | None = None) -> None:
    taken: list[int] = []
    for step in resumable_steps(learner, folder, Quiet(), lambda: len(taken) == stop_after):
        take_step(learner, ROWS[step % 2 :])
        taken.append(step)


@needs_peft
@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"dropout": 0.3}], ids=str)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    straight = new_learner(**options)
    run(tmp_path / "straight", straight)
    with pytest.raises(Preempted):
        run(tmp_path / "broken", new_learner(**options), 3)
    torch.manual_seed(99)
    resumed = new_learner(**options)
    run(tmp_path / "broken", resumed)
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name


@needs_peft
def test_dropout_is_on_in_updates_alone_and_drawn_from_the_seed() -> None:
    first, second, third = (new_learner(dropout=0.5, seed=seed) for seed in (3, 3, 4))
    before = logprobs(first.model)
    for learner in (first, second, third):
        take_step(learner)
        take_step(learner)
    assert not torch.equal(before, logprobs(first.model))
    assert torch.equal(logprobs(first.model), logprobs(first.model))
    assert torch.equal(logprobs(first.model), logprobs(second.model))
    assert not torch.equal(logprobs(first.model), logprobs(third.model))


@needs_peft
def test_the_sampler_draws_with_the_adapters() -> None:
    learner = new_learner()
    for _ in range(3):
        take_step(learner)
    requests = [Request((5, 6, 7), key) for key in range(6)]
    sampling = Sampling(8, 1.0, 1.0, stop_ids=(1,))
    found = NativeEngine(learner.model).generate(requests, sampling)
    merged = NativeEngine(merge_into_plain(learner)).generate(requests, sampling)
    assert [completion.token_ids for completion in found] == [completion.token_ids for completion in merged]


def merge_into_plain(learner: Learner) -> Any:
    return learner.trained_model().merge_and_unload()


@needs_peft
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_policy_without_its_adapter_anchors_the_kl_term(dtype: str) -> None:
    from stages.test_grpo import config, groups

    settings = config(kl_penalty=0.1, dtype=dtype)
    learners = [new_learner(dtype=dtype), new_learner(dtype=dtype)]
    references = [learners[0].model, tiny_model("llama").to(getattr(torch, dtype))]
    for ours, theirs in zip(references[0].buffers(), references[1].buffers(), strict=True):
        theirs.data = ours.data.clone()  # `to` rounds buffers too, loading and learning do not
    found = []
    for learner, reference in zip(learners, references, strict=True):
        for _ in range(3):
            take_step(learner)
        found.append(update(settings, learner, PolicyLoss(settings), reference, [(groups(beta=0.1), 16.0)]))
    assert found[0]["policy/kl_divergence"] > 0
    assert found[0] == found[1]
    for ours, theirs in zip(learners[0].weights.masters.values(), learners[1].weights.masters.values(), strict=True):
        assert torch.equal(ours, theirs)


@needs_peft
def test_compiled_adapters_train_alike_and_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = new_learner(), new_learner(compile=True)
    graphs = []
    for step in range(3):
        losses = [take_step(learner, ROWS[step:])["loss"] for learner in (plain, compiled)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        with without_adapters(compiled.model):
            logprobs(compiled.model)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1] > 0
    torch._dynamo.reset()


def test_a_reference_that_is_replaced_needs_weights_of_its_own() -> None:
    options: dict[str, Any] = {"model": "m", "tasks": ["t"], "max_steps": 1, "lora": LoraConfig()}
    GrpoConfig(**options)
    with pytest.raises(ValueError, match="reference_update_steps"):
        GrpoConfig(**options, reference_update_steps=4)


def test_without_peft_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.models.adapters.find_spec", lambda name: None)
    with pytest.raises(TemperError, match="needs peft") as refused:
        add_adapters(tiny_model("llama"), LoraConfig(), seed=0)
    assert refused.value.code == Exit.OPTIONAL_PART
    [fault] = missing_peft(LoraConfig())
    assert fault.fix == 'pip install "temper-rl[lora]"'
    assert fault.code == Exit.OPTIONAL_PART
    assert not missing_peft(None)
