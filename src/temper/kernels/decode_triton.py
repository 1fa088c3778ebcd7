"""Attention of one new token a row over runs of keys: two Triton kernels, and the same with masks in plain torch.

A run is a stretch of keys and values: a row's own tokens, or a prompt that many rows look back to. Who looks at what
is read on the device, so a captured step stays valid while rows come and go.

Shapes: S rows, H heads, H_kv key heads, G = H / H_kv, D head size; P places for runs of at most T tokens, R runs that
are looked at, Q rows that look at one of them, C pieces that a run is split into.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from temper.kernels.attention import Options, Partial

try:
    import triton  # type: ignore[import-not-found]
    import triton.language as tl  # type: ignore[import-not-found]
except ImportError:  # there is no Triton for every platform
    triton: Any = None
    tl: Any = None

PROGRAMS = 256  # that keep a large GPU busy: about two for each of its processors
PIECE = 64  # tokens, below which splitting a run further gains nothing
MOST_PIECES = 16
PARTS = 3  # of keys that one launch looks at: a row's own, its prompt's, those of a prefix of all prompts


class Runs(NamedTuple):
    """Runs of keys and the rows that look at them."""

    places_R: Tensor  # where the run stands among the keys
    lengths_R: Tensor  # its tokens; what stands behind them is never looked at
    starts_R: Tensor  # position of its first token
    rows_RQ: Tensor  # -1 is nobody


Part = tuple[Tensor, Tensor, Runs]  # keys and values [P, H_kv, T, D], and who looks at which


def uses_kernel(device: torch.device) -> bool:
    """Whether attention on `device` is Triton's (on a CPU: in its interpreter)."""
    return triton is not None and (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


def count_pieces(runs: Runs, keys: Tensor, heads: int) -> int:
    """How many pieces each run's keys [P, H_kv, T, D] are split into, so that few rows still keep the GPU busy."""
    if not uses_kernel(keys.device):
        return 1
    queries = runs.rows_RQ.shape[1] * heads // keys.shape[1]
    programs = len(runs.rows_RQ) * keys.shape[1] * -(-queries // tile_sizes(queries, keys)[0])
    most = min(MOST_PIECES, keys.shape[2] // PIECE, PROGRAMS // programs)
    return 1 << (max(1, most).bit_length() - 1)


def tile_sizes(queries: int, keys: Tensor) -> tuple[int, int]:
    """(queries, keys) that a program holds at a time: what fits the memory that its threads share."""
    wide = keys.shape[-1] * keys.element_size()
    return min(128 if wide <= 256 else 64, max(16, 1 << (queries - 1).bit_length())), max(16, min(64, 16384 // wide))


def blank(pieces: int, rows: int, heads: int, size: int, device: torch.device) -> Partial:
    """[C, S, H, D] and [C, S, H] for `attend_runs` to write in; as yet nobody has seen a key."""
    mixed = torch.zeros(pieces, rows, heads, size, device=device)
    return Partial(mixed, torch.full((pieces, rows, heads), float("-inf"), device=device))


def attend_runs(
    query_SHD: Tensor, keys: Tensor, values: Tensor, runs: Runs, positions_S: Tensor, options: Options, out: Partial
) -> None:
    """Write what each row's query finds in its run's keys and values [P, H_kv, T, D], piece after piece.

    No key of a run stands behind a query that looks at it. Rows that `runs` does not name stay as they are.
    """
    attend_parts(query_SHD, [(keys, values, runs)], positions_S, options, [len(out.mixed)], out)


def attend_parts(
    query_SHD: Tensor, parts: Sequence[Part], positions_S: Tensor, options: Options, pieces: Sequence[int],
    out: Partial,
) -> None:  # fmt: skip
    """The same for up to three parts of keys in one launch, the `pieces` of each after those of the one before."""
    assert len(parts) <= PARTS
    if not uses_kernel(query_SHD.device):
        for part, piece in zip(parts, zip(*(tensor.split(list(pieces)) for tensor in out), strict=True), strict=True):
            _with_masks(query_SHD, *part, positions_S, options, Partial(*piece))
        return
    key_heads, shared = parts[0][0].shape[1], query_SHD.shape[1] // parts[0][0].shape[1]
    query_SHD = query_SHD if query_SHD.stride(-1) == 1 else query_SHD.contiguous()
    asked: list[Any] = []
    tiles, ends, end = [], [], 0
    for (keys, values, runs), count in zip(parts, pieces, strict=True):
        each = runs.rows_RQ.shape[1]
        tile, _ = tile_sizes(each * shared, keys)
        end += len(runs.rows_RQ) * key_heads * -(-each * shared // tile) * count
        tiles.append(tile)
        ends.append(end)
        asked += [keys, values, *runs, each, runs.rows_RQ.stride(0), *keys.stride()[:3], *values.stride()[:3], count]
    for _ in range(PARTS - len(parts)):  # never reached
        asked += asked[: len(asked) // len(tiles)]
        tiles.append(tiles[0])
        ends.append(end)
    size = parts[0][0].shape[-1]
    _attend[(end,)](
        query_SHD, positions_S, *out, options.scale, len(query_SHD), *query_SHD.stride()[:2], *asked, *ends[:-1],
        H_KV=key_heads, G=shared, D_K=size, D_V=parts[0][1].shape[-1], M=tiles[0], M_2=tiles[1], M_3=tiles[2],
        N=tile_sizes(1, parts[0][0])[1], WINDOW=options.window or 0, SOFTCAP=options.softcap or 0.0,
        COUNT=len(parts), num_warps=8 if max(tiles) > 64 else 4, num_stages=2,
    )  # fmt: skip


def merge_pieces(out: Partial, dtype: torch.dtype) -> Tensor:
    """Attention [S, H, D] over the keys of all pieces together; each row has seen a key in one of them."""
    if not uses_kernel(out.mixed.device):
        return (out.logsum.softmax(0)[..., None] * out.mixed).sum(0).to(dtype)
    pieces, rows, heads, size = out.mixed.shape
    merged = torch.empty(rows, heads, size, dtype=dtype, device=out.mixed.device)
    _merge[(rows,)](
        *out, merged, pieces, rows, H=heads, D=size, HEADS=triton.next_power_of_2(heads),
        SIZE=triton.next_power_of_2(size), num_warps=4,
    )  # fmt: skip
    return merged


def _with_masks(
    query: Tensor, keys: Tensor, values: Tensor, runs: Runs, positions: Tensor, options: Options, out: Partial
) -> None:
    """The same in plain torch; all in the first piece."""
    keys, values = keys[runs.places_R].float(), values[runs.places_R].float()
    rows, asked = runs.rows_RQ, query[runs.rows_RQ.clamp_min(0)].float()
    asked = asked.unflatten(2, (keys.shape[1], -1)).permute(0, 2, 1, 3, 4).flatten(2, 3)  # [R, H_kv, Q·G, D]
    shared = asked.shape[2] // rows.shape[1]
    index = torch.arange(keys.shape[2], device=keys.device)
    inside = index < runs.lengths_R[:, None]
    seen = inside[:, None].expand(-1, rows.shape[1], -1)
    if options.window is not None:
        distance = positions[rows.clamp_min(0)][..., None] - runs.starts_R[:, None, None] - index
        seen = seen & (distance < options.window)
    scores = asked @ keys.transpose(-1, -2) * options.scale
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    scores = scores.masked_fill(~seen.repeat_interleave(shared, 1)[:, None], float("-inf"))
    peak = scores.amax(-1, keepdim=True).clamp_min(-1e30)  # finite, also where no key is seen
    weights = (scores - peak).exp()
    total = weights.sum(-1, keepdim=True)
    mixed = weights @ values.masked_fill(~inside[:, None, :, None], 0) / total.clamp_min(1e-30)
    for into, found in zip(out, (mixed, peak + total.log()), strict=True):
        found = found.unflatten(2, (-1, shared)).transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [R·Q, H, D or 1]
        spare = torch.cat([into[0], into[0, :1]])  # the last is for what nobody asked
        spare[torch.where(rows < 0, len(query), rows).flatten()] = found.reshape(-1, *into.shape[2:])
        into[0] = spare[:-1]


# pyright: reportInvalidTypeForm=false
if triton is not None:

    @triton.jit
    def _attend(
        query, positions, mixed, logsum, scale, count, query_row, query_head,
        keys, values, places, lengths, starts, rows, each, rows_run, key_place, key_head, key_token, value_place,
        value_head, value_token, pieces,
        keys_2, values_2, places_2, lengths_2, starts_2, rows_2, each_2, rows_run_2, key_place_2, key_head_2,
        key_token_2, value_place_2, value_head_2, value_token_2, pieces_2,
        keys_3, values_3, places_3, lengths_3, starts_3, rows_3, each_3, rows_run_3, key_place_3, key_head_3,
        key_token_3, value_place_3, value_head_3, value_token_3, pieces_3,
        end, end_2,
        H_KV: tl.constexpr, G: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr, M: tl.constexpr, M_2: tl.constexpr,
        M_3: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, COUNT: tl.constexpr,
    ):  # fmt: skip
        """Each program has its share of one of COUNT parts: the first `end` of the first, up to `end_2` the second."""
        program = tl.program_id(0)
        if program < end:
            _look(
                program, 0, query, positions, mixed, logsum, scale, count, query_row, query_head,
                keys, values, places, lengths, starts, rows, each, rows_run, key_place, key_head, key_token,
                value_place, value_head, value_token, pieces,
                H_KV, G, D_K, D_V, M, N, WINDOW, SOFTCAP,
            )  # fmt: skip
        if COUNT >= 2:  # noqa: SIM102  (decided when it is compiled)
            if (program >= end) & (program < end_2):
                _look(
                    program - end, pieces, query, positions, mixed, logsum, scale, count, query_row, query_head,
                    keys_2, values_2, places_2, lengths_2, starts_2, rows_2, each_2, rows_run_2, key_place_2,
                    key_head_2, key_token_2, value_place_2, value_head_2, value_token_2, pieces_2,
                    H_KV, G, D_K, D_V, M_2, N, WINDOW, SOFTCAP,
                )  # fmt: skip
        if COUNT == 3:  # noqa: SIM102
            if program >= end_2:
                _look(
                    program - end_2, pieces + pieces_2, query, positions, mixed, logsum, scale, count, query_row,
                    query_head,
                    keys_3, values_3, places_3, lengths_3, starts_3, rows_3, each_3, rows_run_3, key_place_3,
                    key_head_3, key_token_3, value_place_3, value_head_3, value_token_3, pieces_3,
                    H_KV, G, D_K, D_V, M_3, N, WINDOW, SOFTCAP,
                )  # fmt: skip

    @triton.jit
    def _look(
        program, before, query, positions, mixed, logsum, scale, count, query_row, query_head,
        keys, values, places, lengths, starts, rows, each, rows_run, key_place, key_head, key_token, value_place,
        value_head, value_token, pieces,
        H_KV: tl.constexpr, G: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
        WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    ):  # fmt: skip
        """M queries of one key head over one piece of the run that they look at, N keys at a time."""
        piece, tiles = program % pieces, tl.cdiv(each * G, M)
        program = program // pieces
        tile, head, run = program % tiles, program // tiles % H_KV, program // tiles // H_KV
        asked = tile * M + tl.arange(0, M)
        row = tl.load(rows + run * rows_run + asked // G, mask=asked // G < each, other=-1)
        somebody = row >= 0
        position = tl.load(positions + row, mask=somebody, other=0).to(tl.int32)
        start, end = tl.load(starts + run).to(tl.int32), tl.load(lengths + run).to(tl.int32)
        end = tl.where(tl.max(row, axis=0) >= 0, end, 0)
        begin = 0
        if WINDOW > 0:
            begin = tl.maximum(tl.min(tl.where(somebody, position, 1 << 30), axis=0) - WINDOW + 1 - start, 0)
        share = tl.cdiv(tl.cdiv(tl.maximum(end - begin, 0), pieces), N) * N
        first = begin + piece * share
        last = tl.minimum(first + share, end)
        d_k = tl.arange(0, max(16, triton.next_power_of_2(D_K)))
        d_v = tl.arange(0, max(16, triton.next_power_of_2(D_V)))
        place = tl.load(places + run).to(tl.int64)
        at_k = keys + place * key_place + head * key_head + d_k[:, None]
        at_v = values + place * value_place + head * value_head + d_v[None, :]
        at_q = query + row[:, None] * query_row + (head * G + asked % G)[:, None] * query_head + d_k[None, :]
        q = tl.load(at_q, mask=somebody[:, None] & (d_k < D_K)[None, :], other=0).to(keys.dtype.element_ty)
        peak, total = tl.full([M], float("-inf"), tl.float32), tl.zeros([M], tl.float32)
        found = tl.zeros([M, d_v.shape[0]], tl.float32)
        for block in range(first, last, N):
            index = block + tl.arange(0, N)
            inside = index < last
            k = tl.load(at_k + index[None, :] * key_token, mask=inside[None, :] & (d_k < D_K)[:, None], other=0)
            v = tl.load(at_v + index[:, None] * value_token, mask=inside[:, None] & (d_v < D_V)[None, :], other=0)
            scores = tl.dot(q, k, input_precision="ieee") * scale
            if SOFTCAP > 0:
                scores = (2 * tl.sigmoid(2 * scores / SOFTCAP) - 1) * SOFTCAP  # the hyperbolic tangent
            scores = tl.where(inside[None, :], scores, float("-inf"))
            if WINDOW > 0:
                scores = tl.where(position[:, None] - start - index[None, :] < WINDOW, scores, float("-inf"))
            higher = tl.maximum(peak, tl.max(scores, axis=1))
            base = tl.where(higher == float("-inf"), 0.0, higher)  # no key seen as yet: all weights are 0
            weights, kept = tl.exp(scores - base[:, None]), tl.exp(peak - base)
            found = found * kept[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            total = total * kept + tl.sum(weights, axis=1)
            peak = higher
        to = ((before + piece) * count + row) * (H_KV * G) + head * G + asked % G
        divisor = tl.where(total > 0, total, 1.0)  # where no key was seen, `peak` is −inf
        tl.store(logsum + to, peak + tl.log(divisor), mask=somebody)
        inside = somebody[:, None] & (d_v < D_V)[None, :]
        tl.store(mixed + to[:, None] * D_V + d_v[None, :], found / divisor[:, None], mask=inside)

    @triton.jit
    def _merge(
        mixed, logsum, out, pieces, count, H: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr
    ):
        """One program: all heads of a row; what nobody wrote is not read."""
        row, head, column = tl.program_id(0).to(tl.int64), tl.arange(0, HEADS), tl.arange(0, SIZE)
        inside = (head < H)[:, None] & (column < D)[None, :]
        peak = tl.full([HEADS], float("-inf"), tl.float32)
        for piece in range(pieces):
            at = logsum + (piece * count + row) * H + head
            peak = tl.maximum(peak, tl.load(at, mask=head < H, other=float("-inf")))
        base = tl.where(peak == float("-inf"), 0.0, peak)
        total, found = tl.zeros([HEADS], tl.float32), tl.zeros([HEADS, SIZE], tl.float32)
        for piece in range(pieces):
            at = (piece * count + row) * H + head
            share = tl.exp(tl.load(logsum + at, mask=head < H, other=float("-inf")) - base)
            seen = inside & (share > 0)[:, None]
            found += share[:, None] * tl.load(mixed + at[:, None] * D + column[None, :], mask=seen, other=0)
            total += share
        found = found / tl.where(total > 0, total, 1.0)[:, None]
        to = (row * H + head)[:, None] * D + column[None, :]
        tl.store(out + to, found.to(out.dtype.element_ty), mask=inside)
