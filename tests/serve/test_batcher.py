"""The batcher: whoever asks, whenever, gets what the sampler alone would have drawn."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.serve import batcher as batching
from temper.serve.batcher import Batcher, Full, Job

STOPS = (3, 4)


@pytest.fixture(scope="module")
def engine() -> NativeEngine:
    return NativeEngine(tiny_model("llama"))


@pytest.fixture
def eager(monkeypatch) -> None:
    """A drawing pauses whenever somebody comes."""
    monkeypatch.setattr(batching, "PAYS", 0.0)
    monkeypatch.setattr(batching, "TURN", 0.0)


class Asker:
    """Somebody who submits jobs and waits for them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()

    def told(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def wait(self, jobs) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: all(job.is_over for job in jobs), timeout=60)

    def job(self, prompt, key: int, tokens: int, temperature: float = 1.0, **kept) -> Job:
        return Job(tuple(prompt), key, tokens, Sampling(1, temperature), self.told, **kept)


def alone(engine, job: Job, stop_ids=()):
    """What the sampler draws for a job that has it to itself."""
    sampling = Sampling(job.max_tokens, job.drawing.temperature, stop_ids=stop_ids)
    [completion] = engine.generate([Request(job.prompt_ids, job.key)], sampling)
    return completion


PROMPTS = st.lists(st.integers(5, 60), min_size=1, max_size=6)
ASKS = st.tuples(PROMPTS, st.integers(0, 5), st.integers(1, 12), st.sampled_from([0.0, 1.0]))


@pytest.mark.usefixtures("eager")
def test_every_job_reads_as_if_it_was_alone(engine) -> None:
    @settings(max_examples=5, deadline=None)
    @given(waves=st.lists(st.lists(ASKS, min_size=1, max_size=4), min_size=1, max_size=3), watched=st.booleans())
    def check(waves, watched: bool) -> None:
        asker, jobs = Asker(), []
        with Batcher(engine, STOPS) as batcher:
            for wave in waves:
                new = [asker.job(*ask, watched=watched) for ask in wave]
                batcher.submit(new)
                jobs += new
            asker.wait(jobs)
        for job in jobs:
            expected = alone(engine, job, STOPS)
            assert tuple(job.tokens) == expected.token_ids
            assert job.logprobs == pytest.approx(expected.sampler_logprobs, abs=1e-4)
            assert job.done == expected.finish_reason

    check()


@pytest.mark.usefixtures("eager")
def test_a_pause_goes_on_where_it_was_and_lets_others_in(engine, monkeypatch) -> None:
    asker, drawings, draw = Asker(), [], engine.generate
    late = asker.job((9, 8), 7, 30)
    early = asker.job((5, 6, 7), 1, 60, watched=True)

    def spied(requests, *rest):
        drawings.append([len(request.drawn) for request in requests])
        return draw(requests, *rest)

    with Batcher(engine, ()) as batcher:
        monkeypatch.setattr(engine, "generate", spied)
        early.told = lambda: batcher.submit([late]) if len(early.tokens) == 10 else asker.told()
        batcher.submit([early])
        asker.wait([early, late])
    monkeypatch.undo()
    assert [len(drawing) for drawing in drawings[:2]] == [1, 2]
    assert max(drawings[1]) >= 10
    for job in (early, late):
        assert tuple(job.tokens) == alone(engine, job).token_ids


def test_a_job_ends_where_its_own_rule_says_and_no_other_does(engine) -> None:
    asker = Asker()
    with Batcher(engine, ()) as batcher:
        short = asker.job((5, 6), 1, 20, ends=lambda tokens: len(tokens) == 4)
        twin = asker.job((5, 6), 1, 20)  # reads the same, and goes on
        batcher.submit([short, twin])
        asker.wait([short, twin])
    assert (len(short.tokens), short.done) == (4, "stop")
    assert (len(twin.tokens), twin.done) == (20, "length")
    assert twin.tokens[:4] == short.tokens


