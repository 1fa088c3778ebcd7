"""The C kernel of the decode step says what torch says; without a compiler, torch is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from temper.kernels import decode
from temper.kernels.attention import NOTHING, Options, Partial, attend_part, merge_parts
from temper.kernels.compiler import load_library
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine

COLUMNS = 24


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.skipif(decode._kernel() is None, reason="no C compiler")
@given(
    rows=st.integers(1, 9),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    size=st.sampled_from([1, 3, 8, 32]),
    column=st.integers(0, COLUMNS - 1),
    window=st.sampled_from([None, 1, 5]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    empty=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_it_attends_as_torch_does(
    rows: int, key_heads: int, group: int, size: int, column: int, window: int | None, spread: float, empty: bool
) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + column)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * spread

    query, key, value = normal(rows, key_heads * group, 1, size), *(normal(rows, key_heads, 1, size) for _ in "kv")
    keys, values = normal(rows, key_heads, COLUMNS, size), normal(rows, key_heads, COLUMNS, size)
    keys[:, :, column:], values[:, :, column:] = float("nan"), float("nan")  # what is not written yet is not read
    logsum = torch.full((rows, key_heads, group), NOTHING) if empty else normal(rows, key_heads, group)
    before, options = Partial(normal(rows, key_heads, group, size), logsum), Options(0.3, window, None)
    found = decode.attend_own(query, key, value, keys, values, column, options, before)
    assert torch.equal(keys[:, :, column], key[:, :, 0])
    assert torch.equal(values[:, :, column], value[:, :, 0])
    begin = max(0, column + 1 - window) if window else 0
    seen = slice(begin, column + 1)
    own = attend_part(query.view(rows, key_heads, group, size), keys[:, :, seen], values[:, :, seen], None, options)
    expected = merge_parts([before, own]).mixed.reshape(rows, key_heads * group, size)
    assert found is not None
    rounding = 1e-6 * (1 + size * spread**2)  # of a score, and so, relatively, of the weights
    assert torch.allclose(found, expected, atol=rounding * spread, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_completions_are_the_same_without_a_compiler(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = NativeEngine(tiny_model(architecture))
    asked, sampling = [Request((5, 6, 7 + i % 3), i) for i in range(40)], Sampling(20, 0.9, stop_ids=(1, 2, 3))
    expected = engine.generate(asked, sampling)
    monkeypatch.setattr(decode, "_kernel", lambda: None)
    found = engine.generate(asked, sampling)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(torch.tensor(one.sampler_logprobs), torch.tensor(other.sampler_logprobs), atol=1e-5)


def test_a_compiler_that_fails_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_library.__wrapped__(decode.SOURCE) is None
