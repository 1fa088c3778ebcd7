"""temper's sampler against those of transformers: `generate`, with a static cache, and continuous batching.

    python bench/sampler.py --workload sample-cpu-short [--json]

Fresh processes take turns. A sampler that cannot run here has the reason in its row. The last line of standard output
is one JSON object (docs/bench.md).
"""

from __future__ import annotations

import json
import os
from typing import Any

from children import ChildError, Runner
from session import check_same_model, main_of, notes, open_runner, parser_of, prepare, say, timed_draws
from summary import Figures, busy_text, figures, floor_text, mean_floor, sampler_line, table
from workloads import SAMPLE, WORKLOADS

VARIANTS = ("generate", "static", "continuous")  # as transformers_sample.py knows them


def take_turns(runner: Runner, rounds: int) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]] | str]]:
    """The results of all rounds: temper's, and each variant's or why it gave none."""
    ours: list[dict[str, Any]] = []
    theirs: dict[str, list[dict[str, Any]] | str] = {variant: [] for variant in VARIANTS}
    for number in range(rounds):
        watch = number == 0 and runner.work.device == "cpu"
        say(f"round {number + 1} of {rounds}: temper")
        ours.append(runner.run("temper_step.py", watch=watch))
        for variant, results in theirs.items():
            if isinstance(results, str):
                continue
            say(f"round {number + 1} of {rounds}: {variant}")
            try:
                results.append(runner.run("transformers_sample.py", variant, watch=watch))
            except ChildError as error:
                say(f"  {error}")
                theirs[variant] = str(error).strip().splitlines()[-1]
    return ours, theirs


def main() -> None:
    names = [SAMPLE + name for name in WORKLOADS]
    parser = parser_of("temper's sampler against those of transformers", names + list(WORKLOADS), names[0])
    given = parser.parse_args()
    given.workload = SAMPLE + given.workload.removeprefix(SAMPLE)
    load = os.getloadavg()
    with open_runner(given, True, ("transformers",)) as runner:
        model, rates = prepare(runner)
        ours, theirs = take_turns(runner, given.rounds)
        measured = [result for results in theirs.values() if not isinstance(results, str) for result in results]
        check_same_model(model, ours + measured)
        temper = figures(ours)
        others: dict[str, Figures | str] = {
            name: results if isinstance(results, str) else figures(results) for name, results in theirs.items()
        }
        floor = mean_floor(runner.work, timed_draws(runner), rates, True)
        more = notes(runner, model, load, given.rounds)
    more["versions"] = ours[0]["versions"] | (measured[0]["versions"] if measured else {})
    rows = {"temper": temper, **others}
    line = sampler_line(given.workload, temper, others, floor, rates, more)
    if warning := busy_text(rows):
        say(warning)
    if not given.json:
        print(f"{given.workload}: {more['parameters']:,} parameters, {more['completion_tokens']:,.0f} tokens a step")
        print(table(rows, True))
        print(floor_text(temper, floor, rates))
    print(json.dumps(line))


if __name__ == "__main__":
    main_of(main)
