"""Where the time of a decode step, or of a training step, goes on the device: operations by time, launches counted.

    python bench/gpu_profile.py decode --workload h200-05b
    python bench/gpu_profile.py training --workload h200-05b

The last line of standard output is one JSON object. Step 0 warms up, step 1 is timed, step 2 is profiled.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from draws import draw_step
from gpu_checks import machine
from random_model import write_model
from session import main_of
from temper_step import configure, groups_of, requests_of
from workloads import Workload, add_fields, chosen, names

from temper.errors import Exit, Fault, TemperError
from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards
from temper.models.load import load_model
from temper.rollout.engine import Sampling
from temper.rollout.slots import SlotEngine, decode_step
from temper.stages.grpo import mini_batches, outcome_advantages, total_rewards, update
from temper.stages.models import open_learner
from temper.text.tokenizer import load_tokenizer
from temper.train.policy import PolicyLoss

MOST = 25  # operations that are listed
REPLAYS = 32  # steps that are timed


def profiled(step: Callable[[], object], device: str) -> dict[str, Any]:
    """Launches and the operations that take most of the time of `step`, by their own time on the device."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
        wait(device)
    events = list(profile.key_averages())
    if device == "cuda":
        times = {event.key: (event.self_device_time_total, event.count) for event in on_device(events)}
    else:
        times = {event.key: (event.self_cpu_time_total, event.count) for event in events}
    total = sum(time for time, _ in times.values()) or 1.0
    listed = sorted(times.items(), key=lambda item: -item[1][0])[:MOST]
    return {
        "launches": sum(count for _, count in times.values()),
        "milliseconds": total / 1e3,
        "operations": [
            {"name": name[:120], "milliseconds": time / 1e3, "share": time / total, "count": count}
            for name, (time, count) in listed
        ],
    }


def on_device(events: Iterable[Any]) -> Iterable[Any]:
    """Kernels and copies, without the operations that launched them."""
    return (event for event in events if event.device_type.name == "CUDA")


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(step: Callable[[], object], device: str, times: int = 1) -> float:
    """Milliseconds of one `step`."""
    wait(device)
    began = time.perf_counter()
    for _ in range(times):
        step()
    wait(device)
    return (time.perf_counter() - began) * 1e3 / times


@torch.no_grad()
def decode(work: Workload, folder: Path) -> dict[str, Any]:
    """One token of every row, half the completion written: as a graph, and one operation at a time."""
    model = load_model(folder, work.dtype, work.device).eval()  # type: ignore[arg-type]
    engine = SlotEngine(model, work.rows)
    draws = draw_step(work, 0)
    requests = requests_of(draws, draws.prompts, work, 0)
    began = time.perf_counter()
    engine.generate(requests, Sampling(work.new_tokens))
    whole = time.perf_counter() - began
    buffers, sampling = engine._buffers, Sampling(work.new_tokens)
    assert buffers is not None
    slots = buffers.layout.slots
    stop_ids = torch.tensor([], dtype=torch.long, device=buffers.device)
    groups = [(run, work.prompt_tokens, list(range(run * work.group, (run + 1) * work.group)))
              for run in range(work.prompts)]  # fmt: skip

    def set_back() -> None:  # every row has half of its tokens
        buffers.reset(0)
        buffers.look(groups)
        buffers.state[2, : work.rows] = work.prompt_tokens
        buffers.state[3, : work.rows] = work.new_tokens
        buffers.state[4, : work.rows] = max(1, work.new_tokens // 2)
        buffers.state[5, : work.rows] = 1

    def call() -> None:
        decode_step(model, buffers, slots, sampling, stop_ids)

    def replay() -> None:
        engine.graphs.run("profile", call, 1)

    set_back()
    found = {"slots": slots, "first_call_seconds": whole}
    with in_place(scoring_forwards(model)):
        for _ in range(4):  # warms up and captures
            replay()
        found["graph_milliseconds"] = timed(replay, work.device, min(REPLAYS, work.new_tokens // 4 + 1))
        found["called_milliseconds"] = timed(call, work.device, 2)
        return {**found, "step": profiled(call, work.device)}


def training(work: Workload, folder: Path) -> dict[str, Any]:
    """The update of one step, micro-batches and optimiser included; completions are made up."""
    steps = 4
    config = configure(work, steps)
    tokenizer = load_tokenizer(folder.parent / "tokenizer")
    log = SimpleNamespace(warn=lambda text: print(text, file=sys.stderr))
    context: Any = SimpleNamespace(name="profile", seed=work.seed, log=log)
    learner = open_learner(folder, config, steps, context)
    loss = PolicyLoss(config, config.temperature)
    engine = SlotEngine(learner.model, work.rows)
    draws = draw_step(work, 1)
    completions = engine.generate(requests_of(draws, draws.prompts, work, 1), Sampling(work.new_tokens))
    engine.release()
    groups = groups_of(draws, draws.prompts, completions, tokenizer)
    advantages = outcome_advantages(config, total_rewards(config, groups, []), groups)

    def step() -> None:
        update(config, learner, loss, None, mini_batches(config, groups, advantages, ()))

    first = timed(step, work.device)
    if work.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = {"first_milliseconds": first, "milliseconds": timed(step, work.device), "compile": work.compile}
    peak = torch.cuda.max_memory_allocated() if work.device == "cuda" else None
    return {**found, "peak_memory_bytes": peak, "step": profiled(step, work.device)}


def main() -> None:
    parser = argparse.ArgumentParser(description="where the time of a decode or training step goes")
    parser.add_argument("what", choices=("decode", "training"))
    parser.add_argument("--workload", choices=names(), default="h200-05b", metavar="NAME", help=", ".join(names()))
    add_fields(parser)
    given = parser.parse_args()
    work = chosen(given.workload, given)
    if work.device == "cuda" and not torch.cuda.is_available():
        raise TemperError(Fault("this workload needs a CUDA device, and PyTorch finds none"), Exit.RESOURCES)
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as scratch:
        folder = Path(scratch) / "model"
        parameters = write_model(work, folder)
        found = (decode if given.what == "decode" else training)(work, folder)
    line = {"what": given.what, "workload": given.workload, "parameters": parameters, "rows": work.rows}
    print(json.dumps({**line, "machine": machine(work.device), **found}))


if __name__ == "__main__":
    main_of(main)