def test_what_is_too_much_is_refused_whole(engine) -> None:
    asker = Asker()
    with Batcher(engine, (), capacity=2) as batcher:
        with pytest.raises(Full):
            batcher.submit([asker.job((5,), i, 3) for i in range(3)])
        kept = [asker.job((5,), i, 3) for i in range(2)]
        batcher.submit(kept)
        asker.wait(kept)


def test_cancelled_jobs_leave_and_others_do_not_notice(engine) -> None:
    asker = Asker()
    gone, stays = asker.job((5, 6), 1, 100, watched=True), asker.job((7,), 2, 30)
    gone.told = lambda: (setattr(gone, "cancelled", True), asker.told())
    with Batcher(engine, ()) as batcher:
        batcher.submit([gone, stays])
        asker.wait([gone, stays])
    assert len(gone.tokens) < 100
    assert tuple(stays.tokens) == alone(engine, stays).token_ids


@pytest.mark.usefixtures("eager")
def test_a_cancelled_job_of_which_nobody_hears_leaves_too(engine, monkeypatch) -> None:
    asker, drawings, draw = Asker(), [], engine.generate
    gone, stays = asker.job((5, 6), 1, 120), asker.job((7,), 2, 60)

    def spied(requests, *rest):
        drawings.append([request.drawn for request in requests])
        gone.cancelled = True  # once it is being drawn
        return draw(requests, *rest)

    monkeypatch.setattr(engine, "generate", spied)
    with Batcher(engine, ()) as batcher:
        batcher.submit([gone, stays])
        asker.wait([gone, stays])
        asker.wait([stays])
    monkeypatch.undo()
    assert [len(drawing) for drawing in drawings] == [2, 1]
    assert len(gone.tokens) < 120
    assert tuple(stays.tokens) == alone(engine, stays).token_ids


def test_who_was_answered_together_is_drawn_together_again(engine, monkeypatch) -> None:
    monkeypatch.setattr(batching, "GATHER", 1e3)
    asker, sizes, draw = Asker(), [], engine.generate

    def spied(requests, *rest):
        sizes.append(len(requests))
        return draw(requests, *rest)

    monkeypatch.setattr(engine, "generate", spied)
    first, again = ([asker.job((5, i), i, 5) for i in range(3)] for _ in range(2))
    with Batcher(engine, ()) as batcher:
        batcher.submit(first)
        asker.wait(first)
        for job in again:  # one by one
            batcher.submit([job])
        asker.wait(again)
    assert sizes == [3, 3]


class Failing:
    """An engine that fails once."""

    def __init__(self, engine):
        self.engine, self.failures = engine, 1

    def generate(self, *given):
        if self.failures:
            self.failures -= 1
            raise ValueError("no luck")
        return self.engine.generate(*given)


def test_a_failure_is_told_and_the_next_job_is_drawn(engine) -> None:
    asker = Asker()
    with Batcher(Failing(engine), ()) as batcher:
        first, second = asker.job((5,), 1, 3), asker.job((5,), 1, 3)
        batcher.submit([first])
        asker.wait([first])
        batcher.submit([second])
        asker.wait([second])
    assert isinstance(first.failed, ValueError)
    assert second.done == "length"


def test_closing_lets_nobody_wait(engine) -> None:
    asker = Asker()
    job = asker.job((5,), 1, 100, watched=True)
    begun = threading.Event()
    job.told = lambda: (begun.set(), asker.told())
    with Batcher(engine, ()) as batcher:
        batcher.submit([job])
        assert begun.wait(60)
    assert job.failed is not None or job.done is not None
    with pytest.raises(Full):
        batcher.submit([asker.job((5,), 1, 3)])


def test_a_prompt_without_room_is_over_at_once(engine) -> None:
    asker = Asker()
    with Batcher(NativeEngine(engine.model, context=8), ()) as batcher:
        full = asker.job(range(5, 13), 1, 3)
        batcher.submit([full])
        asker.wait([full])
    assert (full.tokens, full.done) == ([], "length")
