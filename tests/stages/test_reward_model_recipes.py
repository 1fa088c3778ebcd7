"""Reward models in recipes: "@stage" as a reward is an edge of the graph, a metric, a filter, something to measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_zoo import make
from stages.test_reward_model import pairs, write

from temper.commands.export import write_model
from temper.errors import TemperError
from temper.models.reward_card import read_card
from temper.pipeline.run import run_recipe
from temper.planning.plan import make_plan
from temper.recipe.reader import load_recipe
from temper.record.metrics import read_rows
from temper.record.rollouts import read_rows as read_rollouts
from temper.record.rundir import RunDir
from temper.runs import finished_models, last_model, resolve_model

RECIPE = """
threads: 1
tasks:
  words: {train: words.jsonl, test: words.jsonl, answer: text}
stages:
  helpful: {stage: reward_model, model: m, data: pairs.jsonl, batch_size: 16, learning_rate: 0.003}
  rl:
    stage: grpo
    model: m
    tasks: [words]
    reward_funcs: [format, "@helpful"]
    reward_start_steps: {"@helpful": 1}
    max_steps: 2
    num_generations: 2
    prompts_per_step: 2
    max_completion_length: 6
    keep_rollouts_steps: 1
  harvest:
    stage: sample
    model: m
    tasks: [words]
    num_generations: 64 # few replies of random weights end, and fewer are text
    max_completion_length: 12
    drop_code_blocks: false
    min_rewards: {"@helpful": -1000}
    mix: [chat.jsonl]
  report:
    stage: evaluate
    models: ["@rl"]
    tasks: [words]
    num_samples: 1
    max_completion_length: 6
    reward_funcs: ["@helpful"]
    claims: [{model: rl, task: words, metric: helpful, at_most: 1000}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make("llama", tmp_path / "m")
    write(tmp_path / "pairs.jsonl", pairs(60))
    write(tmp_path / "words.jsonl", [{"question": f"q{i}", "answer": "b"} for i in range(4)])
    write(tmp_path / "chat.jsonl", [{"prompt": "q", "completion": "<think>a</think><answer>b</answer>"}])
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def test_a_recipe_trains_a_reward_model_and_rewards_filters_and_measures_by_it(here: Path) -> None:
    result = run_recipe("r.yaml", [], Path("out"))
    rows = read_rows(next(Path("out/stages").glob("*-rl")) / "metrics.jsonl")
    assert "reward/helpful" not in rows[0]  # it starts at step 1
    assert isinstance(rows[1]["reward/helpful"], float)
    assert rows[0]["memory/reward_models"] == pytest.approx(rows[0]["memory/policy"], rel=0.5)  # a head of one output
    assert rows[0]["memory/total"] > rows[0]["memory/reward_models"] + rows[0]["memory/policy"]
    kept = read_rollouts(next(Path("out/stages").glob("*-rl")) / "rollouts/step-000002.jsonl.gz")
    assert all(set(row["rewards"]) == {"format", "helpful"} for row in kept)
    assert not any(row.get("grader_failures") for row in rows)
    stages = result.record["stages"]
    assert stages["helpful"]["makes"] == "reward_model"
    report = json.loads(Path("out/artifacts", stages["report"]["fingerprint"], "evaluation.json").read_text())
    assert report["claims"][0]["holds"]
    assert report["models"][0]["tasks"]["words"]["rewards"]["helpful"] == report["claims"][0]["value"]
    assert list(finished_models(Path("out"))) == ["rl"]
    assert last_model(Path("out")) == resolve_model("out:rl")
    (here / "narrow").mkdir()
    write_model(resolve_model("out:helpful"), here / "narrow", "bfloat16")
    assert read_card(here / "narrow") == read_card(resolve_model("out:helpful"))
    assert "AutoModelForSequenceClassification" in (here / "narrow/README.md").read_text()
    again = make_plan(load_recipe("r.yaml")[0], RunDir(Path("out")))
    assert [planned.state for planned in again.stages] == ["cached"] * 4


def test_the_path_of_a_directory_is_a_reward_too_and_part_of_the_fingerprint(here: Path) -> None:
    from stages.test_reward_model import train

    out, _ = train(here / "made", here / "m", pairs(30))
    recipe, faults = load_recipe("r.yaml", ["rl.reward_funcs=[./made/out]", "rl.reward_start_steps={}"])
    assert not faults
    before = make_plan(recipe, RunDir(here / "run")).stages[1]
    assert before.material["inputs"]["./made/out"]
    (out / "reward_model.json").write_text((out / "reward_model.json").read_text().replace('"std": ', '"std": 1'))
    assert make_plan(recipe, RunDir(here / "run")).stages[1].fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ('rl.reward_funcs=[format, "@helpfull"]', "refers to an unknown stage `@helpfull`"),
        ('rl.reward_funcs=["@harvest"]', "needs a reward model, but `@harvest` is a data set"),
        ('rl.model="@helpful"', "needs a model, but `@helpful` is a reward model"),
        ('report.models=["@helpful"]', "needs a model, but `@helpful` is a reward model"),
        ('harvest.mix=["@helpful"]', "needs a data set, but `@helpful` is a reward model"),
        ("rl.reward_funcs=[./nowhere]", "reward model `./nowhere` not found"),
        ('rl.reward_funcs=["@report"]', "needs a reward model, but `@report` is an evaluation"),
        ('helpful.model="@rl"', "stages use one another in a circle"),
    ],
)
def test_references_to_and_from_reward_models_are_checked(setting: str, what: str, here: Path) -> None:
    _, faults = load_recipe("r.yaml", [setting, "rl.reward_start_steps={}"])
    assert any(what in fault.what for fault in faults), faults


def test_a_directory_that_is_no_reward_model_and_two_rewards_of_one_name_are_told_before_anything_runs(
    here: Path,
) -> None:
    with pytest.raises(TemperError) as caught:
        run_recipe("r.yaml", ["rl.reward_funcs=[./m]", "rl.reward_start_steps={}"], Path("out"))
    assert "`reward_model.json` is missing" in str(caught.value)
    (here / "helpful").symlink_to(here / "m")
    with pytest.raises(TemperError, match="two rewards are called `helpful`"):
        run_recipe("r.yaml", ['rl.reward_funcs=["@helpful", ./helpful]', "rl.reward_start_steps={}"], Path("out"))
    assert not Path("out/artifacts").exists() or not list(Path("out/artifacts").iterdir())


def test_rows_of_the_wrong_shape_are_told_before_anything_runs(here: Path) -> None:
    with pytest.raises(TemperError, match="these are preference rows, and rated rows are needed"):
        run_recipe("r.yaml", ["helpful.kind=pointwise"], Path("out"))
