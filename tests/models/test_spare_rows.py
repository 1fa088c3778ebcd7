"""Rows of the head that are no token: never drawn, and without a share in any log-prob, by whatever way it is had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import make
from safetensors.torch import load_file, save_file

from temper.data.batching import make_batch
from temper.models.load import load_model
from temper.models.spare import spare_ids
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine
from temper.rollout.slots import SlotEngine
from temper.text.tokenizer import load_tokenizer
from temper.train.divergence import Divergence, diverge_targets
from temper.train.forward import plan_batch, score_targets
from temper.types import Example

ROWS = 64


@pytest.fixture(scope="module", params=["qwen2", "gemma2"])  # gemma2 has a softcap
def padded(request, tmp_path_factory) -> Path:
    """A model with more rows than its tokenizer has tokens, all of them likelier than any token."""
    path = make(request.param, tmp_path_factory.mktemp("padded") / request.param, vocab_size=400 + ROWS)
    weights = load_file(path / "model.safetensors")
    name = "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"
    known = load_tokenizer(path).backend.get_vocab_size()
    weights[name][known:] = weights[name][known - 1 : known] * 30
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture
def model(padded: Path) -> Any:
    said: list[str] = []
    loaded = load_model(padded, warn=said.append)
    assert any("are no token of its tokenizer" in text for text in said)
    return loaded


def test_they_are_never_drawn_and_every_log_prob_is_of_the_tokens_alone(model, padded):
    known = load_tokenizer(padded).backend.get_vocab_size()
    spare = spare_ids(model)
    assert spare is not None
    assert spare.tolist() == list(range(known, 400 + ROWS))
    asked = [Request((7, 8, 9, 5 + i), 100 * i + j) for i in range(4) for j in range(4)]
    sampling = Sampling(12, 0.8, stop_ids=(1,))
    plain = load_model(padded, attention="sdpa")
    for engine in (NativeEngine(model), SlotEngine(model, slots=8), PlainEngine(plain)):
        drawn = engine.generate(asked, sampling)
        assert max(token for one in drawn for token in one.token_ids) < known
        examples = [
            Example(r.prompt_ids + c.token_ids, (False,) * 4 + (True,) * len(c.token_ids))
            for r, c in zip(asked, drawn, strict=True)
        ]
        sampled = torch.tensor([value for c in drawn for value in c.sampler_logprobs])
        for scorer in (model, plain):
            batch = make_batch(examples)
            scored = score_targets(scorer, batch, plan_batch(batch), 0.8)
            assert (scored.logprobs_M - sampled[: len(scored.logprobs_M)]).abs().max() < 2e-4
            assert torch.isfinite(scored.entropy_M).all()
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([examples[0].token_ids])).logits[0, 3:-1, :known] / 0.8
        right = logits.log_softmax(-1).gather(-1, torch.tensor(drawn[0].token_ids)[:, None]).squeeze(-1)
        assert (right - torch.tensor(drawn[0].sampler_logprobs)).abs().max() < 2e-4


def test_gradients_are_finite_and_none_of_theirs(model, padded):
    known = load_tokenizer(padded).backend.get_vocab_size()
    batch = make_batch([Example((7, 8, 9, 10, 11), (False, False, True, True, True))])
    teacher = load_model(padded)
    for name in ("forward_kl", "reverse_kl"):
        value = diverge_targets(model, teacher, batch, plan_batch(batch), Divergence(name, 1.0, 400 + ROWS))
        assert value.abs().max() < 1e-4
    scored = score_targets(model, batch, plan_batch(batch), entropy_gradient=True)
    (scored.logprobs_M.sum() + scored.entropy_M.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    head = model.get_output_embeddings().weight
    if head is not model.get_input_embeddings().weight:
        assert head.grad[known:].abs().max() == 0


def test_a_model_of_its_tokenizers_size_has_none(tmp_path):
    said: list[str] = []
    assert spare_ids(load_model(make("qwen2", tmp_path / "m"), warn=said.append)) is None
    assert said == []
