"""One optimiser step: the divisor, the schedule, exact resume, and refusal of a gradient that is not finite."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

from temper.data.batching import make_batch
from temper.errors import Preempted
from temper.record.checkpoints import clear
from temper.sealed import seal
from temper.train.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.losses import LossSum
from temper.types import Example

ROWS = [Example((5, 6, 7, 8), (False, True, True, True)), Example((9, 10, 11), (False, False, True))]


class Quiet:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def resume_at(self, step: int, kept: Path | None = None) -> None: ...

    def info(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def new_learner(steps: int = 6, **options: Any) -> Learner:
    return Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3, save_steps=2, **options), steps)


def loss(learner: Learner, rows: list[Example]) -> LossSum:
    batch = make_batch(rows)
    return LossSum(
        -score_targets(learner.model, batch, plan_batch(batch)).logprobs_M.sum(),
        {"targets": len(batch.targets)},
        count=len(rows),
    )


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


def test_splitting_a_step_into_micro_batches_gives_the_same_step() -> None:
    whole, split = new_learner(), new_learner()
    one = whole.update([lambda: loss(whole, ROWS)], divisor=4)
    two = split.update([lambda: loss(split, ROWS[:1]), lambda: loss(split, ROWS[1:])], divisor=4)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["targets"] == two["targets"] == 2.0
    assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-4)


def test_a_step_without_signal_has_gradient_zero() -> None:
    learner = new_learner()
    before = weights(learner)
    metrics = learner.update([], divisor=4)
    assert metrics["gradient_norm"] == 0.0
    assert torch.equal(before, weights(learner))


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    learner = new_learner()
    before = weights(learner)
    with pytest.raises(FloatingPointError, match="embed_tokens"):
        learner.update([lambda: LossSum(loss(learner, ROWS).loss * float("nan"), {})], divisor=1)
    assert torch.equal(before, weights(learner))


def run(folder: Path, learner: Learner, stop_after: int | None = None) -> None:
    taken: list[int] = []
    for step in resumable_steps(learner, folder, Quiet(), lambda: len(taken) == stop_after):
        learner.update([lambda row=ROWS[step % 2]: loss(learner, [row])], divisor=3)
        taken.append(step)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    straight = new_learner()
    run(tmp_path / "straight", straight)
    with pytest.raises(Preempted):
        run(tmp_path / "broken", new_learner(), stop_after)
    resumed = new_learner()
    run(tmp_path / "broken", resumed)
    assert resumed.step == straight.step == 6
    assert torch.equal(weights(straight), weights(resumed))


def run_two(folder: Path, first: Learner, second: Learner, stop_after: int | None = None) -> None:
    """Three loop steps: two updates of the first learner in each, one of the second from the second step on."""
    taken: list[int] = []
    others = {"second": second}
    for step in resumable_steps(first, folder, Quiet(), lambda: len(taken) == stop_after, others, total=3):
        for row in ROWS:
            first.update([lambda row=row: loss(first, [row])], divisor=3)
        if step:
            second.update([lambda: loss(second, ROWS)], divisor=4)
        taken.append(step)


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_second_learner_is_resumed_with_its_own_moments_and_count(tmp_path: Path, stop_after: int) -> None:
    schedule = {"lr_scheduler_type": "linear"}
    straight = new_learner(6, **schedule), new_learner(2, **schedule)
    run_two(tmp_path / "straight", *straight)
    with pytest.raises(Preempted):
        run_two(tmp_path / "broken", new_learner(6, **schedule), new_learner(2, **schedule), stop_after)
    resumed = new_learner(6, **schedule), new_learner(2, **schedule)
    run_two(tmp_path / "broken", *resumed)
    for ours, theirs in zip(straight, resumed, strict=True):
        assert ours.step == theirs.step
        assert torch.equal(weights(ours), weights(theirs))
    assert (straight[0].step, straight[1].step) == (6, 2)


def checkpoints(work: Path, *steps: int) -> Path:
    """Checkpoints of these steps in a stage's directory, with the records of each."""
    folder = work / "checkpoints"
    work.mkdir(exist_ok=True)
    for step in steps:
        (work / "metrics.jsonl").write_text("".join(f'{{"step": {n + 1}, "of": 9}}\n' for n in range(step)))
        save_checkpoint(folder, Checkpoint(step, {"x": torch.full((4,), float(step))}, {"updates": step}))
    return folder


