"""Stages that sample at servers: the same completions and the same weights as with the sampler in this process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_vllm import FakeVllm, serving
from sums import kept_replies, write_recipe

from temper.errors import TemperError
from temper.models.load import load_model
from temper.pipeline.run import run_recipe
from temper.planning.preflight import prepare
from temper.rollout.options import ServedConfig, ServerConfig
from temper.stages.served import remote_of

RECIPE = """
seed: 3
threads: 1
tasks:
  sums: {train: sums.jsonl, test: sums.jsonl}
stages:
  base: {stage: import_model, model: tiny-base}
  rl:
    stage: grpo
    model: "@base"
    tasks: [sums]
    reward_funcs: ["mine.py:vowels"]
    max_steps: 2
    num_generations: 4
    prompts_per_step: 2
    max_completion_length: 24
    learning_rate: 0.001
    keep_rollouts_steps: 1
  look:
    stage: evaluate
    models: ["@base", "@rl"]
    tasks: [sums]
    num_samples: 2
    max_completion_length: 24
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, RECIPE)


def served(urls: list[str]) -> list[str]:
    return [f"{stage}.engine={{servers: [{', '.join(urls)}], timeout: 60}}" for stage in ("rl", "look")]


def replies(run: Path) -> list[str]:
    found = kept_replies(run)
    for file in sorted(run.glob("artifacts/*/samples/*.jsonl")):
        found += [json.loads(line)["reply"] for line in file.read_text().splitlines()]
    return found


def test_a_run_at_servers_is_the_run_in_one_process(recipe: Path, tmp_path: Path) -> None:
    alone = run_recipe(str(recipe), [], tmp_path / "alone")
    servers = [FakeVllm(tiny(), context=512) for _ in range(2)]
    with serving(*servers) as urls:
        run_recipe(str(recipe), served(urls), tmp_path / "served")
        assert all(server.bodies for server in servers)
        again = run_recipe(str(recipe), served([*urls[1:], "http://elsewhere:1"]), tmp_path / "served")
    assert alone.ran
    assert not again.ran  # where the servers are is no part of what was made
    expected, found = replies(tmp_path / "alone"), replies(tmp_path / "served")
    assert len(expected) == len(found) > 20
    assert sum(a == b for a, b in zip(expected, found, strict=True)) >= len(found) - 2  # rounding may flip a draw
    assert not list((tmp_path / "served").glob("stages/*/weights/*"))


def test_a_directory_that_runs_share_has_a_folder_for_each_stage_of_each(tmp_path: Path) -> None:
    config = ServedConfig(engine=ServerConfig(servers=["http://a:1"], directory=str(tmp_path / "all")))
    works = [tmp_path / run / stage for run in ("one", "two") for stage in ("a", "b")]
    folders = {
        remote_of(config, "m", SimpleNamespace(name=work.name, work=work, inputs={"m": tmp_path})).folder  # type: ignore
        for work in works
    }
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "all"}


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("rl.engine={servers: [http://a:1], weights: keep}", "has to be sent"),
        ("rl.engine={servers: [http://a:1]} rl.top_p=0.9", "cut the distribution"),
        ("rl.engine={servers: [a:1]}", "must begin with http"),
        ("look.engine={servers: [http://a:1], weights: keep}", "one model only"),
        ("rl.engine={servers: [http://a:1], api_key_env: TEMPER_NO_SUCH_KEY}", "TEMPER_NO_SUCH_KEY is not set"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(recipe: Path, tmp_path: Path, setting: str, why: str) -> None:
    settings = setting.replace("} rl", "}\nrl").splitlines()
    with pytest.raises(TemperError) as raised:
        prepare(str(recipe), settings, tmp_path / "out", lambda folder: None)
    assert why in raised.value.render()


def tiny() -> Any:
    import temper

    return load_model(Path(temper.__file__).parent / "assets" / "tiny-base")
