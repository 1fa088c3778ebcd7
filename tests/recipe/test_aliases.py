"""Key names of the tutorials and of TRL stand for ours: the recipe is the one that our names give."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from temper.cli import main
from temper.recipe.reader import load_recipe
from temper.recipe.resolved import render_recipe, resolved

OURS = """
tasks:
  sums: {train: sums.jsonl}
stages:
  base: {stage: import_model, model: tiny-base}
  cold: {stage: sft, model: "@base", data: chat.jsonl}
  rl: {stage: grpo, model: "@cold", tasks: [sums], reward_funcs: [format], reward_weights: [1.0], max_steps: 3,
    num_generations: 4, temperature: 0.9, top_p: 0.95, max_completion_length: 32, learning_rate: 0.0001,
    clip_range: 0.3, kl_penalty: 0.04, num_mini_batches: 2, prompts_per_step: 4}
"""
THEIRS = """
stages:
  base: {stage: import_model, model_name_or_path: tiny-base}
  cold: {stage: sft, model_name_or_path: "@base", dataset_name: chat.jsonl}
  rl: {stage: grpo, model_name_or_path: "@cold", dataset_name: sums.jsonl, reward_funcs: [format],
    reward_weights: [1.0], max_steps: 3, num_generations: 4, temperature: 0.9, top_p: 0.95, max_completion_length: 32,
    learning_rate: 0.0001, epsilon: 0.3, beta: 0.04, num_mini_batches: 2, prompts_per_step: 4}
"""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n' * 4)
    Path("chat.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n' * 4)


def read(text: str, *settings: str):
    Path("my.yaml").write_text(text)
    return load_recipe("my.yaml", settings)


def test_the_recipe_is_the_same_by_either_names():
    ours, faults = read(OURS)
    assert not faults
    theirs, faults = read(THEIRS)
    assert not faults
    assert resolved(theirs) == resolved(ours)


def test_what_is_resolved_has_our_names_and_the_lines_they_were_written_in():
    recipe, _ = read(THEIRS)
    found = yaml.safe_load(render_recipe(recipe))
    assert not {"epsilon", "beta", "model_name_or_path", "dataset_name"} & set(found["stages"]["rl"])
    assert found["origins"]["stages.rl.kl_penalty"] == "recipe my.yaml:7"


@pytest.mark.parametrize(
    ("alias", "ours"), [("epsilon: 0.1", "clip_range"), ("beta: 0", "kl_penalty"), ("dataset_name: a.jsonl", "tasks")]
)
def test_a_key_under_both_names_is_an_error(alias, ours):
    _, faults = read(OURS.replace("kl_penalty: 0.04", f"kl_penalty: 0.04, {alias}"))
    (fault,) = faults
    assert f"stages.rl.{ours}" in fault.what
    assert fault.where.startswith("my.yaml:9:")
    assert fault.fix == f"keep `{ours}`"


def test_an_alias_that_is_set_beside_our_name_is_an_error_too():
    _, faults = read(OURS, "rl.beta=0.1")
    assert [fault.where for fault in faults] == ["--set rl.beta"]
    recipe, faults = read(THEIRS, "rl.beta=0.1")
    assert not faults
    assert resolved(recipe)["stages"]["rl"]["kl_penalty"] == 0.1


@pytest.mark.parametrize("wrong", ["beta: much", "beta: -1"])
def test_a_wrong_value_is_told_where_it_stands(wrong):
    _, faults = read(THEIRS.replace("beta: 0.04", wrong))
    (fault,) = faults
    assert "kl_penalty" in fault.what
    assert fault.where.startswith("my.yaml:7:")


def test_an_alias_where_the_key_does_not_belong_is_told_as_before():
    _, faults = read(OURS.replace("data: chat.jsonl", "data: chat.jsonl, beta: 0.1"))
    assert [fault.what for fault in faults] == ["unknown key `stages.cold.beta`"]


@pytest.mark.parametrize(
    ("written", "train"),
    [
        ("openai/gsm8k", "hf://openai/gsm8k?split=train"), ("'hf://openai/gsm8k?split=test'", "hf://openai/gsm8k?split=test"),
        ("sums.jsonl", "sums.jsonl"), ("data/more.jsonl", "data/more.jsonl"),
    ],
)  # fmt: skip
def test_a_data_set_of_the_hub_is_taken_by_its_name(written, train, monkeypatch):
    recipe, _ = load_recipe_without_files(THEIRS.replace("dataset_name: sums.jsonl", f"dataset_name: {written}"))
    (task,) = recipe.tasks.values()
    assert task.train == train


def load_recipe_without_files(text: str):
    Path("my.yaml").write_text(text)
    return load_recipe("my.yaml", (), lambda ref, stages: (ref, []))


def test_a_task_is_trained_and_measured_by_the_same_name():
    text = THEIRS + "  end: {stage: evaluate, models: ['@rl'], dataset_name: org/sums}\n"
    recipe, _ = load_recipe_without_files(text.replace("dataset_name: sums.jsonl", "dataset_name: org/sums"))
    assert recipe.by_name["rl"].tasks == recipe.by_name["end"].tasks == ("sums",)
    assert recipe.tasks["sums"].train == "hf://org/sums?split=train"
    assert recipe.tasks["sums"].test == "hf://org/sums?split=test"


def test_a_task_that_is_there_already_is_named_instead():
    _, faults = read(OURS.replace("tasks: [sums], reward", "dataset_name: sums.jsonl, reward"))
    assert any(fault.fix == "write `tasks: [sums]`" for fault in faults)


def test_output_dir_names_the_run_directory_and_out_wins(capsys):
    recipe, faults = read("output_dir: there/mine\n" + OURS)
    assert not faults
    assert recipe.default_folder == Path("there/mine")
    assert "output_dir" not in resolved(recipe)
    for options, where in (([], "there/mine"), (["--out", "here"], "here")):
        assert main(["plan", "my.yaml", *options]) == 0
        assert f"run:     {where} (new)" in capsys.readouterr().out
