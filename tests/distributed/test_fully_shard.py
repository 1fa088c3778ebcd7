"""A model in parts at the ranks (FSDP2) is trained to what whole ones are, saved in parts, and read at any size."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict_saver  # once, not in each forked rank
import yaml
from pydantic import ValidationError
from rank_processes import at_every_rank
from tiny_models import tiny_model

from temper.data.batching import make_batch
from temper.distributed.ranks import Ranks, ranks
from temper.errors import ResourceError
from temper.train.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from temper.train.forward import plan_batch, score_targets
from temper.train.fully_sharded import ShardedWeights
from temper.train.learner import Learner, OptimizerConfig
from temper.train.losses import LossSum
from temper.train.policy import policy_batches, with_old
from temper.types import Example, PolicyExample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
STEPS = (4, 1, 0, 5)  # micro-batches of each update: fewer than ranks, and none at all, as where all groups are dead


def learner_of(architecture: str = "llama", **settings: Any) -> Learner:
    config = {"learning_rate": 1e-3, "parallel": "threads", "weight_decay": 0.1, **settings}
    cpu = torch.device("cpu")
    return Learner(tiny_model(architecture), OptimizerConfig.model_validate(config), 20, device=cpu, whole_on=cpu)


def loss_of(learner: Learner, number: int) -> LossSum:
    length = 6 + 5 * number  # uneven
    ids = tuple((7 * number + 3 * i) % 90 + 5 for i in range(length))
    batch = make_batch([Example(ids, (False, *(True,) * (length - 1)))])
    scored = score_targets(learner.model, batch, plan_batch(batch))
    return LossSum(-scored.logprobs_M.sum(), {"n": float(number)}, 1)


def update(learner: Learner, passes: int) -> dict[str, float]:
    return learner.update([lambda n=n: loss_of(learner, n) for n in range(passes)], divisor=50.0)


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    """Of the whole model, at every rank."""
    return {name: weight.detach().clone() for name, weight in learner.whole.named_parameters()}


def furthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).detach().abs().max()) for name in found)


def trained(architecture: str = "llama", **settings: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    learner = learner_of(architecture, **settings)
    return [update(learner, passes) for passes in STEPS], weights_of(learner)


@pytest.mark.parametrize("size", [2, 3])
def test_a_model_in_parts_is_trained_to_what_a_whole_one_is(size: int, tmp_path: Path) -> None:
    metrics, expected = trained()
    for found, weights in at_every_rank(size, tmp_path, lambda _: trained(fully_shard=True)):
        for ours, theirs in zip(found, metrics, strict=True):
            assert ours.pop("bytes_sent") > 0
            assert ours == pytest.approx(theirs, rel=1e-5)
        assert furthest(weights, expected) < 1e-5


def gradients_of(learner: Learner, passes: int) -> dict[str, torch.Tensor]:
    """Of one update, whole, before it is made."""
    learner._gather_gradients([lambda n=n: loss_of(learner, n) for n in range(passes)], 50.0)
    if isinstance(learner.weights, ShardedWeights):
        parts: dict[str, Any] = learner.weights.parts  # type: ignore[assignment]
        return {name: part.grad.full_tensor() for name, part in parts.items()}
    return {name: master.grad for name, master in learner.weights.masters.items() if master.grad is not None}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_gradients_are_those_of_one_process_however_the_model_lies(size: int, tmp_path: Path) -> None:
    expected = gradients_of(learner_of(), 5)
    scale = max(float(gradient.abs().max()) for gradient in expected.values())

    def work(_: Ranks) -> list[dict[str, torch.Tensor]]:
        return [gradients_of(learner_of(fully_shard=shard), 5) for shard in (False, True)]

    for ways in at_every_rank(size, tmp_path, work):
        for found in ways:
            assert furthest(found, expected) < 1e-6 * scale


def test_other_architectures_and_layers_computed_again(tmp_path: Path) -> None:
    def work(_: Ranks) -> list[dict[str, torch.Tensor]]:
        return [trained(name, fully_shard=True, gradient_checkpointing=True)[1] for name in ("qwen3", "gemma2")]

    expected = [trained(name)[1] for name in ("qwen3", "gemma2")]
    for found in at_every_rank(2, tmp_path, work):
        assert all(furthest(*pair) < 2e-5 for pair in zip(found, expected, strict=True))


def test_narrow_weights_are_computed_with_and_wide_ones_are_moved(tmp_path: Path) -> None:
    def work(_: Ranks) -> Any:
        learner = learner_of(fully_shard=True, dtype="bfloat16")
        update(learner, 3)
        sampled = {name: weight.clone() for name, weight in weights_of(learner).items()}
        return sampled, {name: w.detach().clone() for name, w in learner.trained_model().named_parameters()}

    whole = learner_of(dtype="bfloat16")
    update(whole, 3)
    (sampled, saved), (same, nothing) = at_every_rank(2, tmp_path, work)
    assert all(weight.dtype == torch.bfloat16 for weight in sampled.values())
    assert all(weight.dtype == torch.float32 for weight in saved.values())
    assert all(torch.equal(sampled[name], weight.bfloat16()) for name, weight in saved.items())
    assert all(torch.equal(sampled[name], same[name]) for name in sampled)
    assert not any(weight.numel() for weight in nothing.values())  # rank 0 saves
    moved = {name: master.detach() for name, master in whole.weights.masters.items()}
    assert furthest(saved, moved) < 2.1e-3  # of a rate of 1e-3: near 0 rounding may turn a gradient's sign


def test_the_trained_policy_is_asked_in_parts(tmp_path: Path) -> None:
    """Log-probs from before an update, of fewer batches than ranks and of more."""
    rows = [PolicyExample(tuple(range(5, 9 + n)), (False, *(True,) * (n + 3)), (1.0,) * (n + 3), (0.0,) * (n + 3), 1.0)
            for n in range(4)]  # fmt: skip

    def asked(learner: Learner) -> list[list[float]]:
        return [
            part.old_logprobs_M.tolist()
            for count in (1, 4)
            for part in with_old(policy_batches(rows[:count], 1), learner.model, 1.0, learner.asked_by)
            if part.old_logprobs_M is not None
        ]

    expected = asked(learner_of())
    for found in at_every_rank(3, tmp_path, lambda _: asked(learner_of(fully_shard=True))):
        assert len(found) == 5
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_what_is_sent_is_what_was_computed(tmp_path: Path) -> None:
    """Counted on torch's own collectives, of a model whose tensors three ranks cannot share evenly."""

    def work(mine: Ranks) -> tuple[float, int]:
        learner = learner_of(fully_shard=True)
        counted = [0]

        def counting(name: str) -> None:
            real = getattr(dist, name)

            def call(*args: Any, **keys: Any) -> Any:
                whole = max(value.nbytes for value in (*args, *keys.values()) if isinstance(value, torch.Tensor))
                counted[0] += whole * (mine.size - 1) // mine.size
                return real(*args, **keys)

            setattr(dist, name, call)

        for name in ("all_gather_single", "reduce_scatter_single", "all_gather_into_tensor", "reduce_scatter_tensor"):
            if hasattr(dist, name):  # torch's names before and since 2.13
                counting(name)
        learner.turns.weights.whole = None  # type: ignore[union-attr]
        sent = update(learner, 4)["bytes_sent"]
        return sent, counted[0]

    for sent, counted in at_every_rank(3, tmp_path, work):
        assert counted > 0
        assert 0 <= sent - counted < 100  # the norm, and parts of which only some are whole


