"""What several stages do alike: open what they start from, check it before anything runs, leave a model behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

from temper.data.conversations import load_conversations
from temper.data.findings import Note, tell_log
from temper.data.overlap import overlap
from temper.data.tasks import load_prompts
from temper.errors import Fault, TemperError
from temper.models.save import save_model
from temper.rng import seed_for
from temper.stages.context import StageContext
from temper.text.chat import ChatFormat
from temper.types import Example, Prompt


def check_model(ref: str, ctx: StageContext) -> list[Fault]:
    """Faults of a model directory that already exists; nothing to say of one that a stage will make."""
    from temper.models.checks import check_model_dir

    path = ctx.inputs.get(ref)
    if path is None or ref.startswith("@"):
        return []
    faults = list(check_model_dir(path))
    if not faults:
        try:
            ChatFormat.load(path)
        except TemperError as error:
            faults += error.faults
    return faults


def check_tasks(names: Sequence[str], split: Literal["train", "test"], ctx: StageContext) -> list[Fault]:
    """Faults of the tasks' prompts, for files that already exist."""
    faults: list[Fault] = []
    for name in names:
        task = ctx.tasks.get(name)
        if task is None:
            continue
        if getattr(task.config, split) is None:
            faults.append(
                Fault(f"task `{name}` has no `{split}` file", fix=f"give it one: tasks.{name}.{split}: prompts.jsonl")
            )
        path = getattr(task, split)
        if path is not None:
            try:
                prompts = load_prompts(path, name, task.config)
                if split == "test" and task.train is not None:
                    tell_overlap(load_prompts(task.train, name, task.config), prompts)
            except TemperError as error:
                faults += error.faults
    return faults


def tell_overlap(train: Sequence[Prompt], test: Sequence[Prompt]) -> None:
    """Warn of held-out questions that are trained on."""
    note = overlap(train, test).note()
    if note is not None:
        tell_log(note)


def open_prompts(names: Sequence[str], split: Literal["train", "test"], ctx: StageContext) -> dict[str, list[Prompt]]:
    """The prompts of each task; what is odd about a file goes to the stage's log."""

    def tell(note: Note) -> None:
        if note.level == "warning":
            ctx.log.warn(note.render().removeprefix("warning: "))

    tasks = {name: ctx.tasks[name] for name in names}
    return {name: load_prompts(getattr(task, split), name, task.config, tell=tell) for name, task in tasks.items()}


def check_conversations(ref: str, columns: Mapping[str, str], ctx: StageContext) -> list[Fault]:
    path = ctx.inputs.get(ref)
    if path is None or ref.startswith("@"):
        return []
    try:
        load_conversations(path, columns)
    except TemperError as error:
        return list(error.faults)
    return []


def check_lengths(prompts: Sequence[Prompt], chat: ChatFormat) -> None:
    """Raise DataError for prompts that leave no room for a completion in the model's context."""
    chat.prompts_ids([prompt.messages for prompt in prompts], room=1)


def draw_prompts(
    prompts: Mapping[str, Sequence[Prompt]], count: int, step: int, key: Sequence[int | str]
) -> list[Prompt]:
    """The prompts of one step: tasks in equal shares, each task's in an order shuffled anew every epoch.

    A function of (key, step) alone, so a resumed run draws what the undisturbed one would have.
    """
    names = list(prompts)
    drawn: list[Prompt] = []
    for number, name in enumerate(names):
        share = (count * (number + 1)) // len(names) - (count * number) // len(names)
        of_task = prompts[name]
        for i in range(step * share, (step + 1) * share):
            epoch, at = divmod(i, len(of_task))
            drawn.append(of_task[shuffled(len(of_task), (*key, name, epoch))[at]])
    return drawn


_orders: dict[tuple[int, tuple[int | str, ...]], list[int]] = {}


def shuffled(count: int, key: tuple[int | str, ...]) -> list[int]:
    """The numbers below `count` in the order that `key` names."""
    if (count, key) not in _orders:
        if len(_orders) > 8:
            _orders.clear()
        order = list(range(count))
        Random(seed_for(*key)).shuffle(order)
        _orders[count, key] = order
    return _orders[count, key]


def conversation_examples(path: Path, columns: Mapping[str, str], chat: ChatFormat) -> list[Example]:
    return chat.conversation_examples(load_conversations(path, columns))


def finish_model(model: Any, chat: ChatFormat, ctx: StageContext, trained_from: str, how: Sequence[str]) -> None:
    """Leave the trained model as the stage's artifact."""
    save_model(model, chat, ctx.out, card={"stage": ctx.name, "trained_from": trained_from, "how": list(how)})
