"""How many tokens a stage works on at a time, told from rows of the files that exist; where a stage has yet to make the
rows, from what the model that will write them was trained on. What was not measured is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Any

from temper.errors import TemperError
from temper.planning.given import tasks
from temper.recipe.recipe import Recipe, Stage

if TYPE_CHECKING:
    from temper.text.chat import ChatFormat
    from temper.types import Prompt

READ_ROWS = 256  # of a file, to tell how long its rows are
DEVIATIONS = 2  # above the mean: a large step


@dataclass(frozen=True)
class Spread:
    """The mean, the standard deviation and the most of some numbers of tokens."""

    mean: float
    deviation: float
    longest: int

    @staticmethod
    def of(lengths: Sequence[int]) -> Spread | None:
        return Spread(mean(lengths), pstdev(lengths), max(lengths)) if lengths else None

    def plus(self, other: Spread) -> Spread:
        """Of a prompt and its reply together.

        >>> Spread(10, 3, 20).plus(Spread(5, 4, 9))
        Spread(mean=15, deviation=5.0, longest=29)
        """
        deviation = (self.deviation**2 + other.deviation**2) ** 0.5
        return Spread(self.mean + other.mean, deviation, self.longest + other.longest)

    def at_most(self, limit: int) -> Spread:
        return Spread(min(self.mean, limit), self.deviation, min(self.longest, limit))

    def step(self, rows: int) -> int:
        """Tokens of a large step of `rows` rows.

        >>> Spread(10, 3, 20).step(4)
        52
        """
        return int(rows * self.mean + DEVIATIONS * self.deviation * rows**0.5)


@dataclass(frozen=True)
class Tokens:
    """`rows`: what a step trains on, one for each row. `prompt`, `reply`: what it samples. None where there is nothing
    of the kind or nothing is known; `assumed` says what was not measured."""

    rows: Spread | None = None
    prompt: Spread | None = None
    reply: Spread | None = None
    assumed: str = ""


@dataclass(frozen=True)
class _Made:
    """Of a stage: a directory with the tokenizer and template of its model, how long the model's replies are and what
    tells it, and the rows that the stage makes."""

    folder: Path | None = None
    reply: Spread | None = None
    like: str = ""
    rows: Spread | None = None


def stage_tokens(recipe: Recipe, artifacts: Mapping[str, Path]) -> dict[str, Tokens]:
    """By the name of each stage; `artifacts` are those of the stages that are done."""
    made: dict[str, _Made] = {}
    found: dict[str, Tokens] = {}
    for stage in recipe.stages:
        start = _start(stage, artifacts, made)
        tokens, reply = _of_stage(stage, recipe, artifacts, made, start)
        found[stage.name] = tokens
        folder = artifacts.get(stage.name) or start.folder
        like = stage.config.data if reply is not None else start.like  # type: ignore[attr-defined]
        rows = tokens.rows if stage.kind == "edit" else _sampled_rows(stage, tokens)
        made[stage.name] = _Made(folder, reply or start.reply, like, rows)
    return found


def _start(stage: Stage, artifacts: Mapping[str, Path], made: Mapping[str, _Made]) -> _Made:
    """What is known of the first model that the stage names."""
    for ref in (ref for ref in stage.references if ref.kind == "model"):
        before = made.get(ref.stage or "", _Made())
        return replace(before, folder=ref.path or artifacts.get(ref.stage or "") or before.folder)
    return _Made()


def _of_stage(
    stage: Stage, recipe: Recipe, artifacts: Mapping[str, Path], made: Mapping[str, _Made], start: _Made
) -> tuple[Tokens, Spread | None]:
    """The stage's tokens, and the replies that it teaches, where its rows could be measured."""
    if (ref := next((ref for ref in stage.references if ref.key == f"{stage.path}.data"), None)) is not None:
        folder = artifacts.get(ref.stage or "")
        path = ref.path or (folder / (ref.file or "data.jsonl") if folder else None)
        measured = _measure(path, stage, start.folder) if path and start.folder else []
        if measured:
            replies = Spread.of([sum(example.mask) for example in measured]) if stage.makes == "model" else None
            return Tokens(Spread.of([len(example.token_ids) for example in measured])), replies
        source = made.get(ref.stage or "", _Made())
        how = f"rows of @{ref.stage} with replies like those of {source.like or 'its longest'}"
        how = how if source.rows is not None else "full micro-batches: its rows are not known yet"
        return Tokens(source.rows, assumed=how), None
    if stage.kind == "sft":
        rows = _prompts(stage, recipe, artifacts, start.folder)
        return Tokens(rows, assumed="" if rows else "full micro-batches: its rows are not known yet"), None
    limit = getattr(stage.config, "max_completion_length", None)
    if not isinstance(limit, int):
        return Tokens(), None
    reply = start.reply.at_most(limit) if start.reply else None
    how = f"replies like those of {start.like}" if reply else f"replies of {limit:,} tokens, the most it draws"
    return Tokens(None, _prompts(stage, recipe, artifacts, start.folder), reply, how), None


