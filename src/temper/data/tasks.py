"""Prompts: rows with a question and a gold answer become `Prompt`s, each gold checked as it is read. Rows without one
are open prompts, where no reward asks for a gold answer."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

from temper.aside import set_aside
from temper.benchmarks import BENCHMARKS
from temper.code.rows import NoTests, read_tests
from temper.data.columns import ANSWER_TYPES, LANGUAGE, value_at
from temper.data.conversations import prompt_of
from temper.data.files import read_rows
from temper.data.findings import Findings, Tell, clip, tell_all
from temper.data.golds import Asked, Conversation, asked_of, put
from temper.data.gym import gym_file
from temper.data.names import AFTER, NAMES, folded
from temper.data.overlap import same_questions
from temper.data.rows import NOTHING, Number, Row, plain, type_name
from temper.data.shapes import Shape, shape_of_rows
from temper.data.statements import whole_statement
from temper.errors import ConfigError, DataError, Fault, TemperError
from temper.hub.names import data_name, is_hub_data
from temper.hub.resolve import resolve_data
from temper.text.languages import LANGUAGES
from temper.types import AnswerType, Message, Prompt, ReplyForm

Templates = tuple[str | None, str | None]  # for open questions, for those with options
# Which rows must have a gold answer that can be verified: all; those that give one, the others being open prompts;
# none, and what stands there is taken as it is
Golds = Literal["all", "given", "none"]


GYM = "gym:"  # begins the name of a set of reasoning-gym, where no recipe has a task for it


class TaskSettings(Protocol):
    """What a task's config says about reading its rows."""

    @property
    def answer(self) -> AnswerType: ...
    @property
    def language(self) -> str: ...
    @property
    def system_prompt(self) -> str | None: ...
    @property
    def columns(self) -> Mapping[str, str]: ...
    @property
    def unverifiable(self) -> Literal["error", "drop"]: ...
    @property
    def prompt_template(self) -> str | None: ...
    @property
    def choice_template(self) -> str | None: ...
    @property
    def reply(self) -> ReplyForm: ...


@dataclass(frozen=True)
class Task:
    """A named set of verifiable prompts: its files and how to read them."""

    name: str
    train: Path | None
    test: Path | None
    config: TaskSettings


@dataclass(frozen=True)
class Builtin:
    """A task that temper writes itself: the function of `data/tiny/files.py` that gives its rows."""

    rows: str
    answer: AnswerType

    def draw(self, split: str, count: int, seed: int) -> Iterator[dict]:
        from temper.data.tiny import files

        return getattr(files, self.rows)(split, count, seed)


BUILTIN_TASKS: dict[str, Builtin] = {
    "arithmetic": Builtin("arithmetic_prompts", answer="math"),
    "general": Builtin("general_prompts", answer="text"),
}


def resolve_task(name_or_path: str, folder: Path | None = None, *, count: int = 200, seed: int = 0) -> Task:
    """The task of this name, or of the prompts in this file, to be tested on.

    The `count` held-out rows of a built-in task are written into `folder` (one that goes when the process ends, if
    None) and read like anybody's file. Raises `ConfigError` when there is neither a task nor a file of that name.
    """
    from temper.config import TaskConfig

    builtin = BUILTIN_TASKS.get(name_or_path)
    if builtin is not None:
        file = (folder or _passing_folder()) / f"{name_or_path}.test.jsonl"
        write_rows(file, builtin.draw("test", count, seed))
        return Task(name_or_path, None, file, TaskConfig(answer=builtin.answer))
    if name_or_path.startswith(GYM):
        return _of_gym(name_or_path)
    name, equals, own = name_or_path.partition("=")
    if name in BENCHMARKS:
        config = TaskConfig(benchmark=name_or_path)
        return Task(name, None, Path(own) if equals else _of_benchmark(name), config)
    if is_hub_data(name_or_path):
        found = data_name(name_or_path)
        name = re.sub(r"[^A-Za-z0-9]+", "-", found.repo.rpartition("/")[2])
        return Task(name, None, resolve_data(name_or_path).path, TaskConfig())
    path = Path(name_or_path)
    if not path.exists() and not path.suffix and path.name == name_or_path:
        known = ", ".join(f"`{name}`" for name in BUILTIN_TASKS)
        why = f"built-in tasks: {known}; benchmarks: {', '.join(BENCHMARKS)}"
        raise ConfigError(Fault(f"no task `{clip(name_or_path)}`", why=why, fix="name one, or a data file"))
    return Task(path.name.partition(".")[0] or path.name, None, path, TaskConfig())


def _of_benchmark(name: str) -> Path:
    """Where the rows of a benchmark lie. What is raised where they cannot be had says how to do without the Hub."""
    try:
        return resolve_data(BENCHMARKS[name].source).path
    except TemperError as error:
        own = f"a file of yours will do: `{name}=FILE.jsonl`"
        faults = [replace(fault, fix=f"{fault.fix}; {own}".removeprefix("; ")) for fault in error.faults]
        raise TemperError(faults, error.code) from None


