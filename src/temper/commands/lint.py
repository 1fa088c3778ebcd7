"""What `temper check` does to one file: read it as a stage would, then hold the rewards to its gold answers."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from temper.code.rows import READ
from temper.commands.lint_rewards import check_golds, lint_reward
from temper.data.conversations import conversations_of
from temper.data.files import read_rows
from temper.data.findings import Findings, Note, clip
from temper.data.judged import BUILDERS, judged_of
from temper.data.overlap import overlap
from temper.data.rows import Row, to_json
from temper.data.shapes import CONVERSATIONS, Shape, shape_of_rows, text_of
from temper.data.statements import COLUMNS
from temper.data.tasks import BUILTIN_TASKS, GYM, prompts_of, resolve_task
from temper.errors import ConfigError, DataError, Exit, Fault, ResourceError, TemperError
from temper.types import AnswerType, Message, Prompt, ReplyForm

if TYPE_CHECKING:
    from temper.text.chat import ChatFormat

RECIPES = (".yaml", ".yml")
PROMPTED = ("verifiable", "code", "open")  # shapes whose rows are prompts, with rewards that see them
_REWARD = re.compile(r".+\.py:[^/\\]*")


@dataclass(frozen=True)
class Options:
    """How files are to be read; also what a task's config says (`TaskSettings`)."""

    shape: str | None
    columns: Mapping[str, str]
    answer: AnswerType
    language: str
    rewards: tuple[str, ...]
    model: str | None
    skip_bad: bool
    system_prompt: str | None = None
    unverifiable: Literal["error", "drop"] = "error"
    prompt_template: str | None = None
    choice_template: str | None = None
    reply: ReplyForm = "tags"


@dataclass(frozen=True)
class FileReport:
    """What is known about one file. `code` is the exit code of its faults; `good` its good rows."""

    name: str
    what: str
    shape: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    bad_rows: int = 0
    rewards: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    faults: tuple[Fault, ...] = ()
    code: Exit = Exit.OK
    prompts: tuple[Prompt, ...] = ()
    good: tuple[Row, ...] = ()


def lint(file: str, options: Options, prompts: Sequence[Prompt] = ()) -> FileReport:
    """A data file, a recipe or a reward, whichever `file` names. A reward is tried on some of the `prompts`."""
    if file.startswith(GYM):
        return lint_builtin(file, options)
    if is_reward(file):
        return _guarded(file, "reward", lambda: lint_one_reward(file, prompts))
    if file.lower().endswith(RECIPES) or _is_shipped_recipe(file):
        return _guarded(file, "recipe", lambda: lint_recipe(file))
    return lint_data(file, options)


def is_reward(file: str) -> bool:
    """Whether the name is that of a function of a file."""
    return bool(_REWARD.fullmatch(file)) and not Path(file).exists()


def _is_shipped_recipe(name: str) -> bool:
    if not name.isidentifier() or Path(name).exists():
        return False
    from temper.recipe.sources import shipped_recipes

    return name in shipped_recipes()


def _guarded(name: str, what: str, check: Callable[[], FileReport]) -> FileReport:
    try:
        return check()
    except TemperError as error:
        return FileReport(name, what, faults=error.faults, code=error.code)