def saved(learner: Learner, folder: Path, step: int) -> None:
    save_checkpoint(folder, Checkpoint(step, learner.state(), {"updates": learner.step}), learner.parts())


def resumed(learner: Learner, folder: Path) -> Learner:
    found = latest_checkpoint(folder, pytest.fail)
    assert found is not None
    learner.load_state(found.tensors, found.meta["updates"], found.parts)
    return learner


def test_a_run_goes_on_at_any_size_from_parts_and_from_whole_checkpoints(tmp_path: Path) -> None:
    """One rank, then three, then two, then a whole model at two, then one: what each begins with are the bits that the
    one before it left; and three after three are three that never stopped."""
    folder = tmp_path / "stage" / "checkpoints"
    end, sizes = trained()[1], (1, 3, 2, 2, 1)
    passes = (*STEPS, 2)
    straight = learner_of()
    for count in passes:
        update(straight, count)
    left: dict[str, torch.Tensor] = {}

    def part(step: int, shard: bool) -> Any:
        learner = learner_of(fully_shard=shard)
        if step:
            resumed(learner, folder)
        began = weights_of(learner)
        update(learner, passes[step])
        saved(learner, folder, step + 1) if not ranks().rank or learner.is_sharded else None
        ranks().together(lambda: [])
        return began, weights_of(learner)

    for step, size in enumerate(sizes):
        if size == 1:
            found = [part(step, True)]
        else:
            (tmp_path / str(step)).mkdir()
            found = at_every_rank(size, tmp_path / str(step), lambda _, step=step: part(step, step != 3))
        assert (folder / f"step-{step + 1:06d}" / "parts").is_dir() == (step in (1, 2))
        assert not step or all(furthest(began, left) == 0 for began, _ in found)
        left = found[0][1]
    assert furthest(left, weights_of(straight)) < 1e-5
    assert furthest(left, end) > 1e-4
    assert {path.name for path in folder.iterdir()} == {"step-000004", "step-000005"}  # those in parts are pruned


