"""Rows from files: `.jsonl`, `.json`, `.csv`, each optionally `.gz`, `.parquet`, `.arrow`, and folders of such files
that are one data set. Each row with its place.

`read_rows` is the one way in. What is wrong with a row goes to `Findings`; what is wrong with the file raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from temper.data.arrowfiles import read_arrow, read_parquet
from temper.data.findings import Findings, Note, tell_all
from temper.data.jsonfiles import read_json, read_jsonl
from temper.data.rows import Row
from temper.data.sources import Format, Source, files_of, open_source
from temper.data.tables import read_csv
from temper.errors import DataError, Fault
from temper.hub.names import is_hub_data
from temper.hub.resolve import resolve_data

READERS: dict[Format, Callable[[Source, Findings], Iterator[Row]]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
    "arrow": read_arrow,
}


def load_rows(path: Path | str, *, skip_bad: bool = False) -> tuple[list[Row], list[Note]]:
    """All rows of a file, and what there is to say about it. Raises `DataError` with every fault of the file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "train.jsonl")
    >>> _ = path.write_text('{"question": "2+2?", "answer": "4"}')
    >>> load_rows(path)[0]
    [Row(number=1, line=1, values={'question': '2+2?', 'answer': '4'}, column=1)]
    """
    found = Findings(str(path), skip_bad)
    rows = list(read_rows(path, found))
    return rows, found.close()


def read_rows(path: Path | str, found: Findings | None = None) -> Iterator[Row]:
    """The good rows of a file, one after the other. Bad rows go to `found`, which the caller closes; without it
    they raise `DataError` once the file has been read to its end.

    Raises `DataError` where reading on makes no sense: no such file, a damaged archive, another encoding.
    """
    collected = found if found is not None else Findings(str(path))
    if isinstance(path, str) and is_hub_data(path):
        path = resolve_data(path).path
    try:
        files = files_of(Path(path))
        for file in files:
            yield from _of_file(file, collected, len(files) > 1)
    except OSError as error:
        collected.fail(Fault("cannot read this file", str(path), error.strerror or str(error)))
    except DataError as error:
        raise DataError((*collected.faults(), *error.faults)) from None
    if found is None:
        tell_all(collected.close(), None)


def _of_file(file: Path, found: Findings, is_shard: bool) -> Iterator[Row]:
    """The rows of one file; those of a shard are called by the shard's name."""
    whole = found.path
    if is_shard:
        found.path = str(file)
    try:
        source = open_source(file)
        for row in READERS[source.format](source, found):
            yield replace(row, file=found.path) if is_shard else row
    finally:
        found.path = whole
