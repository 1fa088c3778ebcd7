"""`temper score`: replies in, rewards out, row by row; a pipe is answered as it is read.

Every row of the input has one row in the output, in the same order. A row that cannot be scored says why in its place,
with the verdict "error"; all such rows are told together at the end, with the exit code for bad data.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.commands.sampling import add_reply_argument
from temper.commands.score_rows import ALSO, FIELDS, by_other_names
from temper.errors import tell

if TYPE_CHECKING:
    from temper.data.findings import Findings
    from temper.rewards.score import Score, Scorer
    from temper.types import Prompt, Reply


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="rows with prompt, reply and gold (.jsonl); `-` is standard input")
    named = "default: accuracy,format; also my.py:function, and RUN:stage or the directory of a reward model"
    parser.add_argument("--rewards", default="accuracy,format", help=named)
    parser.add_argument("--weights", help="one number a reward, comma-separated (default: 1.0 each)")
    text = "how answers compare: exact values, or the same words (default: math)"
    parser.add_argument("--answer-type", "--answer", choices=("math", "text"), default="math", help=text)
    parser.add_argument("--language", default="en", help="language the thinking should be in (default: en)")
    add_reply_argument(parser)
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON lines")


def run(args: argparse.Namespace) -> int:
    from temper.data.findings import Findings, empty

    scorer = read_options(args)
    output = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a user's reward prints is no result
        found = Findings("<stdin>" if args.file == "-" else args.file, checkable=False)
        failures: dict[str, list[str]] = {}
        given = dict.fromkeys(scorer.rewards, 0)
        for result in _results(args, scorer, found, failures):
            print(json.dumps(result), file=output, flush=True)
            for name in given:
                given[name] += result[name] is not None
    _warn_failures(failures)
    _refuse_broken(failures, given, found.rows - len(found.bad_rows))
    if not found.rows:
        found.fail(empty(found.path))
    if found.bad_rows:
        found.fail()
    return 0


def read_options(args: argparse.Namespace) -> Scorer:
    """The scorer of the arguments. Raises ConfigError with every fault of them."""
    from temper.errors import ConfigError, Fault
    from temper.rewards.score import Scorer
    from temper.text.languages import LANGUAGES

    faults: list[Fault] = []
    rewards, weights = {}, None
    try:
        rewards = load_all([name.strip() for name in args.rewards.split(",") if name.strip()])
    except ConfigError as error:
        faults.extend(error.faults)
    if args.weights is not None:
        try:
            weights = [float(weight) for weight in args.weights.split(",")]
        except ValueError:
            why = "expected one number a reward, comma-separated"
            faults.append(Fault(f"--weights {args.weights}", why=why, fix="--weights 1.0,0.1"))
    if args.language not in LANGUAGES:
        fix = f"one of {', '.join(LANGUAGES)}"
        faults.append(Fault(f"--language {args.language}", why="no word list or script is known for it", fix=fix))
    if faults:
        raise ConfigError(faults)
    return Scorer(rewards, weights, strict=True)


def load_all(names: list[str]) -> dict[str, Any]:
    """Rewards by name: functions, and the reward models of directories and runs. Raises ConfigError, ArtifactError."""
    from temper.rewards import REWARDS, load_rewards
    from temper.rewards.names import our_names
    from temper.rewards.remote import is_remote

    names = our_names(names, lambda text: tell(f"note: {text}"))
    functions_of = [name for name in names if name in REWARDS or ".py" in name or is_remote(name)]
    models = [name for name in names if name not in functions_of and (":" in name or is_folder(name))]
    functions = [name for name in names if name not in models]
    loaded: dict[str, Any] = dict(load_rewards(functions)) if functions or not models else {}
    if models:
        from temper.models.device import DeviceConfig, placed
        from temper.rollout.reward_model import RewardModel
        from temper.runs import resolve_model

        dtype, device = placed(DeviceConfig())
        loaded |= {name: RewardModel.load(resolve_model(name), device, dtype) for name in models}
    return {name: loaded[name] for name in names}


def is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # a name too long, a NUL
        return False


def _results(
    args: argparse.Namespace, scorer: Scorer, found: Findings, failures: dict[str, list[str]]
) -> Iterator[dict[str, Any]]:
    """The output row of each input row. Bad rows go to `found`, rewards that failed to `failures`."""
    from temper.errors import ConfigError, Fault
    from temper.rewards import needs_gold
    from temper.rewards.returns import WrongReturn
    from temper.text.reply import parse_reply

    tried, asks = False, any(needs_gold(reward) for reward in scorer.rewards.values())
    for line, offset, raw in _lines(args.file):
        if not raw.strip():
            continue
        found.rows += 1
        row, mistake = read_row(raw, offset, args.answer_type, asks)
        if mistake is not None:
            found.bad(found.rows, f"{found.path}:{line}:{mistake.column}", mistake.kind, mistake.detail, mistake.fix)
            unscored = dict.fromkeys([*scorer.rewards, "total"])  # null: not a score of 0
            error = f"{mistake.kind}: {mistake.detail}"
            yield {**_id(row), **unscored, "verdict": "error", "line": line, "error": error}
            continue
        prompt = _prompt(row, line, args)
        reply = parse_reply(row["reply"], form=prompt.reply)
        try:
            score = scorer.score(prompt, reply)
        except WrongReturn as error:
            fix = "return one finite float for each reply"
            raise ConfigError(Fault(str(error), f"{found.path}:{line}", fix=fix)) from None
        if not tried:
            tried = True
            _warn_of_moods(scorer, prompt, reply, score)
        _count_failures(prompt.id, score, failures)
        unapplied = dict.fromkeys(score.inapplicable)
        found_of = {"total": score.total, "verdict": verdict(prompt, reply, score)}
        yield {**_id(row), **score.rewards, **unapplied, **found_of}


def _lines(file: str) -> Iterator[tuple[int, int, bytes]]:
    """(line number, byte offset, bytes) of each line. Raises DataError for a file that cannot be read."""
    from temper.data.sources import BOM, MAX_ROW, open_source
    from temper.errors import DataError, Fault

    if file != "-":
        source = open_source(file)
        if source.format != "jsonl":
            fix = "write one object a line (`.jsonl`)"
            raise DataError(Fault("not JSON lines", file, f"the name says {source.format}", fix))
        yield from source.lines()
        return
    number = offset = 0
    while raw := sys.stdin.buffer.readline(MAX_ROW + 1):  # as it comes: a row is answered before the next is there
        number += 1
        yield number, offset, raw.removeprefix(BOM) if number == 1 else raw
        offset += len(raw)
        if len(raw) > MAX_ROW and not raw.endswith(b"\n"):
            raise DataError(Fault("a line is too long to be a row", f"<stdin>:{number}", f"over {MAX_ROW >> 20} MiB"))


@dataclass(frozen=True)
class Mistake:
    """Why a row cannot be scored; `column` counts from 1."""

    kind: str
    detail: str
    column: int = 1
    fix: str = "mend the row: it was not scored"


def read_row(
    raw: bytes, offset: int, answer_type: str, needs_gold: bool = True
) -> tuple[dict[str, Any], Mistake | None]:
    """The row of a line, with what is wrong with it; `offset` is where the line begins in its file, in bytes.

    >>> read_row(b'{"prompt": "2+3", "reply": "5"}', 0, "math")[1].kind
    'no `gold`'
    """
    from temper.data.rows import decode, skip_space, type_name

    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{raw[error.start]:02X} at byte offset {offset + error.start}"
        return {}, Mistake("not UTF-8", detail, error.start + 1, "save the file as UTF-8")
    try:
        decoded = decode(text)
        rest = skip_space(text, decoded.end)
        if rest != len(text):
            raise json.JSONDecodeError("something follows the end of the row", text, rest)
    except json.JSONDecodeError as error:
        found = text[error.pos : error.pos + 20].strip() or "the end"
        return {}, Mistake("not valid JSON", f"{error.msg}, found `{found}`", error.pos + 1)
    row = decoded.value
    if not isinstance(row, dict):
        return {}, Mistake("not an object", f"found {type_name(row)}", fix='write a row as {"prompt", "reply", "gold"}')
    if decoded.problems:
        return row, Mistake(*decoded.problems[0])
    written, row = row, {**row, **by_other_names(row)}
    mistake = _mistake_in(row, row.get("answer_type", answer_type), needs_gold, list(written))
    return row, mistake


def _mistake_in(row: dict[str, Any], answer_type: object, needs_gold: bool, written: list[str]) -> Mistake | None:
    from temper.data.columns import ANSWER_TYPES
    from temper.data.rows import Number, nearest, type_name

    if answer_type not in ANSWER_TYPES:
        return Mistake(f"`answer_type` is none of {', '.join(ANSWER_TYPES)}", f"found {str(answer_type)[:60]}")
    for name in FIELDS:
        if name == "gold" and not needs_gold and row.get("gold") is None:
            row["gold"] = None
            continue
        if name not in row:
            close = nearest(name, written)
            there = f"the row has {', '.join(f'`{key[:40]}`' for key in written[:8]) or 'no keys'}"
            return Mistake(f"no `{name}`", there, fix=f"rename `{close}` to `{name}`" if close else f"add `{name}`")
        if name == "gold" and "gold" not in written and isinstance(row[name], Number):
            row[name] = row[name].text
        if not isinstance(row[name], str):
            fix = f'write it in quotes: "{row[name].text}"' if type_name(row[name]) == "a number" else "write a string"
            return Mistake(f"`{name}` is not a string", f"found {type_name(row[name])}", fix=fix)
    return _mistake_in_gold(row, answer_type) if needs_gold else None


def _mistake_in_gold(row: dict[str, Any], answer_type: object) -> Mistake | None:
    """What is wrong with the gold answer; one that stands in a solution (`#### 5`) is taken out of it."""
    from temper.data.columns import value_at
    from temper.data.gold import gold_of
    from temper.rewards.answers import read_gold

    if not row["gold"].strip():
        return Mistake("`gold` is empty", "there is nothing to compare the answer with", fix="give the right answer")
    try:
        if any(value_at(row, name) == row["gold"] for name in ALSO["gold"]):
            row["gold"] = gold_of(row["gold"], "math" if answer_type == "math" else "text")
        elif answer_type == "math":
            read_gold(row["gold"])
    except ValueError as error:
        fix = "write the gold answer in its final form, or compare words with `--answer-type text`"
        return Mistake("`gold` cannot be verified", f"`{row['gold'][:60]}`: {error}", fix=fix)
    return None


def _id(row: dict[str, Any]) -> dict[str, Any]:
    """The row's id as it was written: a string, or a number whose text is kept."""
    from temper.data.rows import Number, to_json

    identity = row.get("id")
    if isinstance(identity, Number):
        return {"id": json.loads(to_json(identity)) if len(identity.text) < 20 else identity.text}
    return {"id": identity} if isinstance(identity, str) else {}


