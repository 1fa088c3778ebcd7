"""Attention over runs of keys: the kernel against masks, masks against a plain sum over what a row may see.

The kernel's cases run in Triton's interpreter, in a process of their own; one that compiles them needs no GPU either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor

from temper.kernels import decode_triton, fast_triton
from temper.kernels.attention import Options, Partial, merge_parts
from temper.kernels.decode_triton import Runs, attend_parts, attend_runs, blank, merge_pieces, tile_sizes
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.slots import SlotEngine

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the interpreter's process")


@dataclass
class Case:
    """Lengths of runs, who looks at each, and shapes; a row's position is at the end of its run or `ahead` of it."""

    lengths: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    columns: int
    heads: int = 4
    key_heads: int = 2
    size: int = 16
    value_size: int = 16
    window: int | None = None
    softcap: float | None = None
    ahead: int = 0
    dtype: torch.dtype = torch.float32

    def make(self) -> tuple[Tensor, Tensor, Tensor, Runs, Tensor, Options]:
        torch.manual_seed(0)
        count = len(self.lengths)
        rows = max((max(row) for row in self.rows if row), default=0) + 2
        table = torch.full((count, max(map(len, self.rows))), -1)
        starts, positions = 3 + torch.arange(count), torch.zeros(rows, dtype=torch.long)
        for run, looking in enumerate(self.rows):
            for i, row in enumerate(looking):
                table[run, i] = row
                positions[row] = starts[run] + self.lengths[run] - 1 + self.ahead * (i + 1)
        places = torch.arange(count).flip(0) + 1  # keys hold runs that nobody looks at, too
        keys = torch.full((count + 2, self.key_heads, self.columns, self.size), float("nan"))
        values = torch.full((count + 2, self.key_heads, self.columns, self.value_size), float("nan"))
        for place, length in zip(places, self.lengths, strict=True):
            keys[place, :, :length] = 2 * torch.randn(self.key_heads, length, self.size)
            values[place, :, :length] = torch.randn(self.key_heads, length, self.value_size)
        query = torch.randn(rows, self.heads, self.size).to(self.dtype)
        runs = Runs(places, torch.tensor(self.lengths), starts, table)
        options = Options(self.size**-0.5, self.window, self.softcap)
        return query, keys.to(self.dtype), values.to(self.dtype), runs, positions, options


CASES = {
    "own tokens of each row": Case((5, 1, 64, 17), ((0,), (1,), (2,), (3,)), 70),
    "prompts of groups": Case((130, 3, 40), ((0, 4, 2), (1,), (3, 5)), 200),
    "one prefix for all": Case((90,), (tuple(range(40)),), 90),
    "a run that nobody looks at": Case((9, 0, 20), ((0,), (), (1, 2)), 64),
    "a run without a token": Case((0, 7), ((0, 1), (2,)), 32),
    "one head a key head": Case((33, 20), ((0,), (1, 2)), 64, heads=3, key_heads=3),
    "seven heads a key head": Case((33, 20), ((0,), (1, 2, 3)), 64, heads=14),
    "head size not a power of two": Case((33, 20), ((0,), (1, 2)), 64, size=24, value_size=40),
    "many more queries than a tile": Case((70, 8), (tuple(range(50)), (51, 50)), 80, heads=8),
    "window inside the run": Case((100, 12, 3), ((0, 1), (2,), (3,)), 128, window=6),
    "window that some rows of a run are past": Case((100, 12), ((0, 1, 2, 3), (4, 5)), 128, window=9, ahead=4),
    "window that all rows are past": Case((40, 12), ((0, 1), (2,)), 64, window=5, ahead=50),
    "window wider than the run": Case((40, 12), ((0, 1), (2,)), 64, window=500),
    "softcap": Case((130, 3), ((0, 1), (2,)), 200, softcap=5.0),
    "softcap and window": Case((130, 3), ((0, 1), (2,)), 200, softcap=5.0, window=70),
    "half precision": Case((130, 3, 40), ((0, 4, 2), (1,), (3, 5)), 200, size=64, value_size=64, dtype=torch.float16),
}


