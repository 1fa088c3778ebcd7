"""`repeat:` read: which stage a reference means in each round, and every fault of a block, told once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.recipe.document import Place, Table
from temper.recipe.graph import Ref
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe
from temper.recipe.resolved import origins, render_recipe, resolved
from temper.recipe.rounds import Block, Rounds, Written, numbered, unrolled

pytestmark = pytest.mark.usefixtures("fake_kinds")

RECIPE = """\
name: loops
tasks:
  sums: {train: "@data", test: "@data/test.jsonl"}
stages:
  data: {stage: fake_data}
  start: {stage: fake_train, data: "@data"}
  loop:
    repeat: 3
    until: {stage: check, model: policy, at_least: 0.9}
    first: {policy: "@start", harvest: "@data/test.jsonl"}
    stages:
      policy: {stage: fake_train, model: "@policy", data: "@harvest", tasks: [sums]}
      harvest: {stage: fake_data}
      check: {stage: fake_measure, models: ["@start", "@policy"]}
      sft: {stage: fake_train, model: "@policy", data: "@harvest", mix: ["@harvest~1"]}
  last: {stage: fake_train, model: "@policy"}
  report: {stage: fake_measure, models: ["@policy-1", "@last", "@policy"]}
"""


def load(folder: Path, text: str, *settings: str):
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path), settings)


def read(folder: Path, text: str = RECIPE, *settings: str) -> Recipe:
    recipe, faults = load(folder, text, *settings)
    assert not faults, [fault.render() for fault in faults]
    return recipe


def test_every_round_has_stages_of_its_own_that_refer_to_those_before(tmp_path):
    recipe = read(tmp_path)
    meant = {stage.name: stage.meant for stage in recipe.stages}
    assert list(meant) == [
        "data", "start",
        *(f"{name}-{round}" for round in (1, 2, 3) for name in ("policy", "harvest", "check", "sft")),
        "last", "report",
    ]  # fmt: skip
    tasks = {"@data": "data", "@data/test.jsonl": "data"}
    assert meant["policy-1"] == {"@policy": "start", "@harvest": "data", **tasks}
    assert meant["policy-3"] == {"@policy": "policy-2", "@harvest": "harvest-2", **tasks}
    assert meant["sft-1"] == {"@policy": "policy-1", "@harvest": "harvest-1", "@harvest~1": "data"}
    assert meant["sft-2"] == {"@policy": "policy-2", "@harvest": "harvest-2", "@harvest~1": "harvest-1"}
    assert meant["check-2"] == {"@start": "start", "@policy": "policy-2"}
    assert meant["report"] == {"@policy-1": "policy-1", "@last": "last", "@policy": "policy-3"}
    files = {ref.text: ref.file for ref in recipe.by_name["policy-1"].references}
    assert files["@harvest"] == "test.jsonl"
    assert recipe.by_name["policy-1"].config == recipe.by_name["policy-2"].config


def test_a_block_that_has_ended_has_no_further_rounds_and_its_last_is_meant(tmp_path):
    recipe = read(tmp_path).ended("loop", 2)
    assert [stage.name for stage in recipe.stages if stage.block][-1] == "sft-2"
    assert recipe.by_name["last"].meant == {"@policy": "policy-2"}
    assert recipe.by_name["report"].meant["@policy"] == "policy-2"
    assert recipe.stages[-1].number == read(tmp_path).stages[-1].number  # folders keep their names


def test_the_resolved_recipe_has_the_block_and_is_the_same_recipe(tmp_path):
    recipe = read(tmp_path, RECIPE, "policy.steps=9", "loop.repeat=2", "stages.harvest.rows=4")
    assert recipe.by_name["policy-2"].config.steps == 9
    assert recipe.by_name["harvest-2"].config.rows == 4
    block = resolved(recipe)["stages"]["loop"]
    assert (block["repeat"], list(block["stages"])) == (2, ["policy", "harvest", "check", "sft"])
    assert origins(recipe)["stages.loop.stages.policy.steps"] == "--set"
    (tmp_path / "again.yaml").write_text(render_recipe(recipe), encoding="utf-8")
    again, faults = load_recipe(str(tmp_path / "again.yaml"))
    assert not faults, [fault.render() for fault in faults]
    assert [(s.name, s.config, s.meant) for s in again.stages] == [(s.name, s.config, s.meant) for s in recipe.stages]
    assert resolved(again) == resolved(recipe)


def test_readers_of_a_run_see_the_rounds_that_ran(tmp_path):
    recipe = read(tmp_path)
    ran = [stage.name for stage in recipe.ended("loop", 2).stages]
    flat = unrolled({**resolved(recipe), "origins": origins(recipe)}, ran)
    assert list(flat["stages"]) == ran
    assert flat["stages"]["policy-1"]["model"] == "@start"
    assert flat["stages"]["policy-1"]["data"] == "@data/test.jsonl"
    assert flat["stages"]["sft-2"]["mix"] == ["@harvest-1"]
    assert flat["stages"]["report"]["models"] == ["@policy-1", "@last", "@policy-2"]
    assert flat["origins"]["stages.policy-2.model"].startswith("recipe ")


def test_a_recipe_that_extends_one_with_a_block_changes_a_stage_of_it(tmp_path):
    read(tmp_path)
    text = "extends: my.yaml\nstages: {loop: {stages: {policy: {steps: 2}}}}\n"
    (tmp_path / "more.yaml").write_text(text, encoding="utf-8")
    recipe, faults = load_recipe(str(tmp_path / "more.yaml"))
    assert not faults, [fault.render() for fault in faults]
    assert recipe.by_name["policy-3"].config.steps == 2


# -- faults -----------------------------------------------------------------------------------------------------------

WRONG = [
    (
        "repeat: 3",
        "repeat: 0",
        "`stages.loop.repeat` is 0",
    ),
    (
        "repeat: 3",
        "repeats: 3",
        "`stages.loop.repeats`",
    ),
    (
        "repeat: 3",
        "repeat: twice",
        '`stages.loop.repeat` is "twice"',
    ),
    (
        "at_least: 0.9",
        "at_leats: 0.9",
        "unknown key `stages.loop.until.at_leats`",
    ),
    (
        ", at_least: 0.9",
        "",
        "until has no rule",
    ),
    (
        "stage: check,",
        "stage: chekc,",
        "names no stage of the block: `chekc`",
    ),
    (
        "stage: check,",
        "stage: policy,",
        "which measures nothing",
    ),
    (
        "model: policy,",
        "model: polic,",
        "`stages.loop.until.model` is `polic`",
    ),
    (
        "model: policy,",
        "",
        "`stages.loop.until.model` is missing",
    ),
    (
        'first: {policy: "@start", ',
        "first: {",
        "refers to what the round before made of `policy`",
    ),
    (
        'policy: "@start"',
        'policy: "@strat"',
        "refers to an unknown stage `@strat`",
    ),
    (
        'policy: "@start"',
        'policy: "@data"',
        "needs a model, but `@data` is a data set",
    ),
    (
        'policy: "@start"',
        "policy: tiny-base",
        "`stages.loop.first.policy` is `tiny-base`",
    ),
    (
        'policy: "@start"',
        'policy: "@sft"',
        "`stages.loop.first.policy` is `@sft`",
    ),
    (
        'policy: "@start"',
        'policy: "@start", sft: "@start"',
        "`stages.loop.first.sft` does nothing here",
    ),
    (
        'policy: "@start"',
        'policy: "@start", polcy: "@start"',
        "`stages.loop.first.polcy` names no stage",
    ),
    (
        'policy: "@start"',
        'policy: "@last"',
        "stages use one another in a circle",
    ),
    (
        'model: "@policy"}\n  report',
        'model: "@policy~1"}\n  report',
        "refers to `@policy~1`",
    ),
    (
        '["@policy-1", ',
        '["@policy-2", ',
        "refers to round 2 of `policy`",
    ),
    (
        '["@policy-1", ',
        '["@policy-7", ',
        "refers to round 7 of `policy`",
    ),
    (
        'model: "@policy", data: "@harvest", mix',
        'model: "@policy-1", data: "@harvest", mix',
        "refers to round 1 of `policy`",
    ),
    (
        '"@harvest~1"',
        '"@harvest~0"',
        "refers to `@harvest~0`",
    ),
    (
        'model: "@policy", data: "@harvest", tasks',
        'model: "@harvest", data: "@harvest", tasks',
        "needs a model, but `@harvest`",
    ),
    (
        "policy: {stage: fake_train,",
        "policy: {stage: fake_train, stepz: 3,",
        "unknown key `stages.loop.stages.policy.stepz`",
    ),
    (
        "policy: {stage: fake_train,",
        "policy: {stage: fake_trian,",
        "unknown kind of stage `fake_trian`",
    ),
    (
        "harvest: {stage: fake_data}",
        "harvest: {repeat: 2, stages: {x: {stage: fake_data}}}",
        "stands in the block `loop`",
    ),
    (
        "  last: {",
        "  sft: {stage: fake_data}\n  last: {",
        "`sft` is a stage and a stage of the block `loop`",
    ),
    (
        "  last: {",
        "  policy-2: {stage: fake_data}\n  last: {",
        "`policy-2` is a stage and a stage of the block",
    ),
    (
        "  last: {stage: fake_train,",
        "  last: {stage: fake_train, repeat: 2,",
        "unknown key `stages.last.repeat`",
    ),
    (
        'model: "@policy"}\n  report',
        'model: "@loop"}\n  report',
        "unknown stage `@loop`",
    ),
]


@pytest.mark.parametrize(("old", "new", "what"), WRONG, ids=[what for *_, what in WRONG])
def test_a_fault_of_a_block_is_told_once_with_its_place(tmp_path, old, new, what):
    assert old in RECIPE
    _, faults = load(tmp_path, RECIPE.replace(old, new, 1))
    told = [fault for fault in faults if what in fault.what]
    assert len(told) == 1, [fault.render() for fault in faults]
    assert "my.yaml:" in told[0].where
    assert len({fault.what for fault in faults}) == len(faults)


@pytest.mark.parametrize("stages", ["", "stages:", "stages: {}", "stages: 3", "stages: [a]"])
def test_a_block_without_stages_is_told(tmp_path, stages):
    _, faults = load(tmp_path, f"stages:\n  loop:\n    repeat: 2\n    {stages}\n  data: {{stage: fake_data}}\n")
    assert faults
    assert all("my.yaml:" in fault.where for fault in faults)


@given(
    st.permutations(["a", "b", "c"]), st.integers(1, 5), st.integers(1, 5), st.sampled_from("abc"), st.integers(0, 3)
)  # fmt: skip
def test_a_reference_never_means_a_stage_that_runs_later(order, rounds, round, target, back):
    """Whatever the order of a block, its stages read what has been made before them, and so they can be run in turn."""
    round = min(round, rounds)
    nowhere = Table({}, Place("my.yaml"))
    block = Block("loop", rounds, None, dict.fromkeys(order, "@start"), tuple(order), nowhere)
    text = f"@{target}" + f"~{back}" * bool(back)
    ref = Ref(text, "model", "stages.x.model", Place("my.yaml"), stage=text[1:])
    runs = ["start", *(numbered(name, one) for one in range(1, rounds + 1) for name in order)]
    for name in order:
        meant = Rounds([block], ["start"]).meant(ref, Written(name, nowhere, block), round)
        assert meant.fault is None
        assert runs.index(meant.ref.stage or "") < runs.index(numbered(name, round))


def test_the_shipped_recipe_of_rounds_is_algorithm_1():
    recipe, faults = load_recipe("tiny_iterative")
    assert not faults
    meant = {stage.name: stage.meant for stage in recipe.stages}
    assert meant["policy-2"]["@policy"] == "policy-1"
    assert meant["policy-2"]["@reward_model"] == "reward_model-1"
    first = {"@reward_model": "first_reward_model", "@pairs": "pairs-1", "@pairs~1": "first_pairs"}
    assert meant["reward_model-1"] == first
    assert meant["reward_model-2"]["@pairs~1"] == "pairs-1"
