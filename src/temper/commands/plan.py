"""`temper plan RECIPE`: what would run and why, what is done, and what it takes. Writes nothing."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from temper.commands import plan_for
from temper.commands.run import add_recipe_arguments
from temper.errors import ConfigError, Exit, Fault, ResourceError

if TYPE_CHECKING:
    from temper.planning.plan import Plan, StagePlan
    from temper.planning.probe import Probed

PROBE_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--probe", type=_seconds, nargs="?", const=PROBE_SECONDS, metavar="SECONDS",
        help="run a few steps of each stage, in a directory that is thrown away, to tell its time and memory "
        f"(about {PROBE_SECONDS:.0f} seconds a stage)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit code 4 if memory or disk will not do")
    plan_for.add_arguments(parser)
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="tell also what each of N ranks takes (docs/scale.md)"
    )


def _verdict(data: Mapping[str, Any]) -> list[str]:
    """What does not fit, in words."""
    from temper.record.cost import show_bytes

    found = []
    if data["fits"] is False:
        worst = max(data["stages"], key=lambda stage: _needed(stage, data["ranks"]) or 0)
        need, free = _needed(worst, data["ranks"]), show_bytes(data["memory_available_bytes"])
        found.append(f"stage {worst['stage']} needs {show_bytes(need)} of memory, {free} are available")
    if data["disk_bytes"] > data["disk_free_bytes"]:
        free = show_bytes(data["disk_free_bytes"])
        found.append(f"{show_bytes(data['disk_bytes'])} will be written, {free} are free")
    return found


def _needed(stage: Mapping[str, Any], ranks: int) -> int | None:
    """Bytes of all the ranks of a stage together."""
    if (rank := stage.get("rank")) is None or not rank["sent_bytes"]:
        return stage["memory_bytes"]
    return None if rank["memory_bytes"] is None else ranks * rank["memory_bytes"]


def _seconds(text: str) -> float:
    """Raises ValueError for what is no length of time."""
    value = float(text)
    if not 0 < value < 86400:
        raise ValueError(text)
    return value


def run(args: argparse.Namespace) -> int:
    if args.ranks < 1:
        raise ConfigError(Fault(f"--ranks {args.ranks}: there is at least one"))
    if args.machine is not None:
        return plan_for.run(args)
    if args.disk is not None:
        raise ConfigError(Fault("--disk is about another machine", fix="say which, with --for"))
    from temper.pipeline.run import say
    from temper.planning.preflight import advise, prepare

    code = Exit.OK
    plan, warnings = prepare(args.recipe, args.settings, args.out)
    for text in [*warnings, *advise(plan), *(f"{fault.what} ({fault.why})" for _, fault in plan.damaged)]:
        say(f"warning: {text}")
    probes: dict[str, Probed | str] = {}
    if args.probe is not None:
        from temper.planning.probe import probe

        try:
            with _ended_as_interrupted():
                probe(plan, args.recipe, args.settings, args.probe, say, probes)
        except KeyboardInterrupt as stop:
            code = Exit.PREEMPTED if isinstance(stop, Terminated) else Exit.INTERRUPTED
            say("the probe was stopped: what it found until then follows")
    data = describe(plan, probes, args.ranks)
    print(json.dumps(data, ensure_ascii=False) if args.json else render(data))
    if args.strict and (lacking := _verdict(data)):
        fix = "`temper plan` without --strict shows every stage; gradient_checkpointing, lora and a smaller "
        fix += "micro_batch_tokens take less memory"
        raise ResourceError([Fault("the recipe does not fit this machine", why=why, fix=fix) for why in lacking])
    return int(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """Within it SIGTERM does what Ctrl-C does."""

    def take(number: int, frame: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, take)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(plan: Plan, probes: Mapping[str, Probed | str] = MappingProxyType({}), ranks: int = 1) -> dict[str, Any]:
    """The plan as one JSON value; what cannot be known before a stage ran is None."""
    from temper.planning.estimate import UNKNOWN, estimate, model_sizes
    from temper.planning.lengths import stage_tokens
    from temper.planning.machines import this_machine
    from temper.planning.preflight import disk_free
    from temper.record.cost import memory_available
    from temper.record.rundir import holder

    artifacts = plan.artifacts()
    sizes, tokens = model_sizes(plan.recipe, artifacts), stage_tokens(plan.recipe, artifacts)
    before = plan.folder.record().get("stages")
    works = plan.folder.work_folders()
    held = holder(plan.folder.root / "lock")
    stages, here = [], this_machine(plan.recipe.threads)
    for planned in plan.stages:
        need = estimate(planned.stage, sizes, tokens.get(planned.stage.name, UNKNOWN), here)
        entry = before.get(planned.stage.name, {}) if isinstance(before, dict) else {}
        stages.append(
            {
                "stage": planned.stage.name,
                "kind": planned.stage.kind,
                "state": planned.state,
                "runs": planned.runs,
                "why": ["another process is at it"] if held and planned.state == "continue" else list(planned.why),
                "fingerprint": planned.fingerprint,
                "seconds": entry.get("seconds") if entry.get("state") == "done" and _is_like(planned, works) else None,
                "memory_bytes": need.memory_bytes if planned.runs else None,
                "cache_bytes": need.cache_bytes if planned.runs else None,
                "assumed": need.assumed if planned.runs and need.memory_bytes is not None else "",
                "disk_bytes": need.disk_bytes if planned.runs else 0,
                **_describe_probe(probes.get(planned.stage.name)),
            }
        )
        if ranks > 1 and planned.runs:
            length, probed = tokens.get(planned.stage.name, UNKNOWN), stages[-1].get("probe", {}).get("step_seconds")
            from temper.planning.ranked import share

            stages[-1]["rank"] = vars(share(planned.stage, sizes, length, here, ranks, probed))
    available = memory_available()
    needs = [need for stage in stages if (need := _needed(stage, ranks)) is not None]
    return {
        "recipe": plan.recipe.name,
        "seed": plan.recipe.seed,
        "ranks": ranks,
        "run": str(plan.folder.root),
        "exists": plan.folder.root.exists(),
        "in_use": None if held is None else held.why,
        "stages": stages,
        "blocks": [
            {"block": block.name, "rounds": block.rounds, "ended": block.ended, "rule": block.until is not None,
             "verdict": str(verdict) if (verdict := plan.verdicts.get(block.name)) else ""}
            for block in plan.recipe.blocks
        ],
        "half_done": [{"stage": h.name, "step": h.step, "changes": list(h.changes)} for h in plan.half_done],
        "memory_bytes": max(needs, default=None),
        "memory_available_bytes": available,
        "fits": None if not needs or available is None else max(needs) <= available,
        "disk_bytes": sum(stage["disk_bytes"] or 0 for stage in stages),
        "disk_free_bytes": disk_free(plan.folder.root),
    }


def _is_like(planned: StagePlan, works: Mapping[str, Path]) -> bool:
    """Whether a stage would take the time it took before: it is done, or runs again with the config it had."""
    from temper.record.rundir import read_object

    if not planned.runs or planned.state == "continue":
        return not planned.runs
    work = works.get(planned.stage.name)
    before = read_object(work / "stage.json").get("material") if work else None
    alike = ("kind", "config", "tasks")
    return isinstance(before, Mapping) and all(before.get(key) == planned.material[key] for key in alike)


def _describe_probe(probed: Probed | str | None) -> dict[str, Any]:
    """The keys that a probe adds to a stage or replaces."""
    if probed is None:
        return {}
    if isinstance(probed, str):
        return {"probe": {"error": probed}}
    one = probed.rehearsed
    return {
        "seconds": probed.seconds,
        "memory_bytes": one.peak_memory_bytes,
        "probe": {
            "cpu_seconds": probed.cpu_seconds,
            "steps": probed.steps,
            "step_seconds": one.seconds,
            "step_cpu_seconds": one.cpu_seconds,
            "device_bytes": one.device_bytes,
            "rehearsed_steps": one.steps,
            "stand_ins": list(probed.stand_ins),
        },
    }


STATES = {"cached": "done", "continue": "goes on", "run": "will run"}


def render(data: dict[str, Any]) -> str:
    """The plan as a table and a few lines below it."""
    from temper.record.cost import show_bytes
    from temper.record.lines import duration

    rows: list[tuple[str, ...]] = [("stage", "kind", "", "time", "memory", "of it cache", "disk", "why")]
    for stage in data["stages"]:
        time = "unknown" if stage["seconds"] is None else "~" + duration(stage["seconds"])
        if "steps" in (probe := stage.get("probe", {})) and probe["steps"] > 1:
            time += f" (with {probe['steps']} steps of {probe['step_seconds']:.2g} s)"
        cache = show_bytes(stage["cache_bytes"]) if stage["cache_bytes"] else "–"
        needs = (time, show_bytes(stage["memory_bytes"]), cache, show_bytes(stage["disk_bytes"]))
        needs = needs if stage["runs"] else ("", "", "", "")
        rows.append((stage["stage"], stage["kind"], STATES[stage["state"]], *needs, "; ".join(stage["why"])))
    if len(runs := [stage for stage in data["stages"] if stage["runs"]]) > 1:
        rows.append(("all", f"{len(runs)} stages", "", *_totals(runs), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[7]]).rstrip()
             for row in rows]  # fmt: skip
    count = len(runs)
    free, available = show_bytes(data["disk_free_bytes"]), show_bytes(data["memory_available_bytes"])
    fits = {True: "it fits", False: "IT DOES NOT FIT", None: "what the stages need is not known before they ran"}
    if not count:
        fits[None] = "nothing will run"
    lines += [
        "",
        f"run:     {data['run']}" + ("" if data["exists"] else " (new)"),
        f"stages:  {count} to run, {len(data['stages']) - count} done",
        *([f"in use:  by another process ({data['in_use']})"] if data["in_use"] else []),
        f"memory:  {available} available: {fits[data['fits']]}",
        f"disk:    {show_bytes(data['disk_bytes'])} at most, {free} free"
        + ("" if data["disk_bytes"] <= data["disk_free_bytes"] else ": IT DOES NOT FIT"),
    ]
    lines += [f"rounds:  {text}" for text in _block_lines(data["blocks"])]
    lines += [f"assumed: {text}" for text in _assumed_lines(data["stages"])]
    lines += [f"probe:   {text}" for text in _probe_lines(data["stages"])]
    lines += [f"ranks:   {text}" for text in plan_for.rank_lines(data["stages"], data["ranks"])]
    for half in data["half_done"]:
        changes = "; ".join(half["changes"]) or "its config changed"
        lines.append(f"note:    `{half['stage']}` stopped at step {half['step']} under another config ({changes});")
        lines.append("         `temper run` asks for `--changed` before it starts that stage again")
    return "\n".join(lines)


def _totals(runs: Sequence[Mapping[str, Any]]) -> tuple[str, str, str, str]:
    """Time, memory at the peak, no cache and disk of all that will run; "> …" where a stage is not known."""
    from temper.record.cost import show_bytes
    from temper.record.lines import duration

    times = [stage["seconds"] for stage in runs if stage["seconds"] is not None]
    needs = [stage["memory_bytes"] for stage in runs if stage["memory_bytes"] is not None]
    more = ["> " * (len(known) < len(runs)) for known in (times, needs)]
    disks = [stage["disk_bytes"] for stage in runs if stage["disk_bytes"] is not None]
    disk = "> " * (len(disks) < len(runs)) + show_bytes(sum(disks))
    time = f"{more[0] or '~'}{duration(sum(times))}" if times else "unknown"
    memory = f"peak {more[1]}{show_bytes(max(needs))}" if needs else "unknown"
    return time, memory, "", disk


def _block_lines(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many rounds there are of each block that repeats."""
    for block in blocks:
        most = f"{block['block']}: {block['rounds']} rounds" + (" at most: its rule may end it before" * block["rule"])
        yield block["verdict"] or most


