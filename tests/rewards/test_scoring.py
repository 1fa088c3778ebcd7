"""Scoring beside sampling: the same replies, scores and failures, begun on while others are still being drawn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reward_rows import QUICK, answered
from rollout.test_sampler import STOPS, requests
from tiny_models import tiny_model

from temper.errors import Fault, ResourceError
from temper.kernels.attention import NAME
from temper.rewards import REWARDS
from temper.rewards.score import Scorer
from temper.rollout.collect import collect
from temper.rollout.engine import Engine, Finished, Request, Sampling, Watch
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine
from temper.rollout.slots import SlotEngine
from temper.rollout.workers import ParallelEngine
from temper.text.reply import parse_reply
from temper.types import Completion, Message, Prompt, Reply

TEXTS = (answered("5"), answered("6"), "<think>five</think> 5", "no idea")
SAMPLES, SAMPLING = 4, Sampling(8)
PROMPTS = [Prompt(f"p:{i}", "p", (Message("user", f"{i}+0"),), gold=str(i)) for i in (5, 6)]


class Chat:
    """Token ids are numbers of texts."""

    thinking_opened = False

    def prompts_ids(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]:
        return [(i,) for i in range(len(conversations))]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(TEXTS[i] for i in ids)


class Told:
    """An engine that draws the `texts` in turn, and tells of some in any order, on another thread or this."""

    def __init__(
        self, order: Sequence[int] = (), after: Callable[[int], None] = lambda number: None,
        texts: Sequence[int] = range(len(TEXTS)),
    ):  # fmt: skip
        self.order, self.after, self.texts = order, after, texts

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        drawn = [Completion((self.texts[i % len(self.texts)],), (0.0,), "stop") for i in range(len(requests))]
        for number in self.order:
            assert finished is not None
            if number % 2:
                thread = threading.Thread(target=finished, args=(number, drawn[number]))
                thread.start()
                thread.join()
            else:
                finished(number, drawn[number])
            self.after(number)
        return drawn


def scored(engine: Engine, rewards: dict) -> list:
    groups = collect(engine, Chat(), Scorer(rewards), PROMPTS, SAMPLES, SAMPLING, ("test",))
    return [(r.reply, dict(r.rewards), r.total, r.grader_failures) for group in groups for r in group.rollouts]


def fussy(prompt: Prompt, reply: Reply) -> float:
    if reply.answer is None:
        raise ValueError("no answer")
    return len(reply.text) / 7


class Waiting:
    """A reward that may be asked beside sampling, all that wait at once."""

    overlaps = True

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.threads: set[str] = set()
        self.begun = threading.Event()

    def __call__(self, prompt: Prompt, reply: Reply) -> float:
        return self.batch([(prompt, reply)])[0]

    def batch(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[float]:
        self.asked.append(len(pairs))
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        return [float(len(reply.text)) for _, reply in pairs]


@QUICK
@given(st.permutations(range(8)), st.integers(0, 8))
def test_what_is_told_early_and_in_what_order_changes_nothing(order: list[int], count: int) -> None:
    rewards = {**REWARDS, "fussy": fussy, "waiting": Waiting()}
    expected = Scorer(rewards).score_all(
        [(prompt, parse_reply(TEXTS[i])) for prompt in PROMPTS for i in range(SAMPLES)]
    )
    found = scored(Told(order[:count]), rewards)
    assert [row[1:] for row in found] == [(dict(s.rewards), s.total, s.failures) for s in expected]
    assert any("fussy" in row[3] for row in found)


def test_a_slow_reward_is_asked_while_completions_are_drawn() -> None:
    slow, seen = Waiting(), []

    def after(number: int) -> None:
        if number == 0:
            assert slow.begun.wait(30), "the reward was not asked before the next completion was drawn"
        seen.append(sum(slow.asked))

    scored(Told(range(8), after), {"slow": slow})
    assert seen[0] == 1
    assert sum(slow.asked) == 8  # each reply once
    assert slow.threads == {"temper-scoring_0"}


def test_a_reward_that_does_not_allow_it_is_asked_here_and_all_at_once() -> None:
    own = Waiting()
    own.overlaps = False
    scored(Told(range(8)), {"own": own, "format": REWARDS["format"]})
    assert own.asked == [8]
    assert own.threads == {threading.current_thread().name}


def test_what_a_reward_cannot_go_on_from_is_raised_and_no_thread_is_left() -> None:
    def spent(prompt: Prompt, reply: Reply) -> float:
        raise ResourceError(Fault("the budget is spent"))

    spent.overlaps = True  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match="the budget is spent"):
        scored(Told(range(8)), {"spent": spent})

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(Told(range(8), interrupt), {"slow": Waiting()})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("temper-scoring")]


# -- what engines tell ------------------------------------------------------------------------------------------------

RAGGED = Sampling(20, 0.9, stop_ids=STOPS)


def told(engine: Engine, asked: list[Request]) -> tuple[dict[int, Completion], list[Completion]]:
    heard: dict[int, Completion] = {}

    def finished(number: int, completion: Completion) -> None:
        assert number not in heard
        heard[number] = completion

    return heard, engine.generate(asked, RAGGED, None, finished)


@pytest.mark.parametrize(
    ("make", "attention"),
    [(NativeEngine, NAME), (PlainEngine, "eager"), (lambda model: SlotEngine(model, 16, poll=3), NAME)],
)
def test_every_completion_is_told_of_once(make: Callable, attention: str) -> None:
    model, asked = tiny_model("llama", attention), requests()
    heard, drawn = told(make(model), asked)
    assert [heard[number] for number in range(len(asked))] == drawn
    assert list(heard.values()) != drawn  # as they end, not in order
    assert drawn == make(model).generate(asked, RAGGED)


def test_sampler_processes_tell_of_every_completion_once() -> None:
    asked = [*requests(prompts=8, samples=16), Request((5,) * 128, 0)]  # the last has no room for a token
    with ParallelEngine(NativeEngine(tiny_model("llama")), processes=3) as engine:
        heard, drawn = told(engine, asked)
        assert drawn == engine.generate(asked, RAGGED)
    assert [heard[number] for number in range(len(asked) - 1)] == drawn[:-1]
    assert len(heard) == len(asked) - 1
    assert drawn[-1].token_ids == ()


def test_a_completion_told_of_before_memory_ran_out_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = NativeEngine(tiny_model("llama")), requests()
    expected, step, steps = engine.generate(asked, RAGGED), engine._next, []

    def small_machine(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        steps.append(len(tokens))
        if len(steps) == 8:
            raise torch.OutOfMemoryError("out of memory")
        return step(tokens, *rest)

    monkeypatch.setattr(engine, "_next", small_machine)
    heard, drawn = told(engine, asked)
    assert steps[7] < len(asked)  # some had ended
    assert steps[8] <= -(-steps[7] // 2)
    assert [heard[number] for number in range(len(asked))] == drawn
    assert [c.token_ids for c in drawn] == [c.token_ids for c in expected]


def test_equal_completions_of_a_prompt_are_read_and_asked_about_once():
    asked: list[tuple[str, str]] = []

    def counting(prompt: Prompt, reply: Reply) -> float:
        asked.append((prompt.id, reply.text))
        return len(reply.text) / 100

    counting.overlaps = True  # type: ignore[attr-defined]
    found = scored(Told((0, 4, 7), texts=(0, 0, 0, 1)), {"counting": counting})
    assert sorted(asked) == sorted((prompt.id, text) for prompt in PROMPTS for text in TEXTS[:2])
    assert [reply.text for reply, *_ in found] == [TEXTS[0], TEXTS[0], TEXTS[0], TEXTS[1]] * len(PROMPTS)
    assert [total for _, _, total, _ in found] == [len(reply.text) / 100 for reply, *_ in found]
