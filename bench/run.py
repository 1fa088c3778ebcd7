"""temper against TRL: the whole GRPO step, or (names with `sample-`) its generation part, side by side.

    python bench/run.py --workload cpu-short [--alone] [--json]

Fresh processes of both libraries take turns; with `--alone` there are those of temper only. The last line of standard
output is one JSON object (docs/bench.md).
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from children import ChildError, Runner
from session import check_same_model, is_sample, main_of, notes, open_runner, parser_of, prepare, say, timed_draws
from summary import busy_text, figures, floor_text, mean_floor, step_line, table
from workloads import micro_batch, names


def peer_result(runner: Runner, watch: bool) -> tuple[Runner, dict[str, Any]]:
    """TRL's round, its micro-batch halved while memory does not suffice; and the runner to go on with."""
    while True:
        size = micro_batch(runner.work.rows, runner.work.peer_micro_batch)
        try:
            return runner, runner.run("trl_step.py", watch=watch)
        except ChildError as error:
            if error.kind != "out of memory" or size == 1:
                raise
            say(f"  out of memory with a micro-batch of {size}: halved")
            runner = replace(runner, work=replace(runner.work, peer_micro_batch=size // 2))


def main() -> None:
    parser = parser_of("temper against TRL, side by side", names(), "cpu-short")
    parser.add_argument("--alone", action="store_true", help="temper only: nothing to compare with is needed")
    given = parser.parse_args()
    sample_only = is_sample(given.workload)
    load = os.getloadavg()
    with open_runner(given, sample_only, () if given.alone else ("trl",)) as runner:
        model, rates = prepare(runner)
        ours: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        for number in range(given.rounds):
            watch = number == 0 and runner.work.device == "cpu"
            say(f"round {number + 1} of {given.rounds}: temper")
            ours.append(runner.run("temper_step.py", watch=watch))
            if given.alone:
                continue
            say(f"round {number + 1} of {given.rounds}: trl")
            runner, result = peer_result(runner, watch)
            theirs.append(result)
        check_same_model(model, ours + theirs)
        temper, other = figures(ours), figures(theirs) if theirs else None
        floor = mean_floor(runner.work, timed_draws(runner), rates, sample_only)
        peer = f"trl {theirs[0]['versions']['trl']}" if theirs else None
        more = notes(runner, model, load, given.rounds)
    sides = {"temper": ours, "other": theirs} if theirs else {"temper": ours}
    more["versions"] = {name: version for side in sides.values() for name, version in side[0]["versions"].items()}
    more["torch_threads"] = {side: results[0]["torch_threads"] for side, results in sides.items()}
    more["peer_settings"] = theirs[0]["settings"] if theirs else None
    rows = {"temper": temper, **({peer: other} if peer and other else {})}
    line = step_line(given.workload, peer, temper, other, floor, rates, more)
    if warning := busy_text(rows):
        say(warning)
    if not given.json:
        print(f"{given.workload}: {more['parameters']:,} parameters, {more['completion_tokens']:,.0f} tokens a step")
        print(table(rows, sample_only))
        print(floor_text(temper, floor, rates))
    print(json.dumps(line))


if __name__ == "__main__":
    main_of(main)
