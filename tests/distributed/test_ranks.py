"""Ranks: what is dealt out comes together in order, sums are sums, what one rank raises all raise, and a run with
several ranks is the run with one."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import FakeVllm, serving
from hypothesis import given
from hypothesis import strategies as st
from rank_processes import at_every_rank
from safetensors.torch import load_file
from stages.test_served import tiny
from sums import kept_replies, write_recipe
from tiny_models import tiny_model

import temper
from temper.distributed.ranks import Ranks, buckets, interleaved, leave, ranks, timeout_seconds
from temper.errors import ConfigError, ResourceError, TemperError
from temper.pipeline.crew import SHARED
from temper.pipeline.run import Stopped, run_recipe
from temper.recipe.reader import load_recipe
from temper.stages import STAGES
from temper.train.learner import Learner, OptimizerConfig
from temper.train.losses import LossSum
from temper.train.summing import update_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@given(st.lists(st.integers()), st.integers(1, 5))
def test_what_is_dealt_out_comes_together_in_order(items: list[int], size: int) -> None:
    assert interleaved([Ranks(rank, size).share(items) for rank in range(size)]) == items


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(1, 400))
def test_what_is_summed_goes_in_buckets_that_lose_nothing(sizes: list[int], most: int) -> None:
    tensors = [torch.zeros(size, dtype=torch.float64 if size % 3 else torch.float32) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("temper.distributed.ranks.BUCKET", most)
        found = list(buckets(tensors))
    assert sorted(id(tensor) for group in found for tensor in group) == sorted(map(id, tensors))
    for group in found:
        assert len({tensor.dtype for tensor in group}) == 1
        assert len(group) == 1 or sum(tensor.nbytes for tensor in group) <= most


def test_words_sums_and_errors_reach_every_rank(tmp_path: Path) -> None:
    def work(mine: Ranks) -> Any:
        tensors = [torch.full((2, 3), float(mine.rank)), torch.ones(1, dtype=torch.float64)]
        mine.add_up(tensors)
        words = mine.together(lambda: [item * 10 for item in mine.share(range(7))])
        told = mine.send("from 0" if mine.rank == 0 else None)
        everyone = [part[0].tolist() for part in mine.all_of([torch.tensor([mine.rank])])]

        def fails() -> list[int]:
            if mine.rank == 1:
                raise ValueError("it is broken here")
            return [1]

        try:
            mine.together(fails)
        except ValueError as error:
            return [[t.sum().item() for t in tensors], words, told, everyone, str(error), error.__notes__]

    for found in at_every_rank(3, tmp_path, work):
        assert found == [
            [18.0, 3.0], [0, 10, 20, 30, 40, 50, 60], "from 0", [[0], [1], [2]], "it is broken here",
            ["on rank 1 of 3"],
        ]  # fmt: skip


def learner_of(model: Any, parallel: str, sharded: bool) -> Learner:
    config = {"learning_rate": 1e-3, "parallel": parallel, "shard_optimizer": sharded}
    return Learner(model, OptimizerConfig.model_validate(config), 3)


def trained(
    parallel: str, parts: int, sharded: bool = False, state: dict[str, Any] | None = None, updates: int = 3
) -> bytes:
    """The weights after `updates` of `parts` micro-batches each, from `state` on; with a `state`, that comes to hold
    what a checkpoint does afterwards."""
    model = tiny_model("llama", "eager")
    learner = learner_of(model, parallel, sharded)
    if state:
        learner.load_state(state, 3 - updates)

    def loss(number: int) -> LossSum:
        ids = torch.arange(5, 13)[None] + number % 7
        return LossSum(model(input_ids=ids, use_cache=False).logits.logsumexp(-1).sum(), {"value": float(number)}, 1.0)

    metrics = [learner.update([lambda n=n: loss(n) for n in range(parts)], 10.0) for _ in range(updates)]
    if (size := ranks().size) > 1:
        gradients = sum(parameter.nbytes for parameter in model.parameters())
        computed = update_bytes(gradients, parts, size, parallel == "processes", sharded)
        assert all(abs(one["bytes_sent"] - computed) <= size for one in metrics)  # each message is rounded down
    assert all(one.get("value", 0.0) == (parts - 1) / 2 for one in metrics if parts)
    learner.gather_state()
    assert learner.is_whole
    if state is not None:
        state |= {name: tensor.clone() for name, tensor in learner.state().items()}
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


@pytest.mark.parametrize("size", [2, 3])
def test_a_small_model_is_trained_to_the_same_bits_by_any_number_of_ranks(size: int, tmp_path: Path) -> None:
    for parts in (1, 5):
        folder = tmp_path / str(parts)
        folder.mkdir()
        expected = trained("processes", parts)
        found = at_every_rank(size, folder, lambda _, parts=parts: trained("processes", parts))
        assert found == [expected] * size


def test_of_a_large_model_every_rank_has_the_same_bits(tmp_path: Path) -> None:
    alone = torch.frombuffer(bytearray(trained("threads", 5)), dtype=torch.float32)
    first, second = at_every_rank(2, tmp_path, lambda _: trained("threads", 5))
    assert first == second
    assert (torch.frombuffer(bytearray(first), dtype=torch.float32) - alone).abs().max() < 1e-5


@pytest.mark.parametrize("parallel", ["processes", "threads"])
def test_a_split_optimiser_moves_the_weights_to_the_same_bits(parallel: str, tmp_path: Path) -> None:
    def work(mine: Ranks) -> Any:
        state: dict[str, Any] = {}
        learner = learner_of(tiny_model("llama", "eager"), parallel, True)
        assert len(learner.moved) < len(learner.weights.masters)
        return trained(parallel, 4), trained(parallel, 4, True, state), moments(state), mine.rank

    alone: dict[str, Any] = {}
    trained(parallel, 4, state=alone)
    for whole, split, found, rank in at_every_rank(3, tmp_path, work):
        assert whole == split
        if rank == 0:  # its checkpoint holds those of all
            assert found.keys() == moments(alone).keys()
            assert parallel == "threads" or found == moments(alone)


def moments(state: dict[str, Any]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.items() if name.startswith("optimizer.")}


def test_a_split_optimiser_goes_on_at_another_size(tmp_path: Path) -> None:
    expected, file = trained("processes", 4), tmp_path / "state.pt"

    def begin(mine: Ranks) -> None:
        state: dict[str, Any] = {}
        trained("processes", 4, True, state, 2)
        if mine.rank == 0:
            torch.save(state, file)

    def go_on(mine: Ranks) -> bytes:
        return trained("processes", 4, True, torch.load(file), 1)

    for name, size, work in (("a", 2, begin), ("b", 3, go_on)):
        (tmp_path / name).mkdir()
        found = at_every_rank(size, tmp_path / name, work)
    assert found == [expected] * 3
    assert go_on(Ranks()) == expected


def test_a_rank_that_ends_is_named(tmp_path: Path) -> None:
    def work(mine: Ranks) -> Any:
        if mine.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        mine.lost = lambda: "rank 1 ended"
        mine.add_up([torch.ones(3)])

    first, _ = at_every_rank(2, tmp_path, work)
    assert isinstance(first, ResourceError)
    assert first.faults[0].why == "rank 1 ended"


def test_a_rank_that_hangs_is_named_with_what_it_did_not_come_to(tmp_path: Path) -> None:
    def work(mine: Ranks) -> Any:
        mine.send(1)
        if mine.rank == 2:
            while len(list(tmp_path.glob("left-*"))) < 2:
                time.sleep(0.05)
            return
        try:
            mine.add_up([torch.ones(3)])
        finally:
            (tmp_path / f"left-{mine.rank}").touch()

    found = at_every_rank(3, tmp_path, work, timeout=4)[:2]
    for error in found:
        assert isinstance(error, ResourceError)
        assert error.faults[0].why == "rank 2 did not come to `a sum of tensors`: gone, or hung for 4 seconds"


def test_a_deadline_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for told in ("soon", "0", "nan"):
        monkeypatch.setenv("TEMPER_RANK_TIMEOUT", told)
        with pytest.raises(ConfigError, match="TEMPER_RANK_TIMEOUT"):
            timeout_seconds()


RECIPE = """
seed: 3
threads: 1
tasks: {sums: {train: sums.jsonl, test: sums.jsonl}}
stages:
  base: {stage: import_model, model: tiny-base}
  rl:
    stage: grpo
    model: "@base"
    tasks: [sums]
    reward_funcs: ["mine.py:vowels"]
    max_steps: 2
    num_generations: 4
    prompts_per_step: 3
    max_completion_length: 16
    learning_rate: 0.0005
    kl_penalty: 0.01
    keep_rollouts_steps: 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, RECIPE)


