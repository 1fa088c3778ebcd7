"""Sampler processes that are started as programs give what forked ones give, and then nothing is forked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from rollout.test_sampler import STOPS, requests
from tiny_models import tiny_model

from temper.errors import ResourceError
from temper.models.forks import may_fork
from temper.rollout.engine import Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.workers import ParallelEngine
from temper.train.team import Team

FORK = os.fork
SAMPLING = Sampling(12, 0.9, stop_ids=STOPS)


def many() -> list:
    return requests(prompts=8, samples=16)


@pytest.fixture(scope="module")
def parallel() -> Iterator[ParallelEngine]:
    """An engine whose other process was started as a program; a fork would be an error."""

    def forked() -> None:
        raise AssertionError("a fork")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPER_FORK", "0")
        patch.setattr(os, "fork", forked)
        with ParallelEngine(NativeEngine(tiny_model("qwen2"), version=lambda: 3), processes=2) as engine:
            engine.generate(many(), SAMPLING)
            yield engine


@pytest.mark.skipif(sys.platform != "linux", reason="held against forked processes")
def test_completions_are_those_of_forked_processes(parallel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parallel.generate(many(), SAMPLING)
    assert parallel.cpu_seconds > 0
    assert {completion.policy_version for completion in found} == {3}
    monkeypatch.delenv("TEMPER_FORK")
    monkeypatch.setattr(os, "fork", FORK)
    with ParallelEngine(NativeEngine(tiny_model("qwen2"), version=lambda: 3), processes=2) as forked:
        assert forked.generate(many(), SAMPLING) == found


def test_updated_weights_are_seen_and_stay_tied(parallel) -> None:
    model = parallel.engine.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1)
    found = parallel.generate(many(), SAMPLING)
    expected = NativeEngine(model).generate(many(), SAMPLING)
    same = sum(a.token_ids == b.token_ids for a, b in zip(found, expected, strict=True))
    assert same >= len(found) - 1  # rounding may flip a draw that falls on the edge between two tokens
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_killed_program_is_told_of(parallel) -> None:
    parallel._workers[0]._process.kill()
    with pytest.raises(ResourceError, match="a sampler process was killed"):
        parallel.generate(many(), SAMPLING)
    assert parallel._workers == []


def test_a_model_that_is_not_pickled_is_sampled_by_one_process(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("TEMPER_FORK", "0")
    model = tiny_model("llama")
    expected = NativeEngine(model).generate(many(), SAMPLING)
    model.something = lambda: None
    with ParallelEngine(NativeEngine(model), processes=2) as engine:
        assert engine.generate(many(), SAMPLING) == expected
        assert engine._workers == []
    assert "one process samples" in caplog.text


def test_a_team_does_all_by_itself_with_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [lambda n=n: (os.getpid(), torch.full((3,), float(n)).sum().item()) for n in range(4)]
    monkeypatch.setenv("TEMPER_FORK", "0")
    assert not may_fork()
    assert Team(2, share_seconds=0).run(tasks, "sums") == [(os.getpid(), 3.0 * n) for n in range(4)]
