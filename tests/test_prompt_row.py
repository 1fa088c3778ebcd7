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

from temper.config import TaskConfig
from temper.data.rows import decode, plain
from temper.data.tasks import load_prompts
from temper.types import Message, Prompt

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
