"""One update of the policy, trained by threads and by one-thread processes, in turns.

    python bench/training.py [--workload cpu-short] [--rounds 7] [--threads 2] [--json]

Both sides are in one process and make the same updates of the same random completions; nothing is sampled. Beside
wall and CPU time it says what the busiest process or thread used: on a machine that is shared that is the time the
update would take alone, which wall time is not. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from draws import draw_step
from session import check_machine, main_of, parser_of, say, warn_if_busy
from workloads import Workload, chosen, names

MODES = ("threads", "processes")


class Side:
    """A learner that trains in one of the two ways."""

    def __init__(self, model: Path, work: Workload, mode: str):
        from temper_step import configure

        from temper.stages.models import open_learner
        from temper.train.policy import PolicyLoss

        self.config = configure(work, 1000).model_copy(update={"parallel": mode})
        context: Any = SimpleNamespace(name="bench", seed=work.seed, log=SimpleNamespace(warn=say))
        self.learner = open_learner(model, self.config, 1000, context)
        self.loss = PolicyLoss(self.config, self.config.temperature)

    def update(self, examples: list[Any]) -> dict[str, float]:
        """One update, and what it took."""
        from temper.stages.grpo import update

        wall, own, thread, others = time.perf_counter(), time.process_time(), time.thread_time(), _children()
        update(self.config, self.learner, self.loss, None, [([examples], float(len(examples)))], None)
        children = _children() - others
        return {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - own + children,
            "busiest_seconds": max(time.thread_time() - thread, children),
        }


def _children() -> float:
    """CPU seconds of processes that have ended: the forked ones are the only ones here, and one at a time is timed."""
    times = os.times()
    return times.children_user + times.children_system


def examples_of(work: Workload) -> list[Any]:
    """The completions of one step, of random tokens, with random advantages."""
    from temper.types import PolicyExample

    draws, draw = draw_step(work, 1), random.Random(work.seed)
    return [
        PolicyExample(
            (*prompt, *(draw.randrange(work.eos) for _ in range(length))),
            (False,) * len(prompt) + (True,) * length,
            advantages=(draw.gauss(0, 1),) * length,
            sampler_logprobs=(-5.0,) * length,
            weight=1.0,
            kl_penalty=0.0,
        )
        for prompt, lengths in zip(draws.prompts, draws.lengths, strict=True)
        for length in lengths
    ]


def main() -> None:
    given = parser_of("an update by threads and by processes", [n for n in names() if n.startswith("cpu")], "cpu-short")
    given = given.parse_args()
    work = chosen(given.workload, given)
    check_machine(work, (), given)
    warn_if_busy()
    import torch
    from random_model import write_model

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        parameters = write_model(work, Path(folder) / "model")
        sides = {mode: Side(Path(folder) / "model", work, mode) for mode in MODES}
    examples = examples_of(work)
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for number in range(given.rounds + 1):
        for mode, side in sides.items():
            took = side.update(examples)
            if number:  # the first warms up
                found[mode].append(took)
                say(f"  {mode}: " + ", ".join(f"{name} {value:.2f}" for name, value in took.items()))
    line: dict[str, Any] = {"workload": given.workload, "parameters": parameters, "threads": given.threads}
    line["load_average"] = [round(value, 2) for value in os.getloadavg()]
    for name in ("seconds", "cpu_seconds", "busiest_seconds"):
        line[name] = {mode: round(median(one[name] for one in found[mode]), 3) for mode in MODES}
        pairs = zip(*(found[mode] for mode in MODES), strict=True)
        line[name]["ratio"] = round(median(ours[name] / theirs[name] for ours, theirs in pairs), 2)
    if not given.json:
        for name in ("seconds", "cpu_seconds", "busiest_seconds"):
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in line[name].items()))
    print(json.dumps(line))


if __name__ == "__main__":
    main_of(main)
