"""Steps in C against the model's own: the same draws and log-probs, whatever the rows, the prompts and the sizes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from temper.kernels import step
from temper.kernels.attention import NAME, register
from temper.kernels.stack import Stack
from temper.rollout import compiled
from temper.rollout.cache import Cache, Shared
from temper.rollout.compiled import CompiledSteps, stack_of
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.open import open_engine
from temper.rollout.prefill import prefill
from temper.types import Completion

pytestmark = pytest.mark.skipif(not step.available(), reason="no C compiler")

MODELS = {architecture: tiny_model(architecture) for architecture in ARCHITECTURES}


def both(model: Any, asked: list[Request], sampling: Sampling) -> tuple[list[Completion], list[Completion]]:
    """What steps in C draw, and what torch does."""
    found = NativeEngine(model).generate(asked, sampling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledSteps, "of", staticmethod(lambda *_: None))
        return found, NativeEngine(model).generate(asked, sampling)


def assert_same(found: list[Completion], expected: list[Completion]) -> None:
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert [one.finish_reason for one in found] == [one.finish_reason for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.sampler_logprobs == pytest.approx(other.sampler_logprobs, abs=3e-5)


SAMPLINGS = [
    Sampling(14, 1.0, stop_ids=(1, 2, 3, 4, 5)),
    Sampling(14, 0.0),
    Sampling(14, 0.7, stop_ids=(9,)),
    Sampling(9, 1.3, top_k=20, top_p=0.9),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tested_architecture_is_recognised(architecture: str) -> None:
    assert stack_of(MODELS[architecture]) is not None


@given(
    architecture=st.sampled_from(ARCHITECTURES),
    prompts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    each=st.sampled_from([1, 1, 2, 3, 5, 16]),
    sampling=st.sampled_from(SAMPLINGS),
    common=st.sampled_from([0, 0, 70]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=18, deadline=None)
def test_draws_and_logprobs_are_those_of_torch(
    architecture: str, prompts: list[int], each: int, sampling: Sampling, common: int, seed: int
) -> None:
    """Prompts of any length with their groups, a prefix common to all, windows that end within any of them."""
    asked = [
        Request(tuple(range(20, 20 + common)) + tuple((7 * i + 3 * n + seed) % 90 + 6 for i in range(length)), key)
        for n, length in enumerate(prompts)
        for key in range(1000 * seed + 100 * n, 1000 * seed + 100 * n + each)
    ]
    assert_same(*both(MODELS[architecture], asked, sampling))


def random_model(**sizes: int) -> Any:
    register()
    values = {
        "vocab_size": 77, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 10, "max_position_embeddings": 64, "pad_token_id": 0,
    } | sizes  # fmt: skip
    torch.manual_seed(1)
    config = AutoConfig.for_model("llama", **values, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # biases that are not 0
    return model


@given(
    hidden=st.integers(1, 9), inner=st.integers(3, 70), size=st.integers(1, 20).map(lambda n: 2 * n),
    groups=st.integers(1, 3), shared=st.integers(1, 3), vocabulary=st.integers(20, 600),
)  # fmt: skip
@settings(max_examples=5, deadline=None)
def test_sizes_that_fit_no_register_are_computed_too(
    hidden: int, inner: int, size: int, groups: int, shared: int, vocabulary: int
) -> None:
    heads = groups * shared
    model = random_model(
        hidden_size=(4 + hidden) * heads, intermediate_size=inner, head_dim=size, num_key_value_heads=groups,
        num_attention_heads=heads, vocab_size=vocabulary,
    )  # fmt: skip
    asked = [Request(tuple((3 * i + n) % 15 for i in range(3 + n)), n) for n in range(6)]
    found, expected = both(model, asked, Sampling(5, 1.0))
    assert stack_of(model) is not None
    same = [(a, b) for a, b in zip(found, expected, strict=True) if a.token_ids == b.token_ids]
    assert len(same) >= 5  # weights this wild make rounding count
    for one, other in same:
        assert one.sampler_logprobs == pytest.approx(other.sampler_logprobs, abs=1e-3)


def rounded(model: Any) -> Any:
    """Its weights as if they had been stored in bfloat16."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


@pytest.mark.parametrize("laid", [0, step.WHOLE, step.HALVED])  # weights for products
@pytest.mark.parametrize("heads", [1, 3])  # of keys
def test_a_row_has_the_same_bits_whoever_is_beside_it(laid: int, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "may_lay", lambda *_: laid > 0)
    model = random_model(num_key_value_heads=heads)
    model = rounded(model) if laid == step.HALVED else model
    stack = stack_of(model)
    assert stack is not None
    with torch.no_grad():
        filled = prefill(model, [tuple((5 * i + n) % 60 for i in range(2 + 3 * n)) for n in range(9)])

    def after(runs: list[int], threads: int) -> torch.Tensor:
        """Logits of two steps of rows that look at these runs."""
        run_B = torch.tensor(runs)
        shared = Shared(filled.runs, filled.lengths, 0, run_B)
        cache = Cache([shared], torch.tensor(filled.lengths)[run_B], 4)
        steps = CompiledSteps.filled(stack, model, cache)
        assert steps is not None
        assert steps.parts.c.laid == laid
        steps.parts.c.threads = threads
        return torch.stack([steps.logits_after(run_B + 3 * n, cache).clone() for n in range(2)])

    alone = torch.cat([after([run], 1) for run in range(9)], 1)
    for rows in ([0, 8], [3, 3], [1, 1, 1, 2], [4] * 17 + [5] * 2, [0, 1, 2, 3, 4, 5, 6, 7, 8] * 3):
        assert torch.equal(after(rows, 2), alone[:, rows])


