"""A decode step of temper's CPU sampler, in C and by torch's operations: milliseconds of one thread's CPU time.

    python bench/decode.py                                       # the shape of tiny: 0.93 M parameters
    python bench/decode.py --hidden 576 --intermediate 1536 --layers 30 --heads 9 --kv-heads 3 --vocab 49152 \\
        --new-tokens 12 --counts 1,8,32                          # SmolLM2-135M's shape

CPU time, the least of some rounds, so other work on the machine counts little; the prefill is taken off. The last line
is one JSON object: for each number of rows both ways, and the least time that reading the weights once takes here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from floor import body_parameters, device_name, head_parameters
from random_model import write_model
from session import main_of
from workloads import Workload, add_fields, chosen

from temper.models.load import load_model
from temper.rollout.compiled import CompiledSteps, stack_of
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine

ROUNDS = 3


def seconds(model: Any, work: Workload, rows: int) -> float:
    """CPU seconds of one decode step of `rows` rows, groups of `work.group` sharing a prompt."""

    def take(tokens: int) -> float:
        engine, began = NativeEngine(model), time.process_time()
        engine.generate(asked, Sampling(tokens))
        return time.process_time() - began

    prompts = [tuple((7 * n + i) % (work.vocab - 10) for i in range(work.prompt_tokens)) for n in range(rows)]
    asked = [Request(prompts[row // work.group], row) for row in range(rows)]
    whole, first = (min(take(tokens) for _ in range(ROUNDS)) for tokens in (work.new_tokens, 1))
    return (whole - first) / (work.new_tokens - 1)


def by_torch(model: Any, work: Workload, rows: int) -> float:
    """The same without C."""
    of, CompiledSteps.of = CompiledSteps.of, staticmethod(lambda *_: None)  # type: ignore[method-assign]
    try:
        return seconds(model, work, rows)
    finally:
        CompiledSteps.of = of  # type: ignore[method-assign]


def bandwidth() -> float:
    """Bytes a second that one thread reads from memory, or from the caches where the weights fit them: its sum."""
    source = torch.ones(1 << 26)
    best = min(_clocked(lambda: source.sum()) for _ in range(5))
    return source.numel() * 4 / best


def _clocked(do: Any) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="a decode step in C and by torch's operations")
    parser.add_argument("--counts", default="1,4,8,16,64,256", metavar="N,N", help="numbers of rows")
    add_fields(parser)
    parser.set_defaults(vocab=640, new_tokens=100)
    given = parser.parse_args()
    work = chosen("cpu-short", given)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as scratch:
        write_model(work, Path(scratch) / "model")
        model = load_model(Path(scratch) / "model", "float32")
        if stack_of(model) is None:
            print("this model's steps are not computed in C here", file=sys.stderr)
        found = []
        for rows in map(int, given.counts.split(",")):
            in_c, torchs = seconds(model, work, rows), by_torch(model, work, rows)
            found.append({"rows": rows, "milliseconds": in_c * 1e3, "torch_milliseconds": torchs * 1e3,
                          "ratio": torchs / in_c, "tokens_per_second": rows / in_c})  # fmt: skip
            print(f"{rows:4} rows: {in_c * 1e3:8.3f} ms, torch {torchs * 1e3:8.3f} ms, {torchs / in_c:5.1f} ×, "
                  f"{rows / in_c:8,.0f} tokens/s")  # fmt: skip
    parameters = body_parameters(work) + head_parameters(work)
    rate = bandwidth()
    line = {"parameters": parameters, "device": device_name("cpu"), "bytes_per_second": rate}
    print(json.dumps({**line, "weights_milliseconds": 4e3 * parameters / rate, "steps": found}))


if __name__ == "__main__":
    main_of(main)
