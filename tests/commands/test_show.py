"""`temper show` says what the run said at its end."""

from __future__ import annotations

import json

import pytest

from temper import cli

pytestmark = pytest.mark.usefixtures("fake_kinds", "recipe")


def test_the_end_of_a_run_is_shown_again_to_the_letter(capsys):
    assert cli.main(["plan", "my.yaml", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["stages"]
    assert cli.main(["plan", "my.yaml"]) == 0
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("all "))
    assert f"{len(planned)} stages" in total
    assert cli.main(["run", "my.yaml", "--out", "out", "--set", "note=only a trial"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "note:    only a trial"
    assert cli.main(["show", "out"]) == 0
    assert capsys.readouterr().out == said
    assert cli.main(["show", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"]["models"]


def test_a_run_that_is_not_there_is_told(capsys):
    assert cli.main(["show", "nowhere"]) == 2
    assert "error:" in capsys.readouterr().err
