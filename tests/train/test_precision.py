"""Narrow weights: the sampler's tensors are rewritten in place, nothing small is lost, an overflow changes nothing."""

from __future__ import annotations

import copy
import gc
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_zoo import make
from tiny_models import tiny_model

from temper.data.batching import make_batch
from temper.errors import Exit, Preempted, TemperError
from temper.models.adapters import LoraConfig
from temper.models.device import missing_device, on_device, pick_dtype
from temper.models.load import load_model
from temper.stages.models import finish_model, open_learner
from temper.text.chat import ChatFormat
from temper.train import precision
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.losses import LossSum
from temper.train.optimizers import missing_optimizer
from temper.types import Example

NARROW = ("bfloat16", "float16")
ROWS = [
    Example((5, 6, 7, 8), (False, True, True, True)),
    Example((9, 10, 11, 12), (False, False, True, True)),
    Example((9, 10, 13), (False, False, True)),
]


class Quiet:
    def resume_at(self, step: int, kept: Path | None = None) -> None: ...

    def info(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def new_learner(steps: int = 6, architecture: str = "llama", **options: Any) -> Learner:
    settings = OptimizerConfig(**{"learning_rate": 1e-3, "save_steps": 2, **options})
    return Learner(tiny_model(architecture), settings, steps)


def loss(model: Any, rows: list[Example]) -> LossSum:
    batch = make_batch(rows)
    return LossSum(-score_targets(model, batch, plan_batch(batch)).logprobs_M.sum(), {})


def take_step(learner: Learner, rows: list[Example] = ROWS) -> dict[str, float]:
    return learner.update([lambda row=row: loss(learner.model, [row]) for row in rows], divisor=6)


def masters(learner: Learner) -> torch.Tensor:
    return torch.cat([master.detach().flatten() for master in learner.weights.masters.values()])


@pytest.mark.parametrize("dtype", NARROW)
def test_weights_stay_where_they_are_and_are_the_rounded_masters(dtype: str) -> None:
    learner = new_learner(dtype=dtype)
    places = [p.data_ptr() for p in learner.model.parameters()]
    before = [p.detach().clone() for p in learner.model.parameters()]
    for _ in range(3):
        take_step(learner)
    assert places == [p.data_ptr() for p in learner.model.parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    for name, weight in learner.model.named_parameters():
        assert weight.dtype == getattr(torch, dtype)
        assert weight.grad is None
        assert torch.equal(weight, learner.weights.masters[name].to(weight.dtype))
        assert learner.weights.masters[name].dtype == torch.float32
    for moments in learner.optimizer.state.values():
        assert {moments["exp_avg"].dtype, moments["exp_avg_sq"].dtype} == {torch.float32}


def test_masters_begin_with_the_stored_weights_not_with_the_rounded_ones() -> None:
    stored = torch.cat([p.detach().flatten() for p in tiny_model("llama").parameters()])
    assert torch.equal(masters(new_learner(dtype="bfloat16")), stored)


def test_in_float32_the_weights_are_their_own_masters() -> None:
    learner = new_learner()
    for name, weight in learner.model.named_parameters():
        assert learner.weights.masters[name] is weight


def test_in_float64_a_model_stays_as_it_is() -> None:
    model = tiny_model("llama").double()
    learner = Learner(model, OptimizerConfig(learning_rate=1e-3), 3)
    take_step(learner)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert {m["exp_avg"].dtype for m in learner.optimizer.state.values()} == {torch.float64}


def test_buffers_are_not_rounded() -> None:
    learner = new_learner(dtype="bfloat16")
    assert {b.dtype for b in learner.model.buffers() if b.is_floating_point()} == {torch.float32}


def test_gradients_of_micro_batches_are_summed_in_float32_and_moved_by_adamw() -> None:
    learner = new_learner(dtype="bfloat16", max_grad_norm=1e9)
    plain = tiny_model("llama").to(torch.bfloat16)  # as it is saved, without buffers
    for ours, theirs in zip(learner.model.buffers(), plain.buffers(), strict=True):
        theirs.data = ours.data.clone()
    masters = [torch.nn.Parameter(p.detach().clone()) for p in tiny_model("llama").parameters()]
    for master in masters:
        master.grad = torch.zeros_like(master)
    for row in ROWS:
        plain.zero_grad()
        (loss(plain, [row]).loss / 6).backward()
        for master, weight in zip(masters, plain.parameters(), strict=True):
            if weight.grad is not None:
                master.grad += weight.grad.float()
    torch.optim.AdamW(masters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True).step()
    take_step(learner)
    for ours, theirs in zip(learner.weights.masters.values(), masters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("dtype", "rate"), [("bfloat16", 2e-6), ("float16", 2e-7)])
def test_steps_too_small_to_show_in_a_narrow_weight_add_up(dtype: str, rate: float) -> None:
    learner = new_learner(100, dtype=dtype, learning_rate=rate)
    before = [p.detach().clone() for p in learner.model.parameters()]
    take_step(learner)
    first = sum(int((a != b).sum()) for a, b in zip(before, learner.model.parameters(), strict=True))
    for _ in range(99):
        take_step(learner, ROWS[:1])
    later = sum(int((a != b).sum()) for a, b in zip(before, learner.model.parameters(), strict=True))
    assert later > 10 * first


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_training_follows_float32(dtype: str) -> None:
    wide, narrow = new_learner(30), new_learner(30, dtype=dtype)
    losses = [(take_step(wide)["loss"], take_step(narrow)["loss"]) for _ in range(30)]
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert all(abs(a - b) < 0.03 * losses[0][0] for a, b in losses)


def test_an_overflow_of_float16_is_computed_again_from_a_smaller_loss() -> None:
    high, low = new_learner(dtype="float16"), new_learner(dtype="float16")
    assert high.weights.scale is not None
    assert low.weights.scale is not None
    high.weights.scale.value, low.weights.scale.value = 2.0**30, 2.0**10
    calls = []

    def counted() -> LossSum:
        calls.append(1)
        return loss(high.model, ROWS)

    metrics = high.update([counted], divisor=6)
    low.update([lambda: loss(low.model, ROWS)], divisor=6)
    assert len(calls) > 1
    assert high.weights.scale.value == 2.0 ** (31 - len(calls))
    assert high.step == low.step == 1
    assert metrics["gradient_norm"] > 0
    assert torch.allclose(masters(high), masters(low), atol=2e-4)


def test_the_loss_scale_grows_after_clean_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "GROWTH_STEPS", 3)
    learner = new_learner(dtype="float16")
    assert learner.weights.scale is not None
    learner.weights.scale.value = 256.0
    seen = []
    for _ in range(6):
        take_step(learner)
        seen.append(learner.weights.scale.value)
    assert seen == [256.0, 256.0, 512.0, 512.0, 512.0, 1024.0]


def test_the_loss_scale_keeps_gradients_that_float16_would_lose() -> None:
    scaled, wide = new_learner(dtype="float16", max_grad_norm=1e9), new_learner(max_grad_norm=1e9)
    norms = []
    for learner in (scaled, wide):
        metrics = learner.update([lambda learner=learner: loss(learner.model, ROWS)], divisor=6e5)
        norms.append(metrics["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", *NARROW])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(dtype: str, factor: float) -> None:
    learner = new_learner(dtype=dtype)
    take_step(learner)
    before, moments = masters(learner), copy.deepcopy(list(learner.optimizer.state.values()))
    with pytest.raises(FloatingPointError, match=r"the gradient of `.*` is not finite"):
        learner.update([lambda: LossSum(loss(learner.model, ROWS).loss * factor, {})], divisor=1)
    assert torch.equal(before, masters(learner))
    for a, b in zip(moments, learner.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert learner.step == 1


def test_the_weight_with_the_bad_gradient_is_the_one_that_is_named() -> None:
    learner = new_learner()
    bad = learner.model.model.layers[1].mlp.down_proj.weight
    with pytest.raises(FloatingPointError, match=r"`model\.layers\.1\.mlp\.down_proj\.weight`"):
        learner.update([lambda: LossSum(loss(learner.model, ROWS).loss + bad.sum() * float("nan"), {})], divisor=1)


def run(folder: Path, learner: Learner, stop_after: int | None = None) -> None:
    taken: list[int] = []
    for step in resumable_steps(learner, folder, Quiet(), lambda: len(taken) == stop_after):
        take_step(learner, ROWS[step % 2 :])
        taken.append(step)


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"dtype": "float16"}, {"optim": "adamw_8bit"},
                                     {"optim": "adamw_8bit", "dtype": "bfloat16"}], ids=str)  # fmt: skip
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: dict[str, str], stop_after: int) -> None:
    if "optim" in options:
        pytest.importorskip("bitsandbytes")
    straight = new_learner(**options)
    run(tmp_path / "straight", straight)
    with pytest.raises(Preempted):
        run(tmp_path / "broken", new_learner(**options), stop_after)
    resumed = new_learner(**options)
    run(tmp_path / "broken", resumed)
    assert resumed.step == straight.step == 6
    assert torch.equal(masters(straight), masters(resumed))
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_goes_on_with_its_loss_scale(tmp_path: Path) -> None:
    learner, other = new_learner(dtype="float16"), new_learner(dtype="float16")
    assert learner.weights.scale is not None
    assert other.weights.scale is not None
    learner.weights.scale.value = 2.0**30
    take_step(learner)
    other.load_state(learner.state(), learner.step)
    assert (other.weights.scale.value, other.weights.scale.clean) == (learner.weights.scale.value, 1)