def seen_by(case: Case) -> tuple[Tensor, Tensor]:
    """Mixed values and logsums in float64, row by row, head by head."""
    query, keys, values, runs, positions, options = case.make()
    mixed = torch.zeros(len(query), case.heads, case.value_size, dtype=torch.float64)
    logsum = torch.full(mixed.shape[:2], float("-inf"), dtype=torch.float64)
    for run, looking in enumerate(case.rows):
        for row in looking:
            first = 0
            if case.window is not None:
                first = max(0, int(positions[row] - runs.starts_R[run]) - case.window + 1)
            for head in range(case.heads if first < case.lengths[run] else 0):
                place = (runs.places_R[run], head * case.key_heads // case.heads, slice(first, case.lengths[run]))
                scores = keys[place].double() @ query[row, head].double() * options.scale
                if case.softcap is not None:
                    scores = case.softcap * torch.tanh(scores / case.softcap)
                logsum[row, head] = scores.logsumexp(0)
                mixed[row, head] = scores.softmax(0) @ values[place].double()
    return mixed, logsum


def attend(case: Case, pieces: int = 1) -> Partial:
    query, keys, values, runs, positions, options = case.make()
    out = blank(pieces, len(query), case.heads, case.value_size, query.device)
    attend_runs(query, keys, values, runs, positions, options, out)
    return out


def assert_sees_the_same(case: Case, found: Partial) -> None:
    mixed, logsum = seen_by(case)
    tolerance = 1e-5 if case.dtype == torch.float32 else 1e-2
    assert not found.mixed.isnan().any()
    assert not found.logsum.isnan().any()
    torch.testing.assert_close(found.logsum.logsumexp(0).double(), logsum, atol=tolerance, rtol=0)
    rows = ~logsum.isneginf().any(-1)
    for merged in (
        merge_pieces(found, torch.float32),
        merge_parts([Partial(*part) for part in zip(*found, strict=True)]).mixed,
    ):
        torch.testing.assert_close(merged[rows].double(), mixed[rows], atol=tolerance, rtol=0)


@pytest.mark.skipif(INTERPRETED, reason="the masks are used where there is no kernel")
@pytest.mark.parametrize("name", CASES)
def test_masks_see_what_a_row_may_see(name: str) -> None:
    assert_sees_the_same(CASES[name], attend(CASES[name]))


@interpreted
@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_sees_what_a_row_may_see(name: str, pieces: int) -> None:
    assert_sees_the_same(CASES[name], attend(CASES[name], pieces))


@interpreted
def test_the_kernel_takes_queries_and_keys_that_are_views() -> None:
    case = CASES["prompts of groups"]
    query, keys, values, runs, positions, options = case.make()
    out = blank(2, len(query), case.heads, case.value_size, query.device)
    laid_out_otherwise = keys.transpose(1, 2).contiguous().transpose(1, 2)
    table = torch.full((3, 9), -1)
    table[:, :3] = runs.rows_RQ
    spread = query.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    attend_runs(spread, laid_out_otherwise, values, runs._replace(rows_RQ=table[:, :3]), positions, options, out)
    assert_sees_the_same(case, out)


def test_parts_looked_at_together_are_those_looked_at_one_by_one() -> None:
    cases = [
        Case((5, 1, 40), ((0,), (1,), (2,)), 70),
        Case((130, 3), ((0, 2), (1,)), 200),
        Case((20,), ((0, 1, 2),), 64),
    ]
    asked = [case.make() for case in cases]
    query, options, positions = asked[0][0][:3], asked[0][-1], asked[0][-2][:3]
    for count in (2, 3):
        pieces = [1, 4, 2][:count] if INTERPRETED else [1] * count
        parts = [made[1:4] for made in asked[:count]]
        together = blank(sum(pieces), 3, 4, 16, query.device)
        attend_parts(query, parts, positions, options, pieces, together)
        alone = [blank(number, 3, 4, 16, query.device) for number in pieces]
        for part, out in zip(parts, alone, strict=True):
            attend_runs(query, *part, positions, options, out)
        for found, expected in zip(together, zip(*alone, strict=True), strict=True):
            torch.testing.assert_close(found, torch.cat(expected))


def test_rows_that_look_at_nothing_are_left_alone() -> None:
    case = replace(CASES["prompts of groups"], rows=((0, 4, 2), (), (5,)))
    found = attend(case, 1)
    assert found.logsum[:, [1, 3, 6]].isneginf().all()
    assert not found.mixed[:, [1, 3, 6]].any()


SHAPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize(
    ("dtype", "size", "shared", "each", "window", "softcap", "parts"),
    [
        ("bf16", 64, 7, 16, 0, 0.0, 3),
        ("bf16", 128, 6, 1, 0, 0.0, 2),
        ("bf16", 256, 2, 8, 512, 50.0, 2),
        ("fp32", 64, 1, 1, 0, 0.0, 2),
    ],
)
def test_the_kernel_compiles_for_a_gpu(
    dtype: str,
    size: int,
    shared: int,
    each: int,
    window: int,
    softcap: float,
    parts: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    from triton import compile  # type: ignore[import-not-found]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found]
    from triton.compiler import ASTSource  # type: ignore[import-not-found]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = decode_triton._attend
    keys = torch.empty(1, 1, 1, size, dtype=SHAPES[dtype])
    (own, block), (tile, _) = tile_sizes(shared, keys), tile_sizes(each * shared, keys)
    constants = {"H_KV": 2, "G": shared, "D_K": size, "D_V": size, "M": own, "M_2": tile, "M_3": tile, "N": block}
    constants |= {"WINDOW": window, "SOFTCAP": softcap, "COUNT": parts}
    constants |= dict.fromkeys(("each", "rows_run"), 1)  # then these are known to be 1 when it is compiled
    kinds = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(constants, "constexpr")
    kinds |= dict.fromkeys(("mixed", "logsum"), "*fp32") | {"scale": "fp32", "query": f"*{dtype}", "positions": "*i64"}
    for end in ("", "_2", "_3"):
        kinds |= {f"keys{end}": f"*{dtype}", f"values{end}": f"*{dtype}"}
        kinds |= dict.fromkeys([f"{name}{end}" for name in ("places", "lengths", "starts", "rows")], "*i64")
    aligned = [
        name for name in kernel.arg_names if kinds[name][0] == "*" or name.split("_")[0] in ("query", "key", "value")
    ]
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, kinds, constants, attributes)
    made = compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 8 if tile > 64 else 4, "num_stages": 2})
    assert made.metadata.shared <= 99 * 1024  # bytes that a program may have on the smaller GPUs, too
    assert ".local" not in made.asm["ptx"]  # nothing is spilled
    assert dtype == "fp32" or "mma" in made.asm["ptx"]  # tensor cores


@interpreted
def test_the_sampler_with_the_kernel_draws_what_it_draws_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = tiny_model("gemma2"), Sampling(4, 0.9, top_p=0.95, stop_ids=(1, 2, 3, 4))
    monkeypatch.setattr(decode_triton, "PIECE", 32)  # so that short runs are split, too
    monkeypatch.setattr(fast_triton, "fast_forwards", lambda model: ())  # layers have tests of their own
    asked = [Request(tuple(range(5, 75)) + (7 + i,) * (1 + 3 * i), 10 * i + j) for i in range(2) for j in range(2)]
    expected = NativeEngine(model).generate(asked, sampling)
    found = SlotEngine(model, 3, poll=2).generate(asked, sampling)
    assert [completion.token_ids for completion in found] == [completion.token_ids for completion in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.sampler_logprobs == pytest.approx(other.sampler_logprobs, abs=1e-5)


@pytest.mark.skipif(INTERPRETED, reason="starts the interpreter's process")
def test_the_kernel_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
