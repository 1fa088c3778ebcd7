"""metrics.jsonl survives kills: whatever a torn file holds, steps rise, and a resumed run writes the same bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import ResourceError
from temper.record.metrics import MetricsFile, clean, read_rows

floats = st.floats(allow_nan=True, allow_infinity=True)
metric_rows = st.lists(st.dictionaries(st.text(min_size=1, max_size=8), floats, max_size=4), min_size=1, max_size=12)


def write(path: Path, rows: list[dict], start: int = 1) -> MetricsFile:
    file = MetricsFile(path)
    for step, metrics in enumerate(rows[start - 1 :], start):
        file.append(step, len(rows), {k: v for k, v in metrics.items() if k not in ("step", "of")})
    return file


@given(rows=metric_rows, data=st.data())
def test_a_run_killed_at_any_byte_and_resumed_writes_what_an_undisturbed_run_writes(tmp_path_factory, rows, data):
    folder = tmp_path_factory.mktemp("m")
    write(folder / "whole.jsonl", rows)
    whole = (folder / "whole.jsonl").read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (folder / "cut.jsonl").write_bytes(whole[:cut])
    complete = len(read_rows(folder / "cut.jsonl"))
    start = data.draw(st.integers(0, complete))  # the checkpoint is at or before the last whole line
    MetricsFile(folder / "cut.jsonl").keep_until(start)
    write(folder / "cut.jsonl", rows, start + 1)
    assert (folder / "cut.jsonl").read_bytes() == whole


@given(rows=metric_rows, torn=st.binary(max_size=40).filter(lambda b: b"\n" not in b and b"\r" not in b))
def test_a_torn_last_line_is_dropped_and_every_line_parses_strictly(tmp_path_factory, rows, torn):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    write(path, rows)
    path.write_bytes(path.read_bytes() + b'{"step": 99, "x' + torn)
    MetricsFile(path).append(len(rows) + 1, 50, {"loss": 1.0})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_bytes().split(b"\n")[:-1]
    steps = [json.loads(line, parse_constant=refuse)["step"] for line in lines]
    assert steps == list(range(1, len(rows) + 2))


def test_resume_at_keeps_exactly_the_steps_up_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [{"loss": float(i)} for i in range(10)])
    MetricsFile(path).keep_until(4)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4]
    MetricsFile(path).keep_until(0)
    assert path.read_bytes() == b""


def test_a_repeated_step_replaces_it_and_what_came_after(tmp_path):
    file = write(tmp_path / "metrics.jsonl", [{"loss": 1.0}] * 5)
    file.append(3, 5, {"loss": 7.0})
    assert [(row["step"], row["loss"]) for row in read_rows(file.path)] == [(1, 1.0), (2, 1.0), (3, 7.0)]


@given(floats)
def test_numbers_are_finite_or_null(value):
    cleaned = clean([value, {"item": 1}.get("item")])
    assert cleaned[1] == 1
    assert cleaned[0] == value if math.isfinite(value) else cleaned[0] is None


def test_lines_that_are_not_rows_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'[1]\n{"loss": 2}\n{"step": true}\n\xff\xfe\n{"step": 2}\n{"step": 1}\n{"step": 3}\n')
    assert [row["step"] for row in read_rows(path)] == [2, 3]


def test_a_directory_that_cannot_be_written_is_a_resource_fault_that_names_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(ResourceError) as caught:
        MetricsFile(tmp_path / "metrics.jsonl").append(1, 2, {"loss": 1.0})
    assert str(tmp_path) in caught.value.render()
