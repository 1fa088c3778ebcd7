"""Exact resume: weights and optimiser as safetensors, written aside, renamed last, every byte of it hashed.

step-000040/   checkpoint.json  state.safetensors  and the records of the steps up to there (`RECORDS`)

checkpoint.json is sealed (`sealed.py`): it says of which step and of which stage's work it is, and what the other files
hash to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from temper.artifacts import hash_file, sync, write_atomically
from temper.record.checkpoints import NOTE, RECORDS, STATE, owner_of, prune, remove, steps_in
from temper.sealed import Damaged, read_sealed, seal

# The names of the format
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
KEPT = 2  # the newest, and one to fall back on


@dataclass(frozen=True)
class Checkpoint:
    """A state after `step` steps of a stage; `meta` is whatever else the stage must remember, as JSON. `folder` is
    where it was read from."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    folder: Path | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-000040`; a kill at any moment leaves either the whole of it or nothing that counts. `folder`
    lies in the stage's directory, whose records are kept with it."""
    final = folder / f"step-{checkpoint.step:06d}"
    aside = folder / f".writing-{checkpoint.step:06d}"
    for leftover in (aside, final):
        if not remove(leftover):
            raise FileExistsError(17, "something else has the place of a checkpoint", str(leftover))
    aside.mkdir(parents=True)
    write_tensors(checkpoint.tensors, aside / STATE)
    for name in RECORDS:
        if (folder.parent / name).is_file():
            shutil.copyfile(folder.parent / name, aside / name)
    files = sorted(path for path in aside.iterdir())
    note = {"step": checkpoint.step, "owner": owner_of(folder.parent), "meta": checkpoint.meta,
            "files": {path.name: [path.stat().st_size, hash_file(path)] for path in files}}  # fmt: skip
    for path in files:
        sync(path)
    write_atomically(aside / NOTE, seal(NOTE, note))
    aside.rename(final)
    sync(folder)
    prune(folder, checkpoint.step, KEPT)
    return final


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """A safetensors file, one tensor after the other: `safetensors.torch.save_file` holds a copy of all at once."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # each at a multiple of its own size
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            here = tensor.detach().cpu().contiguous().reshape(-1)
            out.write(memoryview(here.view(torch.uint8).numpy()))


def latest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of this stage; one that is damaged is named through `warn`, then the one before it is
    used."""
    owner = owner_of(folder.parent)
    for number, path in steps_in(folder):
        try:
            note = _verified(path, number, owner)
            return Checkpoint(number, load_file(path / STATE), note["meta"], path)
        except Damaged as problem:
            warn(f"checkpoint {path.name} is damaged, using the one before it: {problem.file}: {problem.reason}")
        except SafetensorError as problem:
            warn(f"checkpoint {path.name} is damaged, using the one before it: {path / STATE}: {problem}")
    return None


def _verified(path: Path, number: int, owner: str) -> dict[str, Any]:
    """What checkpoint.json says. Raises Damaged for the first file that is not as it was written."""
    try:
        note = read_sealed(path / NOTE)
    except FileNotFoundError:
        raise Damaged(path / NOTE, "missing") from None
    if note["step"] != number:
        raise Damaged(path / NOTE, f"it is that of step {note['step']}")
    if note["owner"] != owner:
        raise Damaged(path / NOTE, "it is that of another stage, or of another config")
    for name, (size, digest) in note["files"].items():
        file = path / name
        try:
            if file.stat().st_size != size or hash_file(file) != digest:
                raise Damaged(file, "its bytes do not match the hash written with them")
        except OSError as error:
            raise Damaged(file, f"cannot be read: {error.strerror}") from None
    return note
