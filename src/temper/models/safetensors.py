"""The headers of safetensors files, read by hand: every number is checked before anything is allocated for it.

A file is 8 bytes (length of the header, little-endian), the header (JSON: name -> dtype, shape, byte range), the bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from temper.errors import ArtifactError, Fault
from temper.modelfiles import file_fault, read_json

MAX_HEADER = 8 * 2**20  # bytes; some 60,000 tensors
CHUNK = 2**24  # bytes of weights looked at together

# Bytes of one value; of the last four only the exponent bits tell a finite number from NaN and infinity
FLOATS = {"F64": (8, 0x7FF0000000000000), "F32": (4, 0x7F800000), "F16": (2, 0x7C00), "BF16": (2, 0x7F80)}
SIZES = {name: size for name, (size, _) in FLOATS.items()} | {
    "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: bytes `begin` to `end` of `file`, counted from the file's start."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def weight_files(path: Path) -> list[Path]:
    """The weight files of a model directory: the shards of its index, or `model.safetensors`.

    Raises ArtifactError for an index that cannot be read or names a file outside the directory.
    """
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").exists() or not index.exists():
        return [path / "model.safetensors"]
    return [path / name for name in sorted(set(_weight_map(index).values()))]


def stray_file(path: Path) -> Fault | None:
    """A fault for a whole `model.safetensors` beside an index of shards: transformers would read it and no shard."""
    whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if not whole.exists() or not index.exists():
        return None
    shards = set(_weight_map(index).values())
    if whole.name in shards:
        return None
    why = f"only one of the two can be the model: `{whole.name}` would be read, the {len(shards):,} shards would not"
    fix = f"remove `{whole.name}`, or `{index.name}` and its shards"
    return Fault(f"`{whole.name}` stands beside an index of shards", str(index), why, fix)


def read_headers(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model directory. Raises ArtifactError with a fault for each file that is broken."""
    index = path / "model.safetensors.index.json"
    files = weight_files(path)
    tensors: dict[str, StoredTensor] = {}
    faults: list[Fault] = []
    for file in files:
        try:
            header = read_header(file)
        except ArtifactError as error:
            faults += error.faults
            continue
        twice = sorted(tensors.keys() & header.keys())
        faults += [
            Fault(f"tensor `{name}` is in two files", where=f"{tensors[name].file}, {file}") for name in twice[:3]
        ]
        tensors |= header
    if index.exists() and files != [path / "model.safetensors"] and not faults:
        places = _weight_map(index)
        lost = [name for name, file in places.items() if name not in tensors or tensors[name].file.name != file]
        faults += [Fault(f"`{places[name]}` does not hold `{name}`", where=str(index)) for name in lost[:3]]
    if faults:
        raise ArtifactError(faults)
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises ArtifactError: truncated, a header that is no header, an unknown dtype, byte ranges that overlap, leave a
    hole, or do not fit their shape or the file.
    """
    if fault := file_fault(file):
        raise ArtifactError(fault)
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > size - 8:
            raise _broken(
                file, f"its header should have {length:,} bytes, the file has {size:,}: truncated, or no model"
            )
        if length > MAX_HEADER:
            raise _broken(file, f"its header has {length:,} bytes (limit {MAX_HEADER:,})")
        header = _parse(file, opened.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = {name: _tensor(file, name, entry, start) for name, entry in header.items()}
    position = start
    ordered = sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end))
    for name, tensor in ordered:
        if tensor.begin != position:
            kind = "overlaps the one before it" if tensor.begin < position else "leaves a hole before it"
            raise _broken(file, f"tensor `{name}` {kind} (bytes {tensor.begin - start:,} to {tensor.end - start:,})")
        position = tensor.end
    if position != size:
        kind = "truncated" if position > size else "bytes that belong to no tensor"
        raise _broken(file, f"its header declares {position:,} bytes, the file has {size:,}: {kind}")
    return dict(ordered)


def non_finite(tensors: Mapping[str, StoredTensor]) -> Iterator[str]:
    """The names of the tensors that hold NaN or infinity; the files are read piece by piece."""
    import numpy as np

    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS or tensor.begin == tensor.end:
            continue
        size, exponent = FLOATS[tensor.dtype]
        kind = np.dtype(f"<u{size}")
        with tensor.file.open("rb") as opened:
            opened.seek(tensor.begin)
            left = tensor.end - tensor.begin
            while left > 0:
                values = np.frombuffer(opened.read(min(CHUNK, left)), dtype=kind)
                if values.size == 0 or ((values & kind.type(exponent)) == exponent).any():
                    yield name
                    break
                left -= values.nbytes


def _weight_map(index: Path) -> dict[str, str]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ArtifactError(Fault("the index has no `weight_map`", where=str(index)))
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            why = "the file must be a safetensors file in the same directory"
            raise ArtifactError(Fault(f"the index places `{name}` in `{file}`", where=str(index), why=why))
    return places


def _parse(file: Path, raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice in it")
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as problem:
        raise _broken(file, f"its header is not JSON ({type(problem).__name__})") from None
    if not isinstance(header, dict):
        raise _broken(file, "its header is not a JSON object")
    return header


def _tensor(file: Path, name: str, entry: Any, start: int) -> StoredTensor:
    if not isinstance(entry, dict):
        raise _broken(file, f"the entry of tensor `{name}` is not an object")
    dtype, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise _broken(file, f"tensor `{name}` has the unknown or unsupported dtype `{dtype}`")
    if not _naturals(shape) or len(shape) > 16:
        raise _broken(file, f"tensor `{name}` has no valid shape")
    if not _naturals(place) or len(place) != 2 or place[0] > place[1]:
        raise _broken(file, f"tensor `{name}` has no valid byte range")
    needed = math.prod(shape) * SIZES[dtype]
    if needed != place[1] - place[0]:
        what = f"{needed:,} bytes by shape and dtype, {place[1] - place[0]:,} by its byte range"
        raise _broken(file, f"tensor `{name}` has {what}")
    return StoredTensor(file, dtype, tuple(shape), start + place[0], start + place[1])


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(i) is int and 0 <= i < 2**63 for i in value)


def _broken(file: Path, why: str) -> ArtifactError:
    fix = "get the file again: it may not have been copied to its end"
    return ArtifactError(Fault(f"`{file.name}` is not a valid safetensors file", where=str(file), why=why, fix=fix))
