"""The native sampler against the trainer's forward, against transformers' greedy search, and against chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model

from temper.data.batching import make_batch
from temper.rollout import prefill
from temper.rollout.draw import draw_tokens, uniform
from temper.rollout.engine import Request, Sampling
from temper.rollout.memory import wave_bytes
from temper.rollout.native import NativeEngine
from temper.train.forward import plan_batch, score_targets
from temper.types import Completion, Example

STOPS = (1, 2, 3, 4)


def requests(prompts: int = 6, samples: int = 5, longest: int = 20) -> list[Request]:
    draw = random.Random(0)
    made = []
    for i in range(prompts):
        prompt = tuple(draw.randrange(5, 100) for _ in range(draw.randrange(1, longest)))
        made += [Request(prompt, 1000 * i + j) for j in range(samples)]
    return made


def trained_logprobs(
    model: torch.nn.Module, asked: list[Request], drawn: list[Completion], temperature: float
) -> torch.Tensor:
    rows = [
        Example(r.prompt_ids + c.token_ids, (False,) * len(r.prompt_ids) + (True,) * len(c.token_ids))
        for r, c in zip(asked, drawn, strict=True)
    ]
    batch = make_batch(rows)
    with torch.no_grad():
        return score_targets(model, batch, plan_batch(batch), temperature).logprobs_M


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sampler_logprobs_equal_the_trainers(architecture: str) -> None:
    model, asked = tiny_model(architecture), requests()
    drawn = NativeEngine(model).generate(asked, Sampling(30, 0.8, stop_ids=STOPS))
    sampled = torch.tensor([value for completion in drawn for value in completion.sampler_logprobs])
    assert (sampled - trained_logprobs(model, asked, drawn, 0.8)).abs().max() < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_output_is_that_of_transformers(architecture: str) -> None:
    model, plain = tiny_model(architecture), tiny_model(architecture, attention="eager")
    draw = random.Random(1)
    asked = [Request(tuple(draw.randrange(5, 100) for _ in range(1 + i % 8 * 3)), i) for i in range(200)]
    drawn = NativeEngine(model).generate(asked, Sampling(12, temperature=0, stop_ids=(1,)))
    for length in {len(request.prompt_ids) for request in asked}:
        same_length = [i for i, request in enumerate(asked) if len(request.prompt_ids) == length]
        ids = torch.tensor([asked[i].prompt_ids for i in same_length])
        output = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
                                eos_token_id=1, pad_token_id=0)  # fmt: skip
        for i, row in zip(same_length, output[:, length:].tolist(), strict=True):
            expected = row[: row.index(1) + 1] if 1 in row else row
            assert list(drawn[i].token_ids) == expected


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_completion_does_not_depend_on_its_batch(rows: int) -> None:
    model, asked = tiny_model("llama"), requests()
    sampling = Sampling(25, 0.9, top_p=0.95, stop_ids=STOPS)
    expected = NativeEngine(model).generate(asked, sampling)
    shuffled = list(range(len(asked)))
    random.Random(rows).shuffle(shuffled)
    found = NativeEngine(model, max_rows=rows).generate([asked[i] for i in shuffled], sampling)
    same = sum(expected[i].token_ids == completion.token_ids for i, completion in zip(shuffled, found, strict=True))
    assert same >= len(asked) - 1  # rounding may flip a draw that falls on the edge between two tokens


def test_prompts_with_a_long_common_beginning_share_it() -> None:
    model, common = tiny_model("gemma3_text"), tuple(5 + i % 90 for i in range(80))
    asked = [Request(common + request.prompt_ids, request.key) for request in requests(longest=8)]
    asked += [Request(common, 77), Request(common, 78)]  # the whole of a prompt may be what the others begin with
    drawn = NativeEngine(model).generate(asked, Sampling(20, 0.9, stop_ids=STOPS))
    alone = [NativeEngine(model).generate([request], Sampling(20, 0.9, stop_ids=STOPS))[0] for request in asked]
    assert [c.token_ids for c in drawn] == [c.token_ids for c in alone]
    sampled = torch.tensor([value for completion in drawn for value in completion.sampler_logprobs])
    assert (sampled - trained_logprobs(model, asked, drawn, 0.9)).abs().max() < 1e-5


def test_many_prompts_are_prefilled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = NativeEngine(tiny_model("qwen3")), requests(prompts=9)
    expected = engine.generate(asked, Sampling(10, stop_ids=STOPS))
    monkeypatch.setattr(prefill, "TOKENS_A_FORWARD", 24)
    assert [c.token_ids for c in engine.generate(asked, Sampling(10, stop_ids=STOPS))] == [
        c.token_ids for c in expected
    ]


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_a_partial_completion_is_continued_as_if_it_had_not_been_interrupted(architecture: str) -> None:
    engine, asked, sampling = NativeEngine(tiny_model(architecture)), requests(), Sampling(20, 0.9, stop_ids=STOPS)
    whole = engine.generate(asked, sampling)
    draw = random.Random(3)
    begun = [c.token_ids[: draw.randrange(len(c.token_ids))] for c in whole]
    rest = engine.generate(
        [Request(r.prompt_ids, r.key, b, 20 - len(b)) for r, b in zip(asked, begun, strict=True)], sampling
    )
    assert [b + c.token_ids for b, c in zip(begun, rest, strict=True)] == [c.token_ids for c in whole]
    assert [c.finish_reason for c in rest] == [c.finish_reason for c in whole]


def test_a_request_may_have_its_own_length() -> None:
    asked = [Request((5, 6, 7), i, max_tokens=i) for i in range(9)]
    drawn = NativeEngine(tiny_model("llama")).generate(asked, Sampling(30))
    assert [len(completion.token_ids) for completion in drawn] == list(range(9))


def test_a_stop_rule_ends_a_completion() -> None:
    class ThreeTokens:
        def ends(self, token_ids: Sequence[int]) -> bool:
            return len(token_ids) == 3 + token_ids[0] % 2

    engine, sampling = NativeEngine(tiny_model("llama")), Sampling(30, stop_rule=ThreeTokens())
    drawn = engine.generate(requests(), sampling)
    assert all(len(c.token_ids) == 3 + c.token_ids[0] % 2 and c.finish_reason == "stop" for c in drawn)
    continued = engine.generate(
        [Request(r.prompt_ids, r.key, c.token_ids[:2]) for r, c in zip(requests(), drawn, strict=True)], sampling
    )
    assert [c.token_ids for c in continued] == [c.token_ids[2:] for c in drawn]


def test_every_token_is_shown_as_it_is_drawn() -> None:
    asked, seen = requests(prompts=3, samples=2), []
    drawn = NativeEngine(tiny_model("llama")).generate(
        asked, Sampling(12, stop_ids=STOPS), watch=lambda number, token: seen.append((number, token))
    )
    for number, completion in enumerate(drawn):
        assert tuple(token for row, token in seen if row == number) == completion.token_ids


def test_a_completion_says_which_policy_drew_it() -> None:
    engine = NativeEngine(tiny_model("llama"), version=lambda: 7)
    drawn = engine.generate([Request((5,), 0), Request((5,) * 128, 0)], Sampling(2))
    assert [completion.policy_version for completion in drawn] == [7, 7]


def test_completions_follow_the_models_distribution() -> None:
    model, prompt = tiny_model("llama"), (5, 6, 7)
    drawn = NativeEngine(model).generate([Request(prompt, key) for key in range(8000)], Sampling(2, temperature=3.0))
    batch = make_batch([Example((*prompt, 5), (False, False, False, True))])
    with torch.no_grad():
        plan = plan_batch(batch)
        logits = model(
            input_ids=batch.tokens[None], position_ids=batch.positions[None], attention_plan=plan, use_cache=False
        ).logits[0, 2]
    expected = (logits / 3.0).softmax(-1) * len(drawn)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in drawn]), minlength=100)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 149  # 0.999 quantile, 99 degrees of freedom


def test_rows_that_do_not_fit_in_memory_wait_for_the_next_wave() -> None:
    model, asked, sampling = tiny_model("llama"), requests(), Sampling(20, 0.9, stop_ids=STOPS)
    expected = NativeEngine(model).generate(asked, sampling)
    small = NativeEngine(model, memory=wave_bytes(model.config, 7, 20, 2, 20))
    waves = small._waves(asked, sampling)
    assert 4 <= len(waves) <= len(asked)
    assert [c.token_ids for c in small.generate(asked, sampling)] == [c.token_ids for c in expected]


def test_running_out_of_memory_halves_the_batch_and_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked, sampling = NativeEngine(tiny_model("llama")), requests(), Sampling(20, 0.9, stop_ids=STOPS)
    expected = engine.generate(asked, sampling)
    step, rows = engine._next, []

    def small_machine(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(tokens))
        if len(tokens) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return step(tokens, *rest)

    monkeypatch.setattr(engine, "_next", small_machine)
    assert [c.token_ids for c in engine.generate(asked, sampling)] == [c.token_ids for c in expected]
    assert rows[0] > 8
    monkeypatch.setattr(engine, "_next", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError):
        engine.generate(asked, sampling)


def test_a_completion_ends_with_its_stop_token_or_at_its_length() -> None:
    drawn = NativeEngine(tiny_model("llama")).generate(requests(), Sampling(25, 1.0, stop_ids=STOPS))
    assert {completion.finish_reason for completion in drawn} == {"stop", "length"}
    for completion in drawn:
        assert not set(completion.token_ids[:-1]) & set(STOPS)
        assert (completion.token_ids[-1] in STOPS) == (completion.finish_reason == "stop")
        assert completion.finish_reason == "stop" or len(completion.token_ids) == 25
        assert len(completion.sampler_logprobs) == len(completion.token_ids)


def test_a_prompt_near_the_context_limit_gets_what_room_is_left() -> None:
    model = tiny_model("llama")
    engine = NativeEngine(model)
    [nearly, full] = engine.generate([Request((5,) * 126, 0)], Sampling(10)) + engine.generate(
        [Request((5,) * 128, 0)], Sampling(10)
    )
    assert len(nearly.token_ids) == 2
    assert nearly.finish_reason == "length"
    assert full == Completion((), (), "length")


def test_no_request_no_completion() -> None:
    assert NativeEngine(tiny_model("llama")).generate([], Sampling(10)) == []


def test_updated_weights_are_seen_by_the_next_sample() -> None:
    model = tiny_model("llama")
    engine, asked, sampling = NativeEngine(model), requests(), Sampling(8, temperature=0)
    before = engine.generate(asked, sampling)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1)
    assert engine.generate(asked, sampling) != before


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf")]).repeat(100_000, 1)
    tokens, _ = draw_tokens(logits, uniform(torch.arange(100_000), torch.tensor(3)), Sampling(1, temperature=0.7))
    expected = (logits[0] / 0.7).softmax(-1)[:4] * 100_000
    counts = torch.bincount(tokens, minlength=5)
    chi_square = float(((counts[:4] - expected) ** 2 / expected).sum())
    assert counts[4] == 0
    assert chi_square < 16.3  # 0.999 quantile, 3 degrees of freedom


@pytest.mark.parametrize("edge", [0.0, 1.0 - 2.0**-53])
def test_a_token_without_probability_is_never_drawn(edge: float) -> None:
    logits = torch.tensor([[float("-inf"), 0.3, 0.1, float("-inf")]])
    tokens, _ = draw_tokens(logits, torch.tensor([edge], dtype=torch.float64), Sampling(1))
    assert tokens.item() in (1, 2)


def test_top_p_and_top_k_cut_the_tail_only() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20_000, 1)
    numbers = uniform(torch.arange(20_000), torch.tensor(0))
    assert set(draw_tokens(logits, numbers, Sampling(1, top_p=0.79))[0].tolist()) == {0, 1}
    assert set(draw_tokens(logits, numbers, Sampling(1, top_p=0.81))[0].tolist()) == {0, 1, 2}
    assert set(draw_tokens(logits, numbers, Sampling(1, top_k=3))[0].tolist()) == {0, 1, 2}
    whole = draw_tokens(logits, numbers, Sampling(1))[0]
    assert torch.equal(whole, draw_tokens(logits, numbers, Sampling(1, top_k=4, top_p=1.0))[0])


def test_min_p_drops_what_is_far_less_likely_than_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20_000, 1)
    numbers = uniform(torch.arange(20_000), torch.tensor(0))
    assert set(draw_tokens(logits, numbers, Sampling(1, min_p=0.2))[0].tolist()) == {0, 1, 2}
    assert set(draw_tokens(logits, numbers, Sampling(1, min_p=1.0))[0].tolist()) == {0}


@pytest.mark.parametrize("vocabulary", [255, 256, 257, 5000])
@pytest.mark.parametrize("sampling", [Sampling(1), Sampling(1, top_p=0.6), Sampling(1, 0.5, top_k=9, min_p=0.05)])
def test_a_draw_from_a_large_vocabulary_is_that_of_a_plain_search(vocabulary: int, sampling: Sampling) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(400, vocabulary, generator=generator) * 3
    logits[:, ::7] = float("-inf")
    numbers = uniform(torch.arange(400), torch.tensor(5))
    tokens, logprobs = draw_tokens(logits, numbers, sampling)
    for row, number, token, logprob in zip(logits, numbers.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
        whole = (row.double() / sampling.temperature).softmax(-1)
        weights = whole * (whole >= sampling.min_p * whole.max())
        order = weights.argsort(descending=True)
        ranked = weights[order] * (torch.arange(vocabulary) < (sampling.top_k or vocabulary))
        ranked *= ranked.cumsum(-1) - ranked < sampling.top_p * ranked.sum()
        mass = torch.zeros_like(weights).scatter_(0, order, ranked).cumsum(-1)
        assert int((mass <= number * mass[-1]).sum()) == token
        assert abs(float(whole[token].log()) - logprob) < 1e-5


def test_uniform_numbers_are_uniform_and_independent_of_position_order() -> None:
    keys = torch.arange(50_000)
    first, second = uniform(keys, torch.tensor(0)), uniform(keys, torch.tensor(1))
    for numbers in (first, second):
        assert abs(float(numbers.mean()) - 0.5) < 0.005
        assert abs(float(numbers.var()) - 1 / 12) < 0.002
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.02
