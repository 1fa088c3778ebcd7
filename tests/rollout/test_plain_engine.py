"""The plain sampler: the native one's completions where both can run, transformers' own where only it can."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from unpackable_models import UNPACKABLE, unpackable

from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine, find_memory
from temper.types import Completion

STOPS = (1, 2, 3, 4)


def requests(prompts: int = 6, samples: int = 3, longest: int = 20) -> list[Request]:
    """Some prompts are equally long, so that some rows are decoded together and some are not."""
    draw = random.Random(0)
    made = []
    for i in range(prompts):
        prompt = tuple(draw.randrange(5, 100) for _ in range(draw.choice((3, 7, longest))))
        made += [Request(prompt, 1000 * i + j) for j in range(samples)]
    return made


def recomputed(model: Any, prompt: tuple[int, ...], count: int) -> list[int]:
    """Greedy, the whole text anew for every token."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("sampling", [Sampling(25, 0.8, top_p=0.95, stop_ids=STOPS), Sampling(25, 0)])
def test_completions_are_those_of_the_native_sampler(attention: str, sampling: Sampling) -> None:
    asked = requests()
    expected = NativeEngine(tiny_model("llama")).generate(asked, sampling)
    found = PlainEngine(tiny_model("llama", attention)).generate(asked, sampling)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    assert [c.finish_reason for c in found] == [c.finish_reason for c in expected]
    ours, theirs = (torch.tensor([v for c in drawn for v in c.sampler_logprobs]) for drawn in (found, expected))
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("architecture", UNPACKABLE)
def test_what_a_model_remembers_is_found_by_trying(architecture: str) -> None:
    assert find_memory(unpackable(architecture)) == UNPACKABLE[architecture][0]


@pytest.mark.parametrize("architecture", UNPACKABLE)
def test_greedy_output_is_that_of_transformers(architecture: str) -> None:
    model, asked = unpackable(architecture), requests(samples=1)
    drawn = PlainEngine(model).generate(asked, Sampling(14, temperature=0))
    for request, completion in zip(asked, drawn, strict=True):
        assert list(completion.token_ids) == recomputed(model, request.prompt_ids, 14)
        if UNPACKABLE[architecture][0] == "moves":
            ids = torch.tensor([request.prompt_ids])
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=False,
                                   eos_token_id=None, pad_token_id=0)  # fmt: skip
            assert completion.token_ids == tuple(whole[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("architecture", ["gpt_oss", "mamba", "qwen3_next", "minimax", "rwkv"])
def test_a_completion_depends_neither_on_order_nor_on_batch_size(architecture: str) -> None:
    model, asked, sampling = unpackable(architecture), requests(samples=2), Sampling(15, 0.9, stop_ids=STOPS)
    expected = PlainEngine(model).generate(asked, sampling)
    assert {completion.finish_reason for completion in expected} == {"stop", "length"}
    for rows in (1, 4):
        shuffled = random.Random(rows).sample(range(len(asked)), len(asked))
        found = PlainEngine(model, max_rows=rows).generate([asked[i] for i in shuffled], sampling)
        assert [completion.token_ids for completion in found] == [expected[i].token_ids for i in shuffled]


@pytest.mark.parametrize("architecture", ["gpt_oss", "mamba", "minimax", "openai-gpt"])
def test_logprobs_are_those_of_the_whole_forward(architecture: str) -> None:
    model, asked = unpackable(architecture), requests()
    for request, completion in zip(asked, PlainEngine(model).generate(asked, Sampling(15, 0.7)), strict=True):
        text = torch.tensor([request.prompt_ids + completion.token_ids])
        with torch.no_grad():
            logprobs = (model(input_ids=text, use_cache=False).logits[0] / 0.7).log_softmax(-1)
        chosen = logprobs[len(request.prompt_ids) - 1 : -1].gather(-1, text[0, len(request.prompt_ids) :, None])
        assert (chosen.squeeze(-1) - torch.tensor(completion.sampler_logprobs)).abs().max() < 1e-5


@pytest.mark.parametrize("architecture", ["mamba", "qwen3_next", "rwkv"])
def test_a_completion_that_was_begun_goes_on_as_if_never_stopped(architecture: str) -> None:
    engine, asked = PlainEngine(unpackable(architecture)), requests(prompts=3, samples=2)
    whole = engine.generate(asked, Sampling(12, 0.9))
    begun = [Request(r.prompt_ids, r.key, c.token_ids[:5], 7) for r, c in zip(asked, whole, strict=True)]
    rest = engine.generate(begun, Sampling(100, 0.9))
    assert [c.token_ids for c in rest] == [c.token_ids[5:] for c in whole]


def test_a_request_may_have_a_length_of_its_own_and_none_at_all() -> None:
    prompt = (5, 6, 7)
    asked = [Request(prompt, 0, max_tokens=0), Request(prompt, 1, max_tokens=2), Request(prompt, 2)]
    engine = PlainEngine(unpackable("mamba"), version=lambda: 7)
    drawn = engine.generate(asked, Sampling(4))
    assert [len(completion.token_ids) for completion in drawn] == [0, 2, 4]
    assert drawn[0] == Completion((), (), "length", 7)
    assert engine.generate([], Sampling(4)) == []


def test_a_prompt_near_the_context_limit_gets_what_room_is_left() -> None:
    engine = PlainEngine(unpackable("gpt_oss"))
    [nearly, full] = engine.generate([Request((5,) * 126, 0), Request((5,) * 128, 0)], Sampling(10))
    assert (len(nearly.token_ids), nearly.finish_reason) == (2, "length")
    assert full == Completion((), (), "length")


def test_a_stop_rule_and_a_watch_see_every_token() -> None:
    class ThreeTokens:
        def ends(self, token_ids) -> bool:
            return len(token_ids) == 3

    seen: dict[int, list[int]] = {}
    asked = requests(prompts=3, samples=2)
    drawn = PlainEngine(unpackable("gpt_oss")).generate(
        asked, Sampling(9, stop_rule=ThreeTokens()), lambda number, token: seen.setdefault(number, []).append(token)
    )
    assert all((len(c.token_ids), c.finish_reason) == (3, "stop") for c in drawn)
    assert [tuple(seen[number]) for number in range(len(asked))] == [c.token_ids for c in drawn]


def test_training_mode_is_left_as_it_was_even_if_sampling_is_broken_off() -> None:
    def broken(number: int, token: int) -> None:
        raise KeyboardInterrupt

    model = tiny_model("llama", "eager").train()
    with pytest.raises(KeyboardInterrupt):
        PlainEngine(model).generate([Request((5,), 0)], Sampling(3), broken)
    assert model.training


def test_a_batch_that_does_not_fit_is_halved_and_draws_the_same(monkeypatch) -> None:
    model, asked, sampling = unpackable("mamba"), requests(), Sampling(10, 0.9)
    expected = PlainEngine(model).generate(asked, sampling)
    forward, sizes = model.forward, []

    def full(input_ids, **options):
        sizes.append(len(input_ids))
        if len(input_ids) > 4 and len(sizes) % 5 == 0:
            raise torch.OutOfMemoryError
        return forward(input_ids=input_ids, **options)

    seen: dict[int, list[int]] = {}
    engine = PlainEngine(model)
    engine.generate(asked[:1], sampling)  # what it remembers is known before memory runs short
    monkeypatch.setattr(model, "forward", full)
    found = engine.generate(asked, sampling, lambda number, token: seen.setdefault(number, []).append(token))
    assert max(sizes) > 4
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    assert [tuple(seen[number]) for number in range(len(asked))] == [c.token_ids for c in expected]
