"""Sampler processes over shared weights: the same completions, the newest weights, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollout.test_sampler import STOPS, requests
from tiny_models import tiny_model

from temper.errors import ResourceError
from temper.models.forks import start_fork
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.workers import ParallelEngine, deal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
SAMPLING = Sampling(12, 0.9, stop_ids=STOPS)
OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """Processes that other tests keep are none of these."""
    OTHERS.update(processes())
    yield
    OTHERS.clear()


def many() -> list[Request]:
    return requests(prompts=8, samples=16)


def test_completions_are_those_of_one_process() -> None:
    model = tiny_model("qwen2")
    expected = NativeEngine(model).generate(many(), SAMPLING)
    with ParallelEngine(NativeEngine(model, version=lambda: 3), processes=3) as engine:
        found = engine.generate(many(), SAMPLING)
        again = engine.generate(many(), SAMPLING)
    assert found == again
    assert {completion.policy_version for completion in found} == {3}
    same = sum(a.token_ids == b.token_ids for a, b in zip(expected, found, strict=True))
    assert same >= len(found) - 1  # rounding may flip a draw that falls on the edge between two tokens
    assert engine.cpu_seconds > 0


def test_updated_weights_are_seen_by_every_process() -> None:
    model = tiny_model("llama")
    with ParallelEngine(NativeEngine(model), processes=2) as engine:
        engine.generate(many(), SAMPLING)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-1)
        found = engine.generate(many(), SAMPLING)
    expected = NativeEngine(model).generate(many(), SAMPLING)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]


def test_sharing_the_weights_changes_none_and_keeps_them_trainable() -> None:
    model, other = tiny_model("llama"), tiny_model("llama")
    with ParallelEngine(NativeEngine(model), processes=2) as engine:
        engine.generate(many(), SAMPLING)
    for (name, ours), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert model.get_input_embeddings().weight.data_ptr() == model.lm_head.weight.data_ptr()  # still tied
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_few_rows_start_no_process() -> None:
    with ParallelEngine(NativeEngine(tiny_model("llama")), processes=2) as engine:
        engine.generate(requests(prompts=2, samples=2), SAMPLING)
        assert children() == []


def test_no_process_is_left_behind() -> None:
    with ParallelEngine(NativeEngine(tiny_model("llama")), processes=3) as engine:
        engine.generate(many(), SAMPLING)
        assert len(children()) == 2
    assert children() == []


def test_a_killed_process_is_told_of() -> None:
    with ParallelEngine(NativeEngine(tiny_model("llama")), processes=2) as engine:
        engine.generate(many(), SAMPLING)
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(ResourceError, match="a sampler process was killed"):
            engine.generate(many(), SAMPLING)


def test_an_error_in_a_process_is_an_error_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here, generate = os.getpid(), NativeEngine.generate

    def broken(self: NativeEngine, *args: object) -> object:
        if os.getpid() != here:
            raise ValueError("something is wrong there")
        return generate(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(NativeEngine, "generate", broken)
    with (
        ParallelEngine(NativeEngine(tiny_model("llama")), processes=2) as engine,
        pytest.raises(RuntimeError, match="something is wrong there"),
    ):
        engine.generate(many(), SAMPLING)


def test_after_an_interrupt_new_processes_answer_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    with ParallelEngine(NativeEngine(model), processes=2) as engine:
        expected = engine.generate(many(), SAMPLING)
        with monkeypatch.context() as patch:
            patch.setattr(engine.engine, "generate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                engine.generate(many(), Sampling(3))
        assert children() == []
        assert engine.generate(many(), SAMPLING) == expected


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4))
def test_every_request_is_dealt_once_and_the_shares_are_even(prompts: list[int], count: int) -> None:
    shares = deal([Request((prompt,), key) for key, prompt in enumerate(prompts)], count)
    assert sorted(i for share in shares for i in share) == list(range(len(prompts)))
    assert all(len(share) <= 2 * -(-len(prompts) // count) for share in shares)


def children() -> list[int]:
    return [pid for pid in processes() if pid not in OTHERS]


def processes() -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def test_a_fork_is_started_without_the_warning_of_threads_and_with_all_others() -> None:
    class Started:
        def __init__(self, text: str):
            self.text = text

        def start(self) -> None:
            warnings.warn(self.text, DeprecationWarning, stacklevel=2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_fork(Started("This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks in the child."))
        with pytest.raises(DeprecationWarning):
            start_fork(Started("something else"))
