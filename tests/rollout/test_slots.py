"""The sampler in slots against the native one: whatever the slots, the looks, the refills and the memory, the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionMaskInterface

from temper.kernels.attention import NAME
from temper.rollout import graphs, slots
from temper.rollout.buffers import Buffers, Layout, _flat, fitting, slot_bytes
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.slots import SlotEngine, decode_step, with_halving
from temper.types import Completion

RAGGED = Sampling(25, 0.9, top_p=0.95, stop_ids=(1, 2, 3, 4))


def requests(prompts: int = 6, samples: int = 5, longest: int = 40, common: int = 0) -> list[Request]:
    draw = random.Random(0)
    made = []
    for i in range(prompts):
        prompt = (7,) * common + tuple(draw.randrange(5, 100) for _ in range(draw.randrange(1, longest)))
        made += [Request(prompt, 1000 * i + j) for j in range(samples)]
    return made


def assert_same(found: Sequence[Completion], expected: Sequence[Completion]) -> None:
    """Rounding may flip a draw that falls on the edge between two tokens, in one completion at most."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a.token_ids == b.token_ids]
    assert len(pairs) >= len(expected) - 1
    for one, other in pairs:
        assert one.finish_reason == other.finish_reason
        assert one.policy_version == other.policy_version
        assert one.sampler_logprobs == pytest.approx(other.sampler_logprobs, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_completions_are_those_of_the_native_sampler(architecture: str) -> None:
    model, asked = tiny_model(architecture), requests()
    expected = NativeEngine(model, version=lambda: 3).generate(asked, RAGGED)
    assert len({len(completion.token_ids) for completion in expected}) > 5
    assert_same(SlotEngine(model, slots=64, version=lambda: 3).generate(asked, RAGGED), expected)


@pytest.mark.parametrize(("count", "poll"), [(1, 1), (1, 64), (3, 7), (7, 2), (16, 16), (64, 1)])
def test_neither_slots_nor_looks_nor_order_change_a_completion(count: int, poll: int) -> None:
    model, asked = tiny_model("gemma3_text"), requests(samples=1 if count == 1 else 3)
    expected = NativeEngine(model).generate(asked, RAGGED)
    shuffled = random.Random(count).sample(range(len(asked)), len(asked))
    found = SlotEngine(model, count, poll=poll).generate([asked[i] for i in shuffled], RAGGED)
    assert_same(found, [expected[i] for i in shuffled])


@pytest.mark.parametrize("count", [2, 4, 64])
def test_a_prefix_common_to_all_prompts_changes_no_completion(count: int) -> None:
    model = tiny_model("llama")
    early = [Request((7,) * 66 + (8 + i,), i, max_tokens=3) for i in range(4)]
    late = [Request((7,) * 66 + (6,) * 14 + (8 + i,) * (1 + i), 10 + i) for i in range(4)]  # have more in common
    for asked in (early + late, late, [*late, Request((7, 8), 5)]):
        assert_same(SlotEngine(model, count).generate(asked, RAGGED), NativeEngine(model).generate(asked, RAGGED))


def test_an_empty_slot_computes_nothing_that_is_not_finite() -> None:
    engine = SlotEngine(tiny_model("llama"), 4)
    engine.generate(requests(prompts=3, samples=1), RAGGED)
    assert engine._buffers is not None
    for tensor in [engine._buffers.logprobs, *_flat(engine._buffers.own)]:
        assert tensor.isfinite().all()


def test_partial_completions_and_limits_of_their_own() -> None:
    model, asked = tiny_model("mistral"), requests(samples=2)
    whole = NativeEngine(model).generate(asked, RAGGED)
    cut = [
        replace(r, drawn=c.token_ids[: i % 4], max_tokens=9 if i % 3 else None)
        for i, (r, c) in enumerate(zip(asked, whole, strict=True))
    ]
    assert_same(SlotEngine(model, 5, poll=3).generate(cut, RAGGED), NativeEngine(model).generate(cut, RAGGED))


@pytest.mark.parametrize(
    "sampling", [Sampling(12, 0), Sampling(12, 1.0, top_k=5), Sampling(12, 1.3, min_p=0.05), Sampling(1)]
)
def test_each_way_to_draw(sampling: Sampling) -> None:
    model, asked = tiny_model("qwen3"), requests()
    assert_same(SlotEngine(model, 16).generate(asked, sampling), NativeEngine(model).generate(asked, sampling))


def test_prompts_at_the_context_limit_and_none_at_all() -> None:
    model = tiny_model("llama")
    asked = [Request((5,) * 126, 0), Request((5,) * 128, 0), Request((6,), 1)]
    assert_same(SlotEngine(model).generate(asked, RAGGED), NativeEngine(model).generate(asked, RAGGED))
    assert SlotEngine(model).generate([], RAGGED) == []


class EndsWithEleven:
    def ends(self, token_ids: Sequence[int]) -> bool:
        return token_ids[-1] % 11 == 0


@pytest.mark.parametrize("count", [3, 64])
def test_a_stop_rule_and_a_watch_are_asked_after_every_token(count: int) -> None:
    model, asked = tiny_model("llama"), requests()
    sampling = replace(RAGGED, stop_rule=EndsWithEleven())
    heard: list[list[int]] = [[] for _ in asked]
    found = SlotEngine(model, count).generate(asked, sampling, lambda number, token: heard[number].append(token))
    assert_same(found, NativeEngine(model).generate(asked, sampling))
    assert [tuple(tokens) for tokens in heard] == [completion.token_ids for completion in found]


def test_calls_share_their_tensors_and_what_is_left_in_them_reaches_nothing() -> None:
    model = tiny_model("gemma2")
    engine = SlotEngine(model, 64)
    engine.generate(requests(), RAGGED)
    buffers = engine._buffers
    assert buffers is not None
    for tensor in [*_flat(buffers.own), *_flat(buffers.prompts), *_flat(buffers.prefix), buffers.logprobs]:
        tensor.fill_(float("nan"))
    buffers.tokens.fill_(99)
    for asked in (requests(samples=2, longest=20), requests(), requests(prompts=1, samples=1)):
        assert_same(engine.generate(asked, RAGGED), NativeEngine(model).generate(asked, RAGGED))
    assert engine._buffers is buffers
    engine.generate(requests(), replace(RAGGED, max_tokens=80))
    assert engine._buffers is not buffers


def test_new_weights_are_seen_by_the_next_sample() -> None:
    model = tiny_model("llama")
    engine, sampling = SlotEngine(model), Sampling(8, temperature=0)
    before = engine.generate(requests(), sampling)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1)
    after = engine.generate(requests(), sampling)
    assert after != before
    assert_same(after, NativeEngine(model).generate(requests(), sampling))


