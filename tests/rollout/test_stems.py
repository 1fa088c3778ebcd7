"""Requests that share a row as long as they draw alike: every bit is that of rows of their own."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_model

from temper.kernels import step
from temper.kernels.step import FlightC
from temper.rollout import stems
from temper.rollout.cache import Cache
from temper.rollout.compiled import CompiledSteps
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.stems import places_of
from temper.types import Completion

pytestmark = pytest.mark.skipif(not step.available(), reason="no C compiler")

MODELS = {architecture: copy.deepcopy(tiny_model(architecture)) for architecture in ARCHITECTURES}
SAMPLINGS = [
    Sampling(12, 0.05, stop_ids=(1, 2, 3)),  # sharp enough for a model that was never trained
    Sampling(12, 1.0, stop_ids=(1, 2, 3, 4, 5)),
    Sampling(12, 0.0),
    Sampling(12, 0.1, top_k=9, top_p=0.9, stop_ids=(7,)),
]


def drawn(
    model: torch.nn.Module, asked: list[Request], sampling: Sampling, spared: int
) -> tuple[list[Completion], int]:
    """What is drawn, and how many rows went through the model."""
    rows: list[int] = []
    look = CompiledSteps._look

    def counted(self: CompiledSteps, cache: Cache, tokens: torch.Tensor) -> FlightC:
        rows.append(len(tokens))
        return look(self, cache, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stems, "SPARED", spared)
        patch.setattr(CompiledSteps, "_look", counted)
        patch.setattr("temper.rollout.native.STEPS", 1)  # one call of `_look` a step
        return NativeEngine(model).generate(asked, sampling), sum(rows)


@given(
    architecture=st.sampled_from(ARCHITECTURES),
    prompts=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    each=st.sampled_from([1, 4, 16, 40]),
    sampling=st.sampled_from(SAMPLINGS),
    limits=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_completions_have_the_bits_of_rows_of_their_own(
    architecture: str, prompts: list[int], each: int, sampling: Sampling, limits: bool, seed: int
) -> None:
    asked = [
        Request(tuple((7 * i + 3 * n + seed) % 90 + 6 for i in range(length)), 1000 * seed + 100 * n + key, (), limit)
        for n, length in enumerate(prompts)
        for key in range(each)
        for limit in [1 + key % 12 if limits else None]
    ]
    found, _ = drawn(MODELS[architecture], asked, sampling, 0)
    expected, _ = drawn(MODELS[architecture], asked, sampling, 10_000)
    assert found == expected


def test_stems_that_end_give_their_rows_to_those_that_part() -> None:
    """The number of rows may stay as it is while other prompts stand in them."""
    sampling = Sampling(12, 0.1, stop_ids=tuple(range(0, 90, 3)))
    for seed in range(6):
        asked = [Request((5 + n, 6 + seed, 7 * n), 100 * n + key + seed) for n in range(8) for key in range(12)]
        found, _ = drawn(MODELS[ARCHITECTURES[0]], asked, sampling, 0)
        assert found == drawn(MODELS[ARCHITECTURES[0]], asked, sampling, 10_000)[0]


def test_a_sure_policy_computes_few_rows_and_an_unsure_one_no_more_than_before() -> None:
    asked = [Request((5, 6, 7 + n), 100 * n + key) for n in range(3) for key in range(20)]
    model = MODELS[ARCHITECTURES[0]]
    (greedy, few), (_, all_rows) = (drawn(model, asked, Sampling(10, 0.0), spared) for spared in (8, 10_000))
    assert all_rows == 60 * 9
    assert few == 3 * 9
    assert len({one.token_ids for one in greedy}) <= 3
    hot = Sampling(10, 10.0)
    assert drawn(model, asked, hot, 8)[1] == drawn(model, asked, hot, 10_000)[1]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_every_stem_gets_a_place_of_its_own_and_most_stay_where_they_were(parents: list[int]) -> None:
    grown = torch.tensor(sorted(parents))
    places = places_of(grown)
    assert sorted(places.tolist()) == list(range(len(parents)))
    assert all(parent in places[grown == parent] for parent in set(parents) if parent < len(parents))
