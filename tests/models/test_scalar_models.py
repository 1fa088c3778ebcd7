"""Scalar models: temper's packed score is transformers' own output, made from a causal model, saved and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import make
from tiny_models import tiny_model
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from temper.errors import ArtifactError
from temper.models.load import load_model, supports_shared_prefix
from temper.models.save import save_model
from temper.models.scalar import HEADS, SharedTrunk, head_of, load_scalar, stored_scope
from temper.text.chat import ChatFormat
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.losses import LossSum
from temper.train.scores import (
    AskedExample,
    asked_batch,
    score_asked,
    score_shared,
    score_shared_positions,
    split_asked,
)

CARD = {"stage": "helpful", "trained_from": "@base", "how": []}
PLAIN = {"text": AutoModelForSequenceClassification, "step": AutoModelForTokenClassification}


def row(prompt: tuple[int, ...], reply: tuple[int, ...], *asked: int) -> AskedExample:
    mask = (False,) * len(prompt) + (True,) * len(reply)
    return AskedExample(prompt + reply, mask, asked or (len(mask) - 1,))


PROMPT = (5, 6, 7, 8, 9, 11)
ROWS = [
    row(PROMPT, (12, 13, 14), 6, 8),
    row(PROMPT, (15, 16), 7),
    row((21, 22), (23, 24, 25, 26), 1, 5),
    row(PROMPT, (12, 17, 18, 19, 20), 5, 10),
]


def plain_scores(model: Any, rows: list[AskedExample]) -> Tensor:
    """One example at a time through transformers' own forward, no packing."""
    found = []
    for example in rows:
        hidden = model.base_model(input_ids=torch.tensor([example.token_ids])).last_hidden_state[0]
        found.append(head_of(model)(hidden[list(example.asked)]).squeeze(-1))
    return torch.cat(found)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("scope", ["text", "step"])
def test_the_packed_score_is_transformers_own_output(arch, scope, tmp_path):
    source = make(arch, tmp_path / "source")
    model = load_scalar(source, scope, seed=3)
    assert supports_shared_prefix(model)
    assert stored_scope(source) is None
    chat = ChatFormat.load(source)
    save_model(model, chat, tmp_path / "out", CARD)
    assert stored_scope(tmp_path / "out") == scope
    plain, info = PLAIN[scope].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    plain.eval()
    scores = score_asked(model, ROWS)
    assert scores.std() > 0.01
    assert torch.allclose(scores, plain_scores(plain, ROWS), atol=1e-5)
    ended = [row(PROMPT, (12, 13, 14)), row((21, 22), (23, 24, 25, 26)), row(PROMPT, (15,))]
    longest = max(len(example.token_ids) for example in ended)
    padded = torch.tensor([e.token_ids + (chat.pad_id,) * (longest - len(e.token_ids)) for e in ended])
    with torch.no_grad():
        logits = plain(input_ids=padded, attention_mask=(torch.arange(longest) < torch.tensor(
            [[len(e.token_ids)] for e in ended])).long()).logits  # fmt: skip
    last = [len(example.token_ids) - 1 for example in ended]
    expected = logits[:, 0] if scope == "text" else logits[range(3), last, 0]
    assert torch.allclose(score_asked(model, ended), expected, atol=1e-5)
    again = load_scalar(tmp_path / "out", scope)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_head_is_drawn_from_its_seed_or_is_zero(tmp_path):
    source = make("llama", tmp_path / "source")
    one, same, other, zero = (head_of(load_scalar(source, "step", seed)).weight for seed in (1, 1, 2, None))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not zero.any()


def test_a_step_model_is_not_read_as_a_text_model_nor_a_classifier_of_two(tmp_path):
    source = make("llama", tmp_path / "source")
    save_model(load_scalar(source, "step", 1), ChatFormat.load(source), tmp_path / "out", CARD)
    with pytest.raises(ArtifactError, match="one number a step, and one a text is needed"):
        load_scalar(tmp_path / "out", "text")
    config = json.loads((tmp_path / "out/config.json").read_text())
    config["id2label"] = {"0": "bad", "1": "good"}
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="a classifier of 2 labels"):
        load_scalar(tmp_path / "out", "step")


def test_a_missing_head_of_a_reward_model_is_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    source, out = make("llama", tmp_path / "source"), tmp_path / "out"
    save_model(load_scalar(source, "text", 1), ChatFormat.load(source), out, CARD)
    tensors = load_file(out / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="head are missing"):
        load_scalar(out, "text")