def _of_gym(reference: str) -> Task:
    """The set of reasoning-gym in `gym:NAME?size=100&seed=7&…`; what else the reference says is the set's own config.
    Raises ConfigError as `gym_file` does, and for a reference that cannot be read."""
    from pydantic import ValidationError

    from temper.config import TaskConfig

    name, _, asked = reference.removeprefix(GYM).partition("?")
    try:
        given = {key: json_or_text(value) for key, value in parse_qsl(asked, strict_parsing=bool(asked))}
        config = TaskConfig(gym=name, config={k: v for k, v in given.items() if k not in ("size", "seed")},
                            **{"size": 200, **{k: v for k, v in given.items() if k in ("size", "seed")}})  # fmt: skip
    except ValueError as error:
        why = str(error) if not isinstance(error, ValidationError) else error.errors()[0]["msg"]
        fix = "write it like `gym:chain_sum?size=100&seed=7&max_terms=3`"
        raise ConfigError(Fault(f"`{clip(reference)}` names no set of reasoning-gym", why=why, fix=fix)) from None
    return Task(name, None, gym_file(name, config.size, config.seed, config.config), config)


def json_or_text(text: str) -> Any:
    """A value as YAML would have it: a number, true, false, null, a list, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _passing_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="temper-tasks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def load_prompts(
    path: Path | str,
    task: str,
    config: TaskSettings,
    *,
    golds: Golds = "all",
    skip_bad: bool = False,
    tell: Tell | None = None,
) -> list[Prompt]:
    """The prompts of a file, with verified gold answers where `golds` asks for them. Raises `DataError` with every
    fault of the file, `ConfigError` for a mapping of columns that cannot be; `tell` hears notes and warnings (the log
    `temper.data` when it is None).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "train.jsonl")
    >>> _ = path.write_text('{"question": "Which capital has France?", "answer": "Paris"}')
    >>> from temper.config import TaskConfig
    >>> config = TaskConfig(answer="text")
    >>> prompt = load_prompts(path, "facts", config)[0]
    >>> prompt.id, prompt.text, prompt.gold
    ('facts:1', 'Which capital has France?', 'Paris')
    """
    found = Findings(str(path), skip_bad)
    rows = list(read_rows(path, found))
    shape = _shape(rows, found, config, golds)
    prompts = [prompt for _, prompt in prompts_of(rows, shape, task, config, found, golds)]
    tell_all(found.close(), tell)
    if not found.dropped:
        return prompts
    coverage = f"{found.rows - len(found.dropped):,} of {found.rows:,} rows"
    return [replace(prompt, coverage=coverage) for prompt in prompts]


def placed_prompts(path: Path | str, task: str, config: TaskSettings) -> list[tuple[str, Prompt]]:
    """The good prompts of a file, gold answers or not, each with its file and line. Raises `DataError` for a file that
    cannot be read; bad rows are left out."""
    found = Findings(str(path), skip_bad=True)
    rows = list(read_rows(path, found))
    pairs = prompts_of(rows, _shape(rows, found, config, "none"), task, config, found, "none")
    return [(row.place(str(path)), prompt) for row, prompt in pairs]


def _shape(rows: Sequence[Row], found: Findings, config: TaskSettings, golds: Golds) -> Shape:
    if golds == "none" and rows and _has_tests(rows[0]):
        with contextlib.suppress(DataError):
            return shape_of_rows(rows, found, config.columns, ("code",))
    try:
        return shape_of_rows(rows, found, config.columns, ("verifiable",))
    except DataError as error:
        if golds == "none" or (golds == "given" and not _may_have_answers(rows, config)):
            with contextlib.suppress(DataError):
                return shape_of_rows(rows, found, config.columns, ("open",))
        raise error from None


def _may_have_answers(rows: Sequence[Row], config: TaskSettings) -> bool:
    """Whether a column is named as the answer, or nearly so: then what is wrong with it is told."""
    columns = dict.fromkeys(column for row in rows for column in row.values)
    known = [*NAMES["answer"], *(name for names in AFTER["answer"] for name in names)]
    close = (difflib.get_close_matches(folded(column)[:50], known, n=1, cutoff=0.8) for column in columns)
    return "answer" in config.columns or any(close)


def _has_tests(row: Row) -> bool:
    """Whether a row has tests for programs: what else it has is then no gold answer."""
    try:
        return bool(read_tests(plain(dict(row.values))))
    except NoTests:
        return False


def prompts_of(
    rows: Sequence[Row], shape: Shape, task: str, config: TaskSettings, found: Findings, golds: Golds = "all"
) -> list[tuple[Row, Prompt]]:
    """The good rows with their prompts; the others are bad rows in `found`. Where `golds` asks for none, a row whose
    gold answer is missing or cannot be verified is as good as any.

    A prompt is called by its row's `id` when every row has one of its own, otherwise `task:row number`.
    """
    own = _own_ids(rows, shape, found)
    drop = config.unverifiable == "drop"
    made = []
    for row in rows:
        messages = _with_system(prompt_of(row, shape, found), config.system_prompt)
        if messages and shape.name == "code":
            statement = whole_statement(messages[-1].content, row.values)
            messages = (*messages[:-1], Message("user", statement))
        answer_type = _answer_type(row, shape, config.answer, found)
        language = _language(row, shape, config.language, found)
        question = messages or (Message("user", ""),)  # its gold is looked at even where it asks nothing
        kind = answer_type or config.answer
        templates = (config.prompt_template, config.choice_template)
        if "answer" in shape.columns and (golds == "all" or (golds == "given" and (drop or _answers(row, shape)))):
            asked = asked_of(row, shape, question, kind, drop, found, *templates)
        else:
            asked = _asked_anyhow(row, shape, question, kind, templates)
        if messages and asked and answer_type and language:
            name, values = own.get(row.number, f"{task}:{row.number}"), set_aside(plain(dict(row.values)))
            prompt = Prompt(
                name, task, asked.messages, asked.gold, asked.answer_type, language, values, reply=config.reply,
                place=row.place(found.path),
            )  # fmt: skip
            made.append((row, prompt))
    if golds != "none":
        _tell_numbers(rows, shape, found)
    same_questions([prompt for _, prompt in made], found)
    return made


def _answers(row: Row, shape: Shape) -> bool:
    """Whether a row gives an answer at all."""
    value = value_at(row.values, shape.columns["answer"])
    empty = value in (None, NOTHING, []) or (isinstance(value, str) and not value.strip())
    return shape.choices is not None or not empty


def _asked_anyhow(row: Row, shape: Shape, messages: Conversation, kind: AnswerType, templates: Templates) -> Asked:
    """What a row asks, its gold answer as it stands if it has one."""
    if "answer" not in shape.columns:
        return Asked(put(messages, templates[0]), None, kind)
    found = asked_of(row, shape, messages, kind, False, Findings(""), *templates)
    if found is not None:
        return found
    value = value_at(row.values, shape.columns["answer"])
    text = value.text if isinstance(value, Number) else value
    return Asked(put(messages, templates[0]), text if isinstance(text, str) and text.strip() else None, kind)


def _tell_numbers(rows: Sequence[Row], shape: Shape, found: Findings) -> None:
    if shape.choices is not None or "answer" not in shape.columns:
        return
    numbers = sum(isinstance(value_at(row.values, shape.columns["answer"]), Number) for row in rows)
    if numbers:
        what = f"answers that are numbers, not text, in {numbers:,} of {len(rows):,} rows: taken digit by digit"
        found.warn(what, fix='write them in quotes ("5") to be sure of what they are')


def _with_system(messages: tuple[Message, ...] | None, system: str | None) -> tuple[Message, ...] | None:
    """The task's system prompt first; a row's own goes before it."""
    if messages is None or not system or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)


def _answer_type(row: Row, shape: Shape, default: AnswerType, found: Findings) -> AnswerType | None:
    value = value_at(row.values, shape.columns.get("answer_type", ""))
    if value in (None, "", NOTHING):
        return default
    if value in ANSWER_TYPES:
        return value
    shown = f"`{clip(value)}`" if isinstance(value, str) else type_name(value)
    kind = f"`answer_type` is none of {', '.join(ANSWER_TYPES)}"
    fix = "if the column means something else, rename it"
    found.bad(row.number, row.place(found.path), kind, f"found {shown}", fix)
    return None


def _language(row: Row, shape: Shape, default: str, found: Findings) -> str | None:
    value = value_at(row.values, shape.columns.get("language", ""))
    if value in (None, "", NOTHING):
        return default
    if isinstance(value, str) and LANGUAGE.fullmatch(value):
        if value not in LANGUAGES:
            why = f"`{clip(value)}` is not one of {', '.join(LANGUAGES)}"
            found.odd(row.number, row.place(found.path), "a language that temper cannot tell from others", why)
        return value
    shown = f"`{clip(value)}`" if isinstance(value, str) else type_name(value)
    fix = "write a code such as `en`; if the column means something else, rename it"
    found.bad(row.number, row.place(found.path), "`language` is not a language code", f"found {shown}", fix)
    return None


def _own_ids(rows: Sequence[Row], shape: Shape, found: Findings) -> dict[int, str]:
    """Row number -> its own id; empty when the rows have none, or not one each."""
    if "id" not in shape.columns:
        return {}
    values = {row.number: value_at(row.values, shape.columns["id"]) for row in rows}
    names = {number: value.text if isinstance(value, Number) else value for number, value in values.items()}
    good = {number: name for number, name in names.items() if isinstance(name, str) and name.strip()}
    if len(good) == len(rows) and len(set(good.values())) == len(rows):
        return good
    missing = len(rows) - len(good)
    why = f"{missing:,} rows have none" if missing else f"{len(rows) - len(set(good.values())):,} repeat another row's"
    found.warn(f"`{clip(shape.columns['id'])}` does not name every row: rows are called by their number", why=why)
    return {}
