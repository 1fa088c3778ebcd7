"""Conversations to imitate, and plain texts: each row becomes whole or is told, none is bent into shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from temper.data.columns import value_at
from temper.data.files import read_rows
from temper.data.findings import Findings, Tell, tell_all
from temper.data.messages import Conversation, is_messages, messages_of, well_ordered, without_answer
from temper.data.names import folded
from temper.data.rows import Row
from temper.data.shapes import CONVERSATIONS, Shape, shape_of_rows, text_of
from temper.text.reply import TAGS, parse_reply
from temper.types import Message


def load_conversations(
    path: Path | str,
    columns: Mapping[str, str] | None = None,
    *,
    shape: str | None = None,
    skip_bad: bool = False,
    tell: Tell | None = None,
) -> list[Conversation]:
    """The conversations of a file of `messages`, `prompt` + `completion`, or `prompt` + `thinking` + `answer` rows.

    Each ends with an assistant turn. Raises `DataError` with every fault of the file; `tell` hears the notes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "chat.jsonl")
    >>> _ = path.write_text('{"prompt": "Hi", "completion": "Hello."}')
    >>> load_conversations(path, tell=lambda note: None)
    [(Message(role='user', content='Hi'), Message(role='assistant', content='Hello.'))]
    """
    found = Findings(str(path), skip_bad)
    rows = list(read_rows(path, found))
    known = shape_of_rows(rows, found, columns, (shape,) if shape else CONVERSATIONS)
    conversations = conversations_of(rows, known, found)
    tell_all(found.close(), tell)
    return conversations


def placed_conversations(path: Path | str, columns: Mapping[str, str] | None = None) -> list[tuple[str, Conversation]]:
    """The good conversations of a file, each with its file and line. Raises `DataError` for a file that cannot be read;
    bad rows are left out."""
    found = Findings(str(path), skip_bad=True)
    rows = list(read_rows(path, found))
    shape = shape_of_rows(rows, found, columns, CONVERSATIONS)
    made = [(row, BUILDERS[shape.name](row, shape, found)) for row in rows]
    return [(row.place(str(path)), one) for row, one in made if one is not None]


def load_texts(
    path: Path | str, columns: Mapping[str, str] | None = None, *, skip_bad: bool = False, tell: Tell | None = None
) -> list[str]:
    """The `text` of each row, for pretraining. Raises `DataError` with every fault of the file."""
    found = Findings(str(path), skip_bad)
    rows = list(read_rows(path, found))
    shape = shape_of_rows(rows, found, columns, ("text",))
    texts = [text for row in rows if (text := text_of(row, shape, "text", found)) is not None]
    tell_all(found.close(), tell)
    return texts


def conversations_of(rows: Sequence[Row], shape: Shape, found: Findings) -> list[Conversation]:
    """The good rows as conversations; the others are bad rows in `found`."""
    made = [one for row in rows if (one := BUILDERS[shape.name](row, shape, found)) is not None]
    bare = sum(not parse_reply(one[-1].content).well_formed for one in made)
    if bare:
        what = f"{bare:,} of {len(made):,} replies are not of the form `<think>…</think><answer>…</answer>`"
        found.note(what, why="they are learned as they are")
    return made


def _from_messages(row: Row, shape: Shape, found: Findings) -> Conversation | None:
    column = shape.columns["messages"]
    messages = messages_of(row, value_at(row.values, column), column, found)
    if messages is None:
        return None
    return _instructed(messages, row, shape) if well_ordered(messages, "assistant", row, found) else None


def _from_completion(row: Row, shape: Shape, found: Findings) -> Conversation | None:
    prompt = prompt_of(row, shape, found)
    column = shape.columns["completion"]
    value = value_at(row.values, column)
    if isinstance(value, list):
        reply = messages_of(row, value, column, found)
    else:
        text = text_of(row, shape, "completion", found)
        reply = None if text is None else (Message("assistant", text),)
    if prompt is None or reply is None:
        return None
    conversation = (*prompt, *reply)
    return conversation if well_ordered(conversation, "assistant", row, found) else None


def _from_reasoned(row: Row, shape: Shape, found: Findings) -> Conversation | None:
    prompt = prompt_of(row, shape, found)
    thinking, answer = (text_of(row, shape, role, found) for role in ("thinking", "answer"))
    if prompt is None or thinking is None or answer is None:
        return None
    tag = next((tag for tag in TAGS if tag in thinking + answer), None)
    if tag:
        detail = f"`{tag}`; write whole replies as `completion` instead"
        found.bad(row.number, row.place(found.path), "a tag inside the thinking or the answer", detail)
        return None
    return (*prompt, Message("assistant", f"<think>{thinking.strip()}</think><answer>{answer.strip()}</answer>"))


BUILDERS: dict[str, Callable[[Row, Shape, Findings], Conversation | None]] = {
    "messages": _from_messages,
    "completion": _from_completion,
    "reasoned": _from_reasoned,
}


def prompt_of(row: Row, shape: Shape, found: Findings) -> Conversation | None:
    """The turns that a row's prompt stands for: a text is one user turn, with what is to be read before it; a list of
    messages ends with one, the assistant's own last turn aside."""
    column = shape.columns["prompt"]
    value = value_at(row.values, column)
    if is_messages(value) or isinstance(value, list):
        messages = messages_of(row, without_answer(value), column, found)
        return _instructed(messages, row, shape) if messages and well_ordered(messages, "user", row, found) else None
    text = text_of(row, shape, "prompt", found)
    if text is None:
        return None
    before = value_at(row.values, shape.columns.get("context", ""))
    read = before if isinstance(before, str) and before.strip() else ""
    asked = _joined(text, read, folded(shape.columns.get("context", "")) == "input")
    return _instructed((Message("user", asked),), row, shape)


def _joined(text: str, more: str, after: bool) -> str:
    return text if not more else f"{text}\n{more}" if after else f"{more}\n{text}"


def _instructed(messages: Conversation, row: Row, shape: Shape) -> Conversation:
    """With the instructions of the row's own `system` column first, where the messages have none."""
    system = value_at(row.values, shape.columns.get("system", ""))
    if not isinstance(system, str) or not system.strip() or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)
