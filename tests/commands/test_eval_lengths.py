"""`temper eval` and `temper.evaluate` with thoughts that are cut and extended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import temper
from temper.cli import main
from temper.testing import FakeEngine


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text('{"question": "1+1", "answer": "2"}\n')
    return path


def test_eval_measures_each_length_and_says_what_is_wrong_with_one(sums: Path, capsys: pytest.CaptureFixture) -> None:
    ask = ["eval", "tiny-base", "--tasks", str(sums), "-n", "1", "--max-tokens", "12", "--reply", "think"]
    assert main([*ask, "--thinking-budgets", "0,4", "--thinking-extensions", "1", "--json"]) == 0
    forced = json.loads(capsys.readouterr().out)["tasks"]["sums"]["forced"]
    assert list(forced) == ["budget@0", "budget@4", "drawn", "extended@1"]
    assert [forced[name]["thinking_tokens"] for name in forced][:3] == [0, 4, 12]
    wrong = ["--thinking-budgets", "12,x", "--thinking-extensions", "0,99", "--extend-with", ""]
    assert main([*ask, *wrong]) == 2
    told = capsys.readouterr().err
    for said in ("`12` is too many tokens", "`x` is no whole", "`0` is no whole", "more than 64 times", "is empty"):
        assert told.count(said) == 1
    assert main([*ask[:-1], "plain", "--thinking-budgets", "4"]) == 2
    assert "read as `plain`" in capsys.readouterr().err


def test_the_python_call_refuses_what_has_no_thought(sums: Path) -> None:
    model = temper.load(FakeEngine(["2"]))
    with pytest.raises(temper.TemperError, match="need replies with a thought"):
        temper.evaluate(model, str(sums), form="plain", thinking_budgets=[4])
