"""What is said at the end of a run: the table of its last evaluation, where things are, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.errors import escape
from temper.record.cost import show_bytes
from temper.record.lines import duration
from temper.record.trust import RunFiles
from temper.report.gather import gather_stages
from temper.report.table import render, round_lines


def ending(folder: Path, record: Mapping[str, Any], evaluation: Mapping[str, Any] | None, has_model: bool) -> str:
    """The lines, the table first; `record` is run.json."""
    page = folder / "report" / "index.html"
    lines = [f"run:     {folder}", f"report:  {page}" if page.is_file() else ""]
    wall, cpu = duration(record.get("wall_seconds") or 0.0), record.get("cpu_seconds") or 0.0
    memory = show_bytes(record.get("peak_memory_bytes"))
    lines.append(f"cost:    {cpu:,.0f} CPU-seconds, {wall} of wall time, {memory} of memory")
    lines += [f"rounds:  {escape(text)}" for text in round_lines(record.get("rounds"))]
    if has_model:
        lines.append(f"next:    temper chat {folder}")
    if note := record.get("note"):
        lines.append(f"note:    {escape(str(note))}")
    table = [render(dict(evaluation)) + "\n"] if evaluation else []
    return "\n".join([*table, *filter(None, lines)])


def last_evaluation(folder: Path) -> dict[str, Any] | None:
    """evaluation.json of the last evaluation that is done; None if there is none."""
    files = RunFiles(folder)
    for stage in reversed(gather_stages(folder, files)):
        if stage["makes"] == "evaluation" and stage["fingerprint"]:
            found = files.object(folder / "artifacts" / str(stage["fingerprint"]) / "evaluation.json")
            if found:
                return found
    return None


def has_model(folder: Path) -> bool:
    """Whether a stage that makes a model is done."""
    stages = gather_stages(folder, RunFiles(folder))
    return any(stage["makes"] == "model" and stage["state"] == "done" for stage in stages)
