"""The recipes of real models are right in every key, and fit the machines that their page names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from temper.cli import main

PAGE = Path(__file__).parents[2] / "docs/real_models.md"
MACHINES = {
    "smol_135m": "cpu:16GB", "qwen_0p5b_lora": "1x16GB", "qwen_1p5b": "1x80GB", "qwen_7b_8gpu": "8x80GB",
    "r1_distill": "1x80GB",
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_the_recipe_fits_the_machine_it_is_for_and_takes_what_its_page_says(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", name, "--for", MACHINES[name], "--disk", "300GB", "--strict", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    row = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |"))
    memory, disk = (float(number) for number in re.findall(r"([\d.]+) GB", row.split("|")[4]))
    assert found["memory_bytes"] / 1e9 == pytest.approx(memory, rel=0.15)
    assert found["disk_bytes"] / 1e9 == pytest.approx(disk, rel=0.05)


@pytest.mark.parametrize("name", ["qwen_1p5b", "r1_distill"])
def test_on_a_smaller_card_it_is_said_what_to_change(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", name, "--for", "1x24GB", "--disk", "100GB", "--strict", "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    stage = next(stage for stage in found["stages"] if stage["stage"] == "rl")
    assert any(remedy["memory_bytes"] <= found["memory_available_bytes"] for remedy in stage["remedies"])
