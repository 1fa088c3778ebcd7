"""The notebooks run from top to bottom. The one that trains gets settings in which it does so in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs/notebooks"
SMALL = {
    "world.arithmetic_train": 16, "world.arithmetic_test": 4, "world.general_train": 8, "world.general_test": 4,
    "world.cold_start": 64, "world.general_conversations": 8, "cold_start.num_train_epochs": 1, "threads": 1,
    "cold_start.warmup_steps": 1, "reasoning_rl.max_steps": 2, "reasoning_rl.num_generations": 4,
    "reasoning_rl.prompts_per_step": 2, "reasoning_rl.warmup_steps": 1, "evaluation.num_samples": 1,
    "reasoning_rl.max_completion_length": 16, "evaluation.max_completion_length": 16,
}  # fmt: skip


def cells(name: str) -> list[dict]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]


def ran(name: str) -> dict:
    """The names that the cells leave behind."""
    names: dict = {"__name__": "__main__"}
    for cell in (cell for cell in cells(name) if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"{name}:{cell['id']}", "exec"), names)
        if "settings" in cell["metadata"].get("tags", ()):
            names["SETTINGS"] = SMALL
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_first_reward(capsys):
    assert ran("first_reward.ipynb")["of_file"].total == 1.0


def test_from_zero_to_a_reasoning_model(capsys):
    names = ran("zero_to_reasoning.ipynb")
    assert len(names["curve"]) == 2
    assert names["done"].report.is_file()
    assert [model["stage"] for model in names["done"].evaluation["models"]] == ["cold_start", "reasoning_rl"]


@pytest.mark.parametrize("name", ["first_reward.ipynb", "zero_to_reasoning.ipynb"])
def test_a_notebook_is_one_and_holds_no_output(name):
    whole = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
    for cell in whole["cells"]:
        assert set(cell) >= {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