def test_no_step_is_computed_for_slots_that_no_row_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    step = slots.decode_step
    monkeypatch.setattr(slots, "decode_step", lambda *args: (taken.append(args[2]), step(*args)))
    asked = [replace(request, max_tokens=2 + i) for i, request in enumerate(requests(4, 4))]
    SlotEngine(tiny_model("llama"), 16, poll=1).generate(asked, Sampling(99))
    assert taken == [16] * 8 + [8] * 4 + [4] * 2 + [2] + [1]


def test_a_waiting_row_enters_when_an_eighth_of_the_slots_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    step = slots.decode_step
    monkeypatch.setattr(slots, "decode_step", lambda *args: (taken.append(args[2]), step(*args)))
    asked = [Request((5, 6), i, max_tokens=limit) for i, limit in enumerate([3, 5, *[12] * 14, 6])]
    SlotEngine(tiny_model("llama"), 16, poll=1).generate(asked, Sampling(99))
    assert len(taken) == 11  # after the second row has ended the last begins, and it ends before the others


def test_each_prompt_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[int, ...]] = []
    known = slots.prefill
    monkeypatch.setattr(slots, "prefill", lambda model, prompts: (computed.extend(prompts), known(model, prompts))[1])
    asked = requests(prompts=9, samples=5)
    SlotEngine(tiny_model("llama"), 4, poll=2).generate(asked, RAGGED)
    assert sorted(computed) == sorted({request.prompt_ids for request in asked} | {(0,)})  # the last asks for shapes


