"""The lines that recipes/own_data.yaml keeps behind `#` make R1's last stage when they are put in place."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from temper.recipe.reader import load_recipe

FILES = ("prompts", "held_out", "open_prompts", "open_held_out", "cold_start", "preferences", "safety")
NAMES = "talk|talk_data|helpful|harmless"
KEYS = "train|test|stage|model|tasks|min_rewards|max_completion_length|kind|data|reads|batch_size|learning_rate"


def in_place(text: str) -> str:
    text = re.sub(rf"^  # ({NAMES}):$", r"  \1:", text, flags=re.M)
    text = re.sub(rf"^  #   (({KEYS}):.*)$", r"    \1", text, flags=re.M)
    text = re.sub(
        r"^    # ((reward_funcs|reward_tasks|reward_start_steps|mix|mix_share):.*)$", r"    \1", text, flags=re.M
    )
    return re.sub(r"^(    \w+: )\[[^#\n]*# (\[.*\])$", r"\1\2", text, flags=re.M)


def test_the_lines_behind_the_hashes_make_the_five_stages(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / f"my_{name}.jsonl").write_text("{}\n")
    text = files("temper.recipes").joinpath("own_data.yaml").read_text("utf-8").replace("my-model", "tiny-base")
    text = in_place(text).replace("my_general_conversations.jsonl", "@talk_data").replace("[@talk", "['@talk")
    (tmp_path / "own.yaml").write_text(text.replace("@talk_data]", "@talk_data']"))
    recipe, faults = load_recipe("own.yaml")
    assert faults == []
    assert list(recipe.by_name) == [
        "base", "cold_start", "reasoning_rl", "talk_data", "harvest", "second_sft", "helpful", "harmless", "final_rl",
        "evaluation",
    ]  # fmt: skip
    final = recipe.by_name["final_rl"].config
    assert final.tasks == ["mine", "talk"]
    assert final.reward_funcs[-2:] == ["@helpful", "@harmless"]
    assert len(final.reward_weights) == 5
    assert set(final.reward_start_steps) == {"@helpful", "@harmless"}
    assert recipe.by_name["harvest"].config.mix == ["@talk_data"]
    assert recipe.by_name["evaluation"].config.tasks == ["mine", "talk"]
    assert recipe.by_name["evaluation"].config.reward_funcs == ["@helpful", "@harmless"]
