"""Rows from Arrow tables: `.parquet`, `.arrow` (stream or file), with lists and objects inside. The one file that needs
pyarrow."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Iterator
from typing import Any

from temper.data.findings import Findings, clip
from temper.data.rows import Number, Row, check_characters
from temper.data.sources import Source
from temper.errors import DataError, Exit, Fault, TemperError


def read_parquet(source: Source, found: Findings) -> Iterator[Row]:
    """Rows of a parquet file. Raises with exit code 9 when pyarrow is not installed."""

    def batches(stream: Any) -> Iterator[Any]:
        import pyarrow.parquet  # type: ignore[import-not-found]

        return pyarrow.parquet.ParquetFile(stream).iter_batches()

    return _rows(source, found, "parquet", batches)


def read_arrow(source: Source, found: Findings) -> Iterator[Row]:
    """Rows of an Arrow file, in either of its two formats: `datasets` writes the stream, others the file."""

    def batches(stream: Any) -> Iterator[Any]:
        import pyarrow  # type: ignore[import-not-found]

        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            opened = pyarrow.ipc.open_file(stream)
            return (opened.get_batch(number) for number in range(opened.num_record_batches))
        return iter(pyarrow.ipc.open_stream(stream))

    return _rows(source, found, "Arrow", batches)


def _rows(source: Source, found: Findings, format_: str, batches: Callable[[Any], Iterator[Any]]) -> Iterator[Row]:
    try:
        import pyarrow  # type: ignore[import-not-found]
    except ImportError:
        what, fix = f"{format_} files need pyarrow, which is not installed", 'pip install "temper-rl[parquet]"'
        raise TemperError(Fault(what, source.name, fix=fix), Exit.OPTIONAL_PART) from None
    try:
        with source.open() as stream:
            for batch in batches(stream):
                for values in batch.to_pylist():
                    found.rows += 1
                    row = Row(found.rows, 0, {name: _from_arrow(value) for name, value in values.items()})
                    if check_characters(row, found):
                        yield row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        what, fix = f"damaged {format_} file", "copy or download it again"
        raise DataError(Fault(what, source.name, clip(error, 200), fix)) from None


def _from_arrow(value: Any) -> Any:
    """A value as JSON would have it: numbers digit by digit, dates as text, bytes only by their number."""
    if isinstance(value, (list, tuple)):
        return [_from_arrow(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _from_arrow(item) for key, item in value.items()}
    if isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool):
        return Number(str(value))
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else value