@pytest.mark.parametrize("most", [1, 3])
def test_where_memory_runs_out_fewer_slots_bring_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked, heard = tiny_model("llama"), requests(samples=3), []
    left = [4]  # prefills until one more failure, in the middle of a call
    prefill = slots.prefill

    def failing(model: Any, prompts: Sequence[tuple[int, ...]]) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return prefill(model, prompts)

    class Limited(Buffers):
        def __init__(self, layout: Layout, *rest: Any):
            if layout.slots > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            super().__init__(layout, *rest)

    monkeypatch.setattr(slots, "Buffers", Limited)
    monkeypatch.setattr(slots, "prefill", failing)
    engine = SlotEngine(model)
    if most == 1:  # there is nothing left to halve
        with pytest.raises(torch.cuda.OutOfMemoryError):
            engine.generate(asked, RAGGED)
        return
    found = engine.generate(asked, RAGGED, lambda number, token: heard.append((number, token)))
    assert left[0] < 0
    assert engine.slots < most
    assert_same(found, NativeEngine(model).generate(asked, RAGGED))
    told = [[token for number, token in heard if number == i] for i in range(len(asked))]
    assert [tuple(tokens) for tokens in told] == [completion.token_ids for completion in found]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def attempt(slots: int) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        with_halving(attempt, 8, lambda: None)


