"""Training shared out to processes: the same bits by any number of them, errors told, nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from temper.data.batching import make_batch
from temper.errors import DataError, Exit, Fault, ResourceError
from temper.halting import Halt
from temper.models.adapters import add_adapters
from temper.models.forks import shared_like
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig, in_processes
from temper.train.losses import LossSum
from temper.train.sizes import even_budget
from temper.train.summing import GradientSum
from temper.train.team import Team
from temper.types import Example

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
SECONDS = 30  # after which a test that waits gives up


def team(processes: int) -> Team:
    return Team(processes, share_seconds=0)  # any work is worth them


def meeting(there: Callable[[], Any]) -> tuple[int, list[Any]]:
    """The pid of this process, and what two processes find, of which the other one is sure to call `there`."""
    here, (met,) = os.getpid(), shared_like([torch.zeros(1)])

    def task() -> Any:
        if os.getpid() != here:
            met.fill_(1)
            return there()
        end = time.monotonic() + SECONDS
        while not met.item() and time.monotonic() < end:
            time.sleep(0.001)
        return os.getpid()

    return here, team(2).run([task] * 8, "test")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 99), max_size=12), st.integers(1, 4))
def test_results_come_in_the_order_of_the_tasks(numbers: list[int], processes: int) -> None:
    found = team(processes).run([lambda n=n: torch.tensor([n, n]) for n in numbers], "test")
    assert [one.tolist() for one in found] == [[n, n] for n in numbers]


def test_every_task_has_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert team(2).run([torch.get_num_threads] * 5, "test") == [1] * 5
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_another_process_takes_part() -> None:
    here, found = meeting(os.getpid)
    assert len(set(found) - {here}) == 1  # it may have taken all of them


def test_little_work_starts_no_process() -> None:
    assert set(Team(4).run([os.getpid] * 20, "test")) == {os.getpid()}


def test_what_another_process_raises_is_raised_here() -> None:
    def fail() -> None:
        raise DataError(Fault("a row is wrong"))

    with pytest.raises(DataError, match="a row is wrong") as caught:
        meeting(fail)
    assert "in a training process" in caught.value.__notes__[0]


def test_an_error_that_cannot_cross_is_told_of() -> None:
    class Odd(Exception):
        pass

    def fail() -> None:
        raise Odd("no way")

    with pytest.raises(RuntimeError, match="Odd: no way"):
        meeting(fail)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_another_process_come_whole(dtype: torch.dtype) -> None:
    made = torch.arange(6).to(dtype)
    wanted = [made, made.view(2, 3).T, made[0], made[:0]]
    here, found = meeting(lambda: (os.getpid(), wanted))
    theirs = next(one for one in found if one != here)
    for ours, other in zip(wanted, theirs[1], strict=True):
        assert torch.equal(ours, other)
        assert ours.dtype == other.dtype


def test_a_process_that_has_answered_is_gone_before_long() -> None:
    _, found = meeting(os.getpid)
    meeting(os.getpid)
    end, (other, *_) = time.monotonic() + SECONDS, set(found) - {os.getpid()}
    while os.path.exists(f"/proc/{other}") and time.monotonic() < end:
        meeting(os.getpid)
    assert not os.path.exists(f"/proc/{other}")


def test_a_killed_process_is_a_fault_of_resources() -> None:
    with pytest.raises(ResourceError) as caught:
        meeting(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert caught.value.code == Exit.RESOURCES
    assert "training process was killed" in str(caught.value)


def test_a_signal_to_the_group_leaves_the_others_at_work() -> None:
    _, found = meeting(lambda: [os.kill(os.getpid(), s) for s in (signal.SIGTERM, signal.SIGINT)] and "alive")
    assert "alive" in found


def test_a_step_that_is_given_up_leaves_nobody_behind() -> None:
    here, (there,) = os.getpid(), shared_like([torch.zeros(1, dtype=torch.int64)])

    def task() -> None:
        if os.getpid() != here:
            there.fill_(os.getpid())
            time.sleep(SECONDS)
        while not there.item():
            time.sleep(0.001)
        raise Halt

    with pytest.raises(Halt):
        team(2).run([task] * 4, "test")
    with pytest.raises(ProcessLookupError):
        os.kill(int(there.item()), 0)


# -- the sum of gradients ---------------------------------------------------------------------------------------------

ROWS = [
    Example((1, 2 + i % 3, *(5 + (7 * i + j) % 20 for j in range(2 + i % 5))), (False, False, *(True,) * (2 + i % 5)))
    for i in range(24)
]


def new_learner(processes: int, **options: Any) -> Learner:
    config = OptimizerConfig(learning_rate=1e-2, parallel="processes", **options)
    model = tiny_model("llama")
    if config.lora is not None:
        model = add_adapters(model, config.lora, 1)
    learner = Learner(model, config, 4)
    learner.team = team(processes)
    learner.summing = GradientSum(learner.weights, learner.team)
    return learner


def train(learner: Learner, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Two updates, by micro-batches of these sizes."""

    def loss(rows: list[Example]) -> LossSum:
        batch = make_batch(rows)
        found = score_targets(learner.model, batch, plan_batch(batch)).logprobs_M
        said = found.detach()
        return LossSum(-found.sum(), {"mean": float(said.sum())}, len(said), {"top": float(said.max())})

    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [ROWS[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return [learner.update([lambda part=part: loss(part) for part in parts], 50) for _ in range(2)]


def assert_same(processes: Sequence[int], sizes: Sequence[int], **options: Any) -> None:
    learners = [new_learner(count, **options) for count in processes]
    metrics = [train(learner, sizes) for learner in learners]
    assert metrics == [metrics[0]] * len(learners)
    first, *others = [learner.state() for learner in learners]
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)


@settings(max_examples=2, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=3, max_size=3))
def test_the_number_of_processes_changes_no_bit(sizes: list[int]) -> None:
    assert_same((1, 2, 3), sizes)


