"""What stages will read, held against the models they will start from, before the first of them runs.

A model that a stage will make has the tokenizer, the template and the context of the one it starts from: they are known
from the recipe and from the files of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from temper.data.conversations import placed_conversations
from temper.data.tasks import load_prompts, placed_prompts
from temper.errors import DataError, Exit, Fault, TemperError
from temper.recipe.graph import Ref
from temper.recipe.recipe import Recipe, Stage
from temper.text.chat import ChatFormat
from temper.text.templates import missing_template_fault
from temper.types import Message

T = TypeVar("T")
_SHOWN = 3  # rows named one by one; the others are counted


@dataclass(frozen=True)
class Origin:
    """The directory that a model's tokenizer and context come from, and the template that it was imported with."""

    path: Path
    chat_template: str | None = None


def origins(recipe: Recipe) -> dict[str, Origin]:
    """Where the model that each stage makes comes from; a stage that makes one from nothing is not there."""
    found: dict[str, Origin] = {}
    for stage in recipe.stages:
        source = origin_of(stage, getattr(stage.config, "model", None), found)
        if stage.makes == "model" and source is not None:
            own = getattr(stage.config, "chat_template", None) if stage.kind == "import_model" else None
            found[stage.name] = source if own is None else replace(source, chat_template=own)
    return found


def origin_of(stage: Stage, text: str | None, made: Mapping[str, Origin]) -> Origin | None:
    """The origin of a model that a stage's config names."""
    ref = next((ref for ref in stage.references if ref.kind == "model" and ref.text == text), None)
    if ref is None:
        return None
    return made.get(ref.stage) if ref.stage is not None else None if ref.path is None else Origin(ref.path)


@dataclass
class Fit:
    """Looks through the stages of one recipe; each file is read, and each model's format opened, once."""

    recipe: Recipe
    locate: Callable[[Ref], Path | None]  # the file that a reference names, if it is there
    chats: dict[Origin, ChatFormat | None] = field(default_factory=dict)
    read: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)

    def faults(self) -> list[Fault]:
        """Prompts and conversations that a stage's model cannot take, by file and line; models without a template."""
        made = origins(self.recipe)
        found: list[Fault] = []
        for stage in self.recipe.stages:
            for text in models_of(stage):
                origin = origin_of(stage, text, made)
                chat = None if origin is None else self.chat(origin)
                if origin is not None and chat is not None:
                    found += self._of_model(stage, text, chat, str(origin.path))
            found += self._vocabularies(stage, made)
            found += self._adapters(stage, made)
        once = {(fault.what, fault.where): fault for fault in reversed(found)}  # of the first model that cannot take it
        return [*reversed(once.values()), *self._unread()]

    def chat(self, origin: Origin) -> ChatFormat | None:
        """The format of a model; None where it cannot be used, which the check of who names it tells."""
        if origin not in self.chats:
            try:
                self.chats[origin] = ChatFormat.load(origin.path, origin.chat_template)
            except TemperError:
                self.chats[origin] = None
        return self.chats[origin]

    def _of_model(self, stage: Stage, text: str, chat: ChatFormat, path: str) -> list[Fault]:
        if stage.kind in ("import_model", "pretrain", "reward_model"):
            return []
        if not chat.is_chat:
            fault = missing_template_fault(str(stage.place(f"`{text}`")))
            return [fault] if text.startswith("@") else []  # that of a directory is told by the stage's check
        of_model = f"the model of stage `{stage.name}` is `{text}`, with the template and the context of {path}"
        found: list[Fault] = []
        split = "test" if stage.kind == "evaluate" else "train"
        limit = getattr(stage.config, "max_prompts", None)
        for name in stage.tasks:
            rows = self._prompts(name, split, stage)[:limit]
            what = f"tasks.{name}.system_prompt"
            found += misfits(chat, rows, lambda asked: chat.prompts_ids(asked, room=1), of_model, self._said(what))
        for data, columns in self._data(stage):
            found += misfits(chat, self._conversations(data, columns), chat.conversation_examples, of_model, "")
        return found

    def _data(self, stage: Stage) -> list[tuple[Path, Mapping[str, str]]]:
        """The files of conversations that a stage learns from, as far as they are there, those among them that the
        stage before it mixes into what it makes."""
        name = getattr(stage.config, "data", None)
        refs = [ref for ref in stage.references if ref.text == name and ref.file in (None, "data.jsonl")]
        makers = [other for other in self.recipe.stages if any(ref.stage == other.name for ref in refs)]
        from_maker = [(maker, text) for maker in makers for text in getattr(maker.config, "mix", ())]
        asked = [(of, self._path(of, text)) for of, text in [(stage, name), *from_maker]]
        return [(path, getattr(of.config, "columns", {})) for of, path in asked if path is not None]

    def _said(self, key: str) -> str:
        """Where the recipe writes a key; "" where it does not."""
        origin = self.recipe.origins.get(key, "")
        return origin.removeprefix("recipe ")

    def _path(self, stage: Stage, text: str | None) -> Path | None:
        ref = next((ref for ref in stage.references if ref.kind == "data" and ref.text == text), None)
        return None if ref is None else self.locate(ref)

    def _prompts(self, name: str, split: str, stage: Stage) -> list[tuple[str, Sequence[Message]]]:
        task = self.recipe.tasks[name]
        path = self._path(stage, getattr(task, split))
        if path is None:
            return []
        read = self._once(("prompts", path, name), lambda: placed_prompts(path, name, task))
        return [(place, prompt.messages) for place, prompt in read]

    def _conversations(self, path: Path, columns: Mapping[str, str]) -> list[tuple[str, Sequence[Message]]]:
        key = ("conversations", path, *columns.items())
        return self._once(key, lambda: list(placed_conversations(path, columns)))

    def _once(self, key: tuple[Any, ...], load: Callable[[], list[T]]) -> list[T]:
        if key not in self.read:
            try:
                self.read[key] = load()
            except TemperError:  # told by the stage's own check
                self.read[key] = []
        return self.read[key]

    def _vocabularies(self, stage: Stage, made: Mapping[str, Origin]) -> list[Fault]:
        """Two models of a stage whose token ids do not mean the same, where one of them is yet to be made."""
        other = {"distill": "teacher", "step_labels": "completer"}.get(stage.kind, "")
        names = [getattr(stage.config, key, None) for key in ("model", other) if other]
        if len(names) < 2 or None in names or not any(str(name).startswith("@") for name in names):
            return []
        known = [origin_of(stage, name, made) for name in names]
        chats = [self.chat(origin) for origin in known if origin is not None]
        vocabularies = [chat.tokenizer.backend.get_vocab() for chat in chats if chat is not None]
        if len(vocabularies) < 2 or vocabularies[0] == vocabularies[1]:
            return []
        what = f"`{names[0]}` and `{names[1]}` have different tokenizers"
        why = f"the token ids of one mean something else to the other: {known[0].path}, {known[1].path}"  # type: ignore
        place = str(stage.place(f"`{names[1]}`"))
        return [Fault(what, place, why, "two models of one family", code=Exit.ARTIFACT)]

    def _adapters(self, stage: Stage, made: Mapping[str, Origin]) -> list[Fault]:
        """Layers that adapters are asked for and the model does not have."""
        lora = getattr(stage.config, "lora", None)
        origin = origin_of(stage, getattr(stage.config, "model", None), made)
        if lora is None or lora.target_modules == "all-linear" or origin is None:
            return []
        from temper.models.adapters import adapter_faults  # torch, which takes longer than all of a plan
        from temper.models.load import blank_model

        try:
            found = adapter_faults(blank_model(origin.path), lora)
        except TemperError:  # told by the check of who names the model
            return []
        return [replace(fault, where=str(stage.place(fault.what))) for fault in found]

    def _unread(self) -> list[Fault]:
        """Faults of the files of tasks that no stage names."""
        found: list[Fault] = []
        used = {name for stage in self.recipe.stages for name in stage.tasks}
        for name, refs in self.recipe.task_files.items():
            for ref in refs if name not in used and name in self.recipe.tasks else ():
                if ref.path is not None:
                    try:
                        load_prompts(ref.path, name, self.recipe.tasks[name], golds="none", tell=lambda note: None)
                    except TemperError as error:
                        found += error.faults
        return found


