"""A data file as bytes: found, recognised, unpacked within limits, cut into lines; or a folder that is one data set, as
its shards. Knows nothing about rows."""

from __future__ import annotations

import difflib
import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from temper.errors import DataError, Fault

Format = Literal["jsonl", "json", "csv", "parquet", "arrow"]
FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
BINARY = ("parquet", "arrow")

MAX_ROW = 16 << 20  # bytes of one line
MAX_WHOLE = 1 << 30  # bytes of a file that has to be held in memory as one text
BOMB_SIZE = 64 << 20  # a gzip file that unpacks to more than this …
BOMB_RATIO = 100  # … and to more than this many times its own size is not data
CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"

# What a file really is, by its first bytes: description, and what to do about it.
MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or an Excel workbook)", "unpack it, or save the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "zstandard-compressed", "unpack it with `zstd -d`, or pack it with gzip"),
    (b"\xfd7zXZ\x00", "xz-compressed", "unpack it with `xz -d`, or pack it with gzip"),
    (b"BZh", "bzip2-compressed", "unpack it with `bzip2 -d`, or pack it with gzip"),
    (b"PAR1", "a parquet file", "rename it to end in `.parquet`"),
    (b"ARROW1", "an Arrow file", "rename it to end in `.arrow`"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "rename it to end in `.arrow`"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV or JSON lines"),
    (b"%PDF", "a PDF document", "temper reads rows of text, not documents"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself", "fetch the data with `git lfs pull`"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8, for example with `iconv -f UTF-32 -t UTF-8`"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "save it as UTF-8, for example with `iconv -f UTF-32 -t UTF-8`"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`"),
)


@dataclass(frozen=True)
class Source:
    """A data file that exists and is what its name says."""

    path: Path
    format: Format
    packed: bool  # gzip
    size: int  # bytes, unpacked

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> IO[bytes]:
        return cast(IO[bytes], gzip.open(self.path, "rb")) if self.packed else self.path.open("rb")

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """(line number from 1, byte offset, bytes with their line end) of each line; the byte order mark is left out.

        A line of more than `MAX_ROW` bytes comes cut to `MAX_ROW + 1` bytes.
        """
        number = offset = 0
        with self.open() as stream:
            while raw := stream.readline(MAX_ROW + 1):
                number += 1
                skipped = len(BOM) if not offset and raw.startswith(BOM) else 0
                yield number, offset + skipped, raw[skipped:]
                offset += len(raw)
                if len(raw) > MAX_ROW and not raw.endswith(b"\n"):
                    offset += _skip_line(stream)

    def whole(self) -> bytes:
        """All bytes, byte order mark and all. Raises `DataError` past `MAX_WHOLE`."""
        if self.size > MAX_WHOLE:
            why = f"{self.size:,} bytes would have to be held in memory at once; the limit is {MAX_WHOLE:,}"
            raise DataError(Fault("too large for one JSON value", self.name, why, "write one object a line (`.jsonl`)"))
        with self.open() as stream:
            return stream.read()


def _skip_line(stream: IO[bytes]) -> int:
    """Bytes passed over on the way to the next line."""
    passed = 0
    while rest := stream.readline(CHUNK):
        passed += len(rest)
        if rest.endswith(b"\n"):
            break
    return passed


def open_source(path: Path | str) -> Source:
    """The file at `path`, looked at from outside: it exists, its name says how to read it, its first bytes agree, and
    a packed file unpacks to its end without bursting. Raises `DataError` otherwise."""
    path = Path(path)
    size = _size(path)
    format_, packed = _named(path)
    if size == 0:
        return Source(path, format_, False, 0)
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
        _agree(path, head, format_, packed)
        if packed:
            size, head = _unpacked(path, size)
    except OSError as error:
        raise DataError(Fault("cannot read this file", str(path), _reason(error))) from None
    if format_ not in BINARY:
        _is_text(path, head, format_)
    return Source(path, format_, packed, size)


def _size(path: Path) -> int:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(Fault("no such file", str(path), "0 rows can be read from it", _nearest(path))) from None
    except (OSError, ValueError) as error:
        raise DataError(Fault("cannot read this file", str(path), _reason(error))) from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(Fault("a directory, not a data file", str(path), fix="name a file in it"))
    if not stat.S_ISREG(status.st_mode):
        fix = "save what it gives to a file first"
        raise DataError(Fault("not a regular file", str(path), "a pipe or device cannot be read twice", fix))
    return status.st_size


READABLE = (*FORMATS, *(f"{ending}.gz" for ending in (".jsonl", ".json", ".csv")))


_SHARD = re.compile(r"(.*?)-(\d{4,6})-of-(\d{4,6})(-[0-9a-f]{16})?(\..+)")


def is_data_set(folder: Path) -> bool:
    """Whether a folder is one data set: what `save_to_disk` of `datasets` wrote, or the shards of one file."""
    return any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")) or bool(_shards(folder))


def files_of(path: Path) -> list[Path]:
    """The files that a data set consists of: itself, or what is in a folder, in order. Raises `DataError` for a folder
    that is not one data set."""
    if not path.is_dir():
        return [path]
    splits = sorted(entry.name for entry in path.iterdir() if (entry / "state.json").is_file())
    if (path / "dataset_dict.json").is_file() and splits:
        if len(splits) > 1:
            fix = "name one: " + ", ".join(f"`{path / name}`" for name in splits[:5])
            raise DataError(Fault("several splits, saved together", str(path), f"it holds {', '.join(splits)}", fix))
        path = path / splits[0]
    if (path / "state.json").is_file():
        return _saved(path)
    if shards := _shards(path):
        return shards
    inside = sorted(entry.name for entry in path.iterdir() if entry.name.lower().endswith(READABLE))[:3]
    fix = "name one file in it" + (f", for example `{path / inside[0]}`" if inside else "")
    raise DataError(Fault("a directory, not a data file", str(path), fix=fix))


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a saved data set, in the order that its `state.json` gives."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = "a saved data set whose `state.json` cannot be read"
        raise DataError(Fault(what, str(folder / "state.json"), str(error), "save it again")) from None
    if state.get("_indices_files") or any("/" in name or name.startswith(".") for name in names) or not names:
        fix = "save it again after `flatten_indices()`" if state.get("_indices_files") else "save it again"
        raise DataError(Fault("a saved data set that is not whole", str(folder), "its rows are not all in it", fix))
    return [folder / name for name in names]


def _shards(folder: Path) -> list[Path]:
    """The files of a folder that holds `NAME-00000-of-00003.parquet` and the rest of them, and no other data."""
    try:
        found = sorted(entry for entry in folder.iterdir() if entry.name.lower().endswith(READABLE))
    except OSError:
        return []
    named = [_SHARD.fullmatch(entry.name) for entry in found]
    shards = [match for match in named if match]
    kinds = {(match.group(1), match.group(3), match.group(5)) for match in shards}
    numbers = [int(match.group(2)) for match in shards]
    whole = len(kinds) == 1 and len(shards) == len(found) and numbers == list(range(len(found)))
    return found if whole and len(found) == int(next(iter(kinds))[1]) else []


def _nearest(path: Path) -> str:
    try:
        names = {entry.name.partition(".")[0]: entry.name for entry in path.parent.iterdir() if entry.is_file()}
    except (OSError, ValueError):
        return f"there is no directory `{path.parent}` either"
    close = difflib.get_close_matches(path.name.partition(".")[0][:200], names, n=1)
    return f"did you mean `{path.parent / names[close[0]]}`?" if close else ""


def _named(path: Path) -> tuple[Format, bool]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    ending = suffixes[-2] if packed and len(suffixes) > 1 else suffixes[-1] if suffixes and not packed else ""
    known = FORMATS.get(ending)
    if known is None or (packed and known in BINARY):
        found = f"`{path.name}` ends in none of {', '.join(READABLE)}"
        hints = {".ndjson": "rename it to end in `.jsonl`", ".tsv": "save it with commas as `.csv`"}
        fix = hints.get(ending, "save the rows in one of these formats; one JSON object a line is the simplest")
        raise DataError(Fault("unknown file format", str(path), found, fix))
    return known, packed


def _agree(path: Path, head: bytes, format_: Format, packed: bool) -> None:
    """The first bytes are what the name promises."""
    is_gzip, is_parquet = head.startswith(b"\x1f\x8b"), head.startswith(b"PAR1")
    if packed and not is_gzip:
        found = f"it starts with {head[:8]!r}, not with gzip's 1f 8b" + _what(head)
        raise DataError(Fault("not a gzip file", str(path), found, f"rename it to `{path.name[: -len('.gz')]}`"))
    if is_gzip and not packed:
        fix = f"rename it to `{path.name}.gz`" if format_ not in BINARY else "unpack it with `gzip -d`"
        raise DataError(Fault("a gzip file without `.gz` in its name", str(path), "it starts with 1f 8b", fix))
    if format_ == "parquet" and not is_parquet:
        found = f"it starts with {head[:8]!r}, not with PAR1" + _what(head)
        raise DataError(Fault("not a parquet file", str(path), found))
    if format_ == "arrow" and not head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        found = f"it starts with {head[:8]!r}, neither an Arrow file nor a stream" + _what(head)
        raise DataError(Fault("not an Arrow file", str(path), found))
    if format_ not in BINARY and not packed:
        _is_text(path, head, format_)


def _what(head: bytes) -> str:
    return next((f": {description}" for magic, description, _ in MAGIC if head.startswith(magic)), "")


def _is_text(path: Path, head: bytes, format_: Format) -> None:
    for magic, description, fix in MAGIC:
        if head.startswith(magic):
            raise DataError(Fault(f"not {format_.upper()}: the file is {description}", str(path), fix=fix))
    if looks_like_utf16(head):
        fix = "save it as UTF-8, for example with `iconv -f UTF-16LE -t UTF-8`"
        raise DataError(Fault("not UTF-8: this looks like UTF-16 text", str(path), "every other byte is 0", fix))
    if head.removeprefix(BOM).lstrip()[:5].lower() in (b"<!doc", b"<html"):
        fix = "download the raw file: this is the page that shows it"
        raise DataError(Fault("a web page, not data", str(path), "it starts with HTML", fix))


def looks_like_utf16(head: bytes) -> bool:
    """Text whose every other byte is NUL.

    >>> looks_like_utf16("a row".encode("utf-16-le")), looks_like_utf16(b"a row")
    (True, False)
    """
    sample = head[: min(len(head), 256) & ~1]
    pairs = len(sample) // 2
    halves = (sample[::2].count(0), sample[1::2].count(0))
    return pairs > 1 and max(halves) >= 0.7 * pairs and min(halves) <= 0.1 * pairs


def _unpacked(path: Path, size: int) -> tuple[int, bytes]:
    """Unpacked size and first bytes, in one bounded pass that keeps nothing."""
    total, head = 0, b""
    try:
        with gzip.open(path, "rb") as stream:
            while chunk := stream.read(CHUNK):
                head = head or chunk[:4096]
                total += len(chunk)
                if total > BOMB_SIZE and total > BOMB_RATIO * size:
                    why = f"{size:,} bytes unpack to more than {total:,}: over {BOMB_RATIO} times as many"
                    fix = "unpack it yourself if it really is data"
                    raise DataError(Fault("a gzip bomb, or nothing but repetition", str(path), why, fix))
    except EOFError:
        why = f"it ends after {total:,} unpacked bytes, in the middle of the packed data"
        raise DataError(Fault("truncated gzip file", str(path), why, "copy or download it again")) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        why = f"after {total:,} unpacked bytes: {error}"
        raise DataError(Fault("damaged gzip file", str(path), why, "copy or download it again")) from None
    return total, head


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
