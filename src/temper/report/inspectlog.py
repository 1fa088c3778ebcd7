"""Completions as `.eval` files, the log format (version 2) of Inspect: its viewer and its data frames read them whole.

A file is a ZIP archive: `header.json` (what was measured, and the scores), `samples/<id>_epoch_<n>.json` (one
completion each; an epoch is one of the samples of a prompt), `summaries.json` and `_journal/` (the same in short, for
viewers that read a log while it grows).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temper import __version__
from temper.text.reply import parse_reply

Row = Mapping[str, Any]
KNOWN = {"prompt", "gold", "reply", "rewards", "total", "finish_reason", "sample", "prompt_id", "task", "system"}


def write_log(path: Path, rows: Iterable[Row], *, task: str, model: str, metadata: Mapping[str, Any]) -> int:
    """Write one log of these completions; how many it holds. The file appears whole or not at all.

    `model` is shown as the model's name, `metadata` beside the log as it is. Raises OSError.
    """
    ids = Ids()
    scores: dict[str, list[float]] = {}
    summaries: list[dict[str, Any]] = []
    made = path.with_name(f".{path.name}.tmp")
    try:
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for row in rows:
                sample = sample_of(row, model, ids)
                archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", _json(sample))
                summaries.append(_summary(sample))
                for reward, score in sample["scores"].items():
                    scores.setdefault(reward, []).append(score["value"])
            about = _about(task, model, metadata, ids)
            plan = {"name": "plan", "steps": [], "config": {}}
            results = _results(scores, len(summaries))
            archive.writestr("_journal/start.json", _json({"version": 2, "eval": about, "plan": plan}))
            archive.writestr("_journal/summaries/1.json", _json(summaries))
            archive.writestr("summaries.json", _json(summaries))
            header = {"version": 2, "status": "success", "eval": about, "plan": plan, "results": results}
            stats = {"started_at": about["created"], "completed_at": about["created"], "model_usage": {}}
            archive.writestr("header.json", _json(header | {"stats": stats}))
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)
    return len(summaries)


class Ids:
    """Sample ids and epochs: the rows of one prompt share an id and count up. Ids become names of files."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}

    def of(self, row: Row) -> tuple[str, int]:
        name = str(row.get("prompt_id") or f"prompt:{len(self.epochs) + 1}")
        name = re.sub(r"[^A-Za-z0-9:._-]", "_", name).lstrip(".")[:200] or "prompt"
        self.epochs[name] = self.epochs.get(name, 0) + 1
        return name, self.epochs[name]


def sample_of(row: Row, model: str, ids: Ids) -> dict[str, Any]:
    """One completion as a sample: thinking apart from the answer, each reward a score."""
    name, epoch = ids.of(row)
    prompt, reply = str(row.get("prompt", "")), str(row.get("reply", ""))
    parsed = parse_reply(reply)
    answer = parsed.answer if parsed.answer is not None else ""
    stop = "max_tokens" if row.get("finish_reason") == "length" else "stop"
    said = {"id": f"{name}:{epoch}:a", "role": "assistant", "source": "generate", "model": model}
    message = said | {"content": _content(parsed.thinking, reply)}
    asked = {"id": f"{name}:{epoch}:u", "role": "user", "content": prompt}
    rewards = {reward: value for reward, value in (row.get("rewards") or {}).items() if _is_number(value)}
    if _is_number(row.get("total")):
        rewards["total"] = row["total"]
    metadata = {key: value for key, value in row.items() if key not in KNOWN}
    return {
        "id": name,
        "epoch": epoch,
        "input": prompt,
        "target": str(row.get("gold") or ""),
        "messages": [asked, message],
        "output": {"model": model, "choices": [{"message": message, "stop_reason": stop}], "completion": reply},
        "scores": {reward: {"value": value, "answer": answer} for reward, value in rewards.items()},
        "metadata": metadata,
        "model_usage": {},
    }


def _content(thinking: str | None, reply: str) -> str | list[dict[str, str]]:
    if thinking is None or "</think>" not in reply:
        return reply
    rest = reply.partition("</think>")[2]
    return [{"type": "reasoning", "reasoning": thinking.strip()}, {"type": "text", "text": rest.strip()}]


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    short = {key: sample[key] for key in ("id", "epoch", "input", "target", "scores", "metadata", "model_usage")}
    return short | {"completed": True, "message_count": len(sample["messages"])}


def _about(task: str, model: str, metadata: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    count = len(ids.epochs)
    told = json.dumps([task, model, sorted(ids.epochs.items()), metadata], default=str)
    key = hashlib.sha256(told.encode()).hexdigest()[:22]
    return {
        "eval_id": key,
        "run_id": key,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "task": task,
        "task_id": key,
        "task_version": 0,
        "dataset": {"name": task, "samples": count, "sample_ids": list(ids.epochs), "shuffled": False},
        "model": model,
        "config": {"epochs": max(ids.epochs.values(), default=1)},
        "packages": {"temper-rl": __version__},
        "metadata": dict(metadata),
    }


def _results(scores: Mapping[str, Sequence[float]], count: int) -> dict[str, Any]:
    made = []
    for name, values in scores.items():
        mean = math.fsum(values) / len(values)
        spread = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        metrics = {"mean": mean, "stderr": math.sqrt(spread / len(values))}
        made.append({
            "name": name, "scorer": name, "params": {},
            "metrics": {key: {"name": key, "value": value, "params": {}} for key, value in metrics.items()},
        })  # fmt: skip
    return {"total_samples": count, "completed_samples": count, "scores": made}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _json(value: Any) -> bytes:
    """UTF-8; a lone surrogate, which a byte-level tokenizer can draw, is written as its escape."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).encode()