def models_of(stage: Stage) -> list[str]:
    """The models that a stage asks the prompts of its tasks, or that learn from its data."""
    config = stage.config
    named = [getattr(config, key, None) for key in ("model", "completer")]
    return [text for text in dict.fromkeys([*named, *getattr(config, "models", ())]) if isinstance(text, str)]


def misfits(
    chat: ChatFormat,
    rows: Sequence[tuple[str, Sequence[Message]]],
    encode: Callable[[Sequence[Sequence[Message]]], object],
    of_model: str,
    system_place: str,
) -> list[Fault]:
    """The rows that cannot be encoded: the template refuses them, or they do not fit the context. `system_place` is
    where a system prompt that all of them share was written."""
    kinds: dict[tuple[str, ...], tuple[str, Sequence[Message]]] = {}
    for row in rows:
        kinds.setdefault(tuple(message.role for message in row[1]), row)
    asked = [*kinds.values(), *(row for row in rows if _may_be_long(row[1], chat))]
    try:
        encode([messages for _, messages in asked])
        return []
    except DataError:
        pass
    by_kind: dict[str, list[Fault]] = {}
    for place, messages in dict(asked).items():
        try:
            encode([messages])
        except DataError as error:
            for fault in error.faults:
                by_system = bool(system_place) and "system_prompt" in fault.fix
                why = f"{fault.why}; {of_model}" if fault.why else of_model
                placed = replace(fault, where=system_place if by_system else place, why=why, code=Exit.DATA)
                by_kind.setdefault(fault.what if fault.why else "too long", []).append(placed)
    return [fault for faults in by_kind.values() for fault in _counted(list(dict.fromkeys(faults)))]


def _may_be_long(messages: Sequence[Message], chat: ChatFormat) -> bool:
    """Whether it could have more tokens than the context: none is shorter than a byte."""
    size = len(chat.template or "") + sum(len(message.content.encode("utf-8", "replace")) for message in messages)
    return chat.context_length is not None and size >= chat.context_length


def _counted(faults: Sequence[Fault]) -> list[Fault]:
    rest = faults[_SHOWN:]
    if not rest:
        return list(faults)
    file = rest[0].where.rpartition(":")[0] or rest[0].where
    return [*faults[:_SHOWN], Fault(f"… and {len(rest):,} more rows like these", file, code=Exit.DATA)]
