"""Rows handed over to a person: the run waits, takes up what came back, and makes anew what depends on a later edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.running import run

from temper.errors import DataError, Exit, HandedOver

pytestmark = pytest.mark.usefixtures("fake_kinds")

FILE = Path("out/edits/chains.jsonl")
REPLIES = [f"<think>{n}+1 is {n + 1}.</think><answer>{n + 1}</answer>" for n in range(4)]
ROWS = [{"prompt": f"{n}+1?", "completion": reply} for n, reply in enumerate(REPLIES)]


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    write(Path("rows.jsonl"), ROWS)
    path = tmp_path / "my.yaml"
    path.write_text(
        "stages:\n  chains: {stage: edit, data: rows.jsonl}\n  student: {stage: fake_train, data: '@chains'}\n",
        encoding="utf-8",
    )
    return path


def write(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def handed() -> list[dict]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def kept(result) -> list[dict]:
    folder = Path("out/artifacts", result.record["stages"]["chains"]["fingerprint"])
    return [json.loads(line) for line in (folder / "data.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_run_waits_and_the_same_command_takes_up_what_came_back(chains):
    with pytest.raises(HandedOver) as waits:
        run(chains)
    assert waits.value.code == Exit.DATA
    assert waits.value.faults[0].where.endswith("out/edits/chains.jsonl")
    assert json.loads(Path("out/run.json").read_text())["stages"]["chains"]["state"] == "stopped"
    rows = handed()
    assert [row["messages"][1]["content"] for row in rows] == [row["completion"] for row in ROWS]
    rows[0]["messages"][1]["content"] = "<think>Zero and one make one.</think><answer>1</answer>"
    del rows[1]
    write(FILE, [*rows, {"messages": [{"role": "user", "content": "9+1?"}, {"role": "assistant", "content": "10"}]}])
    result = run(chains)
    assert result.ran == ("chains", "student")
    assert [row["source"] for row in kept(result)] == ["changed", "unchanged", "unchanged", "added"]
    assert kept(result)[0]["messages"][1]["content"].startswith("<think>Zero")
    counts = Path("out/artifacts", result.record["stages"]["chains"]["fingerprint"], "edit.json")
    assert json.loads(counts.read_text()) == {"unchanged": 2, "changed": 1, "added": 1, "removed": 1}
    assert run(chains).ran == ()


def test_a_file_left_as_it_is_is_taken_up_as_it_is(chains):
    with pytest.raises(HandedOver):
        run(chains)
    assert [row["source"] for row in kept(run(chains))] == ["unchanged"] * 4
    assert run(chains).ran == ()


def test_without_waiting_a_later_edit_makes_anew_what_depends_on_it(chains, capsys):
    before = run(chains, "chains.wait=false")
    assert before.ran == ("chains", "student")
    rows = handed()
    write(FILE, rows[1:])
    after = run(chains, "chains.wait=false")
    assert after.ran == ("chains", "student")
    assert "chains runs again: the file that it handed over was edited" in capsys.readouterr().err
    assert len(kept(after)) == 3
    write(FILE, rows)  # as it was handed over: what was made of it is still there
    assert run(chains, "chains.wait=false").ran == ()


def test_other_data_is_handed_over_anew_unless_somebody_worked_on_the_file(chains):
    with pytest.raises(HandedOver):
        run(chains)
    write(Path("rows.jsonl"), ROWS[1:])
    with pytest.raises(HandedOver):
        run(chains)
    assert len(handed()) == 3
    write(FILE, [*handed()[:2], handed()[1]])
    with pytest.raises(DataError) as twice:
        run(chains)
    assert "stands there twice" in twice.value.render()
    assert twice.value.faults[0].where.endswith("chains.jsonl:3")
    write(Path("rows.jsonl"), ROWS)
    with pytest.raises(DataError) as strange:
        run(chains)
    assert "no row of the data that the stage reads now" in strange.value.render()


@pytest.mark.parametrize("text", ["", "no json\n", '{"id": "1-x", "messages": []}\n', '{"messages": "hi"}\n'])
def test_a_file_that_cannot_be_read_is_told_with_its_line(chains, text):
    with pytest.raises(HandedOver):
        run(chains)
    FILE.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as broken:
        run(chains)
    assert "chains.jsonl" in broken.value.render()
    assert not isinstance(broken.value, HandedOver)
