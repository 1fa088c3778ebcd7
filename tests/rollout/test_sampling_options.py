"""The keys of a stage reach the engine, and the engine is the one that suits the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_zoo import make
from pydantic import ValidationError
from tiny_models import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM
from unpackable_models import UNPACKABLE, unpackable

from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.open import cpu_seconds, open_engine
from temper.rollout.options import SamplingConfig, sampling_of
from temper.rollout.plain import PlainEngine
from temper.rollout.workers import ParallelEngine
from temper.stages import evaluate, grpo, sample
from temper.text.chat import ChatFormat
from temper.types import Message, Prompt

KEYS = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "max_completion_length": 9, "stop": ["</answer>"]}
OWN = {
    grpo: {"model": "m", "tasks": ["t"], "max_steps": 1},
    sample: {"model": "m", "tasks": ["t"]},
    evaluate: {"models": ["m"], "tasks": ["t"]},
}


@pytest.mark.parametrize("stage", OWN)
def test_every_stage_that_samples_has_the_same_keys(stage, tmp_path) -> None:
    chat = ChatFormat.load(make("qwen2", tmp_path / "m"))
    config = stage.Config(**OWN[stage], **KEYS)
    sampling = sampling_of(config, chat)
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.7, 0.9)
    assert (sampling.top_k, sampling.min_p, sampling.stop_ids) == (20, 0.05, chat.eos_ids)
    assert sampling.stop_rule is not None
    assert sampling.stop_rule.ends(chat.tokenizer.encode("5</answer>"))
    assert not sampling.stop_rule.ends(chat.tokenizer.encode("5</answer"))
    assert sampling_of(stage.Config(**OWN[stage]), chat).stop_rule is None


@pytest.mark.parametrize("wrong", [{"stop": [""]}, {"stop": "a"}, {"top_k": -1}, {"min_p": 1.5}, {"top_p": 0.0}])
def test_keys_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        SamplingConfig(**wrong)


def test_the_engine_is_chosen_by_the_model() -> None:
    for model, kind in (
        (tiny_model("llama"), ParallelEngine),
        (tiny_model("llama", "sdpa"), PlainEngine),
        (unpackable("mamba"), PlainEngine),
    ):
        with open_engine(model, version=lambda: 3) as engine:
            assert isinstance(engine, kind)
            assert engine.generate([Request((5, 6), 0)], Sampling(2))[0].policy_version == 3


def test_what_sampler_processes_use_is_counted() -> None:
    engine = ParallelEngine(NativeEngine(tiny_model("llama")))
    engine.cpu_seconds = 2.5
    assert cpu_seconds(engine) == 2.5
    assert cpu_seconds(PlainEngine(tiny_model("llama", "sdpa"))) == 0.0


def other_architecture(architecture: str, path: Path) -> Path:
    """A model directory of an architecture that cannot be packed, with a tokenizer and a template."""
    make("llama", path)
    vocabulary = ChatFormat.load(path).tokenizer.backend.get_vocab_size()
    config = AutoConfig.for_model(architecture, **{**UNPACKABLE[architecture][1], "vocab_size": vocabulary})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("architecture", ["gpt_oss", "mamba"])
def test_a_model_that_cannot_be_packed_is_evaluated_like_any_other(architecture, tmp_path) -> None:
    path, said = other_architecture(architecture, tmp_path / "m"), []
    prompts = [Prompt(str(i), "t", (Message("user", f"What is {i}+1?"),), gold=str(i + 1)) for i in range(3)]
    config = evaluate.Config(models=["m"], tasks=["t"], num_samples=2, max_completion_length=8)
    measured, _, rows = evaluate.evaluate_model(path, prompts, config, (0, "eval"), said.append)
    assert measured["n"] == 3
    assert [row["tokens"] for row in rows] == [8] * 6
    assert len(said) == 1
    assert architecture in said[0]
