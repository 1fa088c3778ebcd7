"""Names of other tools' rewards: each is one of ours, or is refused with a reason and what comes nearest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper import cli
from temper.errors import ConfigError
from temper.rewards import REWARDS, load_rewards
from temper.rewards.names import ELSEWHERE, our_name, our_names, refusal, what_it_means
from temper.stages.grpo import Config
from temper.stages.rewards import RewardsConfig, check_rewards
from temper.stages.sample import Config as SampleConfig

TAKEN = [name for name, found in ELSEWHERE.items() if found.ours]
REFUSED = [name for name, found in ELSEWHERE.items() if not found.ours]


def test_no_name_of_ours_is_taken_for_another_tools() -> None:
    assert not set(ELSEWHERE) & set(REWARDS)
    assert {ELSEWHERE[name].ours for name in TAKEN} <= set(REWARDS)


@pytest.mark.parametrize("name", TAKEN)
def test_what_means_the_same_is_loaded_by_our_name(name: str) -> None:
    loaded = load_rewards([name])
    assert loaded == {our_name(name): REWARDS[our_name(name)]}
    assert ELSEWHERE[name].note in what_it_means(name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_something_else_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_rewards(["format", name])
    (fault,) = raised.value.faults
    assert name in fault.what
    assert fault.why
    assert fault.fix.startswith("nearest: `")


def test_one_reward_by_two_names_is_named_twice() -> None:
    with pytest.raises(ConfigError, match="named twice"):
        load_rewards(["accuracy", "accuracy_reward"])


@given(st.text(max_size=200))
def test_any_other_name_stays_as_it_is(name: str) -> None:
    assert our_name(name) == name or our_name(name) in REWARDS
    assert our_name(our_name(name)) == our_name(name)


def test_functions_of_files_and_addresses_are_nobodys_names() -> None:
    names = ["len_reward.py:accuracy_reward", "http://host/accuracy_reward", "run:accuracy_reward"]
    assert our_names(names, pytest.fail) == names
    assert all(refusal(name) is None for name in names)


def test_a_stage_takes_them_in_every_key_that_names_rewards_and_tells_once_each(tmp_path: Path) -> None:
    config = Config(
        model="m",
        max_steps=3,
        tasks=["maths"],
        reward_funcs=["accuracy_reward", "cosine_scaled_reward"],
        reward_weights=[1.0, 0.5],
        reward_start_steps={"cosine_scaled_reward": 2},
        reward_tasks={"accuracy_reward": ["maths"]},
    )  # fmt: skip
    assert config.reward_funcs == ["accuracy", "cosine_length"]
    assert config.reward_start_steps == {"cosine_length": 2}
    assert config.reward_tasks == {"accuracy": ["maths"]}
    told: list[str] = []
    log = SimpleNamespace(warn=told.append)
    ctx: Any = SimpleNamespace(tasks={}, inputs={}, log=log, work=tmp_path, stopping=lambda: False)
    assert check_rewards(config.reward_funcs, ctx, config, dict) == []
    assert told == [what_it_means("accuracy_reward"), what_it_means("cosine_scaled_reward")]


def test_bounds_by_another_tools_name_are_bounds_by_ours() -> None:
    config = SampleConfig(model="m", tasks=["maths"], min_rewards={"accuracy_reward": 1.0, "think_format_reward": 1.0})
    assert config.min_rewards == {"accuracy": 1.0, "format": 1.0}


def test_our_own_names_are_told_nothing_of() -> None:
    assert RewardsConfig()._elsewhere == ()


def test_the_command_scores_by_our_name_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "2+3", "reply": "<think>It is 5.</think><answer>5</answer>", "gold": "5"}\n'
    )
    assert cli.main(["score", "--rewards", "accuracy_reward,format_reward", str(tmp_path / "rows.jsonl")]) == 0
    printed = capfd.readouterr()
    assert '"accuracy": 1.0' in printed.out
    assert "called `accuracy` here" in printed.err
    assert cli.main(["score", "--rewards", "len_reward", str(tmp_path / "rows.jsonl")]) == 2
    assert "`cosine_length`" in capfd.readouterr().err