def _prompt(row: dict[str, Any], line: int, args: argparse.Namespace) -> Prompt:
    from temper.data.rows import plain
    from temper.types import Message, Prompt

    identity = str(_id(row).get("id", f"line {line}"))
    messages = (Message("user", row["prompt"]),)
    form = args.reply or "tags"
    language = row.get("language")
    return Prompt(
        identity, "score", messages, row["gold"], row.get("answer_type", args.answer_type),
        language if isinstance(language, str) else args.language, plain(row), reply=form,
    )  # fmt: skip


def verdict(prompt: Prompt, reply: Reply, score: Score) -> str:
    """ "open" without a gold answer, "correct", "wrong", "no_answer" where the reply gives none, "error" where a reward
    failed."""
    from temper.rewards.accuracy import accuracy

    if score.failures:
        return "error"
    if prompt.gold is None:
        return "open"
    right = score.rewards["accuracy"] if "accuracy" in score.rewards else accuracy(prompt, reply)
    if right == 1.0:
        return "correct"
    given = reply.answer is not None and any(character.isalnum() for character in reply.answer)
    return "wrong" if given else "no_answer"


def _warn_of_moods(scorer: Scorer, prompt: Prompt, reply: Reply, score: Score) -> None:
    """Warn of rewards of a user's own that say something else of the same reply when asked again."""
    from temper.errors import Fault

    own = [name for name in scorer.rewards if ".py:" in name]
    again = scorer.score(prompt, reply) if own else score
    for name in own:
        one, two = score.rewards.get(name), again.rewards.get(name)
        if one != two:
            why = f"{one}, then {two} for the same reply ({prompt.id})"
            tell(Fault(f"the reward `{name}` is not deterministic", why=why).render("warning"))