def test_at_the_same_size_a_run_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    folder = tmp_path / "stage" / "checkpoints"

    def work(_: Ranks) -> Any:
        learner = learner_of(fully_shard=True)
        for passes in STEPS[:2]:
            update(learner, passes)
        saved(learner, folder, 2)
        again = resumed(learner_of(fully_shard=True), folder)
        for one in (learner, again):
            update(one, 5)
        return furthest(weights_of(learner), weights_of(again)), (learner.step, again.step)

    assert at_every_rank(3, tmp_path, work) == [(0.0, (3, 3))] * 3


def test_a_damaged_part_is_named_and_the_checkpoint_before_it_taken(tmp_path: Path) -> None:
    folder = tmp_path / "stage" / "checkpoints"

    def work(_: Ranks) -> None:
        learner = learner_of(fully_shard=True)
        for step in (1, 2):
            update(learner, 2)
            saved(learner, folder, step)

    at_every_rank(2, tmp_path, work)
    [first, *_] = sorted((folder / "step-000002" / "parts").iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    told: list[str] = []
    found = latest_checkpoint(folder, told.append)
    assert found is not None
    assert found.step == 1
    assert first.name in told[0]


def test_a_rank_that_is_killed_in_a_pass_is_named(tmp_path: Path) -> None:
    def work(mine: Ranks) -> None:
        learner = learner_of(fully_shard=True)
        mine.lost = lambda: "rank 1 ended with code -9"
        update(learner, 2)
        if mine.rank == 1:
            learner.model.model.layers[1].register_forward_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        update(learner, 3)

    first, killed = at_every_rank(2, tmp_path, work)
    assert killed is None
    assert isinstance(first, ResourceError)
    assert first.faults[0].why == "rank 1 ended with code -9"


@pytest.mark.parametrize("beside", ["shard_optimizer: true", "lora: {r: 4}", "compile: true", "optim: adamw_8bit",
                                    "dtype: float16", "parallel: processes"])  # fmt: skip
def test_what_cannot_be_sharded_is_refused(beside: str) -> None:
    settings = {"learning_rate": 1e-3, "fully_shard": True, **yaml.safe_load(beside)}
    with pytest.raises(ValidationError, match="fully_shard"):
        OptimizerConfig.model_validate(settings)
