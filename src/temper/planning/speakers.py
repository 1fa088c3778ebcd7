"""Prompts held to the model that will answer them, before anything runs: also where a chain of stages makes that model,
its tokenizer, template and context are those of the directory that the chain starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from temper.data.findings import Note
from temper.data.tasks import load_prompts
from temper.errors import Fault, TemperError
from temper.recipe.recipe import Recipe, Stage
from temper.stages.context import Task
from temper.stages.prompts import misfits
from temper.text.chat import ChatFormat
from temper.types import Prompt

Source = tuple[Path, str | None]  # a model directory, and the chat template that is put in place of its own


class Speakers:
    """The models of a recipe as far as they can be asked what they make of a prompt; each is asked once."""

    def __init__(self, recipe: Recipe, artifacts: Mapping[str, Path]):
        """`artifacts` are what stages have made already, by their names."""
        self.recipe, self.artifacts = recipe, artifacts
        self._chats: dict[Source, ChatFormat | None] = {}
        self._refused: dict[tuple[Source, Path, str, int | None], list[Fault]] = {}

    def refused(self, stage: Stage, tasks: Mapping[str, Task]) -> list[Fault]:
        """A fault, by file and line, for the prompts of a stage that its models' template refuses or whose context they
        leave no room in; nothing of models and files that have faults of another kind."""
        refs = getattr(stage.config, "models", None) or [getattr(stage.config, "model", None)]
        sources = dict.fromkeys(self.source_of(ref, stage) for ref in refs if ref)
        split = "test" if stage.kind == "evaluate" else "train"
        limit = getattr(stage.config, "max_prompts", None)
        faults: list[Fault] = []
        for source in sources:
            for task in (tasks[name] for name in getattr(stage.config, "tasks", ()) if name in tasks):
                path = getattr(task, split)
                if source is None or path is None or (chat := self._chat(source)) is None:
                    continue
                key = (source, path, task.name, limit)
                if key not in self._refused:
                    self._refused[key] = misfits(_prompts(path, task)[:limit], chat)
                faults += self._refused[key]
        return faults

    def source_of(self, ref: str, stage: Stage) -> Source | None:
        """Where a model's tokenizer and template come from; None where that is not known before it is made."""
        if not ref.startswith("@"):
            path = next((found.path for found in stage.references if found.text == ref and found.kind == "model"), None)
            return None if path is None else (path, None)
        maker = self.recipe.by_name.get(ref.removeprefix("@"))
        if maker is None:
            return None
        if maker.name in self.artifacts:
            return self.artifacts[maker.name], None
        before = getattr(maker.config, "model", None)
        source = self.source_of(before, maker) if before else None
        if source is None or maker.kind != "import_model":
            return source
        return source[0], getattr(maker.config, "chat_template", None) or source[1]

    def _chat(self, source: Source) -> ChatFormat | None:
        if source not in self._chats:
            try:
                chat = ChatFormat.load(*source)
                self._chats[source] = chat if chat.is_chat else None
            except TemperError:
                self._chats[source] = None
        return self._chats[source]


def _prompts(path: Path, task: Task) -> list[Prompt]:
    try:
        return load_prompts(path, task.name, task.config, golds=False, tell=_silent)
    except TemperError:
        return []


def _silent(note: Note) -> None:
    """The file has been told of already."""
