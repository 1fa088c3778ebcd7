"""The files a stage reads: prompts of its tasks, conversations; checked before anything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from temper.data.conversations import load_conversations
from temper.data.findings import Note, tell_all
from temper.data.overlap import overlap
from temper.data.tasks import TaskSettings, load_prompts
from temper.errors import DataError, Fault, TemperError
from temper.stages.context import StageContext
from temper.text.chat import ChatFormat
from temper.types import Example, Message, Prompt, ReplyForm

Split = Literal["train", "test"]
# By task, the reward that asks for gold answers; None where they are verified if rows give them; a task that is not
# there needs none.
Golds = Mapping[str, str | None]

SHOWN = 3  # prompts named one by one


def check_tasks(names: Sequence[str], split: Split, ctx: StageContext, golds: Golds) -> list[Fault]:
    """Faults of the tasks' prompts, for files that already exist."""
    faults: list[Fault] = []
    trained: dict[str, Sequence[Prompt]] = {}
    for name in names:
        task = ctx.tasks.get(name)
        if task is None:
            continue
        if getattr(task.config, split) is None and task.config.gym is None:
            faults.append(
                Fault(f"task `{name}` has no `{split}` file", fix=f"give it one: tasks.{name}.{split}: prompts.jsonl")
            )
        path = getattr(task, split)
        if path is not None:
            try:
                _load(path, name, ctx, golds, tell_warnings(ctx))
                if split == "test":
                    tell_all(_trained_on(name, path, trained, ctx), tell_warnings(ctx))
            except TemperError as error:
                faults += error.faults
    return faults


def _load(path: Path, name: str, ctx: StageContext, golds: Golds, tell: Callable[[Note], None]) -> list[Prompt]:
    """The prompts of a task. Raises DataError, by file and line where all of them lack what a reward asks for."""
    config = ctx.tasks[name].config
    try:
        return load_prompts(path, name, config, golds=_asked(name, golds), tell=tell)
    except DataError:
        if golds.get(name) and all(prompt.gold is None for prompt in _anyhow(path, name, config)):
            what = f"the reward `{golds[name]}` asks for gold answers, and the task `{name}` has none"
            fix = "add a column `answer`, map one (`columns`), or leave the task out of that reward's (`reward_tasks`)"
            raise DataError(Fault(what, f"{path}:1", fix=fix)) from None
        raise


def _asked(name: str, golds: Golds) -> Literal["all", "given", "none"]:
    if name not in golds:
        return "none"
    return "given" if golds[name] is None else "all"


def _anyhow(path: Path, name: str, config: TaskSettings) -> Sequence[Prompt]:
    try:
        return load_prompts(path, name, config, golds="none", tell=_silent)
    except DataError:
        return [Prompt("", name, (), "")]


def _trained_on(name: str, path: Path, trained: dict[str, Sequence[Prompt]], ctx: StageContext) -> list[Note]:
    """Warnings about test prompts that are in a training file of the recipe, of this task or another. Questions are
    compared as they stand in the files; `trained` keeps those of training files that were read already."""
    files = {other: task.train for other, task in ctx.tasks.items() if task.train is not None}
    asked = _questions(path, name, ctx) if files else []
    notes = []
    for other, file in files.items():
        with contextlib.suppress(TemperError):  # what is wrong with it is told where it is trained on
            if other not in trained:
                trained[other] = _questions(file, other, ctx)
            if met := overlap(trained[other], asked).note(f"{file} and {path}" if other != name else str(path)):
                notes.append(met)
    return notes


def _questions(path: Path, name: str, ctx: StageContext) -> Sequence[Prompt]:
    """What the rows of a task's file ask, as it stands there."""
    bare = ctx.tasks[name].config.model_copy(update={"prompt_template": None, "choice_template": None})
    return load_prompts(path, name, bare, golds="none", tell=_silent)


def open_prompts(
    names: Sequence[str], split: Split, ctx: StageContext, golds: Golds, reply: ReplyForm | None = None
) -> dict[str, list[Prompt]]:
    """The prompts of each task, replies to them read in the form `reply` if it is given, else in their task's; what is
    odd about a file goes to the stage's log."""
    tell = tell_warnings(ctx)
    found = {name: _load(getattr(ctx.tasks[name], split), name, ctx, golds, tell) for name in names}
    return {name: in_form(prompts, reply) for name, prompts in found.items()}


def in_form(prompts: Sequence[Prompt], reply: ReplyForm | None) -> list[Prompt]:
    """The prompts with replies read in this form; as they are where it is None."""
    return [prompt if reply is None else replace(prompt, reply=reply) for prompt in prompts]


def known_prompts(
    names: Sequence[str], split: Split, ctx: StageContext, golds: Golds, reply: ReplyForm | None = None
) -> dict[str, list[Prompt]]:
    """The prompts of those tasks whose files are there and sound; what is wrong with the others is `check_tasks`'."""
    known: dict[str, list[Prompt]] = {}
    for name in names:
        task = ctx.tasks.get(name)
        path = getattr(task, split) if task is not None else None
        if task is not None and path is not None:
            with contextlib.suppress(TemperError):
                known[name] = in_form(_load(path, name, ctx, golds, _silent), reply)
    return known


