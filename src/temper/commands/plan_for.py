"""`temper plan RECIPE --for 1x80GB`: what the recipe takes on another machine, and what to change where it does not
fit."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.errors import Fault, ResourceError

if TYPE_CHECKING:
    from temper.planning.elsewhere import Sketch
    from temper.planning.machines import Elsewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="machine", metavar="MACHINE",
        help="plan for another machine, such as 1x80GB, 1x24GB, 8xH100 or cpu:16GB: memory and disk by arithmetic, and "
        "what to change where it does not fit; a model may be a config.json alone, files need not be here",
    )  # fmt: skip
    parser.add_argument("--disk", metavar="SIZE", help="with --for: the disk's free space there, such as 500GB")


def run(args: argparse.Namespace) -> int:
    from temper.errors import ConfigError
    from temper.planning.elsewhere import sketch
    from temper.planning.machines import read_disk, read_machine

    if args.probe is not None:
        raise ConfigError(Fault("--probe tries this machine, --for is about another one", fix="give one of them"))
    there = read_machine(args.machine)
    disk = None if args.disk is None else read_disk(args.disk)
    data = describe(sketch(args.recipe, args.settings), there, disk, args.out, args.ranks)
    print(json.dumps(data, ensure_ascii=False) if args.json else render(data))
    if args.strict and (lacking := data["lacking"]):
        raise ResourceError([Fault(f"the recipe does not fit {there.text}", why=why) for why in lacking])
    return 0


def describe(
    found: Sketch, there: Elsewhere, disk: int | None, out: Path | None = None, ranks: int = 1
) -> dict[str, Any]:
    """The plan as one JSON value; what cannot be known is None."""
    from temper.planning.elsewhere import remedies
    from temper.planning.estimate import UNKNOWN
    from temper.planning.pace import least_seconds
    from temper.planning.preflight import disk_free
    from temper.planning.ranked import share
    from temper.record.cost import show_bytes

    stages = []
    ranks = max(ranks, there.count)
    for stage in found.recipe.stages:
        need = found.need(stage, there.machine, ranks)
        fits = None if need.memory_bytes is None else need.memory_bytes <= there.bytes
        stages.append({
            "stage": stage.name, "kind": stage.kind, "memory_bytes": need.memory_bytes, "cache_bytes": need.cache_bytes,
            "disk_bytes": need.disk_bytes, "assumed": need.assumed, "fits": fits,
            "remedies": [vars(remedy) for remedy in remedies(found, stage, there, ranks)] if fits is False else [],
        })  # fmt: skip
        size = found.sizes.get(getattr(stage.config, "model", ""))
        tokens = found.tokens.get(stage.name, UNKNOWN)
        stages[-1]["least_seconds"] = least_seconds(stage, size, tokens, there, ranks)
        if ranks > 1:
            rank = share(stage, found.sizes, tokens, there.machine, ranks)
            stages[-1]["rank"] = vars(rank)
    needs = [stage["memory_bytes"] for stage in stages if stage["memory_bytes"] is not None]
    writes = sum(stage["disk_bytes"] or 0 for stage in stages)
    free = disk if disk is not None else disk_free(out if out is not None else found.recipe.default_folder)
    lacking = [
        f"stage {stage['stage']} needs {show_bytes(stage['memory_bytes'])} of {show_bytes(there.bytes)}"
        for stage in stages
        if stage["fits"] is False
    ]
    if writes > free:
        lacking.append(f"{show_bytes(writes)} will be written, {show_bytes(free)} are free")
    return {
        "recipe": found.recipe.name, "ranks": ranks,
        "machine": there.text, "count": there.count, "accelerator": there.accelerator,
        "memory_available_bytes": there.bytes, "memory_bytes": max(needs, default=None),
        "models": {text: size.parameters for text, size in found.sizes.items() if size and not text.startswith("@")},
        "unknown_models": sorted(t for t, size in found.sizes.items() if size is None and not t.startswith("@")),
        "stages": stages, "disk_bytes": writes, "disk_free_bytes": free, "disk_is_given": disk is not None,
        "fits": None if len(needs) < len(stages) and not lacking else not lacking, "lacking": lacking,
        "absent": [fault.what for fault in found.absent],
    }  # fmt: skip


def render(data: Mapping[str, Any]) -> str:
    """The plan as a table and a few lines below it."""
    from temper.record.cost import show_bytes

    rows = [("stage", "kind", "memory", "of it cache", "disk", "")]
    for stage in data["stages"]:
        cache = show_bytes(stage["cache_bytes"]) if stage["cache_bytes"] else "–"
        verdict = {True: "fits", False: "DOES NOT FIT", None: ""}[stage["fits"]]
        sizes = (show_bytes(stage["memory_bytes"]), cache, show_bytes(stage["disk_bytes"]))
        rows.append((stage["stage"], stage["kind"], *sizes, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    kind = "an accelerator" if data["accelerator"] else "main memory"
    known = [stage["fits"] for stage in data["stages"]]
    verdict = "IT DOES NOT FIT" if False in known else "not all is known" if None in known else "it fits"
    disk = "free there" if data["disk_is_given"] else "free here; `--disk` says what is free there"
    too_much = ": IT DOES NOT FIT" if data["disk_bytes"] > data["disk_free_bytes"] else ""
    lines += [
        "",
        *(f"model:   {name}: {count:,} parameters" for name, count in data["models"].items()),
        *(f"model:   {name}: its size is not known here; name a config.json" for name in data["unknown_models"]),
        f"machine: {data['machine']}: {show_bytes(data['memory_available_bytes'])} ({kind}), by arithmetic: {verdict}",
        *([f"         told of each device, with `temper run --ranks {data['ranks']}`"] if data["ranks"] > 1 else []),
        f"disk:    {show_bytes(data['disk_bytes'])} at most, {show_bytes(data['disk_free_bytes'])} {disk}{too_much}",
        *_time_lines(data["stages"]),
    ]
    lines += [f"ranks:   {text}" for text in rank_lines(data["stages"], data["ranks"])]
    for assumed in dict.fromkeys(stage["assumed"] for stage in data["stages"] if stage["assumed"]):
        names = ", ".join(stage["stage"] for stage in data["stages"] if stage["assumed"] == assumed)
        lines.append(f"assumed: {names}: {assumed}")
    lines += [f"absent:  {what}" for what in dict.fromkeys(data["absent"])]
    for stage in data["stages"]:
        lines += _remedies(stage, data["memory_available_bytes"])
    return "\n".join(lines)


def _time_lines(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    from temper.record.lines import duration

    told = [stage for stage in stages if stage["least_seconds"] is not None]
    least = [(stage["stage"], duration(stage["least_seconds"])) for stage in told]
    lines = [f"time:    {name}: {time} or more, with replies as below" for name, time in least]
    if told:
        why = "by arithmetic: products at 40 % of the card's data sheet, weights read once a token; not measured"
        return [*lines, f"         ({why}; `temper plan --probe` on that machine does)"]
    return ["time:    not told: nothing was measured there; `temper plan --probe` on that machine does"]


def rank_lines(stages: Sequence[Mapping[str, Any]], ranks: int) -> list[str]:
    """What each of several ranks takes; nothing for one."""
    from temper.record.cost import show_bytes

    lines = []
    for stage in stages:
        if (rank := stage.get("rank")) is None or not rank["sent_bytes"]:
            continue
        parts = [f"{show_bytes(rank['memory_bytes'])} of memory", f"{show_bytes(rank['sent_bytes'])} sent an update"]
        if rank["step_seconds"] is not None:
            parts.append(f"a step of {rank['step_seconds']:.2g} s (shared evenly; 12.5 GB a second between ranks)")
        lines.append(f"{stage['stage']}: each of {ranks}: {', '.join(parts)}")
    return lines


def _remedies(stage: Mapping[str, Any], available: int) -> list[str]:
    from temper.record.cost import show_bytes

    if stage["fits"] is not False:
        return []
    lines = ["", f"`{stage['stage']}` needs {show_bytes(stage['memory_bytes'])}; it would need"]
    for remedy in stage["remedies"]:
        fits = "fits" if remedy["memory_bytes"] <= available else "still too much"
        lines.append(f"  {show_bytes(remedy['memory_bytes']):>8}  {fits:<14}  {remedy['change']}  ({remedy['cost']})")
    if not any(remedy["memory_bytes"] <= available for remedy in stage["remedies"]):
        lines.append("  nothing that temper has makes it fit: a smaller model, or a larger machine")
    return lines
