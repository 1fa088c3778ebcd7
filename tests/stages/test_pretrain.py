"""Next-token training on blocks: the packed path has the gradient of the plain one, however the step is split."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_zoo import make
from tiny_models import SIZES, tiny_model
from torch.nn.functional import cross_entropy

from temper.artifacts import hash_file
from temper.errors import Preempted
from temper.models.create import create_model
from temper.models.load import supports_shared_prefix
from temper.models.save import licence_in
from temper.stages import pretrain
from temper.stages.context import StageContext
from temper.stages.pretrain import Architecture, Config, pack_blocks, update
from temper.text.chat import ChatFormat
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig

BLOCKS = torch.randint(0, SIZES["vocab_size"], (5, 12), generator=torch.Generator().manual_seed(0))


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_packed_blocks_have_the_gradient_of_a_batch_of_rows(architecture: str, dtype: Any, tolerance: float) -> None:
    plain = tiny_model(architecture, attention="sdpa").to(dtype)
    logits = plain(input_ids=BLOCKS, use_cache=False).logits[:, :-1]
    expected = gradients(plain, cross_entropy(logits.flatten(0, 1), BLOCKS[:, 1:].flatten(), reduction="sum"))
    packed = tiny_model(architecture).to(dtype)
    batch = pack_blocks(BLOCKS)
    found = gradients(packed, -score_targets(packed, batch, plan_batch(batch)).logprobs_M.sum())
    largest = max(float(value.abs().max()) for value in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= tolerance * largest


@pytest.mark.parametrize("budget", [1, 24, 31, 8192])
def test_the_step_does_not_depend_on_micro_batches(budget: int) -> None:
    def stepped(micro_batch_tokens: int) -> tuple[dict[str, float], torch.Tensor]:
        config = OptimizerConfig(learning_rate=1e-3, micro_batch_tokens=micro_batch_tokens)
        learner = Learner(tiny_model("llama"), config, 1)
        metrics = update(learner, BLOCKS)
        return metrics, torch.cat([gradient.flatten() for gradient in learner.weights.gradients()])

    (whole, gradient), (parts, summed) = stepped(10_000), stepped(budget)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert torch.allclose(summed, gradient, atol=1e-6)


def test_a_new_model_is_made_for_the_packed_path() -> None:
    tokenizer = SimpleNamespace(backend=SimpleNamespace(get_vocab_size=lambda: 50))
    chat = SimpleNamespace(tokenizer=tokenizer, end_id=0, pad_id=0)
    architecture = Architecture(hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    assert supports_shared_prefix(create_model(architecture, chat, seed=0))


def context(work: Path, inputs: dict[str, Path], stopped: bool = False) -> StageContext:
    (work / "out").mkdir(parents=True, exist_ok=True)
    log = SimpleNamespace(
        step=lambda *row: None, info=lambda text: None, warn=lambda text, key="": None,
        resume_at=lambda step, kept=None: None,
    )  # fmt: skip
    return StageContext("base", 0, work / "out", work, inputs, {}, log, lambda: stopped)  # type: ignore[arg-type]


def test_a_new_model_is_under_the_licence_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "one and two are three"}\n' * 40, encoding="utf-8")
    small = Architecture(hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    sizes = {"architecture": small, "vocab_size": 300, "max_steps": 1, "batch_size": 2, "block_size": 16}
    for given, named, said in (("mit", "mit", "This model is under `mit`"), (None, "", "Not stated")):
        ctx = context(tmp_path / (given or "none"), {"d": tmp_path / "texts.jsonl"})
        pretrain.run(Config(data="d", license=given, **sizes), ctx)
        assert licence_in(ctx.out) == named
        assert said in (ctx.out / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="license"):
        Config(data="d", license="mit\ntags: [x]", **sizes)


def test_a_model_that_reads_on_keeps_its_tokenizer_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    source = make("llama", tmp_path / "m")
    (tmp_path / "texts.jsonl").write_text('{"text": "one and two are three"}\n' * 40, encoding="utf-8")
    config = Config(model="m", data="d", max_steps=4, batch_size=2, block_size=16, learning_rate=0.01, save_steps=1)

    def run(name: str, stop_after: int | None = None) -> Path:
        ctx = context(tmp_path / name, {"m": source, "d": tmp_path / "texts.jsonl"}, stopped=stop_after is not None)
        assert pretrain.check(config, ctx) == []
        pretrain.run(config, ctx)
        return ctx.out

    whole = run("whole")
    for _ in range(3):
        with pytest.raises(Preempted):
            run("cut", stop_after=1)
    cut = run("cut")
    assert hash_file(whole / "model.safetensors") == hash_file(cut / "model.safetensors")
    assert hash_file(whole / "model.safetensors") != hash_file(source / "model.safetensors")
    assert (whole / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert ChatFormat.load(whole).template == ChatFormat.load(source).template