def _assumed_lines(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the memory of stages that were not tried is told from, beside what was measured, each once."""
    names: dict[str, list[str]] = {}
    for stage in stages:
        if stage["assumed"] and "rehearsed_steps" not in stage.get("probe", {}):
            names.setdefault(stage["assumed"], []).append(stage["stage"])
    for assumed, of in names.items():
        yield f"{', '.join(of)}: {assumed}"


def _probe_lines(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How much there is to what the probe says."""
    from temper.record.cost import show_bytes
    from temper.record.lines import duration

    probed = {stage["stage"]: stage for stage in stages if "probe" in stage}
    if not probed and any(stage["runs"] and stage["seconds"] is None for stage in stages):
        yield "`--probe` tries each stage for some seconds and says how long it takes and what memory it holds"
    known = [stage for stage in probed.values() if "error" not in stage["probe"]]
    if known:
        what = "all that will run" if len(known) == sum(stage["runs"] for stage in stages) else "what could be tried"
        yield f"{what} takes about {duration(sum(stage['seconds'] for stage in known))}"
    for name, stage in probed.items():
        probe = stage["probe"]
        if "error" in probe:
            yield f"{name} could not be tried: {probe['error']}"
            continue
        if probe["device_bytes"]:
            yield f"{name} takes {show_bytes(probe['device_bytes'])} of the device's memory"
        if probe["stand_ins"]:
            yield f"{name} was tried with {'; '.join(probe['stand_ins'])}"