@pytest.mark.parametrize(
    "options", [{"dtype": "bfloat16"}, {"dtype": "float16"}, {"gradient_checkpointing": True}], ids=str
)
def test_nor_with_narrow_weights_or_checkpointing(options: dict[str, Any]) -> None:
    assert_same((1, 2), (5, 3, 7), **options)


def test_nor_with_adapters_that_drop_out() -> None:
    pytest.importorskip("peft")
    assert_same((1, 2), (5, 3, 7), lora={"r": 2, "dropout": 0.5})


def test_few_places_for_gradients_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, narrow = new_learner(2), new_learner(2)
    before = train(plain, (3, 4, 2, 5, 6))
    monkeypatch.setattr("temper.train.sizes.ROOM", 0)
    assert train(narrow, (3, 4, 2, 5, 6)) == before
    assert len(narrow.summing._places) == 2


def test_a_gradient_that_is_not_finite_in_another_process_moves_nothing() -> None:
    learner = new_learner(2)
    before = {name: tensor.clone() for name, tensor in learner.state().items()}

    def loss(factor: float) -> LossSum:
        batch = make_batch(ROWS[:2])
        return LossSum(score_targets(learner.model, batch, plan_batch(batch)).logprobs_M.sum() * factor)

    with pytest.raises(FloatingPointError):
        learner.update([lambda f=f: loss(f) for f in (1.0, 1.0, float("nan"))], 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state().items())


def test_processes_are_for_small_models_where_they_can_be() -> None:
    model, config = tiny_model("llama"), OptimizerConfig(learning_rate=1.0)
    assert in_processes(model, config) == (not torch.cuda.is_available())
    assert not in_processes(model, config.model_copy(update={"parallel": "threads"}))
    assert not in_processes(model, config.model_copy(update={"compile": True}))


@given(st.integers(1, 200_000), st.integers(1, 20_000))
def test_micro_batches_hold_a_step_and_never_more_than_asked(tokens: int, most: int) -> None:
    budget = even_budget(tokens, most)
    assert 1 <= budget <= min(most, max(1, tokens))
    if most >= 2048:
        assert budget >= min(tokens, 256)