def gradients(model: Any, scores: Tensor) -> list[Tensor]:
    model.zero_grad()
    (scores * torch.linspace(-1, 1, len(scores))).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_gradients_are_those_of_the_plain_forward_however_rows_are_packed(tmp_path):
    model = load_scalar(make("llama", tmp_path / "source"), seed=3)
    packed = gradients(model, score_asked(model, ROWS))
    alone = gradients(model, torch.cat([score_asked(model, [example]) for example in ROWS]))
    model.set_attn_implementation("sdpa")
    plain = gradients(model, plain_scores(model, ROWS))
    padded = gradients(model, score_asked(model, ROWS))  # the way of models that cannot be packed
    for expected, *others in zip(plain, packed, alone, padded, strict=True):
        for found in others:
            assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()) + 1e-7)


def test_a_learner_trains_a_scalar_model_and_keeps_its_head_wide(tmp_path):
    source = make("llama", tmp_path / "source")
    model = load_scalar(source, seed=3)
    learner = Learner(model, OptimizerConfig(learning_rate=3e-3, dtype="bfloat16"), total_steps=30)
    assert model.base_model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert head_of(model).weight.dtype == torch.float32
    goals = torch.linspace(-1, 1, 7)
    for _ in range(30):
        learner.update([lambda: LossSum((score_asked(model, ROWS) - goals).square().sum(), {})], divisor=7)
    trained = learner.trained_model()
    assert (score_asked(trained, ROWS) - goals).square().mean() < 0.1
    save_model(trained, ChatFormat.load(source), tmp_path / "out", CARD)
    again = load_scalar(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), trained.parameters(), strict=True))


def test_one_forward_gives_the_policys_logprobs_and_the_values_of_a_shared_trunk():
    policy = tiny_model("llama")
    shared = SharedTrunk(policy, seed=1)
    batch, _ = asked_batch(ROWS)
    plan = plan_batch(batch)
    scored, values = score_shared(shared, batch, plan, batch.sources, temperature=0.7)
    assert torch.allclose(scored.logprobs_M, score_targets(policy, batch, plan, 0.7).logprobs_M, atol=1e-6)
    assert torch.allclose(values, score_shared_positions(shared, batch, plan, batch.sources), atol=1e-6)
    (values.sum() + scored.logprobs_M.sum()).backward()
    assert all(p.grad is not None for p in shared.parameters())
    learner = Learner(shared, OptimizerConfig(learning_rate=1e-3, dtype="bfloat16"), total_steps=1)
    assert shared.value_head.weight.dtype == torch.float32
    assert {"model.value_head.weight", "model.policy.model.embed_tokens.weight"} <= set(learner.state())


def test_values_of_a_state_do_not_depend_on_the_tokens_that_follow(tmp_path):
    model = load_scalar(make("qwen3", tmp_path / "source"), seed=3)
    one, other = row(PROMPT, (12, 13, 14), 5, 6), row(PROMPT, (12, 40, 41, 42), 5, 6)
    assert torch.allclose(score_asked(model, [one]), score_asked(model, [other]), atol=1e-6)


@pytest.mark.parametrize("budget", [1, 12, 20, 1000])
def test_units_are_split_whole_and_each_once(budget):
    units = [ROWS[:2], ROWS[2:3], ROWS[3:], [*ROWS[:1], *ROWS[3:]]]
    parts = split_asked(units, budget)
    assert sorted(i for part in parts for i in part) == [0, 1, 2, 3]
    batch, positions = asked_batch(ROWS)
    assert batch.tokens[positions].tolist() == [row.token_ids[i] for row in ROWS for i in row.asked]


def test_heads_are_of_transformers() -> None:
    import transformers

    assert all(hasattr(transformers, f"AutoModelFor{head}") for head in HEADS.values())
    assert supports_shared_prefix(tiny_model("llama"))


def test_a_reward_model_is_not_read_as_a_language_model(tmp_path: Path) -> None:
    source = make("llama", tmp_path / "source")  # its embeddings are tied, so no tensor would be missing
    save_model(load_scalar(source, seed=1), ChatFormat.load(source), tmp_path / "out", CARD)
    with pytest.raises(ArtifactError, match="scores text and cannot write any"):
        load_model(tmp_path / "out")