def _count_failures(sample: str, score: Score, failures: dict[str, list[str]]) -> None:
    for name, reason in score.reasons.items():
        failures.setdefault(name, []).append(f"{sample}: {reason}")


def _refuse_broken(failures: dict[str, list[str]], given: dict[str, int], rows: int) -> None:
    """Raise ConfigError for rewards that failed on all of the rows that were scored, or gave none of them a value."""
    from temper.errors import ConfigError, Fault

    broken = [
        Fault(f"the reward `{name}` failed on every row", why=reasons[0])
        for name, reasons in failures.items()
        if len(reasons) == rows
    ]
    if rows:
        why = "expected one finite float; None says that a reward does not apply to a reply"
        broken += [Fault(f"the reward `{name}` got None for every row", why=why) for name, n in given.items() if not n]
    if broken:
        raise ConfigError(broken)


def _warn_failures(failures: dict[str, list[str]]) -> None:
    from temper.errors import Fault

    for name, reasons in failures.items():
        more = f"\nand {len(reasons) - 3} more" if len(reasons) > 3 else ""
        what = f"the reward `{name}` failed on {len(reasons)} row{'s' * (len(reasons) > 1)}, scored as 0"
        tell(Fault(what, why="\n".join(reasons[:3]) + more).render("warning"))
