"""Files of prompts alone are open prompts; beside other columns that is not guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper import cli


@pytest.mark.parametrize("column", ["prompt", "question"])
def test_prompts_alone_are_open_prompts(column: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({column: f"Write poem {i}."}) + "\n" for i in range(3)))
    code = cli.main(["check", str(file)])
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert "open prompts, without gold answers" in printed.err
    assert "3 rows" in printed.out


def test_a_column_that_may_be_the_answer_is_not_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"question": "2+3?", "anwser": "5"}) + "\n")
    assert cli.main(["check", str(file)]) == 3
    assert "open prompts, without" not in capfd.readouterr().err
