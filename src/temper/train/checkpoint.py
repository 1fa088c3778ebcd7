"""Exact resume: weights and optimiser as safetensors, written aside, renamed last, checked by hash when read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from temper.artifacts import hash_file, sync

KEPT = 2  # the newest, and one to fall back on


@dataclass(frozen=True)
class Checkpoint:
    """A state after `step` steps of a stage; `meta` is whatever else the stage must remember, as JSON."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-000040`; a kill at any moment leaves either the whole of it or nothing that counts."""
    final = folder / f"step-{checkpoint.step:06d}"
    aside = folder / f".writing-{checkpoint.step:06d}"
    for leftover in (aside, final):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    tensors = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, aside / "state.safetensors")
    note = {"step": checkpoint.step, "sha256": hash_file(aside / "state.safetensors"), "meta": checkpoint.meta}
    (aside / "checkpoint.json").write_text(json.dumps(note), encoding="utf-8")
    for path in (aside / "state.safetensors", aside / "checkpoint.json", aside):
        sync(path)
    aside.rename(final)
    sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; a damaged one is named through `warn` and the one before it is used."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            note = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
            if hash_file(path / "state.safetensors") != note["sha256"]:
                raise ValueError("its bytes do not match the hash written with it")
            return Checkpoint(note["step"], load_file(path / "state.safetensors"), note["meta"])
        except (OSError, ValueError, KeyError) as problem:
            warn(f"checkpoint {path / 'state.safetensors'} is damaged ({problem}); using the one before it")
    return None
