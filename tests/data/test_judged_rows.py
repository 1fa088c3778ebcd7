"""Rows for reward models: read whole or told of, by file and line; nothing is bent into shape."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.data.judged import LabelledSteps, Pair, Rated, load_judged
from temper.errors import DataError
from temper.types import Message

GOOD: dict[str, dict[str, Any]] = {
    "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "rated": {"prompt": "q", "completion": "a", "label": 1},
    "ranked": {"prompt": "q", "ranking": ["a", "b", "c"]},
    "steps": {"prompt": "q", "steps": ["a.", " b."], "labels": [1, 0.5]},
}
ASKED = (Message("user", "q"),)


def load(tmp_path: Path, shape: str, *rows: dict[str, Any], said: list | None = None) -> list:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_judged(path, shape, tell=(said if said is not None else []).append)


def test_each_shape_becomes_its_rows(tmp_path):
    turns = [{"role": "user", "content": "q"}]
    answered = [*turns, {"role": "assistant", "content": "a"}]
    assert load(tmp_path, "preference", GOOD["preference"] | {"margin": 0.5}) == [Pair(ASKED, "a", "b", 0.5)]
    as_messages = {"prompt": turns, "chosen": answered, "rejected": [{"role": "assistant", "content": "b"}]}
    assert load(tmp_path, "preference", as_messages) == [Pair(ASKED, "a", "b")]
    rows = (GOOD["rated"], GOOD["rated"] | {"label": False}, GOOD["rated"] | {"label": 0.25})
    assert load(tmp_path, "rated", *rows) == [Rated(ASKED, "a", label) for label in (1.0, 0.0, 0.25)]
    assert load(tmp_path, "steps", GOOD["steps"]) == [LabelledSteps(ASKED, ("a.", " b."), (1.0, 0.5))]


REPLY = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "row",
    [
        {"ranking": ["a", "b", "c"]},
        {"ranking": ["c", "a", "b"], "ranks": [3, 1, 2]},
        {"ranking": [{"text": "b", "rank": 2}, {"text": "c", "rank": 7}, {"text": "a", "rank": 1}]},
        {"ranking": [{"response": "c", "overall_score": 1.5}, {"response": "a", "overall_score": 9},
                     {"response": "b", "overall_score": "3"}]},
        {"Ranked responses": [[{"role": "user", "content": "q"}, REPLY], "b", {"answer": "c"}]},
    ],
)  # fmt: skip
def test_a_ranking_is_every_pair_that_it_says(row, tmp_path):
    wanted = [Pair(ASKED, "a", "b"), Pair(ASKED, "a", "c"), Pair(ASKED, "b", "c")]
    assert load(tmp_path, "preference", {"prompt": "q"} | row) == wanted


@given(ranks=st.lists(st.integers(1, 4), min_size=2, max_size=8).filter(lambda ranks: len(set(ranks)) > 1))
def test_ties_make_no_pair_and_the_better_rank_is_chosen(ranks, tmp_path_factory):
    replies = [f"reply {i}" for i in range(len(ranks))]
    row = {"prompt": "q", "ranking": replies, "ranks": ranks}
    pairs = load(tmp_path_factory.mktemp("rows"), "preference", row)
    place = dict(zip(replies, ranks, strict=True))
    found = {(pair.chosen, pair.rejected) for pair in pairs}
    assert found == {(a, b) for a in replies for b in replies if place[a] < place[b]}
    assert len(found) == len(pairs)


def test_a_ranking_under_another_name_is_offered_and_mapped(tmp_path):
    row = {"prompt": "q", "answers": [{"answer": "b", "rank": 2}, {"answer": "a", "rank": 1}]}
    with pytest.raises(DataError) as caught:
        load(tmp_path, "preference", row)
    assert "columns: {ranking: answers}" in caught.value.faults[0].fix
    found = load_judged(tmp_path / "rows.jsonl", "preference", {"ranking": "answers"}, tell=lambda note: None)
    assert found == [Pair(ASKED, "a", "b")]


def test_a_csv_file_has_its_numbers_as_text(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,completion,label\nq,a,0.5\n")
    assert load_judged(tmp_path / "rows.csv", "rated", tell=lambda note: None) == [Rated(ASKED, "a", 0.5)]


@pytest.mark.parametrize(
    ("shape", "change", "what"),
    [
        ("preference", {"rejected": "a"}, "`chosen` and `rejected` are the same"),
        ("preference", {"chosen": ""}, "`chosen` is empty"),
        ("preference", {"margin": -1}, "`margin` is not a number of 0 or more"),
        ("preference", {"margin": "big"}, "`margin` is not a number of 0 or more"),
        ("preference", {"chosen": [{"role": "user", "content": "a"}]}, "`chosen` is not one reply to the prompt"),
        ("preference", {"rejected": None}, "`rejected` is not text"),
        ("ranked", {"ranking": ["a", "a", "b"]}, "`ranking` is no ranking"),
        ("ranked", {"ranking": ["a"]}, "`ranking` is no ranking"),
        ("ranked", {"ranking": ["a", " "]}, "`ranking` is no ranking"),
        ("ranked", {"ranking": ["a", {"role": "user", "content": "b"}]}, "`ranking` is no ranking"),
        ("ranked", {"ranking": [{"text": "a", "rank": 1}, "b"]}, "`ranking` is no ranking"),
        ("ranked", {"ranks": [1, 2]}, "`ranking` is no ranking"),
        ("ranked", {"ranks": [1, 1, 1]}, "`ranking` is no ranking"),
        ("ranked", {"ranks": [1, 2, "x"]}, "`ranking` is no ranking"),
        ("ranked", {"ranking": [str(i) for i in range(65)]}, "`ranking` is no ranking"),
        ("ranked", {"ranking": "a > b"}, "`ranking` is not a list"),
        ("rated", {"label": 2}, "`label` is not a number from 0 to 1"),
        ("rated", {"label": None}, "`label` is not a number from 0 to 1"),
        ("rated", {"label": "good"}, "`label` is not a number from 0 to 1"),
        ("rated", {"completion": 7}, "`completion` is not text"),
        ("steps", {"labels": [1]}, "not one label a step"),
        ("steps", {"steps": ["a.", " "]}, "a step is not text"),
        ("steps", {"steps": ["a.", 5]}, "a step is not text"),
        ("steps", {"labels": [1, 1.5]}, "a label is not a number from 0 to 1"),
        ("steps", {"labels": [1, "x"]}, "a label is not a number from 0 to 1"),
        ("steps", {"steps": "a. b.", "labels": [1]}, "`steps` is not a list"),
        ("steps", {"steps": []}, "`steps` is not a list"),
        ("steps", {"prompt": ""}, "`prompt` is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_by_its_line(shape, change, what, tmp_path):
    more = {"margin": {"margin": 1}, "ranks": {"ranks": [1, 2, 2]}}.get(next(iter(change)), {})
    read = "preference" if shape == "ranked" else shape
    with pytest.raises(DataError) as caught:
        load(tmp_path, read, GOOD[shape] | more, GOOD[shape] | change)
    (fault,) = caught.value.faults
    assert fault.what == f"row 2: {what}"
    assert fault.where.endswith("rows.jsonl:2")


@pytest.mark.parametrize("shape", GOOD)
@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4), data=st.data())
def test_anything_in_a_column_is_read_or_told(shape, value, data, tmp_path_factory):
    column = data.draw(st.sampled_from(sorted(GOOD[shape])))
    with suppress(DataError):
        read = "preference" if shape == "ranked" else shape
        assert load(tmp_path_factory.mktemp("rows"), read, GOOD[shape] | {column: value})


def test_pairs_that_length_alone_explains_are_warned_of(tmp_path):
    said: list = []
    rows = [{"prompt": f"q{i}", "chosen": "longer", "rejected": "b"} for i in range(100)]
    load(tmp_path, "preference", *rows, said=said)
    assert [note.fault.what for note in said] == ["the chosen reply is the longer one in 100 of 100 pairs"]
    load(tmp_path, "preference", *[GOOD["preference"]] * 3, said=(quiet := []))
    assert not quiet
