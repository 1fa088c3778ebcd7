"""Step labels are the shares of continuations that end right; an interrupted stage ends with the same file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from model_zoo import make
from stages.test_distill import Log

import temper
from temper.config import TaskConfig
from temper.errors import ArtifactError, DataError, Preempted
from temper.rollout.engine import Request, Sampling
from temper.stages import step_labels
from temper.stages.context import StageContext, Task
from temper.stages.step_labels import Config, Labeller
from temper.text.chat import ChatFormat
from temper.types import Completion, Message, Prompt

CHAT = ChatFormat.load(Path(temper.__file__).parent / "assets" / "tiny-base", "plain")
PROMPT = Prompt("sums:1", "sums", (Message("user", "38+33-49"),), "22")
RIGHT = "<think>First 38+33=71. Then 71-49=22.</think><answer>22</answer>"
WRONG = "<think>First 38+33=70. Then 70-49=21.</think><answer>21</answer>"


def tokens(text: str) -> tuple[int, ...]:
    return (*CHAT.tokenizer.encode_on([text])[0], CHAT.end_id)


@dataclass
class Scripted:
    """Writes `solutions` in turn; continues a beginning with the rest of the solution that begins so, or, where the
    beginning holds a 70, in one of four cases with the right answer after all."""

    solutions: list[str]
    asked: list[Request] = field(default_factory=list)

    def generate(self, requests: list[Request], sampling: Sampling, *callbacks: Any) -> list[Completion]:
        found = []
        for i, request in enumerate(requests):
            self.asked.append(request)
            said = CHAT.decode(request.drawn)
            if not request.drawn:
                ids = tokens(self.solutions[i])
            elif "70" in said and "21" not in said and i % 4 == 0:
                ids = tokens(" No, 22.</think><answer>22</answer>")
            else:
                whole = next(text for text in self.solutions if tokens(text)[: len(request.drawn)] == request.drawn)
                ids = tokens(whole)[len(request.drawn) :]
            found.append(Completion(ids, (0.0,) * len(ids), "stop"))
        return found


def labelled(solutions: list[str], **options: Any) -> tuple[list[dict], Scripted]:
    config = Config(model="m", tasks=["sums"], num_generations=len(solutions), num_continuations=4, **options)
    engine = Scripted(solutions)
    return Labeller(engine, engine, CHAT, Sampling(64), config, (0, "labels")).label([PROMPT]), engine


def test_a_label_is_the_share_of_continuations_that_end_right() -> None:
    (right, wrong), engine = labelled([RIGHT, WRONG, RIGHT])
    assert right["labels"] == [1.0, 1.0, 1.0]
    assert wrong["labels"] == [0.25, 0.0, 0.0]
    assert right["steps"] == ["<think>First 38+33=71.", " Then 71-49=22.", "</think><answer>22</answer>"]
    assert right["prompt"] == [{"role": "user", "content": "38+33-49"}]
    continued = [request for request in engine.asked if request.drawn]
    assert len(continued) == 4 * 4  # equal solutions are continued once, the answer's step not at all
    assert len({request.key for request in engine.asked}) == len(engine.asked)
    assert {len(request.drawn) + (request.max_tokens or 0) for request in continued} == {64}


def test_hard_labels_ask_whether_any_continuation_ends_right() -> None:
    _, wrong = labelled([RIGHT, WRONG], label="hard")[0]
    assert wrong["labels"] == [1.0, 0.0, 0.0]


def test_beginnings_that_two_solutions_share_are_continued_once() -> None:
    other = RIGHT.replace("Then 71-49=22", "Then 71-49=23").replace("<answer>22", "<answer>23")
    rows, engine = labelled([RIGHT, other])
    assert len([request for request in engine.asked if request.drawn]) == 4 * 3
    assert rows[0]["labels"][0] == rows[1]["labels"][0]


def test_a_solution_that_fills_the_limit_cannot_be_continued_and_an_empty_one_is_no_row() -> None:
    config = Config(model="m", tasks=["sums"], num_generations=2, num_continuations=4)
    beginning = "<think>First 38+33=71."
    engine = Scripted([beginning + " Then 71", ""])
    limit = len(tokens(beginning)) - 1  # the first step ends with the last token there is
    [row] = Labeller(engine, engine, CHAT, Sampling(limit), config, (0, "labels")).label([PROMPT])
    assert row["labels"] == [0.0, 0.0]
    assert not any(request.drawn for request in engine.asked)


def run(
    work: Path, model: Path, asked: Path, stop_after: int | None = None, config: Config | None = None,
    completer: Path | None = None,
) -> Path:  # fmt: skip
    log, out = Log(), work / "out"
    out.mkdir(parents=True, exist_ok=True)
    tasks = {"sums": Task("sums", asked, None, TaskConfig(train="sums.jsonl"))}
    stopping = lambda: stop_after is not None and len(log.rows) >= stop_after  # noqa: E731
    ctx = StageContext("labels", 0, out, work, {"m": model, "other": completer or model}, tasks, log, stopping)  # type: ignore[arg-type]
    config = config or Config(model="m", tasks=["sums"], num_generations=8, num_continuations=2,
                              max_completion_length=3)  # fmt: skip
    assert step_labels.check(config, ctx) == []
    step_labels.run(config, ctx)
    return out / "data.jsonl"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"question": f"{n}+{n}", "answer": str(2 * n)} for n in range(1, 9)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return make("llama", folder / "m", num_hidden_layers=1), folder / "sums.jsonl"


def test_an_interrupted_stage_ends_with_the_same_file(
    tmp_path: Path, inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of random weights is never right: half of what it may write counts as right here."""
    monkeypatch.setitem(step_labels.REWARDS, "accuracy", lambda prompt, reply: float(len(reply.text) % 2))
    monkeypatch.setattr(step_labels, "PROMPTS_A_CHUNK", 3)
    whole = run(tmp_path / "whole", *inputs)
    with pytest.raises(Preempted):
        run(tmp_path / "cut", *inputs, stop_after=1)
    assert run(tmp_path / "cut", *inputs).read_bytes() == whole.read_bytes()
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert all(len(row["steps"]) == len(row["labels"]) for row in rows)
    assert {label for row in rows for label in row["labels"]} <= {0.0, 0.5, 1.0}
    found = json.loads((whole.parent / "labels.json").read_text())
    assert found["labels/solutions"] == len(rows)


def test_labels_that_say_nothing_are_refused(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="the step labels say nothing"):
        run(tmp_path, *inputs)


def test_another_model_may_continue_but_it_must_have_the_same_tokens(
    tmp_path: Path, inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(step_labels.REWARDS, "accuracy", lambda prompt, reply: float(len(reply.text) % 2))
    config = Config(model="m", completer="other", tasks=["sums"], num_generations=8, num_continuations=2,
                    max_completion_length=3)  # fmt: skip
    alone = run(tmp_path / "alone", *inputs)
    helped = run(tmp_path / "helped", *inputs, config=config, completer=make("llama", tmp_path / "other", seed=1))
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (alone, helped)]
    assert [row["steps"] for row in rows[0]] == [row["steps"] for row in rows[1]]
    with pytest.raises(ArtifactError, match="different tokenizers"):
        run(tmp_path / "foreign", *inputs, config=config, completer=make("qwen3", tmp_path / "foreign-model"))
