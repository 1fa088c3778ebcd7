"""`--set key=value`: dotted keys, values read as YAML, unknown keys refused with a suggestion."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import ConfigError
from temper.recipe.document import plain, read_document
from temper.recipe.reader import load_recipe
from temper.recipe.sources import apply_settings
from temper.stages import STAGES


@pytest.fixture(autouse=True)
def fake_kinds(monkeypatch):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "my.yaml"
    path.write_text(fakes.RECIPE, encoding="utf-8")
    return str(path)


def test_a_setting_replaces_a_value_at_any_depth(recipe):
    loaded, faults = load_recipe(
        recipe,
        ["seed=3", "stages.first.steps=9", "second.learning_rate=1e-5", "first.schedule.warmup_steps=2",
         "sums.language=no", "report.models=[\"@second\"]", "name=other"],
    )  # fmt: skip
    assert not faults
    first, second, report = (loaded.by_name[name].config for name in ("first", "second", "report"))
    assert (loaded.seed, loaded.name, first.steps, second.learning_rate) == (3, "other", 9, 1e-5)
    assert (first.schedule.warmup_steps, loaded.tasks["sums"].language, report.models) == (2, "no", ["@second"])


def test_the_last_of_two_settings_counts(recipe):
    assert load_recipe(recipe, ["seed=3", "seed=4"])[0].seed == 4


def test_where_a_set_value_comes_from_is_kept(recipe):
    loaded, _ = load_recipe(recipe, ["first.learning_rate=1"])
    assert loaded.origin("stages.first.learning_rate") == "--set"


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ("sed=3", "did you mean `seed`?"), ("frist.steps=3", "did you mean `first`?"),
        ("stages.secnd.steps=3", "did you mean `second`?"), ("tasks.sms.answer=math", "did you mean `sums`?"),
        ("first.stepz=3", "did you mean `steps`?"), ("first.lr=3", "renamed: lr -> learning_rate"),
        ("first.schedule.warmup=3", "warmup_steps"), ("extends=x", ""),
        ("learning_rate=3", "did you mean `second.learning_rate`?"), ("leaning_rate=3", "`second.learning_rate`"),
        ("first", "write `--set key=value`"), ("=3", "write `--set key=value`"), ("first..steps=3", ""),
        ("first.steps.x=3", "set all of it: `--set steps=…`"), ("report.models.0=x", ""), ("", ""), (".=3", ""),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_a_suggestion(recipe, setting, fix):
    try:
        _, faults = load_recipe(recipe, [setting])
    except ConfigError as error:
        faults = error.faults
    (fault,) = faults
    assert fix in fault.fix
    assert "--set" in fault.where or "--set" in fault.what


@pytest.mark.parametrize(
    "setting", ["seed=-1", "seed=x", "first.steps=[1", "seed=!!int 3", "seed={a: 1, a: 2}", "name=../x", "name=-rf",
                "name=\"a\\x1bb\"", "name=a\x1bb", "seed=", "first.learning_rate=.nan", "first.model=\"@nope\"",
                "seed=3\n---\n4", "first.stage=nope", "stages=3", "first=3"]
)  # fmt: skip
def test_a_wrong_value_is_refused_and_shown_escaped(recipe, setting):
    try:
        _, faults = load_recipe(recipe, [setting])
    except ConfigError as error:
        faults = error.faults
    assert faults
    for fault in faults:
        assert set(fault.render()) - {"\n"} <= {c for c in fault.render() if c.isprintable()}


def test_all_wrong_settings_are_told(recipe):
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe, ["sed=3", "frist.steps=3"])
    assert len(error.value.faults) == 2


def test_a_setting_leaves_what_an_alias_repeats_elsewhere_alone():
    table = read_document("stages: {a: &x {steps: 1}, b: *x}", "my.yaml")
    assert plain(apply_settings(table, ["a.steps=2"])) == {"stages": {"a": {"steps": 2}, "b": {"steps": 1}}}


def test_paths_in_settings_are_relative_to_where_the_command_is_given(recipe, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.jsonl").write_text('{"text": "x"}\n')
    monkeypatch.chdir(folder)
    loaded, faults = load_recipe(recipe, ["first.data=mine.jsonl"])
    assert not faults
    assert [ref.path for ref in loaded.by_name["first"].references] == [folder / "mine.jsonl"]


@given(st.text("ab.=[]{}:\"' 1", max_size=12))
def test_any_setting_is_applied_or_refused(setting):
    table = read_document("{stages: {a: {b: 1}}, tasks: {b: {a: 1}}, seed: 3}", "my.yaml")
    refused = ()
    try:
        plain(apply_settings(table, [setting]))
    except ConfigError as error:
        refused = error.faults
    assert all("--set" in fault.where or "--set" in fault.what for fault in refused)