def test_eight_bit_moments_take_a_quarter_of_the_memory_and_train_alike() -> None:
    pytest.importorskip("bitsandbytes")
    wide, narrow = new_learner(30), new_learner(30, optim="adamw_8bit")
    losses = [(take_step(wide)["loss"], take_step(narrow)["loss"]) for _ in range(30)]
    assert all(abs(a - b) < 0.05 * losses[0][0] for a, b in losses)
    large = [p for p in narrow.model.parameters() if p.numel() >= 4096]
    held = sum(narrow.optimizer.state[p][key].nbytes for p in large for key in ("state1", "state2"))
    assert held == 2 * sum(p.numel() for p in large)


def test_without_bitsandbytes_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.train.optimizers.find_spec", lambda name: None)
    assert not missing_optimizer("adamw")
    with pytest.raises(TemperError, match="needs bitsandbytes") as refused:
        new_learner(optim="adamw_8bit")
    assert refused.value.code == Exit.OPTIONAL_PART
    assert refused.value.faults[0].fix == 'pip install "temper-rl[8bit]"'


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16", "gradient_checkpointing": True}], ids=str)
def test_ninety_steps_hold_no_more_memory_than_thirty(options: dict[str, Any]) -> None:
    learner = new_learner(90, **options)
    held = []
    for step in range(90):
        take_step(learner, ROWS[step % 3 : step % 3 + 1])
        if step in (29, 89):
            gc.collect()
            held.append(sum(x.nbytes for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)))
    assert held[0] == held[1]


