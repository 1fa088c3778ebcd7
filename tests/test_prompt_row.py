"""A prompt keeps the row it was read from, for rewards that ask for more than a gold answer."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.aside import Aside, set_aside
from temper.config import TaskConfig
from temper.data.rows import decode, plain
from temper.data.tasks import load_prompts
from temper.rewards.columns import ColumnsCall
from temper.types import Message, Prompt, Reply

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_values_of_a_row_are_what_json_says(value: Any) -> None:
    assert plain(decode(json.dumps(value)).value) == value


def test_a_prompt_has_every_column_of_its_row(tmp_path: Path) -> None:
    file = tmp_path / "countdown.jsonl"
    row = {"question": "Make 32 of the numbers.", "nums": [3, 7, 25.5], "meta": {"source": "web"}, "answer": "#### 32"}
    file.write_text(json.dumps(row))
    (prompt,) = load_prompts(file, "countdown", TaskConfig())
    assert prompt.row == row
    assert (prompt.gold, prompt.row["nums"]) == ("32", [3, 7, 25.5])


def test_a_row_cannot_be_changed_and_travels_with_its_prompt() -> None:
    given_row = {"nums": [1]}
    prompt = Prompt("1", "t", (Message("user", "?"),), "5", row=given_row)
    with pytest.raises(TypeError):
        prompt.row["nums"] = [2]  # type: ignore[index]
    given_row["more"] = [2]
    assert "more" not in prompt.row
    assert pickle.loads(pickle.dumps(prompt)).row == prompt.row == copy.deepcopy(prompt).row
    assert len({prompt, copy.deepcopy(prompt)}) == 1
    assert Prompt("1", "t", (), "5").row == {}


def large_row() -> dict[str, Any]:
    return {"question": "Double it.", "id": "a", "tests": [{"input": "2" * 1000, "output": "4" * 1000}] * 100}


def test_large_columns_stand_in_a_file_and_read_as_ever(tmp_path: Path) -> None:
    file = tmp_path / "programs.jsonl"
    file.write_text(json.dumps(large_row()) + "\n")
    (prompt,) = load_prompts(file, "programs", TaskConfig(), golds="none")
    assert prompt.row == large_row()
    assert len(pickle.dumps(prompt)) < 2000
    again = pickle.loads(pickle.dumps(prompt))
    assert again.row["tests"] == copy.deepcopy(prompt).row["tests"] == large_row()["tests"]
    again.row["tests"].clear()
    assert len(again.row["tests"]) == 100
    assert set_aside({"short": "x", "long": "x" * 100_000}).held["short"] == "x"


def test_a_function_of_columns_reads_large_ones_when_it_looks_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Aside] = []
    monkeypatch.setattr(Aside, "read", lambda self: read.append(self) or large_row()["tests"])
    prompt = Prompt("1", "t", (Message("user", "?"),), "5", row=set_aside(large_row()))
    pairs = [(prompt, Reply("abc", None, None, False))] * 2

    def blind(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(columns["tests"])) for _ in completions]

    def seeing(completions: list[str], tests: list[Any], **columns: Any) -> list[float]:
        return [float(len(own)) for _, own in zip(completions, tests, strict=True)]

    assert ColumnsCall(blind)(pairs) == [2.0, 2.0]
    assert not read
    assert ColumnsCall(seeing)(pairs) == [100.0, 100.0]


def test_where_there_is_no_room_for_a_file_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("temper.aside._FILE.put", full)
    assert set_aside(large_row()).held["tests"] == large_row()["tests"]
