"""How many of a file's rows could be verified stands beside every score that is shown for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.cli import main

SHOWN = "2 of 4 rows"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one evaluation on a file of which two rows have no answer that can be verified."""
    folder = tmp_path_factory.mktemp("coverage")
    rows = [
        {"question": f"1+{n}", "answer": gold}
        for n, gold in enumerate(["1", "2", "it can be shown by induction on n", None])
    ]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = "{test: sums.jsonl, unverifiable: drop}"
    stage = "{stage: evaluate, models: [tiny-base], tasks: [sums], num_samples: 1, max_completion_length: 4}"
    (folder / "my.yaml").write_text(f"name: my\ntasks:\n  sums: {task}\nstages:\n  report: {stage}\n")
    assert main(["run", str(folder / "my.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.parametrize("command", [("samples",), ("samples", "--json"), ("report",)])
def test_it_stands_beside_every_score(
    run_folder: Path, capsys: pytest.CaptureFixture, command: tuple[str, ...]
) -> None:
    assert main([command[0], str(run_folder), *command[1:]]) == 0
    said = capsys.readouterr().out
    shown = (run_folder / "report" / "index.html").read_text() if command[0] == "report" else said
    assert SHOWN in shown


def test_the_run_itself_says_so(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", str(run_folder.parent / "my.yaml"), "--out", str(run_folder)]) == 0
    assert f"sums: {SHOWN}" in capsys.readouterr().out
    evaluation = next((run_folder / "artifacts").glob("*/evaluation.json"))
    assert json.loads(evaluation.read_text())["models"][0]["tasks"]["sums"]["coverage"] == SHOWN
