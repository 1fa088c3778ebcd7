"""The index beside a run: what a filter finds is what the rows say; it follows its files and is made anew at need."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from demo_runs import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.record.rollouts import write_rows
from temper.report.find import Source
from temper.text.languages import main_language
from temper.ui.index import NAME, Index, connect
from temper.ui.search import Filter, Reader, WrongFilter, read_filter, words_of

WORDS = ["carry", "38", "the", "Übung", "漢字", "xy"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt_id": st.sampled_from(["a:1", "a:2"]), "task": st.sampled_from(["a", "b"]),
            "prompt": st.just("p"), "reply": st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
            "total": st.sampled_from([0.0, 0.5, 1.0, None]), "tokens": st.integers(1, 5),
            "rewards": st.dictionaries(st.sampled_from(["accuracy", "format"]), st.sampled_from([0.0, 1.0])),
            "finish_reason": st.sampled_from(["stop", "length"]), "sample": st.integers(0, 3),
        }
    ),
    max_size=8,
)  # fmt: skip


def indexed(folder: Path, files: dict[tuple[str, int | None], list[dict]]) -> tuple[Index, list[Source]]:
    sources = []
    for i, ((stage, step), rows) in enumerate(files.items()):
        path = folder / f"{i}.jsonl.gz"
        write_rows(path, rows)
        sources.append(Source(stage, step, path))
    index = Index(folder)
    index.update(sources)
    return index, sources


@contextlib.contextmanager
def reading(index: Index):
    with contextlib.closing(connect(index.path)) as connection:
        yield Reader(connection)


def test_filters_find_what_the_rows_say(tmp_path_factory) -> None:
    @settings(max_examples=20, deadline=None)
    @given(early=ROWS, late=ROWS, word=st.sampled_from(WORDS), low=st.sampled_from([None, 0.5]))
    def check(early, late, word, low) -> None:
        index, _ = indexed(tmp_path_factory.mktemp("index"), {("rl", 1): early, ("rl", None): late})
        both = early + late
        with reading(index) as reader:

            def fits(**wanted) -> int:
                found = reader.page(Filter(**wanted), 0)
                assert len(found["rows"]) == found["total"]
                return found["total"]

            assert [fits(), fits(step=1), fits(step=-1)] == [len(both), len(early), len(late)]
            right = [row for row in both if row["rewards"].get("accuracy") == 1.0]
            assert fits(task="a", verdict="right") == sum(row["task"] == "a" for row in right)
            assert fits(truncated=True) == sum(row["finish_reason"] == "length" for row in both)
            assert fits(language="en") == sum(main_language(row["reply"]) == "en" for row in both)
            assert fits(low=low) == sum(low is None or (row["total"] or -1) >= low for row in both)
            found = [row["reply"] for row in reader.page(Filter(text=word), 0)["rows"]]
            assert sorted(found) == sorted(row["reply"] for row in both if word in row["reply"].split())
            ordered = [row["tokens"] for row in reader.page(Filter(sort="tokens", down=True), 0)["rows"]]
            assert ordered == sorted(ordered, reverse=True)
            spread = reader.histogram(Filter(), "total")["bins"]
            assert sum(bin[2] for bin in spread) == sum(row["total"] is not None for row in both)

    check()


def row(sample: int, reply: str = "four") -> dict:
    return {"prompt_id": "a:1", "task": "a", "prompt": "2+2", "reply": reply, "sample": sample, "total": 1.0}


def test_pages_follow_one_another_and_groups_stand_together(tmp_path) -> None:
    index, _ = indexed(tmp_path, {("rl", 1): [row(i) for i in range(9)], ("rl", 2): [row(i) for i in range(3)]})
    with reading(index) as reader:
        pages = [reader.page(Filter(), start, 5)["rows"] for start in (0, 5, 10, 15)]
        assert [len(page) for page in pages] == [5, 5, 2, 0]
        first = pages[0][3]
        assert [r["sample"] for r in reader.group(first["id"])] == list(range(9))
        assert [(r["step"], r["count"]) for r in reader.elsewhere(first["id"])] == [(1, 9), (2, 3)]
        assert reader.group(10**12) == []


def test_it_follows_files_that_change_come_and_go(tmp_path) -> None:
    index, sources = indexed(tmp_path, {("rl", 1): [row(0)], ("rl", 2): [row(0), row(1)]})
    write_rows(sources[0].path, [row(0, "five"), row(1, "five"), row(2, "five")])
    os.utime(sources[0].path, (1, 1))
    index.update([sources[0]])
    with reading(index) as reader:
        assert reader.page(Filter(), 0)["total"] == 3
        assert reader.page(Filter(text="five"), 0)["total"] == 3
        assert reader.page(Filter(text="four"), 0)["total"] == 0
    assert index.progress.is_whole
    assert index.progress.rows == 3


@pytest.mark.parametrize("damage", [b"no database at all", None, b""])
def test_a_damaged_or_foreign_index_is_made_anew(tmp_path, damage) -> None:
    index, sources = indexed(tmp_path, {("rl", 1): [row(0)]})
    if damage is None:
        with contextlib.closing(sqlite3.connect(index.path)) as connection:
            connection.execute("PRAGMA user_version = 77")
    else:
        (tmp_path / NAME).write_bytes(damage)
        for suffix in ("-wal", "-shm"):
            Path(f"{index.path}{suffix}").unlink(missing_ok=True)
    index.update(sources)
    with reading(index) as reader:
        assert reader.page(Filter(), 0)["total"] == 1


def test_odd_rows_are_kept_as_they_are(tmp_path) -> None:
    odd = [
        {}, {"reply": HOSTILE, "rewards": {f"r{i}": i for i in range(40)}}, {"total": 10**400, "rewards": "none"},
        {"prompt_id": ["x"], "sample": "two", "tokens": 1 << 90, "reply": "\ud800 \x00"}, {"task": {"a": 1}},
    ]  # fmt: skip
    index, _ = indexed(tmp_path, {("rl</script>", 1): odd})
    with reading(index) as reader:
        found = reader.page(Filter(stage="rl</script>"), 0)
        assert found["total"] == len(odd)
        assert found["rows"][1]["reply"] == HOSTILE
        assert len(reader.rewards) == 24


@given(st.text(max_size=40))
def test_any_text_can_be_searched(text) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text, content='', detail=none)")
        if (asked := words_of(text)) is not None:
            connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (asked,)).fetchall()


@pytest.mark.parametrize(
    "given", [{"step": "x"}, {"low": "1; DROP"}, {"verdict": "maybe"}, {"sort": "id; --"}, {"step": "9" * 30}]
)
def test_filters_that_cannot_be_are_refused(given) -> None:
    with pytest.raises(WrongFilter):
        read_filter(given)
