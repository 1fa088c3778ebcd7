"""A recipe's values: every fault of the whole recipe at once, each with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest

from temper.config import StrictModel
from temper.errors import ConfigError, Exit, Fault
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe, config_class
from temper.stages import STAGES


@pytest.fixture(autouse=True)
def fake_kinds(monkeypatch):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)


def load(folder: Path, text: str, *settings: str) -> tuple[Recipe, list[Fault]]:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path), settings)


def one_fault(folder: Path, text: str, *settings: str) -> Fault:
    _, faults = load(folder, text, *settings)
    assert len(faults) == 1, [fault.render() for fault in faults]
    return faults[0]


def place(fault: Fault) -> str:
    return ":".join(fault.where.rsplit(":", 2)[1:])


def stage(keys: str) -> str:
    return f"stages:\n  x: {{stage: fake_train, {keys}}}\n"


def test_a_recipe_without_faults_is_typed_and_numbered(tmp_path):
    recipe, faults = load(tmp_path, fakes.RECIPE)
    assert not faults
    assert [(s.folder, s.kind, s.makes) for s in recipe.stages] == [
        ("01-data", "fake_data", "dataset"), ("02-first", "fake_train", "model"),
        ("03-second", "fake_train", "model"), ("04-report", "fake_measure", "evaluation"),
    ]  # fmt: skip
    assert (recipe.name, recipe.seed, recipe.threads) == ("fake", 7, 2)
    assert recipe.by_name["second"].uses == ("first", "data")


@pytest.mark.parametrize("kind", [kind for kind in STAGES if not kind.startswith("fake")])
def test_every_kind_in_the_table_is_a_module_with_what_a_stage_has(kind):
    cls = config_class(kind)
    assert issubclass(cls, StrictModel)
    module = __import__(STAGES[kind].module, fromlist=["run"])
    assert callable(module.run)
    assert isinstance(module.VERSION, int)
    assert cls.model_config["extra"] == "forbid"


# -- unknown keys -----------------------------------------------------------------------------------------------------


def test_an_unknown_key_has_its_place_and_the_nearest_name(tmp_path):
    fault = one_fault(tmp_path, "stages:\n  x:\n    stage: fake_train\n    learning_rte: 1\n")
    assert fault.what == "unknown key `stages.x.learning_rte`"
    assert place(fault) == "4:5"
    assert fault.fix == "did you mean `learning_rate`?"


def test_an_unknown_key_inside_a_table_of_a_stage_is_found_there(tmp_path):
    fault = one_fault(tmp_path, stage("schedule: {warmup: 3}"))
    assert fault.what == "unknown key `stages.x.schedule.warmup`"
    assert "warmup_steps" in fault.fix


def test_a_key_of_another_kind_of_stage_says_where_it_lives(tmp_path):
    text = "stages:\n  t: {stage: fake_train}\n  d: {stage: fake_data, kl_penalty: 0.1}\n"
    fault = one_fault(tmp_path, text)
    assert "fake_train" in fault.why
    assert "(here t)" in fault.why


@pytest.mark.parametrize(
    ("keys", "home"),
    [
        ("stages:\n  x: {stage: fake_train, seed: 3}\n", "top of the recipe"),
        ("stages:\n  x: {stage: fake_train, answer: math}\n", "to a task"),
        ("learning_rate: 3\nstages:\n  x: {stage: fake_train}\n", "fake_train"),
        ("tasks: {t: {steps: 3}}\nstages:\n  x: {stage: fake_train}\n", "fake_train"),
    ],
)
def test_a_key_in_the_wrong_place_says_where_it_belongs(tmp_path, keys, home):
    assert home in one_fault(tmp_path, keys).why


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("kl_coef", "kl_penalty"), ("lr", "learning_rate"), ("group_size", "num_generations"),
        ("dataset", "data"), ("model_path", "model"), ("rewards", "reward_funcs"),
    ],
)  # fmt: skip
def test_names_of_other_tools_are_told_by_their_name_here(tmp_path, alias, name):
    assert one_fault(tmp_path, stage(f"{alias}: 1")).fix == f"renamed: {alias} -> {name}"


def test_output_dir_is_an_option(tmp_path):
    fault = one_fault(tmp_path, stage("output_dir: x"))
    assert fault.why == "`output_dir` belongs at the top of the recipe"
    assert fault.fix == "move it there, or use the option `--out`"


def test_a_key_near_to_what_another_tool_calls_it_is_understood(tmp_path):
    assert one_fault(tmp_path, stage("lrr: 1")).fix == "did you mean `learning_rate`?"


def test_references_of_a_stage_with_other_faults_are_checked_too(tmp_path):
    text = "tasks: {t: {train: nope.jsonl, answr: x}}\n" + stage(
        "steps: x, tasks: [t, u], model: '@y', mix: [3, z.jsonl]"
    )
    _, faults = load(tmp_path, text)
    told = " ".join(fault.what for fault in faults)
    for part in (
        "answr",
        "nope.jsonl",
        "`stages.x.steps`",
        "unknown task `u`",
        "unknown stage `@y`",
        "z.jsonl",
        "mix.0",
    ):
        assert part in told
    assert len(faults) == 7


def test_a_misspelt_required_key_is_one_fault(tmp_path):
    text = "stages:\n  x: {stage: fake_train}\n  r: {stage: fake_measure, modles: ['@x']}\n"
    assert one_fault(tmp_path, text).fix == "did you mean `models`?"


def test_a_missing_key_is_named_at_its_stage(tmp_path):
    fault = one_fault(tmp_path, "stages:\n  x: {stage: fake_train}\n  r:\n    stage: fake_measure\n")
    assert fault.what == "`stages.r.models` is missing"
    assert place(fault) == "4:5"


# -- types and ranges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1e-5", "1", "0.5", "1E-3", ".5"])
def test_numbers_are_numbers(tmp_path, value):
    recipe, faults = load(tmp_path, stage(f"learning_rate: {value}"))
    assert not faults
    assert recipe.stages[0].config.learning_rate == float(value)


def test_no_is_a_string(tmp_path):
    recipe, faults = load(tmp_path, stage("language: no"))
    assert not faults
    assert recipe.stages[0].config.language == "no"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("learning_rate: .nan", "a finite number"), ("learning_rate: .inf", "a finite number"),
        ("learning_rate: 1e999", "a finite number"), ("learning_rate: -1", "above 0"), ("learning_rate: 0", "above 0"),
        ("learning_rate: 2", "at most 1"), ("steps: 0", "at least 1"), ("steps: true", "an integer"),
        ("steps: 1.5", "an integer"), ("steps: '3'", "an integer"), ("steps: [3]", "an integer"),
        ("steps: {a: 1}", "an integer"), ("steps:", "an integer"), ("steps: 1_000", "an integer"),
        ("learning_rate: true", "a number"), ("learning_rate: '1e-5'", "a number"), ("shuffle: yes", "true or false"),
        ("shuffle: 1", "true or false"), ("language: 3", "a string"), ("language: true", "a string"),
        ("language: [en]", "a string"), ("mix: a.jsonl", "a list"), ("schedule: 3", "a table of keys"),
        ("limit: 0", "at least 1"), ("limit: many", "an integer"), ("pair: 3", "a list"),
        ("schedule: {warmup_steps: -1}", "at least 0"), ("num_generations: 1", "at least 2"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_fault_that_says_what_it_must_be(tmp_path, keys, why):
    fault = one_fault(tmp_path, stage(keys))
    assert fault.why.startswith(f"it must be {why}")
    assert place(fault).startswith("2:")
    assert keys.partition(":")[0] in fault.what


@pytest.mark.parametrize(
    ("keys", "fix"),
    [
        ("steps: '3'", "remove the quotes"), ("steps: 1_000", "write 1000"), ("steps: 60.0", "write 60"),
        ("shuffle: yes", "write true: in YAML 1.2 `yes` is a string"), ("language: 3", 'write it in quotes: "3"'),
        ("mix: a.jsonl", "write [a.jsonl]"), ("steps: [3]", "write it without brackets"),
        ("learning_rate: '1e-5'", "remove the quotes"),
    ],
)  # fmt: skip
def test_a_wrong_value_that_can_be_mended_says_how(tmp_path, keys, fix):
    assert one_fault(tmp_path, stage(keys)).fix == fix


def test_why_a_group_needs_two_is_told(tmp_path):
    assert "a group of one has nothing to compare with" in one_fault(tmp_path, stage("num_generations: 1")).why


def test_a_list_is_checked_item_by_item(tmp_path):
    _, faults = load(tmp_path, stage("mix: [1, a, null]"))
    assert [fault.what for fault in faults if "mix." in fault.what] == [
        "`stages.x.mix.0` is 1", "`stages.x.mix.2` is empty",
    ]  # fmt: skip


def test_a_tuple_is_written_as_a_list(tmp_path):
    recipe, faults = load(tmp_path, stage("pair: [3, 4]"))
    assert not faults
    assert recipe.stages[0].config.pair == (3, 4)


def test_rules_between_keys_are_told_at_a_key_they_are_about(tmp_path):
    fault = one_fault(tmp_path, "stages:\n  x:\n    stage: fake_train\n    steps: 3\n    batch: 6\n")
    assert "batch (6) is not divisible by num_generations (4)" in fault.what
    assert place(fault) == "5:12"


def test_rules_between_keys_are_told_beside_other_faults(tmp_path):
    _, faults = load(tmp_path, stage("batch: 6, stepz: 3, learning_rate: 7"))
    assert sorted(fault.what.split("`")[1] for fault in faults) == [
        "stages.x", "stages.x.learning_rate", "stages.x.stepz",
    ]  # fmt: skip


@pytest.mark.parametrize("top", ["seed: -1", "seed: 1.5", "seed: true", "seed: x", "threads: 0", f"seed: {2**63}",
                                 "description: [a]", "tasks: [a]", "stages: x"])  # fmt: skip
def test_the_keys_at_the_top_are_checked(tmp_path, top):
    text = top + "\n" + ("" if top.startswith("stages") else stage("steps: 1"))
    fault = one_fault(tmp_path, text)
    assert top.partition(":")[0] in fault.what


def test_all_faults_are_told_together_in_the_order_of_the_lines(tmp_path):
    text = (
        "sed: 3\n"
        "tasks:\n  t: {answer: maths}\n"
        "stages:\n"
        "  a: {stage: fake_trian}\n"
        "  b: {stage: fake_train, lrr: 1, steps: 0}\n"
        "  c: {stage: fake_train, model: '@nope', tasks: [u]}\n"
    )
    _, faults = load(tmp_path, text)
    assert [place(fault) for fault in faults] == ["1:1", "3:15", "5:14", "6:26", "6:41", "7:33", "7:50"]


# -- names ------------------------------------------------------------------------------------------------------------

BAD_NAMES = ["../x", "/abs", "a/b", "CON", "nul", "x" * 300, "-rf", "a b", "", ".", "..", "a.b", "ä", "a\\b", "com1"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_folders_are_refused(tmp_path, name):
    for text in (
        f"name: '{name}'\n" + stage("steps: 1"),
        f"stages: {{'{name}': {{stage: fake_train}}}}\n",
        f"tasks: {{'{name}': {{}}}}\n" + stage("steps: 1"),
    ):
        fault = one_fault(tmp_path, text)
        assert "is not allowed" in fault.what
        assert "[A-Za-z0-9]" in fault.fix
        assert len(fault.what) < 120


def test_a_new_line_in_a_name_is_refused(tmp_path):
    assert "is not allowed" in one_fault(tmp_path, 'name: "a\\nb"\n' + stage("steps: 1")).what


def test_a_recipe_without_a_name_is_called_after_its_file(tmp_path):
    path = tmp_path / "qwen2.5 mine.yaml"
    path.write_text(stage("steps: 1"), encoding="utf-8")
    recipe, _ = load_recipe(str(path))
    assert recipe.name == "qwen2-5-mine"


# -- stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("stages: {}\n", "no stages"), ("name: a\n", "no stages"), ("stages:\n", "no stages"),
        ("stages: {x: 3}\n", "`stages.x` is an integer"), ("stages: {x: {}}\n", "`stages.x.stage` is missing"),
        ("stages: {x: }\n", "`stages.x` is nothing"), ("stages: {x: {stage: [sft]}}\n", "no kind of stage"),
        ("stages: {x: {stage: nope}}\n", "unknown kind of stage `nope`"),
    ],
)  # fmt: skip
def test_what_is_no_stage_is_told(tmp_path, text, what):
    _, faults = load(tmp_path, text)
    assert any(what in fault.what for fault in faults), [fault.what for fault in faults]


def test_kinds_known_by_another_name_are_told(tmp_path):
    assert one_fault(tmp_path, "stages: {x: {stage: rl}}\n").fix == "here it is called `grpo`"
    assert "fake_train" in one_fault(tmp_path, "stages: {x: {stage: fake_tarin}}\n").fix


# -- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "empty"), (b"# nothing\n", "empty"), (b"- a\n- b\n", "a list"), (b"hello", "a string"),
        (b"3", "an integer"),
        (b"\xff\xfea\x00", "UTF-16"), (b"\x00\x01\x02", "binary"), (b"a: 1\n" * 100_000, "too large"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_told_by_what_it_is(tmp_path, data, found):
    path = tmp_path / "my.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        load_recipe(str(path))
    assert found in error.value.render()


def test_an_unknown_recipe_lists_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("temper.recipe.sources.shipped_recipes", lambda: ["smoke", "tiny"])
    for name in ("tniy", "nope.yaml", str(tmp_path / "x.yaml"), "a" * 5000, ""):
        with pytest.raises(ConfigError) as error:
            load_recipe(name)
        assert "tiny" in error.value.render() or "File name too long" in error.value.render()


def test_a_directory_is_no_recipe(tmp_path):
    with pytest.raises(ConfigError, match="is a directory"):
        load_recipe(str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a run directory"):
        load_recipe(str(tmp_path))


def test_faults_have_the_exit_code_of_configs(tmp_path):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, "a: 1\na: 2\n")
    assert error.value.code == Exit.CONFIG
