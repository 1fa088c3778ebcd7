"""Starting and stopping runs from the page: what may be set, what is planned, who is stopped; read-only forbids it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from demo_runs import make_run
from startable import RECIPE, make_starts

from temper.errors import TemperError
from temper.record.rundir import Lock
from temper.ui.library import Library, Unknown, id_of
from temper.ui.recipes import Recipes, check_settings, describe
from temper.ui.starts import Refused, Starts, at_lock


@pytest.fixture
def starts(tmp_path) -> Starts:
    return make_starts(tmp_path)


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def number_of(starts: Starts, name: str) -> str:
    return next(known.number for known in starts.recipes.all() if known.name == name)


def until(check) -> Any:
    for _ in range(3000):
        if (found := check()) is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come")


# -- which recipes, and what may be set -------------------------------------------------------------------------------


def test_recipes_are_those_shipped_named_and_in_the_folders(tmp_path, recipe) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "broken.yml").write_text("stages: [\n")
    found = {known.name: known for known in Recipes([], [tmp_path]).all()}
    assert {"small", "broken", "tiny"} <= set(found)
    assert "compose" not in found
    assert found["tiny"].shown == "shipped with temper"
    assert found["small"].number == Recipes([recipe]).all()[0].number
    told = describe(found["small"])
    settings = {entry["key"]: entry for stage in told["stages"] for entry in stage["config"] if stage["name"] == "rl"}
    assert settings["max_steps"]["value"] == 3
    assert settings["max_steps"]["origin"].endswith("small.yaml:6")
    with pytest.raises(Unknown):
        Recipes([recipe]).known(str(recipe))


@pytest.mark.parametrize(
    "setting",
    [
        "rl.max_steps=7", "seed=3", "name=again", "rl.reward_funcs=[accuracy, format]", "rl.preset=dapo",
        "rl.model=tiny-base", "rl.gradient_checkpointing=true", "rl.stage=ppo", "tasks.sums.language=de",
    ],
)  # fmt: skip
def test_numbers_switches_choices_and_known_names_can_be_set(recipe, setting) -> None:
    [known] = [known for known in Recipes([recipe]).all() if known.name == "small"]
    check_settings(known, [setting])


@pytest.mark.parametrize(
    "setting",
    [
        "output_dir=/tmp/elsewhere", "extends=other.yaml", "rl.model=/etc", "tasks.sums.train=/etc/passwd",
        "tasks.sums.train=secret.jsonl", "rl.reward_funcs=[evil.py:f]", "rl.reward_funcs=['http://evil.example/']",
        "rl.engine={servers: ['http://evil.example']}", "base.model=hf_org/model", 'base.model="@../../x"',
        "tasks.other={train: x.jsonl}", "description=anything",
    ],
)  # fmt: skip
def test_paths_addresses_and_other_texts_cannot_be_set(recipe, setting) -> None:
    [known] = [known for known in Recipes([recipe]).all() if known.name == "small"]
    with pytest.raises(TemperError):
        check_settings(known, [setting])


def test_faults_are_those_of_the_recipe_reader(recipe) -> None:
    [known] = [known for known in Recipes([recipe]).all() if known.name == "small"]
    with pytest.raises(TemperError) as caught:
        check_settings(known, ["rl.max_step=3", "rl.learning_rate=fast"])
    told = " ".join(f"{fault.what} {fault.fix}" for fault in caught.value.faults)
    assert "max_steps" in told
    assert "learning_rate" in told or "fast" in told
    for wrong in ("seed=1", [1], ["x=1"] * 101, ["x=" + "1" * 3000]):
        with pytest.raises(TemperError):
            check_settings(known, wrong)


# -- plan, start, stop ------------------------------------------------------------------------------------------------


def test_a_plan_comes_before_a_start_and_a_stop_is_a_signal(starts, tmp_path, recipe) -> None:
    plan = starts.plan(number_of(starts, "small"), ["seed=3"])
    assert "--set=seed=3" in plan["arguments"]
    assert "mind the gap" in plan["said"]
    assert "/" not in plan["run"]
    with pytest.raises(Unknown):
        starts.start("guess", False)
    started = starts.start(plan["plan"], True)
    with pytest.raises(Unknown):  # once
        starts.start(plan["plan"], True)
    number = started["id"]
    path = until(lambda: starts.library.paths().get(number))
    assert path.parent == tmp_path / "runs"
    until(lambda: "--changed" in starts.started()[0]["said"] or None)
    assert starts.stop(number) == {"stopping": True}
    assert until(lambda: starts.started()[0]["code"]) == 75
    with pytest.raises(TemperError):  # nobody is at it
        starts.stop(number)


def test_a_recipe_that_changed_is_planned_again_and_errors_are_shown(starts, recipe) -> None:
    number = number_of(starts, "small")
    made = starts.plan(number, [])["plan"]
    recipe.write_text(RECIPE + "note: changed\n")
    with pytest.raises(TemperError, match="changed"):
        starts.start(made, False)
    recipe.write_text(RECIPE.replace("name: small", "name: fail"))
    starts.program = (sys.executable, "-c", "import sys; sys.exit('error: it cannot be')")
    with pytest.raises(Refused, match="it cannot be"):
        starts.plan(number, [])


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="the system does not tell who holds a lock")
def test_only_who_holds_the_lock_is_stopped(tmp_path) -> None:
    path = make_run(tmp_path / "demo")
    starts, number = Starts(Library([tmp_path]), Recipes()), id_of(path.resolve())
    lock = Lock(path / "lock")
    try:
        assert at_lock(path / "lock") == os.getpid()
        innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (path / "lock").write_text(json.dumps({"pid": innocent.pid}))  # as a hostile run would have it
        assert at_lock(path / "lock") is None
        with pytest.raises(TemperError):
            starts.stop(number)
        assert innocent.poll() is None
        innocent.kill()
        innocent.wait()
    finally:
        lock.release()
    for said in ("{}", "[1]", '{"pid": true}', '{"pid": 1}', '{"pid": -1}', "torn"):
        (path / "lock").write_text(said)
        assert at_lock(path / "lock") is None


# -- over the page ----------------------------------------------------------------------------------------------------


def test_the_page_plans_with_faults_and_refuses_other_sites(serve_page, starts) -> None:
    page = serve_page(starts.library.folders[0], starts=starts)
    page.enter()
    assert page.get("/api/page") == {"read_only": False}
    number = next(one["id"] for one in page.get("/api/recipes") if one["name"] == "small")
    assert page.get(f"/api/recipes/{number}")["name"] == "small"
    asked = {"recipe": number, "settings": ["rl.max_step=1"]}
    status, said, _ = page.ask("/api/plan", "POST", asked)
    assert status == 422
    assert "max_steps" in json.dumps(said["faults"])
    for headers in ({"Origin": "http://evil.example"}, {"Content_Type": "text/plain"}, {"Sec_Fetch_Site": "same-site"}):
        assert page.ask("/api/plan", "POST", asked, **headers)[0] in (403, 415)
    for body in ([], {}, {"recipe": 3}, {"recipe": "../small.yaml"}, {"recipe": "small.yaml"}):
        assert page.ask("/api/plan", "POST", body)[0] in (404, 422)
    assert page.ask("/api/start", "POST", {"plan": "guess"})[0] == 404
    assert page.ask("/api/plan", "GET")[0] == 405
    page.cookie = ""
    assert page.ask("/api/start", "POST", {"plan": "guess"})[0] == 401


def test_a_read_only_page_starts_stops_and_writes_nothing(serve_page, tmp_path) -> None:
    path = make_run(tmp_path / "demo")
    page = serve_page(tmp_path, starts=None)
    page.enter()
    assert page.get("/api/page") == {"read_only": True}
    number = id_of(path.resolve())
    for asked in ("/api/plan", "/api/start", f"/api/runs/{number}/stop"):
        assert page.ask(asked, "POST", {})[0] == 403
    before = sorted(path.rglob("*"))
    assert page.indexed(number)["rows"] == 40
    assert sorted(path.rglob("*")) == before
