"""Exact resume: weights and optimiser as safetensors, written aside, renamed last, every byte of it hashed.

step-000040/   checkpoint.json  state.safetensors  and the records of the steps up to there (`RECORDS`)
               parts/   where ranks hold parts of a model: a file of each, by torch.distributed.checkpoint

checkpoint.json is sealed (`sealed.py`): it says of which step and of which stage's work it is, and what the other files
hash to. Parts are safetensors, too, with their places in the whole, so any number of ranks reads them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from temper.artifacts import hash_file, sync, write_atomically
from temper.distributed.ranks import ranks
from temper.record.checkpoints import NOTE, PARTS, RECORDS, STATE, owner_of, prune, remove, steps_in
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
    where it was read from, and `parts` the directory of what lies in parts."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    folder: Path | None = None
    parts: Path | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, parts: Mapping[str, Tensor] | None = None) -> Path:
    """Write `folder/step-000040`; a kill at any moment leaves either the whole of it or nothing that counts. `folder`
    lies in the stage's directory, whose records are kept with it. With `parts`, which lie at several ranks, all ranks
    call it, for a directory that all can write to."""
    final = folder / f"step-{checkpoint.step:06d}"
    aside = folder / f".writing-{checkpoint.step:06d}"
    if parts:
        ranks().together(lambda: [] if ranks().rank else _begin(checkpoint, aside, final))
        hashes = dict(_write_parts(parts, aside))
    else:
        hashes = dict(_begin(checkpoint, aside, final))
    if ranks().rank:
        return final
    for path in sorted(path for path in aside.iterdir() if path.is_file()):
        hashes[path.name] = _settled(path)
    note = {"step": checkpoint.step, "owner": owner_of(folder.parent), "meta": checkpoint.meta, "files": hashes}
    write_atomically(aside / NOTE, seal(NOTE, note))
    aside.rename(final)
    sync(folder)
    prune(folder, checkpoint.step, KEPT)
    return final


def _begin(checkpoint: Checkpoint, aside: Path, final: Path) -> list[Any]:
    """The directory with what one process has."""
    for leftover in (aside, final):
        if not remove(leftover):
            raise FileExistsError(17, "something else has the place of a checkpoint", str(leftover))
    aside.mkdir(parents=True)
    write_tensors(checkpoint.tensors, aside / STATE)
    records = aside.parent.parent
    for name in RECORDS:
        if (records / name).is_file():
            shutil.copyfile(records / name, aside / name)
    return []


def _settled(path: Path) -> list[Any]:
    """Size and hash of a file that is on the disk."""
    sync(path)
    return [path.stat().st_size, hash_file(path)]


def _write_parts(parts: Mapping[str, Tensor], aside: Path) -> list[tuple[str, list[Any]]]:
    """Every rank its own, and its share of the hashes."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    place = aside / PARTS
    with ranks().watching("a checkpoint in parts"), _plainly():
        save(dict(parts), storage_writer=HuggingFaceStorageWriter(str(place), save_distributed=True))
    files = sorted(place.iterdir())
    return ranks().together(lambda: [(f"{PARTS}/{file.name}", _settled(file)) for file in ranks().share(files)])


def read_parts(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, whole or parts of such, with what `save_checkpoint` wrote of them in parts."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    alone = ranks().size == 1
    with ranks().watching("a checkpoint in parts"), _plainly():
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def read_whole(folder: Path) -> dict[str, Tensor]:
    """All that lies in parts in `folder`, put together."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    known: Any = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    found = {name: torch.empty(about.size, dtype=about.properties.dtype) for name, about in known.items()}
    read_parts(folder, found)
    return found


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """What went wrong at a rank is raised as it was there: a full disk is one. No warnings of a single process."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first from None


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
            out.write(here.view(torch.uint8).numpy().data)


def latest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of this stage; one that is damaged is named through `warn`, then the one before it is
    used."""
    owner = owner_of(folder.parent)
    for number, path in steps_in(folder):
        try:
            note = _verified(path, number, owner)
            parts = path / PARTS if (path / PARTS).is_dir() else None
            return Checkpoint(number, load_file(path / STATE), note["meta"], path, parts)
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
