"""Sampling one step off: what is drawn depends on the step's number alone, not on who was faster, and not on a kill."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import FakeVllm, serving
from stages.test_served import tiny
from sums import kept_replies, write_recipe

from temper.artifacts import hash_file
from temper.pipeline.run import Stopped, run_recipe
from temper.record.rollouts import read_rows
from temper.stages.ahead import AheadRollouts
from temper.stages.grpo import Config
from temper.stages.ppo import Config as PPOConfig

RECIPE = """
seed: 3
threads: 1
tasks: {sums: {train: sums.jsonl}}
stages:
  base: {stage: import_model, model: tiny-base}
  rl:
    stage: grpo
    model: "@base"
    tasks: [sums]
    reward_funcs: [accuracy, "mine.py:vowels"]
    max_steps: 4
    num_generations: 4
    prompts_per_step: 2
    max_completion_length: 12
    learning_rate: 0.0005
    kl_penalty: 0
    keep_rollouts_steps: 1
    save_steps: 2
    max_staleness: 1
    sampler_correction: token_truncate
"""


class Killed(BaseException):
    """As a kill: nothing of ours handles it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("ahead"), RECIPE).parent


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The undisturbed run."""
    return run(folder, "whole")


def run(folder: Path, name: str, *settings: str) -> Path:
    run_recipe(str(folder / "my.yaml"), settings, folder / name)
    return folder / name


def killed(folder: Path, name: str, at: int, monkeypatch: pytest.MonkeyPatch, *settings: str) -> None:
    """A run that ends in the middle of step `at`."""
    log = AheadRollouts.log

    def dies(self: AheadRollouts, step: int, *more: Any) -> None:
        if step == at:
            raise Killed
        log(self, step, *more)

    with monkeypatch.context() as patch:
        patch.setattr(AheadRollouts, "log", dies)
        with pytest.raises(Killed):
            run(folder, name, *settings)


def weights(run: Path) -> list[str]:
    return [hash_file(file) for file in sorted(run.glob("artifacts/*/model.safetensors"))]


def rows(run: Path) -> list[dict[str, Any]]:
    [file] = run.glob("stages/*-rl/metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_step_but_the_first_is_one_update_behind(folder: Path, whole: Path) -> None:
    found = rows(whole)
    assert [row["policy/staleness"] for row in found] == [0, 1, 1, 1]
    assert [row["policy/staleness_max"] for row in found] == [0, 1, 1, 1]
    kept = [row["staleness"] for file in sorted(whole.glob("stages/*/rollouts/*.gz")) for row in read_rows(file)]
    assert kept == [0] * 8 + [1] * 24
    assert all(row["seconds/trainer_idle"] >= 0 for row in found)
    assert all("seconds/sampler_idle" in row for row in found[:-1])
    gaps = [row["policy/mismatch_mean"] for row in found]
    assert gaps[0] < 1e-4 < min(gaps[1:])  # log-probs are of the policy that drew
    together = run(folder, "together", "rl.max_staleness=0")
    assert kept_replies(together)[:8] == kept_replies(whole)[:8]
    assert kept_replies(together)[8:] != kept_replies(whole)[8:]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_at_any_step_the_same_command_ends_in_the_same_bytes(
    folder: Path, whole: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(folder, f"killed-{at}", at, monkeypatch)
    again = run(folder, f"killed-{at}")
    assert weights(again) == weights(whole)
    assert kept_replies(again) == kept_replies(whole)


def test_asked_to_stop_it_keeps_what_was_drawn_ahead(
    folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("temper.pipeline.stopping.Stopper.__call__", lambda self: next(asked, False))
        with pytest.raises(Stopped):
            run(folder, "stopped")
    assert list((folder / "stopped").glob("stages/*-rl/checkpoints/step-000003"))
    assert weights(run(folder, "stopped")) == weights(whole)


def delays(seed: int) -> Callable[..., Any]:
    """Every third answer comes late."""
    dice = random.Random(seed)

    def late(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        time.sleep(dice.choice((0.0, 0.0, 0.04)))
        return said

    return late


def test_delays_of_servers_change_nothing(folder: Path, whole: Path) -> None:
    servers = [FakeVllm(tiny(), delays(seed), context=512) for seed in range(2)]
    with serving(*servers) as urls:
        made = run(folder, "served", f"rl.engine={{servers: [{', '.join(urls)}], timeout: 60}}")
    assert [row["policy/staleness_max"] for row in rows(made)] == [0, 1, 1, 1]
    expected, found = kept_replies(whole), kept_replies(made)
    same = [a == b for a, b in zip(expected, found, strict=True)]
    assert all(same[:16])
    assert sum(same) >= len(same) - 8  # rounding may flip a draw, and what is trained on it
    assert not list(made.glob("stages/*/weights/*"))


BASE: dict[str, Any] = {"model": "m", "tasks": ["t"], "max_steps": 5, "max_staleness": 1}


@pytest.mark.parametrize("kind", [Config, PPOConfig])
def test_what_is_stale_has_to_be_corrected_for(kind: type[Config] | type[PPOConfig]) -> None:
    uncorrected = [{}, {"ratio_against": "sampler", "surrogate": "reinforce"}, {"sampler_rejection": "token"}]
    for more in uncorrected:
        with pytest.raises(ValueError, match="nothing corrects for it"):
            kind.model_validate(BASE | more)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        kind.model_validate(BASE | {"max_staleness": 2, "sampler_correction": "token_mask"})
    for more in ({"sampler_correction": "token_mask"}, {"ratio_against": "sampler"}):
        assert kind.model_validate(BASE | more).max_staleness == 1


def test_prompts_that_are_drawn_by_what_came_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["rl.dynamic_sampling_tries=1", "rl.retire_above=0.5"]
    monkeypatch.setattr("temper.stages.rollouts.has_signal", lambda group: group.rollouts[0].total > 0.5)
    monkeypatch.setattr("temper.stages.rollouts.pass_rate", lambda group: group.rollouts[0].total)
    expected = run(folder, "chosen-whole", *settings)
    assert rows(expected)[-1]["prompts/retired"] > 0
    assert {row["groups/draws"] for row in rows(expected)} == {1, 2}
    killed(folder, "chosen", 3, monkeypatch, *settings)
    again = run(folder, "chosen", *settings)
    assert weights(again) == weights(expected)
    assert kept_replies(again) == kept_replies(expected)
