"""Sets of reasoning-gym: written by a process of their own, tried before use, scored by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from temper.cli import main
from temper.config import TaskConfig
from temper.data import gym
from temper.data.tasks import load_prompts
from temper.errors import ConfigError, Exit, TemperError
from temper.planning.given import _of_gym
from temper.rewards import load_rewards
from temper.rewards.score import Scorer
from temper.text.reply import parse_reply
from temper.types import Prompt

pytest.importorskip("reasoning_gym")


def test_a_set_becomes_prompts_that_it_scores_itself() -> None:
    path = gym.gym_file("chain_sum", 12, 7, {"min_terms": 2, "max_terms": 3})
    assert gym.gym_file("chain_sum", 12, 7, {"min_terms": 2, "max_terms": 3}) == path
    prompts = load_prompts(path, "chains", TaskConfig(), tell=lambda note: None)
    assert len(prompts) == 12
    assert prompts[0].row["gym"] == {"set": "chain_sum", "size": 12, "seed": 7,
                                     "config": {"min_terms": 2, "max_terms": 3}, "index": 0}  # fmt: skip
    scorer = Scorer(load_rewards(["gym", "accuracy"]))
    right = [(one, parse_reply(f"<think>a b</think><answer>{one.gold}</answer>")) for one in prompts]
    wrong = [(one, parse_reply("<think>a b</think><answer>none of it</answer>")) for one in prompts]
    assert [score.rewards["gym"] for score in scorer.score_all(right)] == [1.0] * 12
    assert all(score.rewards["gym"] < 0.1 for score in scorer.score_all(wrong))
    assert scorer.score(prompts[0], parse_reply("no answer at all")).rewards["gym"] == 0.0
    other = Prompt("1", "t", prompts[0].messages, "5")
    assert scorer.score(other, right[0][1]).inapplicable == ("gym",)


def test_what_a_set_is_tested_on_is_not_what_it_is_trained_on_while_it_has_enough() -> None:
    few = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}  # 200 questions in all

    def asked(size: int) -> tuple[set[str], list[str]]:
        task = _of_gym("sums", TaskConfig(gym="chain_sum", size=size, config=few))
        assert task is not None
        paths = task.train, task.test
        rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths if path is not None]
        return {row["question"] for row in rows[0]}, [row["question"] for row in rows[1]]

    trained, tested = asked(100)
    assert len(tested) == len(set(tested)) == 10
    assert not trained & set(tested)
    trained, tested = asked(4000)  # nothing is left over: it is tested all the same, on what it has
    assert len(tested) == 400
    entries = Scorer(load_rewards(["gym"]))
    task = _of_gym("sums", TaskConfig(gym="chain_sum", size=100, config=few))
    assert task is not None
    assert task.test is not None
    prompts = load_prompts(task.test, "sums", TaskConfig(), tell=lambda note: None)
    right = [(one, parse_reply(f"<think>a b</think><answer>{one.gold}</answer>")) for one in prompts]
    assert [score.rewards["gym"] for score in entries.score_all(right)] == [1.0] * 10


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [("chain_sums", {}, "does not exist"), ("chain_sum", {"no": 1}, "cannot be made"), ("../x", {}, "does not exist")],
)
def test_a_set_that_cannot_be_is_told(name: str, config: dict, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        gym.gym_file(name, 3, 0, config)
    assert f"`{name}` {says}" in raised.value.faults[0].what


def test_a_set_is_distrusted_by_what_it_says() -> None:
    class Set(list):
        own, junk = 1.0, 0.0

        def score_answer(self, answer: Any, entry: dict) -> float:
            return self.own if answer == entry["answer"] else self.junk

    good, other = Set([{"question": "?", "answer": "5"}]), Set([{"question": "?", "answer": "6"}])
    assert gym._problem(good, good, 0) == ""
    assert "its entries differ" in gym._problem(good, other, 0)
    good.own = 0.5
    assert "its own answer scores 0.5" in gym._problem(good, good, 0)
    good.own, good.junk = 1.0, 1.0
    assert "junk scores 1" in gym._problem(good, good, 0)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "reasoning_gym").mkdir()
    (tmp_path / "reasoning_gym" / "__init__.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gym, "_made", {})
    with pytest.raises(TemperError) as raised:
        gym.gym_file("chain_sum", 3, 0, {})
    assert raised.value.code == Exit.OPTIONAL_PART
    assert "temper-rl[gym]" in raised.value.faults[0].fix


@pytest.mark.parametrize(
    "table",
    [{"gym": "x", "train": "a.jsonl"}, {"size": 5}, {"train": "a.jsonl", "seed": 1}, {"gym": "x", "size": 0}],
)
def test_a_task_is_of_files_or_of_a_set(table: dict) -> None:
    with pytest.raises(ValidationError):
        TaskConfig(**json.loads(json.dumps(table)))


def test_a_set_is_named_like_an_address_where_no_recipe_has_a_task_for_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "gym:chain_sum?size=4&seed=7&max_terms=3"]) == 0
    assert "4 rows" in capsys.readouterr().out
    asked = ["eval", "tiny-base", "--tasks", "gym:chain_sum?size=4", "-n", "1", "--max-tokens", "4", "--json"]
    assert main(asked) == 0
    scores = json.loads(capsys.readouterr().out)["tasks"]["chain_sum"]
    assert scores["n"] == 4
    assert scores["accuracy"] == (scores["rewards"]["gym"] == 1.0) == 0
    assert main(["check", "gym:chain_sum?size=none"]) == 2
    assert main(["eval", "tiny-base", "--tasks", "gym:chain_sums"]) == 2
    assert "did you mean `chain_sum`?" in capsys.readouterr().err


def test_what_is_tested_on_is_not_trained_on() -> None:
    config = TaskConfig(gym="chain_sum", size=20, seed=7)
    task = _of_gym("chains", config)
    assert task is not None
    train, test = (load_prompts(path, "chains", config, tell=lambda note: None) for path in (task.train, task.test))
    assert (len(train), len(test)) == (20, 2)
    assert not {one.text for one in train} & {one.text for one in test}