def test_weights_in_half_the_space_draw_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = rounded(copy.deepcopy(MODELS["qwen2"])), [Request((5, 6, 7, n), n) for n in range(9)]
    halved = NativeEngine(model).generate(asked, Sampling(8))
    stack = stack_of(model)
    assert stack is not None
    assert stack.fits_half()
    monkeypatch.setattr(Stack, "fits_half", lambda _: False)
    assert halved == NativeEngine(model).generate(asked, Sampling(8))


@pytest.mark.parametrize("way", [step.WHOLE, step.HALVED])
def test_a_copy_in_pieces_holds_what_one_in_one_piece_holds(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_of(rounded(copy.deepcopy(MODELS["qwen2"])))
    assert stack is not None
    whole = stack.lay(way).panels
    monkeypatch.setattr(step, "LARGE", 0)
    pieces = stack.lay(way).panels
    assert len({piece.untyped_storage().data_ptr() for piece in pieces}) == len(pieces)
    bits = [[panel.view(torch.int32) for panel in panels] for panels in (whole, pieces)]
    assert all(torch.equal(one, other) for one, other in zip(*bits, strict=True))


def test_one_weight_that_bfloat16_has_not_keeps_all_of_them_whole() -> None:
    model = rounded(copy.deepcopy(MODELS["llama"]))
    stack = stack_of(model)
    assert stack is not None
    assert stack.fits_half()
    with torch.no_grad():
        list(stack.linear())[-2].weight.view(-1)[-1] = 0.1
    assert not stack.fits_half()


def test_weights_of_a_frozen_model_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked, copies = copy.deepcopy(MODELS["llama"]), [Request((5, 6, 7), 1)], []
    monkeypatch.setattr(Stack, "lay", lambda self, way, lay=Stack.lay: copies.append(way) or lay(self, way))
    with open_engine(model) as engine:
        expected = [engine.generate(asked, Sampling(6)) for _ in range(2)]
    of_changing = len(copies)
    with open_engine(model, frozen=True) as engine:
        assert [engine.generate(asked, Sampling(6)) for _ in range(2)] == expected
    assert len(copies) == of_changing + 1


def test_what_is_told_of_each_token_is_told_in_order() -> None:
    model, told = MODELS["qwen3"], []
    asked = [Request((5, 6, 7), key) for key in range(3)]
    found = NativeEngine(model).generate(asked, Sampling(6), watch=lambda row, token: told.append((row, token)))
    assert [tuple(token for row, token in told if row == n) for n in range(3)] == [one.token_ids for one in found]
    assert [row for row, _ in told] == [0, 1, 2] * 6


def test_weights_that_change_in_place_or_move_are_read_where_they_are() -> None:
    model, asked = copy.deepcopy(MODELS["gemma2"]), [Request((5, 6, 7), key) for key in range(4)]
    for change in (lambda x: x.mul_(1.1), lambda x: setattr(x, "data", x.data.flip(0).clone())):
        with torch.no_grad():
            for parameter in model.parameters():
                change(parameter)
        assert_same(*both(model, asked, Sampling(8)))


def test_rows_that_are_no_token_are_never_drawn() -> None:
    model = copy.deepcopy(MODELS["llama"])
    model.temper_spare_ids = {torch.device("cpu"): torch.arange(50, 100)}
    asked = [Request((5, 6, 7), key) for key in range(20)]
    found, expected = both(model, asked, Sampling(10, 2.0))
    assert_same(found, expected)
    assert max(token for one in found for token in one.token_ids) < 50


def test_models_of_other_parts_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    other = copy.deepcopy(MODELS["llama"])
    other.model.layers[1].mlp.act_fn = torch.nn.Tanh()
    assert stack_of(other) is None
    assert stack_of(copy.deepcopy(MODELS["llama"]).bfloat16()) is None
    lying = copy.deepcopy(MODELS["llama"])
    forward = lying.forward

    def doubled(*given: Any, **named: Any) -> Any:
        out = forward(*given, **named)
        out.logits = 2 * out.logits
        return out

    monkeypatch.setattr(lying, "forward", doubled)
    assert stack_of(lying) is None  # all parts are known, and yet it says something else


def test_many_rows_after_a_very_long_prompt_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    of = CompiledSteps.of
    monkeypatch.setattr(compiled, "LONG", 10)
    monkeypatch.setattr(CompiledSteps, "of", staticmethod(lambda *a: (made.append(of(*a) is not None), of(*a))[1]))
    for rows in (8, 9):
        NativeEngine(MODELS["llama"]).generate([Request((5,) * 11, key) for key in range(rows)], Sampling(3))
    assert made == [True, False]