def _silent(note: Note) -> None:
    """The file has been told of already."""


def tell_warnings(ctx: StageContext) -> Callable[[Note], None]:
    """A listener of what is odd about a file: it goes to the stage's log."""

    def tell(note: Note) -> None:
        if note.level == "warning":
            ctx.log.warn(note.render().removeprefix("warning: "))

    return tell


def check_lengths(prompts: Sequence[Prompt], chat: ChatFormat) -> None:
    """Raise DataError for prompts that the template refuses, or that leave no room for a completion in the model's
    context."""
    if faults := misfits(prompts, chat):
        raise DataError(faults)


def misfits(prompts: Sequence[Prompt], chat: ChatFormat) -> list[Fault]:
    """A fault, by file and line, for the first prompts that the template refuses or that leave no room for a completion
    in the model's context; of the others how many."""
    try:
        chat.prompts_ids([prompt.messages for prompt in prompts], room=1)
        return []
    except DataError:
        pass  # now one by one, to name them
    faults: list[Fault] = []
    for prompt in prompts:
        try:
            chat.prompts_ids([prompt.messages], room=1)
        except DataError as error:
            where = prompt.place or prompt.id
            faults.append(replace(error.faults[0], where=f"{where} (task `{prompt.task}`)"))
    rest = len(faults) - SHOWN
    return [*faults[:SHOWN], *([replace(faults[0], what=f"… and {rest:,} more prompts", why="", fix="")] * (rest > 0))]


def open_limited_prompts(
    names: Sequence[str],
    limit: int | None,
    chat: ChatFormat,
    ctx: StageContext,
    golds: Golds,
    reply: ReplyForm | None = None,
) -> list[Prompt]:
    """The first `limit` training prompts of each task, all of which leave room for a completion; `reply` as for
    `open_prompts`. Raises DataError."""
    found = open_prompts(names, "train", ctx, golds, reply)
    prompts = [prompt for of_task in found.values() for prompt in of_task[:limit]]
    check_lengths(prompts, chat)
    return prompts


def check_conversations(ref: str, columns: Mapping[str, str], ctx: StageContext) -> list[Fault]:
    """Faults of a file of conversations that already exists."""
    path = ctx.inputs.get(ref)
    if path is None or ref.startswith("@"):
        return []
    try:
        load_conversations(path, columns, tell=tell_warnings(ctx))
    except TemperError as error:
        return list(error.faults)
    return []


def conversation_examples(
    path: Path, columns: Mapping[str, str], chat: ChatFormat, note: Callable[[str], None]
) -> list[Example]:
    """The training rows of a file; `note` hears of replies that hold the letters of an end token."""
    conversations = load_conversations(path, columns)
    if told := chat.ends_written(conversations):
        note(f"{path.name}: {told}")
    return chat.conversation_examples(conversations)


def check_golds(names: Sequence[str], ctx: StageContext) -> list[Fault]:
    """Faults of tasks whose gold answers are to be learned."""
    faults = [
        Fault(
            f"the gold answers of task `{name}` have no thoughts, and its replies are to begin with one",
            why=f"it reads replies in the form `{ctx.tasks[name].config.reply}`",
            fix=f"tasks.{name}.reply: plain; or learn from conversations (`data`), as a stage `sample` makes them",
        )
        for name in names
        if name in ctx.tasks and ctx.tasks[name].config.reply != "plain"
    ]
    known = known_prompts(names, "train", ctx, {})
    faults += [_without_golds(name, ctx) for name, prompts in known.items() if not gold_conversations(prompts)]
    return faults + check_tasks(names, "train", ctx, {})


def _without_golds(name: str, ctx: StageContext) -> Fault:
    fix = "add a column `answer`, map one (`columns`), or learn from conversations (`data`)"
    return Fault(f"no row of task `{name}` has a gold answer to learn", f"{ctx.tasks[name].train}:1", fix=fix)


def gold_examples(names: Sequence[str], limit: int | None, chat: ChatFormat, ctx: StageContext) -> list[Example]:
    """The first `limit` training prompts of each task, each with its gold answer as the reply; a prompt without one is
    left out. Raises DataError where that leaves none."""
    prompts = open_limited_prompts(names, limit, chat, ctx, {})
    conversations = gold_conversations(prompts)
    if not conversations:
        raise DataError([_without_golds(name, ctx) for name in names])
    if left := len(prompts) - len(conversations):
        ctx.log.note(f"{left:,} of {len(prompts):,} prompts have no gold answer and are left out")
    return chat.conversation_examples(conversations)


def gold_conversations(prompts: Sequence[Prompt]) -> list[list[Message]]:
    """Each prompt that has one with its gold answer as the reply.

    >>> [turn.content for turn in gold_conversations([Prompt("sums:1", "sums", (Message("user", "1 + 1"),), "2")])[0]]
    ['1 + 1', '2']
    """
    return [[*prompt.messages, Message("assistant", prompt.gold)] for prompt in prompts if prompt.gold is not None]