def test_frozen_weights_get_no_master_no_gradient_and_no_moments() -> None:
    model = tiny_model("llama")
    for name, weight in model.named_parameters():
        weight.requires_grad_("layers.1" in name)
    learner = Learner(model, OptimizerConfig(learning_rate=1e-3, dtype="bfloat16"), 3)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    take_step(learner)
    assert all("layers.1" in name for name in learner.state())
    assert all("layers.1" in name for name in learner.weights.masters)
    assert len(learner.optimizer.state) == len(learner.weights.masters)
    for name, weight in model.named_parameters():
        assert "layers.1" in name or torch.equal(weight, before[name])
        assert weight.dtype == torch.bfloat16


def test_what_is_saved_is_the_masters_and_training_goes_on_from_them(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    learner = new_learner(dtype="bfloat16")
    for _ in range(3):
        take_step(learner)
    kept = masters(learner).clone()
    learner.trained_model().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert torch.equal(torch.cat([p.detach().flatten() for p in loaded.parameters()]), kept)


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"lora": LoraConfig(r=2)}], ids=str)
def test_what_a_stage_leaves_behind_loads_and_says_what_was_trained(tmp_path: Path, options: dict[str, Any]) -> None:
    if "lora" in options:
        pytest.importorskip("peft")
    source = make("qwen3", tmp_path / "source")
    log = SimpleNamespace(warn=lambda text: None)
    ctx: Any = SimpleNamespace(seed=0, name="stage", out=tmp_path / "out", log=log)
    learner = open_learner(source, OptimizerConfig(learning_rate=1e-2, **options), 3, ctx)
    before = learner.update([], divisor=1)
    assert before["gradient_norm"] == 0
    for _ in range(3):
        take_step(learner)
    finish_model(learner, ChatFormat.load(source), ctx, "@source", ["trained"])
    left = load_model(tmp_path / "out", dtype="auto")
    assert left.dtype == torch.float32
    assert (tmp_path / "out" / "adapter").exists() == ("lora" in options)
    with torch.no_grad():
        found, trained, untrained = (loss(model, ROWS).loss for model in (left, learner.model, load_model(source)))
    assert found == pytest.approx(float(trained), rel=1e-5)
    assert found < 0.99 * untrained


def test_a_dtype_that_is_chosen_for_you_is_one_the_device_is_fast_with() -> None:
    assert pick_dtype("auto", torch.device("cuda")) == "bfloat16"
    assert pick_dtype("auto", torch.device("cpu")) == "float32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_to_be_missing() -> None:
    assert not missing_device("auto")
    [fault] = missing_device("cuda")
    assert fault.code == 4


def places(model: torch.nn.Module) -> list[tuple[str, int]]:
    return [(tensor.device.type, tensor.data_ptr()) for tensor in (*model.parameters(), *model.buffers())]


def test_a_model_on_its_own_device_is_not_moved() -> None:
    model = tiny_model("llama")
    before = places(model)
    with on_device(model, torch.device("cpu")) as same:
        assert places(same) == before
    assert places(model) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_used_now_and_then_comes_and_goes() -> None:
    model = tiny_model("llama")
    before = places(model)
    with on_device(model, torch.device("cuda")):
        assert {device for device, _ in places(model)} == {"cuda"}
    assert places(model) == before