def damage(path: Path, how: str, dice: random.Random) -> None:
    """Change one file in one way."""
    data = path.read_bytes()
    place = dice.randrange(len(data))
    changed = {
        "flip": data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :],
        "cut": data[:place], "grow": data + b"}", "twice": data + data, "empty": b"", "list": b"[]", "null": b"null",
        "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000, "renamed": data.replace(b"updates", b"Updates") + b" ",
    }  # fmt: skip
    path.unlink() if how == "gone" else path.write_bytes(changed[how])


HOWS = ("flip", "cut", "grow", "twice", "empty", "list", "null", "deep", "renamed", "gone")


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.json", "metrics.jsonl"])
@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path, name: str, how: str) -> None:
    dice = random.Random(f"{name} {how}")
    for times in range(20 if how in ("flip", "cut") else 1):
        folder = checkpoints(tmp_path / str(times), 2, 4)
        damage(folder / "step-000004" / name, how, dice)
        log = Quiet()
        found = latest_checkpoint(folder, log.warn)
        assert found is not None
        assert (found.step, found.meta, found.tensors["x"].tolist()) == (2, {"updates": 2}, [2.0] * 4)
        (warning,) = log.warnings
        assert str(folder / "step-000004" / name) in warning


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.json", ""])
def test_a_checkpoint_in_anothers_place_is_none(tmp_path: Path, name: str) -> None:
    folder = checkpoints(tmp_path / "work", 2, 4)
    one, other, aside = folder / "step-000002" / name, folder / "step-000004" / name, tmp_path / "aside"
    for source, target in ((one, aside), (other, one), (aside, other)):
        source.rename(target)
    assert latest_checkpoint(folder, Quiet().warn) is None
    shutil.rmtree(folder)
    folder = checkpoints(tmp_path / "work", 2, 4)
    shutil.copytree(folder / "step-000002", folder / "step-000009")
    log = Quiet()
    found = latest_checkpoint(folder, log.warn)
    assert found is not None
    assert found.step == 4
    assert "it is that of step 2" in log.warnings[0]


def test_a_checkpoint_of_another_config_is_none(tmp_path: Path) -> None:
    work = tmp_path / "01-rl"
    work.mkdir()
    (work / "stage.json").write_bytes(seal("stage.json", {"stage": "rl", "fingerprint": "a" * 32}))
    folder = checkpoints(work, 2)
    assert latest_checkpoint(folder, Quiet().warn) is not None
    (work / "stage.json").write_bytes(b"")  # then the checkpoint says whose the directory is
    assert latest_checkpoint(folder, Quiet().warn) is not None
    (work / "stage.json").write_bytes(seal("stage.json", {"stage": "rl", "fingerprint": "b" * 32}))
    assert latest_checkpoint(folder, Quiet().warn) is None


def test_only_checkpoints_of_its_own_are_removed(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "work", 1)
    (folder / "step-000001" / "thesis.txt").write_text("x")
    (folder / "step-000000").mkdir()
    (folder / "step-000000" / "thesis.txt").write_text("x")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "state.safetensors").write_text("x")
    (folder / "step-000002").symlink_to(tmp_path / "disk")
    checkpoints(tmp_path / "work", 3, 4, 5)
    assert sorted(path.name for path in folder.iterdir()) == [
        "step-000000", "step-000001", "step-000002", "step-000004", "step-000005",
    ]  # fmt: skip
    clear(tmp_path / "work")
    assert sorted(path.name for path in folder.iterdir()) == ["step-000000", "step-000001", "step-000002"]
    assert (tmp_path / "disk" / "state.safetensors").exists()


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, Checkpoint(step, {"x": torch.zeros(1)}, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]
