"""Attention of CUDA's variable-length path, its two kernels replaced by loops: what is merged, and how gradients are
handed out, is that of plain attention, in float64. The kernels themselves are probed on a device before their use."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.test_packed_attention import HEADS, KEY_HEADS, SIZE, families, layout, plain
from torch import Tensor

from temper.kernels.attention import Options
from temper.kernels.varlen import Kernels, Spans, attend, spans_of, works_on


def scores_of(query: Tensor, key: Tensor, spans: Spans, number: int, scale: float) -> tuple[slice, slice, Tensor]:
    asked = slice(int(spans.query_ends[number]), int(spans.query_ends[number + 1]))
    seen = slice(int(spans.key_ends[number]), int(spans.key_ends[number + 1]))
    keys = key[seen].repeat_interleave(HEADS // KEY_HEADS, 1)
    scores = torch.einsum("qhd,khd->hqk", query[asked], keys) * scale
    if spans.causal:
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), float("-inf"))
    return asked, seen, scores


def forward(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> tuple[Tensor, Tensor]:
    mixed, logsum = torch.empty_like(query), query.new_empty(query.shape[:2])
    for number in range(len(spans.query_ends) - 1):
        asked, seen, scores = scores_of(query, key, spans, number, scale)
        values = value[seen].repeat_interleave(HEADS // KEY_HEADS, 1)
        mixed[asked] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
        logsum[asked] = scores.logsumexp(-1).T
    return mixed, logsum


def backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, logsum: Tensor, spans: Spans,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """By the formula: P = exp(scores − logsum), dS = P (dO·V − dO·O)."""
    found = [torch.zeros_like(tensor) for tensor in (query, key, value)]
    shared = HEADS // KEY_HEADS
    for number in range(len(spans.query_ends) - 1):
        asked, seen, scores = scores_of(query, key, spans, number, scale)
        weights = (scores - logsum[asked].T[:, :, None]).exp()
        values, keys = (tensor[seen].repeat_interleave(shared, 1) for tensor in (value, key))
        inner = (gradient[asked] * mixed[asked]).sum(-1).T[:, :, None]
        of_scores = weights * (torch.einsum("qhd,khd->hqk", gradient[asked], values) - inner) * scale
        found[0][asked] += torch.einsum("hqk,khd->qhd", of_scores, keys)
        of_keys = torch.einsum("hqk,qhd->khd", of_scores, query[asked])
        of_values = torch.einsum("hqk,qhd->khd", weights, gradient[asked])
        found[1][seen] += of_keys.unflatten(1, (KEY_HEADS, shared)).sum(2)
        found[2][seen] += of_values.unflatten(1, (KEY_HEADS, shared)).sum(2)
    return found[0], found[1], found[2]


@given(families=families, prefixes_first=st.booleans())
@settings(max_examples=30, deadline=None)
def test_values_and_gradients_are_those_of_plain_attention(families: list, prefixes_first: bool) -> None:
    rows, positions = layout(families, prefixes_first)
    generator = torch.Generator().manual_seed(len(positions))
    shapes = [(1, heads, len(positions), SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)]
    *inputs, weights = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    spans = spans_of(rows, torch.device("cpu"))
    packed = (tensor[0].transpose(0, 1) for tensor in inputs)
    found = attend(*packed, spans, 0.3, Kernels(forward, backward)).transpose(0, 1)[None]
    expected = plain(*inputs, rows, Options(0.3, None, None))
    assert (found - expected).abs().max() <= 1e-10
    ours, theirs = (torch.autograd.grad((out * weights).sum(), inputs) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-10 * max(1.0, other.norm().item())


def test_kernels_that_are_not_there_are_not_used() -> None:
    assert not works_on(torch.device("cpu"), torch.bfloat16, HEADS, KEY_HEADS, SIZE)
