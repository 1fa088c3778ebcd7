"""The least time a step can take on this machine: useful work over the rates measured here.

Useful work: a prompt is computed once for its whole group, no token of padding, nothing for groups without a gradient.
The phases of a decode step (matrices, cache, logits) follow one another, as do decode, training and the optimiser.

Usage: python floor.py SPEC.json      measures the rates of the workload's device and dtype
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from child import connect
from workloads import Workload

BACKWARD = 2.5  # attention's backward pass over its forward: five matrix products to two
OPTIMIZER_BYTES = {"float32": 28, "bfloat16": 30}  # per parameter; AdamW reads p, m, v, g and writes p, m, v
LOGIT_PASSES = 2  # logits are written once and read once


@dataclass(frozen=True)
class Rates:
    """What the machine does at best: `flops` a second in a large matrix product, `bytes` a second in a large copy."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Floor:
    """Seconds of each phase of a step."""

    prefill: float
    decode: float
    reference: float = 0.0
    training: float = 0.0
    optimizer: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(asdict(self).values())


def body_parameters(work: Workload) -> int:
    """Weights of all matrices but the head's."""
    attention = 2 * work.hidden * work.heads * work.head_size + 2 * work.hidden * work.kv_heads * work.head_size
    return work.layers * (attention + 3 * work.hidden * work.intermediate)


def head_parameters(work: Workload) -> int:
    return work.vocab * work.hidden


def attention_flops(work: Workload, queries: float, context: float) -> float:
    return 4 * work.heads * work.head_size * work.layers * queries * context


def sampling_floor(work: Workload, lengths: Sequence[Sequence[int]], rates: Rates) -> Floor:
    """Prefill and decode of groups of completions with these lengths. The prefill gives the first token of each."""
    element = 4 if work.dtype == "float32" else 2
    body, head = body_parameters(work), head_parameters(work)
    tokens = work.prompts * work.prompt_tokens
    flops = 2 * body * tokens + attention_flops(work, tokens, work.prompt_tokens / 2)
    prefill = max(flops / rates.flops, body * element / rates.bytes)
    cached = 2 * work.layers * work.kv_heads * work.head_size * element  # bytes a token
    decode = 0.0
    for own in range(1, max(map(max, lengths))):  # tokens of a completion that stand in the cache
        rows = sum(length > own for group in lengths for length in group)
        prompts = sum(max(group) > own for group in lengths)
        matrices = max(2 * (body + head) * rows / rates.flops, (body + head) * element / rates.bytes)
        cache = (prompts * work.prompt_tokens + rows * own) * cached / rates.bytes
        logits = rows * work.vocab * element * LOGIT_PASSES / rates.bytes
        decode += matrices + cache + logits
    return Floor(prefill, decode)


def step_floor(work: Workload, lengths: Sequence[Sequence[int]], alive: Sequence[bool], rates: Rates) -> Floor:
    """A whole step. With a KL term every group carries a gradient, whatever its rewards."""
    trained = [group for group, lives in zip(lengths, alive, strict=True) if lives or work.kl > 0]
    prompt, completion = len(trained) * work.prompt_tokens, sum(map(sum, trained))
    attention = attention_flops(work, prompt, work.prompt_tokens / 2)
    for length in (length for group in trained for length in group):
        attention += attention_flops(work, length, work.prompt_tokens + length / 2)
    body, head = body_parameters(work), head_parameters(work)
    matrices = 2 * (body * (prompt + completion) + head * completion)
    sampling = sampling_floor(work, lengths, rates)
    return Floor(
        sampling.prefill,
        sampling.decode,
        reference=(matrices + attention) / rates.flops if work.kl > 0 else 0.0,
        training=(3 * matrices + (1 + BACKWARD) * attention) / rates.flops,
        optimizer=OPTIMIZER_BYTES[work.dtype] * (body + head) / rates.bytes,
    )


def measure(work: Workload) -> Rates:
    """The best of many short trials of each; about three seconds."""
    import torch

    dtype, device = getattr(torch, work.dtype), work.device
    best_flops = 0.0
    for size in (1024, 2048) if device == "cpu" else (4096, 8192):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        seconds = _best(lambda a=left, b=right, c=out: torch.matmul(a, b, out=c), device, 0.8)
        best_flops = max(best_flops, 2 * size**3 / seconds)
    source = torch.ones((1 << 28 if device == "cpu" else 1 << 32) // 4, device=device)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), device, 0.8)
    return Rates(best_flops, 2 * source.numel() * source.element_size() / seconds)


def _best(do: Callable[[], Any], device: str, total: float) -> float:
    """The shortest of the trials that fit into `total` seconds, at least three."""
    import torch

    do()
    trials: list[float] = []
    while len(trials) < 3 or sum(trials) < total:
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        do()
        if device == "cuda":
            torch.cuda.synchronize()
        trials.append(time.perf_counter() - began)
    return min(trials)


def device_name(device: str) -> str:
    """What the machine calls its device."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def main() -> None:
    job = connect()
    job.result(rates=asdict(measure(job.work)), device=device_name(job.work.device))


if __name__ == "__main__":
    main()
