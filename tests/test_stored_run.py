"""A run directory as version 0.1.0 leaves it is read by all that reads runs: what docs/versions.md promises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import temper
from temper.cli import main

STORED = Path(__file__).parent / "stored/run-0.1.0"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of it, beside which the test stands."""
    shutil.copytree(STORED, tmp_path / "old")
    monkeypatch.chdir(tmp_path)
    return "old"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints; nothing of the run is damaged to it."""
    assert main(list(words)) == 0
    out, err = capsys.readouterr()
    assert "damaged" not in err
    return out


def test_its_scores_metrics_and_completions_are_read(run, capsys):
    table = said(capsys, "show", run).splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["base", "rl"]
    header, *rows = said(capsys, "export-metrics", run).splitlines()
    assert {"stage", "step", "reward/total", "rl/sums/accuracy"} <= set(header.split(","))
    assert [row.split(",")[:2] for row in rows if row.startswith("rl,")] == [["rl", "1"], ["rl", "2"]]
    held_out = json.loads(said(capsys, "samples", run, "--stage", "rl", "--json", "-n", "100"))
    assert len(held_out) == 12
    assert all(set(row["rewards"]) >= {"accuracy", "format", "mine.py:vowels"} for row in held_out)
    trained = json.loads(said(capsys, "samples", run, "--stage", "rl", "--step", "2", "--json", "-n", "100"))
    assert len(trained) == 8
    assert "reward/total" in said(capsys, "explain", run)


def test_its_models_are_compared_exported_and_asked(run, capsys):
    found = json.loads(said(capsys, "compare", f"{run}:base", f"{run}:rl", "--json"))
    assert found["tasks"]["sums"]["n"] == 6
    said(capsys, "export", f"{run}:rl", "taken")
    assert "6,800 parameters" in Path("taken/README.md").read_text(encoding="utf-8")
    [[first]], [[again]] = (temper.load(path).generate("2+3", max_tokens=6) for path in (f"{run}:rl", "taken"))
    assert first.text == again.text


def test_its_report_and_logs_are_written(run, capsys):
    said(capsys, "report", run)
    assert "mine.py:vowels" in Path(run, "report/index.html").read_text(encoding="utf-8")
    assert len(said(capsys, "export-log", run).split()) == 2