LAYOUTS = [Layout(1, 64, 1, 64, 0, 1), Layout(7, 128, 3, 64, 128, 4), Layout(64, 64, 64, 192, 0, 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_foretold_are_those_allocated(layout: Layout, dtype: torch.dtype) -> None:
    heads = [(2, 16, 16), (4, 8, 24)]
    buffers = Buffers(layout, heads, dtype, torch.device("cpu"))
    tensors = [value for value in vars(buffers).values() if isinstance(value, torch.Tensor)]
    tensors += [*_flat(buffers.own), *_flat(buffers.prompts), *_flat(buffers.prefix)]
    token = dtype.itemsize * sum(count * (key + value) for count, key, value in heads)
    assert slot_bytes(layout, token) == sum(tensor.nbytes for tensor in tensors)


def test_slots_are_as_many_as_memory_holds() -> None:
    layout = Layout(512, 512, 32, 256, 0, 16)
    assert fitting(layout, 12288, 152_000, 140e9) == layout
    assert fitting(layout, 12288, 152_000, 5e9).slots == 256
    assert fitting(layout, 12288, 152_000, 1e6) == Layout(1, 512, 1, 256, 0, 1)


@torch.no_grad()
def test_tensors_are_made_anew_only_for_what_they_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [float("inf")]
    monkeypatch.setattr(slots, "free_bytes", lambda device: free[0])
    engine = SlotEngine(tiny_model("llama"), 16)
    wide, long = Layout(16, 64, 4, 64, 0, 4), Layout(4, 640, 8, 64, 0, 1)
    first = engine._room_for(wide)
    both = engine._room_for(long)
    assert both.layout == Layout(16, 640, 8, 64, 0, 4)
    assert engine._room_for(wide) is both is not first
    engine.release()
    free[0] = 3 * slot_bytes(wide, 768)
    engine._room_for(wide)
    assert engine._room_for(long).layout.slots == 4  # alone: both together would not fit
    free[0] = slot_bytes(wide, 768)
    less = engine._room_for(wide)
    assert less.layout.slots == 8
    assert engine._room_for(wide) is less


def stepping(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A decode step in the middle of a call."""
    # While it is captured, transformers does not ask whether the rows are packed; this is how not to be asked here.
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, NAME, raising=False)
    engine, made = SlotEngine(model, 8), []
    engine.graphs.run = lambda key, step, times: (made.append(step), [step() for _ in range(times)])  # type: ignore
    engine.generate(requests(prompts=3), RAGGED)
    return made[0]


class NothingForTheHost(TorchDispatchMode):
    """Refuses what waits for the device, or makes a shape of what a tensor holds: neither can be captured."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "_unique2", "lift_fresh", "masked_select", "equal", "bincount")

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().partition("::")[2].partition(".")[0]
        assert name not in self.FORBIDDEN, name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_asks_the_host_nothing(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = stepping(tiny_model(architecture), monkeypatch)
    with torch.no_grad(), NothingForTheHost():
        step()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_needs_nothing_that_is_not_on_the_device(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device without memory: what is on another one, or must be known, raises."""
    model = tiny_model(architecture).to("meta", torch.bfloat16)
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, NAME, raising=False)
    buffers = Buffers(Layout(8, 64, 3, 64, 64, 4), [(2, 16, 16)] * 3, torch.bfloat16, model.device)
    stop_ids = torch.tensor([1, 2], device="meta")
    with torch.no_grad():
        buffers.reset(64)
        buffers.look([(0, 70, [1, 2]), (2, 90, [0])])
        for sampling in (RAGGED, Sampling(5, 0), Sampling(5, 0.7, top_k=3, min_p=0.1)):
            decode_step(model, buffers, 8, sampling, stop_ids)
        buffers.reset(0)
        decode_step(model, buffers, 2, RAGGED, stop_ids)


class Pretending:
    """Stands for a model on a CUDA device; captures count."""

    device = torch.device("cuda")

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.weight = torch.zeros(3)
        self.captured: list[Any] = []
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
        monkeypatch.setattr(graphs, "capture", lambda step, pool: (self.captured.append(step), step)[1])

    def parameters(self) -> list[torch.Tensor]:
        return [self.weight]

    def buffers(self) -> list[torch.Tensor]:
        return []


def test_a_step_is_captured_once_and_taken_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = Pretending(monkeypatch), []
    made = graphs.Graphs(model)
    for times in (1, 5, 3):
        made.run("eight", lambda: taken.append(8), times)
        made.run("four", lambda: taken.append(4), times)
    assert (taken.count(8), taken.count(4), len(model.captured)) == (9, 9, 2)
    model.weight.add_(1)
    made.run("four", lambda: taken.append(4), 4)
    assert len(model.captured) == 2
    model.weight = torch.ones(3)  # elsewhere: what was captured reads the old ones
    made.run("four", lambda: taken.append(4), 4)
    assert (taken.count(4), len(model.captured)) == (17, 3)


def test_a_step_that_cannot_be_captured_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taken = Pretending(monkeypatch), []
    errors = [RuntimeError("operation not permitted when stream is capturing"), torch.cuda.OutOfMemoryError("full")]

    def refuse(step: Any, pool: Any) -> Any:
        raise errors.pop(0)

    monkeypatch.setattr(graphs, "capture", refuse)
    made = graphs.Graphs(model)
    with pytest.warns(UserWarning, match="not permitted"):
        made.run(1, lambda: taken.append(1), 5)
    assert len(taken) == 5
    with pytest.raises(torch.cuda.OutOfMemoryError):
        made.run(2, lambda: taken.append(2), 5)


def test_steps_of_earlier_calls_serve_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step holds is what was captured with it: the key must name all that differs."""
    model, pretending = tiny_model("llama"), Pretending(monkeypatch)
    engine, one_by_one = SlotEngine(model, 16), NativeEngine(model)
    engine.graphs = graphs.Graphs(pretending)
    for sampling in (RAGGED, Sampling(25, 0), RAGGED, replace(RAGGED, stop_ids=(9,)), replace(RAGGED, max_tokens=7)):
        for asked in (requests(samples=3), requests(prompts=1, samples=7), requests(prompts=2, longest=3, common=70)):
            assert_same(engine.generate(asked, sampling), one_by_one.generate(asked, sampling))
    assert pretending.captured