def lint_builtin(name: str, options: Options) -> FileReport:
    """A built-in task, by way of the file that it writes."""
    if name.startswith(GYM):
        return _guarded(name, "set", lambda: _lint_set(name, options))
    if name not in BUILTIN_TASKS:
        what, known = f"no built-in task `{clip(name)}`", ", ".join(BUILTIN_TASKS)
        return FileReport(name, "task", faults=(Fault(what, why=f"built-in tasks: {known}"),), code=Exit.CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        task = resolve_task(name, Path(folder), count=1000)
        report = lint_data(str(task.test), replace(options, answer=task.config.answer, shape="verifiable", columns={}))
    return replace(report, name=name)


def _lint_set(name: str, options: Options) -> FileReport:
    """A set of reasoning-gym: made and tried, then the reward `gym` held to its own answers."""
    task = resolve_task(name)
    return replace(lint_data(str(task.test), replace(options, shape="open", columns={})), name=name)


def lint_one_reward(spec: str, prompts: Sequence[Prompt]) -> FileReport:
    means, notes = lint_reward(spec, prompts)
    return FileReport(spec, "reward", rewards=means, notes=tuple(notes))


def lint_recipe(file: str) -> FileReport:
    """The recipe with all its files and models, as `temper plan` looks at it."""
    from temper.planning.preflight import advise, prepare

    plan, warnings = prepare(file)
    warnings = [*warnings, *advise(plan)]
    notes = tuple(Note("warning", Fault(text, file)) for text in warnings)
    return FileReport(file, f"recipe of {len(plan.recipe.stages)} stages", notes=notes)


def lint_data(file: str, options: Options) -> FileReport:
    """Every row of a data file. Bad rows and what is wrong with the file become faults of the report."""
    found = Findings(file, options.skip_bad)
    report = FileReport(file, "data")
    try:
        rows = list(read_rows(file, found))
        shape = _shape(rows, found, options)
        report = replace(report, what=str(shape), shape=shape.name, columns=shape.columns)
        report = CHECKS[shape.name](rows, shape, options, found, report)
        _tell_ignored(rows, shape, found)
        notes = found.close()
    except TemperError as error:
        report = replace(report, faults=error.faults, code=error.code)
        notes = found.warnings()
        rows = []
    good = tuple(row for row in rows if row.number not in found.bad_rows | found.dropped)
    return replace(report, rows=found.rows, bad_rows=len(found.bad_rows), notes=tuple(notes), good=good)


def _shape(rows: Sequence[Row], found: Findings, options: Options) -> Shape:
    """What the rows are. Rows with a prompt and no other column are open prompts; beside other columns, one of which
    may have been meant as the answer, only `--shape open` says so. Raises DataError, ConfigError."""
    try:
        return shape_of_rows(rows, found, options.columns, (options.shape,) if options.shape else ())
    except DataError:
        if options.shape is None:
            with contextlib.suppress(TemperError):
                shape = shape_of_rows(rows, found, options.columns, ("open",))
                if all(column in shape.played for row in rows for column in row.values):
                    fix = "use rewards that need none: `format`, a reward model, a function of your own"
                    found.note("open prompts, without gold answers", fix=fix)
                    return shape
        raise


def _tell_ignored(rows: Sequence[Row], shape: Shape, found: Findings) -> None:
    """A note with the columns that play no part."""
    played = shape.played | (READ | COLUMNS if shape.name == "code" else set())
    ignored = list(dict.fromkeys(column for row in rows for column in row.values if column not in played))
    if ignored:
        shown = ", ".join(f"`{clip(column, 30)}`" for column in ignored[:12]) + (" …" if len(ignored) > 12 else "")
        reads = f"a reward of your own reads them: `prompt.row[{json.dumps(clip(ignored[0], 30), ensure_ascii=False)}]`"
        found.note(f"columns that temper does not read: {shown}", fix=reads if shape.name in PROMPTED else "")


def check_verifiable(
    rows: Sequence[Row], shape: Shape, options: Options, found: Findings, report: FileReport
) -> FileReport:
    pairs = prompts_of(rows, shape, Path(found.path).name.partition(".")[0], options, found)
    means = check_golds(pairs, options.rewards, found) if options.rewards and pairs else {}
    tokens = _measure([(row, prompt.messages) for row, prompt in pairs], options.model, True, found)
    return replace(report, rewards=means, tokens=tokens, prompts=tuple(prompt for _, prompt in pairs))


def check_conversations(
    rows: Sequence[Row], shape: Shape, options: Options, found: Findings, report: FileReport
) -> FileReport:
    conversations = conversations_of(rows, shape, found)
    good = [row for row in rows if row.number not in found.bad_rows]
    return replace(report, tokens=_measure(list(zip(good, conversations, strict=True)), options.model, False, found))


def check_judged(
    rows: Sequence[Row], shape: Shape, options: Options, found: Findings, report: FileReport
) -> FileReport:
    judged_of(rows, shape, found)
    return report


def check_code(rows: Sequence[Row], shape: Shape, options: Options, found: Findings, report: FileReport) -> FileReport:
    """Tests that can be read, and reference programs that pass them."""
    from temper.commands.lint_code import check_programs

    pairs = prompts_of(rows, shape, Path(found.path).name.partition(".")[0], options, found, "none")
    means = check_programs(pairs, found)
    tokens = _measure([(row, prompt.messages) for row, prompt in pairs], options.model, True, found)
    return replace(report, rewards=means, tokens=tokens, prompts=tuple(prompt for _, prompt in pairs))


def check_texts(rows: Sequence[Row], shape: Shape, options: Options, found: Findings, report: FileReport) -> FileReport:
    for row in rows:
        text_of(row, shape, "text", found)
    return report


def check_open(rows: Sequence[Row], shape: Shape, options: Options, found: Findings, report: FileReport) -> FileReport:
    pairs = prompts_of(rows, shape, Path(found.path).name.partition(".")[0], options, found, "none")
    tokens = _measure([(row, prompt.messages) for row, prompt in pairs], options.model, True, found)
    return replace(report, tokens=tokens, prompts=tuple(prompt for _, prompt in pairs))


CHECKS: dict[str, Callable[[Sequence[Row], Shape, Options, Findings, FileReport], FileReport]] = {
    "verifiable": check_verifiable,
    "code": check_code,
    "text": check_texts,
    "open": check_open,
}
CHECKS |= dict.fromkeys(CONVERSATIONS, check_conversations) | dict.fromkeys(BUILDERS, check_judged)


def _measure(
    rows: Sequence[tuple[Row, tuple[Message, ...]]], model: str | None, prompts: bool, found: Findings
) -> dict[str, int]:
    """Token counts in the model's own words; a row that its context cannot hold is a bad row."""
    if model is None or not rows:
        return {}
    from temper.runs import resolve_model
    from temper.text.chat import ChatFormat

    folder = resolve_model(model)
    chat = ChatFormat.load(folder)
    context = _context(folder)
    if told := chat.ends_written(messages for _, messages in rows):
        found.note(told)
    counts = []
    for row, messages in rows:
        where = row.place(found.path)
        try:
            rows_of_it = [chat.prompt_ids(messages)] if prompts else _token_rows(chat, messages)
            count = max(map(len, rows_of_it))
        except DataError as error:
            detail = "; ".join(f"{fault.what}: {fault.why}".removesuffix(": ") for fault in error.faults)
            found.bad(row.number, where, "it does not fit the model", detail, error.faults[0].fix)
            continue
        counts.append(count)
        if context is not None and (count >= context if prompts else count > context):
            detail = f"{count:,} tokens, in a context of {context:,}" + " that the reply must fit in too" * prompts
            found.bad(row.number, where, "it does not fit the model", detail)
    counts.sort()
    return {"shortest": counts[0], "median": counts[len(counts) // 2], "longest": counts[-1]} if counts else {}


def _context(model: Path) -> int | None:
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    inner = config.get("text_config") if isinstance(config, dict) else None
    keys = inner if isinstance(inner, dict) else config if isinstance(config, dict) else {}
    length = next((keys[name] for name in ("max_position_embeddings", "n_positions") if name in keys), None)
    return length if isinstance(length, int) else None


def compare(reports: Sequence[FileReport]) -> list[Note]:
    """Warnings about files that share questions: the later one against the earlier."""
    asked = [report for report in reports if report.prompts]
    pairs = combinations(asked, 2)
    notes = [overlap(one.prompts, other.prompts).note(f"{one.name} and {other.name}") for one, other in pairs]
    return [note for note in notes if note is not None]


def write_good(reports: Sequence[FileReport], file: str) -> None:
    """The good rows of the one report as JSON lines. Raises `ConfigError` if that would replace a file."""
    (report,) = reports
    if report.faults:
        return
    try:
        with open(file, "x", encoding="utf-8") as stream:
            stream.writelines(to_json(dict(row.values)) + "\n" for row in report.good)
    except FileExistsError:
        raise ConfigError(Fault(f"--write {file}: the file exists", fix="name a new file")) from None
    except (OSError, ValueError) as error:
        raise ResourceError(Fault(f"cannot write {file}", why=str(error))) from None


def _token_rows(chat: ChatFormat, messages: tuple[Message, ...]) -> list[tuple[int, ...]]:
    return [example.token_ids for example in chat.conversation_examples([messages])]
