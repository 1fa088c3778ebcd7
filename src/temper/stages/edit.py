"""Conversations handed over to a person, or to a program of theirs: what comes back edited is what later stages learn.

DeepSeek-R1's cold start was made so (2501.12948, section 2.3.1): replies of R1-Zero in a readable form, that people
refined.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from temper.artifacts import hash_file, write_atomically
from temper.config import DataRef, StrictModel
from temper.data.conversations import load_conversations
from temper.data.files import read_rows
from temper.errors import DataError, Fault, HandedOver
from temper.record.rollouts import write_rows
from temper.record.rundir import edits_of
from temper.sealed import seal, trusted
from temper.stages.context import StageContext
from temper.stages.prompts import check_conversations
from temper.types import Message

VERSION = 1
HANDS_OVER = True  # a file in the run directory, whose content the fingerprint covers once somebody has edited it
MOST_TOLD = 5

Conversation = tuple[Message, ...]


class Config(StrictModel):
    """The file is `edits/<stage>.jsonl` in the run directory, a conversation a line with its `id`: a reply may be
    changed, a line removed, a line without `id` added."""

    data: DataRef
    columns: dict[str, str] = {}  # of that file
    wait: bool = True  # the run stops once the file is written; else it goes on with the rows as they are


def check(config: Config, ctx: StageContext) -> list[Fault]:
    return check_conversations(config.data, config.columns, ctx)


def run(config: Config, ctx: StageContext) -> None:
    """Hand the rows over, or take up what came back: `data.jsonl`, and `edit.json` that counts what was done to them.

    Raises HandedOver once the file is written, DataError for one that cannot be taken up.
    """
    rows = handed_rows(load_conversations(ctx.inputs[config.data], config.columns, tell=lambda note: None))
    file = edits_of(ctx.work, ctx.name)
    if hand_over(rows, file) and config.wait:
        why = f"{len(rows):,} conversations wait to be edited: change replies, remove lines, add some without `id`"
        raise HandedOver(Fault(f"`{ctx.name}` has handed its rows over", str(file), why,
                               "edit the file, or leave it as it is, and run the same command again"))  # fmt: skip
    kept, counts = taken_up(rows, file)
    write_rows(ctx.out / "data.jsonl", kept)
    (ctx.out / "edit.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    ctx.log.step(1, 1, {f"edit/{name}": count for name, count in counts.items()})
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    ctx.log.info(f"{file}: {said}")


def handed_rows(conversations: Sequence[Conversation]) -> list[dict]:
    """The rows of the file; an `id` is the number of a conversation and a hash of its text.

    >>> handed_rows([(Message("user", "2+3"), Message("assistant", "5"))])[0]["id"]
    '1-07a6b611'
    """
    return [{"id": f"{number}-{_digest([turns])[:8]}", "messages": turns}
            for number, turns in enumerate(map(_turns, conversations), 1)]  # fmt: skip


def _turns(messages: Conversation) -> list[dict]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hand_over(rows: Sequence[Mapping], file: Path) -> bool:
    """Write the file, unless it is there: as it was written for these very rows, or edited. Whether it was written."""
    about = trusted(beside(file))
    if file.exists() and (about.get("content") != hash_file(file) or about.get("rows") == _digest(rows)):
        return False
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode("utf-8", "backslashreplace")
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    note = {"content": hashlib.sha256(data).hexdigest(), "rows": _digest(rows)}
    write_atomically(beside(file), seal(beside(file).name, note))
    write_atomically(file, data)
    return True


def beside(file: Path) -> Path:
    """The note that says how a file was handed over."""
    return file.with_name(f".{file.stem}.json")


def taken_up(rows: Sequence[Mapping], file: Path) -> tuple[list[dict], dict[str, int]]:
    """What came back, and how many rows are unchanged, changed, added and removed. Raises DataError."""
    came = list(read_rows(file))
    conversations = load_conversations(file, {"messages": "messages"}, tell=lambda note: None)
    known = {row["id"]: row["messages"] for row in rows}
    ids = [row.values.get("id") for row in came]
    if faults := list(_strangers(ids, [row.place(str(file)) for row in came], known)):
        raise DataError(faults)
    kept, verdicts = [], Counter[str]()
    for name, messages in zip(ids, map(_turns, conversations), strict=True):
        verdict = "added" if name is None else "unchanged" if messages == known[name] else "changed"
        verdicts[verdict] += 1
        kept.append({"messages": messages, "source": verdict})
    verdicts["removed"] = len(known.keys() - set(ids))
    return kept, {name: verdicts[name] for name in ("unchanged", "changed", "added", "removed")}


def _strangers(ids: Sequence[object], places: Sequence[str], known: Mapping[str, object]) -> Iterator[Fault]:
    """Rows that were handed over of other data, or twice."""
    seen: set[object] = set()
    wrong = []
    for name, place in zip(ids, places, strict=True):
        if name is not None and (name not in known or name in seen):
            wrong.append((name, place))
        seen.add(name)
    fix = "remove the file to be handed the rows anew; take the `id` away from a line that is meant as it stands"
    for name, place in wrong[:MOST_TOLD]:
        why = "the line stands there twice" if name in known else "it is no row of the data that the stage reads now"
        yield Fault(f"a line with the id `{name}`", place, why, fix)
    if len(wrong) > MOST_TOLD:
        yield Fault(f"… and {len(wrong) - MOST_TOLD:,} more lines like these", places[0].rpartition(":")[0])
