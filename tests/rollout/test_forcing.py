"""Budget forcing: thoughts that are cut or made to go on, token by token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.rollout.engine import Request, Sampling
from temper.rollout.forcing import Forcing, find_thought, readable
from temper.testing import END, FakeChat
from temper.text.reply import parse_reply
from temper.types import Completion, Group, Message, Prompt, Rollout

CHAT = FakeChat()


class Continuing:
    """Goes on from what is begun as `say` tells, a byte a token."""

    def __init__(self, say):
        self.say, self.requests = say, []

    def generate(self, requests: list[Request], sampling: Sampling, watch=None, finished=None) -> list[Completion]:
        self.requests += requests
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Completion:
        ids = (*self.say(CHAT.decode(request.drawn)).encode(), END)
        room = request.max_tokens or 0
        return Completion(ids[:room], (-1.0,) * min(len(ids), room), "stop" if len(ids) <= room else "length")


def completion(text: str, cut: bool = False) -> Completion:
    ids = tuple(text.encode()) + (() if cut else (END,))
    return Completion(ids, (-0.5,) * len(ids), "length" if cut else "stop")


def forcing(engine: Continuing, *texts: str, longest: int = 200, form: str = "tags") -> Forcing:
    prompt = Prompt("t:1", "t", (Message("user", "2+2"),), "4", reply=form)
    rollouts = tuple(Rollout(prompt, completion(text), parse_reply(text), {}, 0.0) for text in texts)
    return Forcing(engine, CHAT, Sampling(longest, stop_ids=(END,)), (0, "e"), [Group(prompt, (1,), rollouts)])


LONG, SHORT = "<think>first 2, then 4</think><answer>4</answer>", "<think>4</think><answer>4</answer>"


def test_a_thought_longer_than_its_budget_ends_there_and_the_answer_is_drawn() -> None:
    engine = Continuing(lambda begun: "2</answer>")
    found = forcing(engine, LONG, SHORT).cut(7)
    assert [CHAT.decode(c.token_ids) for c in found.completions] == [
        "<think>first 2</think><answer>2</answer>", SHORT,
    ]  # fmt: skip
    assert found.changed == (True, False)
    assert [len(c.token_ids) for c in found.completions] == [len(c.sampler_logprobs) for c in found.completions]
    assert len(engine.requests) == 1  # what is not cut is not drawn again


def test_a_thought_that_would_end_goes_on_from_the_word_as_often_as_it_is_asked() -> None:
    engine = Continuing(lambda begun: f" {begun.count('Wait,')}</think><answer>{begun.count('Wait,')}</answer>")
    force = forcing(engine, SHORT, "no thought at all")
    once = force.extend([completion(SHORT), completion("no thought at all")], "Wait,", 1)
    assert CHAT.decode(once.completions[0].token_ids) == "<think>4Wait, 1</think><answer>1</answer>"
    assert once.changed == (True, False)
    twice = force.extend(once.completions, "Wait,", 2)
    assert CHAT.decode(twice.completions[0].token_ids) == "<think>4Wait, 1Wait, 2</think><answer>2</answer>"
    assert engine.requests[0].key != engine.requests[1].key


def test_no_forced_completion_is_longer_than_the_sampling_allows() -> None:
    engine = Continuing(lambda begun: "x" * 500)
    force = forcing(engine, LONG, longest=len(LONG) + 1)
    for found in (force.cut(3), force.extend([completion(LONG)], "Wait," * 40, 1)):
        assert found.completions[0].finish_reason == "length"
    assert len(force.cut(3).completions[0].token_ids) == len(LONG) + 1


@pytest.mark.parametrize(
    ("text", "cut", "start", "tokens", "closed"),
    [
        (LONG, False, 7, 15, True),
        ("<think>never ends", True, 7, 10, False),
        ("2+2=4</think>4", False, 0, 5, True),  # the tag was left out
        ("just 4", False, 0, 6, False),
        ("<think></think><answer>4</answer>", False, 7, 0, True),
    ],
)
def test_a_thought_is_what_stands_before_its_end(text: str, cut: bool, start: int, tokens: int, closed: bool) -> None:
    thought = find_thought(CHAT, completion(text, cut))
    assert (thought.start, thought.tokens, thought.closed) == (start, tokens, closed)


def test_where_the_template_opens_the_thinking_all_before_the_tag_is_thought() -> None:
    assert find_thought(FakeChat(thinking_opened=True), completion("2+2=4</think>4")).tokens == 5


def test_an_answer_without_any_thought_can_be_read() -> None:
    engine = Continuing(lambda begun: "4</answer>")
    force = forcing(engine, LONG)
    text = CHAT.decode(force.cut(0).completions[0].token_ids)
    prompt = readable([force.groups[0].prompt], 0)[0]
    assert text == "<think></think><answer>4</answer>"
    assert parse_reply(text, form=prompt.reply).answer == "4"
    assert readable([force.groups[0].prompt], 1)[0].reply == "tags"


@given(st.text(alphabet="ab 1é", max_size=30), st.integers(0, 40))
def test_a_cut_keeps_the_beginning_of_the_thought_and_nothing_else(thought: str, budget: int) -> None:
    text = f"<think>{thought}</think><answer>4</answer>"
    found = forcing(Continuing(lambda begun: "5</answer>"), text).cut(budget)
    kept = find_thought(CHAT, found.completions[0])
    whole = thought.encode()
    assert found.changed[0] == (len(whole) > budget)
    ids = found.completions[0].token_ids[kept.start : kept.start + min(budget, len(whole))]
    assert bytes(ids) == whole[:budget]


def test_what_is_written_to_extend_is_encoded_together_with_what_stands_before_it() -> None:
    class Merging(FakeChat):
        """A full stop and the space after it are one token."""

        def ids_on(self, text: str) -> tuple[int, ...]:
            return tuple(text.replace(". ", "\x01").encode())

        def decode(self, ids) -> str:
            return super().decode(ids).replace("\x01", ". ")

    asked = Continuing(lambda begun: "</think><answer>4</answer>")
    force = forcing(asked, "<think>It is 4.</think><answer>4</answer>")
    merging = Forcing(asked, Merging(), force.sampling, force.key, force.groups)
    once = merging.extend([completion("<think>It is 4.</think><answer>4</answer>")], " Wait,", 1)
    written = bytes(once.completions[0].token_ids[:-1]).decode()
    assert written.startswith("<think>It is 4\x01Wait,")