def _sampled_rows(stage: Stage, tokens: Tokens) -> Spread | None:
    """What a stage makes that keeps its own samples."""
    limit = getattr(stage.config, "max_completion_length", None)
    if stage.makes != "dataset" or tokens.prompt is None or not isinstance(limit, int):
        return None
    return tokens.prompt.plus(tokens.reply or Spread(limit, 0, limit))


def _measure(path: Path, stage: Stage, model: Path) -> list[Any]:
    """Up to `READ_ROWS` rows of the file as the stage would train on them; [] if they cannot be told."""
    from temper.text.chat import ChatFormat

    columns, kind = getattr(stage.config, "columns", {}), getattr(stage.config, "kind", None)
    with suppress(TemperError):  # told elsewhere, or rows of a kind that is not read here
        chat = ChatFormat.load(model)
        return _judged(path, columns, stage, chat) if kind else _conversations(path, columns, chat)
    return []


def _conversations(path: Path, columns: Mapping[str, str], chat: ChatFormat) -> list[Any]:
    from temper.data.conversations import load_conversations

    return chat.conversation_examples(_some(load_conversations(path, columns, tell=_silent)))


def _judged(path: Path, columns: Mapping[str, str], stage: Stage, chat: ChatFormat) -> list[Any]:
    from temper.data.judged import load_judged
    from temper.stages.reward_model import SHAPES, units_of

    rows = _some(load_judged(path, SHAPES[stage.config.kind], columns, tell=_silent))  # type: ignore[attr-defined]
    return [example for unit in units_of(rows, stage.config, chat) for example in unit.examples]  # type: ignore


def _prompts(stage: Stage, recipe: Recipe, artifacts: Mapping[str, Path], model: Path | None) -> Spread | None:
    """Of the prompts of the stage's tasks, template and all, for `sft` with their gold answers; None if they cannot be
    told."""
    from temper.stages.prompts import gold_conversations
    from temper.text.chat import ChatFormat

    if model is None:
        return None
    lengths: list[int] = []
    for prompts in _task_prompts(stage, recipe, artifacts):
        with suppress(TemperError):
            chat = ChatFormat.load(model)
            if stage.kind == "sft":
                examples = chat.conversation_examples(gold_conversations(prompts))
                lengths += [len(example.token_ids) for example in examples]
            else:
                lengths += map(len, chat.prompts_ids([prompt.messages for prompt in prompts]))
    return Spread.of(lengths)


def _task_prompts(stage: Stage, recipe: Recipe, artifacts: Mapping[str, Path]) -> Iterator[Sequence[Prompt]]:
    """Some prompts of each of the stage's tasks whose file is there and sound."""
    from temper.data.tasks import load_prompts

    split = "test" if stage.kind == "evaluate" else "train"
    known = tasks(stage, recipe, artifacts)
    for task in (known[name] for name in stage.tasks if name in known):
        with suppress(TemperError):
            path = getattr(task, split)
            if path is not None:
                yield _some(load_prompts(path, task.name, task.config, golds="none", tell=_silent))


def _some(rows: Sequence[Any]) -> list[Any]:
    return Random(0).sample(rows, min(READ_ROWS, len(rows)))


def _silent(note: object) -> None:
    """What is odd about the file is told elsewhere."""
