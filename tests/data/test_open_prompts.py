"""Prompts without a right answer, where no reward asks for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.config import TaskConfig
from temper.data.findings import Findings
from temper.data.overlap import same_questions
from temper.data.tasks import load_prompts
from temper.errors import DataError
from temper.rewards import REWARDS, needs_gold
from temper.rewards.accuracy import accuracy
from temper.text.reply import parse_reply
from temper.types import Message, Prompt


def write(folder: Path, *rows: dict) -> Path:
    file = folder / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


OPEN = [{"prompt": "Write a poem.", "topic": "sea"}, {"prompt": "Greet me."}]
MESSAGES = [{"messages": [{"role": "user", "content": text}]} for text in ("Write a poem.", "Greet me.")]


@pytest.mark.parametrize("rows", [OPEN, MESSAGES])
def test_rows_without_answers_are_open_prompts_where_nobody_asks_for_gold(tmp_path: Path, rows: list) -> None:
    prompts = load_prompts(write(tmp_path, *rows), "t", TaskConfig(), golds="none", tell=lambda note: None)
    assert [prompt.gold for prompt in prompts] == [None, None]
    assert prompts[0].text == "Write a poem."
    with pytest.raises(DataError):
        load_prompts(tmp_path / "t.jsonl", "t", TaskConfig())


def test_a_file_may_have_answers_for_some_and_ones_that_cannot_be_verified(tmp_path: Path) -> None:
    rows = [{"question": "2+3?", "answer": "#### 5"}, {"question": "Why?", "answer": ""}, {"question": "How?"},
            {"question": "JSON?", "answer": '{"x": 1}'}, {"question": "Null?", "answer": None}]  # fmt: skip
    prompts = load_prompts(write(tmp_path, *rows), "t", TaskConfig(), golds="none", tell=lambda note: None)
    assert [prompt.gold for prompt in prompts] == ["5", None, None, '{"x": 1}', None]
    with pytest.raises(DataError):
        load_prompts(tmp_path / "t.jsonl", "t", TaskConfig())


def test_what_is_no_prompt_is_still_an_error(tmp_path: Path) -> None:
    for row in ({"prompt": ""}, {"topic": "sea"}):
        with pytest.raises(DataError):
            load_prompts(write(tmp_path, row), "t", TaskConfig(), golds="none", tell=lambda note: None)


def test_rewards_say_whether_they_need_a_gold_answer() -> None:
    assert {name for name, reward in REWARDS.items() if needs_gold(reward)} >= {"accuracy", "cosine_length"}
    assert not any(needs_gold(REWARDS[name]) for name in ("format", "length", "language_consistency", "tag_count"))
    prompt = Prompt("1", "t", (Message("user", "Hi"),), None)
    reply = parse_reply("<think>a b</think><answer>5</answer>")
    for name, reward in REWARDS.items():
        if not needs_gold(reward) and name != "code":
            reward(prompt, reply)
    with pytest.raises(ValueError, match="no gold answer"):
        accuracy(prompt, reply)
    found = Findings("t.jsonl")
    same_questions([prompt, prompt, Prompt("2", "t", prompt.messages, "5")], found)
    assert found.notes
