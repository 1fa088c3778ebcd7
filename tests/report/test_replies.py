"""The replies that the page holds beside the picked ones: all that was wrong, training's kept steps, up to a size."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from demo_runs import HOSTILE, add_evaluation, completion, make_run
from hypothesis import given
from hypothesis import strategies as st

from temper.commands.report import watch
from temper.record.rollouts import write_rows
from temper.record.rundir import Lock
from temper.report.find import Source, sources
from temper.report.html import write
from temper.report.replies import more_completions, shared, size, spaced, trained, wrong


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = make_run(tmp_path_factory.mktemp("run") / "demo", steps=tuple(range(1, 91)))
    add_evaluation(path, {"rl": (True, False, True, False), "base": (False,) * 4})
    rows = [{**completion(90, 1, i), "reply": HOSTILE} for i in range(2)]
    write_rows(path / "stages/01-rl/rollouts/step-000090.jsonl.gz", rows)
    return path


def test_all_that_was_wrong_is_there(run) -> None:
    found = wrong(sources(run))
    gold = [row for i in range(4) if (row := completion(0, i, 0))["rewards"]["accuracy"] == 0]
    assert [row["reply"] for row in found.rows if row["stage"] == "base"] == [row["reply"] for row in gold]
    assert not +found.left
    few = wrong(sources(run), most=2 * size(gold[0]))
    assert len(few.rows) + few.left.total() == len(found.rows)
    assert {row["stage"] for row in few.rows} == {"rl", "base"}


def test_training_is_shown_at_steps_evenly_spaced_from_worst_to_best(run) -> None:
    found = trained(sources(run))
    steps = list(dict.fromkeys(row["step"] for row in found.rows))
    assert (len(steps), steps[0], steps[-1]) == (40, 1, 90)
    assert found.left["rl"] == 50
    totals = [row["total"] for row in found.rows if row["step"] == steps[5]]
    assert totals == sorted(totals)
    assert len(totals) > 3
    assert all(row["step"] in steps for row in trained(sources(run), most=1).rows)


@given(st.lists(st.integers(0, 1000), max_size=6), st.integers(0, 2000))
def test_room_is_shared_whole_and_fairly(wanted, room) -> None:
    found = shared(wanted, room)
    assert sum(found) <= room
    assert all(0 <= given <= want for given, want in zip(found, wanted, strict=True))
    short = [given for given, want in zip(found, wanted, strict=True) if given < want]
    assert not short or min(short) >= max(found, default=0) - len(wanted)


def test_spaced_keeps_both_ends() -> None:
    steps = [Source("rl", step, Path()) for step in range(100)]
    assert [source.step for source in spaced(steps, 4)] == [0, 33, 66, 99]
    assert spaced(steps[:3], 4) == steps[:3]


def test_the_page_has_them_as_text_and_says_what_it_leaves_out(run, tmp_path) -> None:
    text = write(run, tmp_path / "page.html").read_text()
    assert "Wrong replies, held out" in text
    assert "50 more kept steps of rl" in text
    assert HOSTILE not in text
    assert 'data-step="90"' in text
    assert "http-equiv=\"refresh\"" not in text
    assert more_completions(tmp_path) == ""


def test_watching_writes_as_the_run_goes_on_and_ends_with_it(tmp_path) -> None:
    path = make_run(tmp_path / "demo", state="running")
    lock, out = Lock(path / "lock"), tmp_path / "page.html"
    watcher = threading.Thread(target=watch, args=(path, out, 0.02))
    watcher.start()
    try:
        for _ in range(3000):
            if out.exists():
                break
            threading.Event().wait(0.01)
        assert re.search(r'<body data-again="1">', out.read_text())
        out.unlink()
        with (path / "stages/01-rl/metrics.jsonl").open("a") as file:
            file.write('{"step": 21, "of": 30, "reward/total": 0.7, "seconds": 2.0}\n')
        for _ in range(3000):
            if out.exists():
                break
            threading.Event().wait(0.01)
        assert out.exists()
    finally:
        lock.release()
        watcher.join(60)
    assert not watcher.is_alive()
