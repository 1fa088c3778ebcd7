"""Preference pairs: the right one of a prompt, lengths balanced, the same after an interruption."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_judge import judging
from hypothesis import given
from hypothesis import strategies as st
from model_zoo import make
from pydantic import ValidationError

from temper.config import TaskConfig
from temper.data.judged import load_judged
from temper.data.pairs import Candidate, Scored, balance, candidates
from temper.errors import DataError, Preempted
from temper.stages import preferences
from temper.stages.context import StageContext, Task
from temper.stages.preferences import Config, options_row
from temper.text.reply import parse_reply
from temper.types import Completion, Group, Message, Prompt, Rollout

SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
REPLIES = st.lists(st.builds(Scored, st.text("ab", min_size=1, max_size=3), SCORES, st.integers(1, 30)), max_size=6)


@given(REPLIES, st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([1.0, 1.5, 3.0]))
def test_every_pair_is_past_the_margin_of_comparable_length_and_the_best_of_its_kind(
    replies: list[Scored], margin: float, ratio: float
) -> None:
    found = candidates(replies, margin, ratio)
    assert len({pair.longer for pair in found}) == len(found)
    for pair in found:
        assert pair.margin == pair.chosen.score - pair.rejected.score >= margin
        assert pair.ratio <= ratio
    possible = [Candidate(a, b, a.score - b.score) for a in replies for b in replies if a.score - b.score >= margin]
    possible = [pair for pair in possible if pair.ratio <= ratio]
    assert bool(possible) == bool(found)
    for pair in found:
        assert pair.margin == max(other.margin for other in possible if other.longer == pair.longer)


@given(st.lists(REPLIES.map(lambda replies: candidates(replies, 0.25, 3.0)), max_size=12))
def test_lengths_are_balanced_exactly_or_as_far_as_the_options_go(options: list[list[Candidate]]) -> None:
    free, exact = balance(options, exactly=False), balance(options, exactly=True)
    assert [pair is not None for pair in free] == [bool(of) for of in options]
    assert all(pair is None or pair in of for pair, of in zip(exact, options, strict=True))
    assert sum(pair.longer for pair in exact if pair is not None) == 0
    greedy = [max(of, key=lambda pair: pair.margin) for of in options if of]
    assert abs(sum(pair.longer for pair in free if pair is not None)) <= abs(sum(pair.longer for pair in greedy))
    kept, whole = (sum(pair is not None for pair in pairs) for pairs in (exact, free))
    assert whole - kept == abs(sum(pair.longer for pair in free if pair is not None))


class Log:
    def __init__(self) -> None:
        self.steps = 0

    def step(self, step: int, total: int, metrics: dict[str, Any]) -> None:
        self.steps += 1

    def info(self, text: str) -> None: ...

    def warn(self, text: str, key: str = "") -> None: ...


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    asked = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(20)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    (folder / "mine.py").write_text(
        "def vowels(prompt, reply):\n    return min(1.0, sum(letter in 'aeiou' for letter in reply.text) / 4)\n"
    )
    return {"m": make("llama", folder / "m"), "sums": folder / "sums.jsonl", "mine": folder / "mine.py"}


def run(inputs: dict[str, Path], work: Path, stop_after: int | None = None, **options: Any) -> Path:
    log, out = Log(), work / "out"
    out.mkdir(parents=True, exist_ok=True)
    name = f"{inputs['mine']}:vowels"
    drawn = {"num_generations": 6, "temperature": 2.0, "max_completion_length": 12, "stop": ["e", "o"]}
    bounds = {"max_length_ratio": 12.0, "min_margin": 0.25, **options}
    config = Config(**{"model": "m", "tasks": ["sums"], "reward_funcs": [name], **drawn, **bounds})
    tasks = {"sums": Task("sums", inputs["sums"], None, TaskConfig(train="sums.jsonl"))}

    def stopping() -> bool:
        return stop_after is not None and log.steps >= stop_after

    ctx = StageContext("pairs", 0, out, work, {**inputs}, tasks, log, stopping)  # type: ignore[arg-type]
    assert preferences.check(config, ctx) == []
    if stop_after is not None:
        with pytest.raises(Preempted):
            preferences.run(config, ctx)
        return run(inputs, work, **options)
    preferences.run(config, ctx)
    return out


def test_a_run_writes_balanced_pairs_that_were_scored_and_says_what_became_of_the_rest(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    out = run(inputs, tmp_path)
    rows = [json.loads(line) for line in (out / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = json.loads((out / "preferences.json").read_text(encoding="utf-8"))
    assert len(rows) == counts["pairs"] > 0
    assert counts["chosen"]["longer"] == counts["chosen"]["shorter"]
    assert sum(counts["verdicts"].values()) == 20
    assert counts["verdicts"]["paired"] == counts["pairs"]
    for row in rows:
        assert row["prompt"][-1]["role"] == "user"
        scores = [min(1.0, sum(letter in "aeiou" for letter in row[key]) / 4) for key in ("chosen", "rejected")]
        assert row["margin"] == scores[0] - scores[1] >= 0.25


def test_a_reply_that_no_data_file_can_hold_is_in_no_pair(tmp_path: Path) -> None:
    prompt = Prompt("t:1", "t", (Message("user", "2+2"),), "4")
    texts = {"<answer>4</answer>": 1.0, "": 0.0, "\x00": 0.0, "<answer>\x00</answer>": 0.0, "<answer>5</answer>": 0.25}
    rollouts = [
        Rollout(prompt, Completion((1, 2), (0.0, 0.0), "stop"), parse_reply(text), {"accuracy": total}, total)
        for text, total in texts.items()
    ]
    config = Config(model="m", tasks=["t"], reward_funcs=["accuracy"])
    [option] = options_row(Group(prompt, (1,), tuple(rollouts)), config)["options"]
    row = {"prompt": "2+2", "chosen": option["chosen"]["text"], "rejected": option["rejected"]["text"]}
    assert row["rejected"] == "<answer>5</answer>"
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    assert len(load_judged(tmp_path / "pairs.jsonl", "preference", tell=lambda note: None)) == 1


def test_an_interrupted_run_writes_the_same_bytes(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences, "PROMPTS_A_CHUNK", 8)
    whole, cut = run(inputs, tmp_path / "whole"), run(inputs, tmp_path / "cut", stop_after=1)
    for name in ("data.jsonl", "preferences.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def alphabetical(text: str, number: int) -> str:
    first, second = re.findall(r"<(?:first|second)>\n(.*?)\n</(?:first|second)>", text, re.DOTALL)
    return "[[-3]]" if first < second else "[[3]]"


def test_a_judge_confirms_the_pairs_in_both_orders(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with judging(alphabetical) as server:
        options: dict[str, Any] = {"judge": {"url": server.url, "model": "m", "reads": "whole"}, "judge_margin": 0.5}
        out = run(inputs, tmp_path / "judged", balance_lengths=False, **options)
        rows = [json.loads(line) for line in (out / "data.jsonl").read_text(encoding="utf-8").splitlines()]
        counts = json.loads((out / "preferences.json").read_text(encoding="utf-8"))["verdicts"]
    assert all(row["chosen"].strip() < row["rejected"].strip() for row in rows)
    assert counts["paired"] == len(rows) > 0
    assert counts["not preferred by the judge"] > 0
    with judging(lambda text, number: "[[3]]") as server:  # whatever stands second
        options["judge"]["url"] = server.url
        with pytest.raises(DataError) as told:
            run(inputs, tmp_path / "biased", **options)
    assert "not preferred by the judge" in told.value.faults[0].why
    with pytest.raises(ValidationError, match="there is no judge"):
        Config(model="m", tasks=["sums"], reward_funcs=["accuracy"], max_completion_length=9, judge_margin=0.5)


def test_no_pair_at_all_is_an_error_that_says_why(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        run(inputs, tmp_path, min_margin=5.0)
    assert "no pair past the margin" in told.value.faults[0].why
