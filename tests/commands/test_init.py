"""`temper init` copies what ships, and writes over nothing."""

from __future__ import annotations

import json

import pytest

from temper import cli
from temper.recipe.sources import RECIPES, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_copied_to_the_letter(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", name]) == 0
    assert capsys.readouterr().out.strip() == f"{name}.yaml"
    assert (tmp_path / f"{name}.yaml").read_bytes() == (RECIPES / f"{name}.yaml").read_bytes()


def test_a_file_that_is_there_is_not_written_over(tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine")
    assert cli.main(["init", "smoke", str(mine)]) == 2
    assert mine.read_text() == "mine"
    assert "is there already" in capsys.readouterr().err


def test_without_a_name_every_recipe_is_listed_with_a_word_about_it(capsys):
    assert cli.main(["init", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == shipped_recipes()
    assert all(words.endswith(".") and len(words) < 120 for words in listed.values())  # whole sentences, on a line


def test_a_wrong_name_is_told_the_right_one(capsys):
    assert cli.main(["init", "smok"]) == 2
    assert "did you mean `smoke`?" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_a_matter_of_resources(tmp_path, capsys):
    assert cli.main(["init", "smoke", str(tmp_path / "no" / "x.yaml")]) == 4
    assert "cannot be written" in capsys.readouterr().err