def made(run: Path) -> tuple[list[dict[str, torch.Tensor]], list[str]]:
    weights = [load_file(file) for file in sorted(run.glob("artifacts/*/model.safetensors"))]
    return weights, kept_replies(run)


def test_a_run_in_parts_at_two_ranks_that_goes_on_with_one_is_the_run_with_one(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(str(recipe), [], tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr("temper.pipeline.stopping.Stopper.__call__", lambda self: self.busy)
        with pytest.raises(Stopped, match="after step 1"):  # both stop at the same step, and both have saved
            run_recipe(str(recipe), ["rl.fully_shard=true"], tmp_path / "two", size=2)
    [stage] = (tmp_path / "two" / "stages").glob("*-rl")
    assert len(list((stage / "checkpoints").glob("*/parts/*"))) == 2
    assert "step 1/2" in (stage / "ranks" / "1.txt").read_text()
    run_recipe(str(recipe), [], tmp_path / "two")
    assert "2 ranks saved, 1 goes on" in (stage / "log.txt").read_text()
    assert ranks().size == 1
    expected, said = made(tmp_path / "one")
    weights, replies = made(tmp_path / "two")
    assert len(said) == 24
    same = sum(a == b for a, b in zip(replies, said, strict=True))
    assert same >= len(said) - 1  # rounding may flip a draw that falls on the edge between two tokens
    if same == len(said):
        for ours, theirs in zip(weights, expected, strict=True):
            assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)


def test_ranks_that_share_servers_draw_one_step_off_what_one_rank_draws(recipe: Path, tmp_path: Path) -> None:
    settings = ["rl.max_staleness=1", "rl.sampler_correction=token_truncate", "rl.max_steps=3", "rl.save_steps=2"]
    run_recipe(str(recipe), settings, tmp_path / "one")
    servers = [FakeVllm(tiny(), context=512) for _ in range(2)]
    with serving(*servers) as urls:
        at_servers = [*settings, "rl.shard_optimizer=true", f"rl.engine={{servers: [{', '.join(urls)}], timeout: 60}}"]
        temper.run(recipe, at_servers, out=tmp_path / "two", ranks=2)
    assert all(server.asked.count("/collective_rpc") == 2 for server in servers)  # a version each, by one rank alone
    said, replies = kept_replies(tmp_path / "one"), kept_replies(tmp_path / "two")
    assert len(said) == len(replies) == 36
    assert said[:24] == replies[:24]
    assert sum(a == b for a, b in zip(replies, said, strict=True)) >= len(said) - 4


def test_another_recipe_at_a_rank_is_named_before_the_first_step(recipe: Path, tmp_path: Path) -> None:
    def work(mine: Ranks) -> Any:
        from temper.pipeline import crew

        if mine.rank == 1:
            crew.load_recipe = lambda reference, settings: load_recipe(reference, ["rl.learning_rate=0.0006"])
            crew.take_part(mine)
        else:
            run_as_first(recipe, tmp_path / "run", mine)

    def run_as_first(recipe: Path, out: Path, mine: Ranks) -> None:
        import temper.pipeline.run as pipeline

        pipeline.crew = lambda size: contextlib.nullcontext()  # it has joined already
        run_recipe(str(recipe), [], out)

    found = at_every_rank(2, tmp_path, work)
    assert all(isinstance(error, TemperError) for error in found)
    assert "rank 1 has another stage `rl` than rank 0" in found[0].faults[0].what
    assert "learning_rate" in found[0].faults[0].why


def test_every_stage_that_learns_or_samples_is_shared() -> None:
    for kind, stage in STAGES.items():
        source = Path(importlib.import_module(stage.module).__file__ or "").read_text()
        uses = any(word in source for word in ("open_learner(", "Learner(", "collect(", "run_all("))
        assert uses == (kind in SHARED), kind


def test_ranks_are_refused_below_one(tmp_path: Path) -> None:
    from temper.cli import main

    assert main(["run", "smoke", "--ranks", "0", "--out", str(tmp_path / "x")]) == int(ConfigError(()).code)
    leave()
