"""Conversations to imitate, and plain texts: each row becomes whole or is told, none is bent into shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.data.files import read_rows
from temper.data.findings import Findings, Tell, clip, tell_all
from temper.data.rows import Row, nearest, type_name
from temper.data.shapes import CONVERSATIONS, Shape, shape_of_rows, text_of
from temper.text.reply import TAGS, parse_reply
from temper.types import Message

ROLES = ("system", "user", "assistant")
LOSSY = ("tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking")

Conversation = tuple[Message, ...]


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
    messages = messages_of(row, shape.columns["messages"], found)
    if messages is None:
        return None
    return messages if _well_ordered(messages, "assistant", row, found) else None


def _from_completion(row: Row, shape: Shape, found: Findings) -> Conversation | None:
    prompt = prompt_of(row, shape, found)
    column = shape.columns["completion"]
    if isinstance(row.values.get(column), list):
        reply = messages_of(row, column, found)
    else:
        text = text_of(row, shape, "completion", found)
        reply = None if text is None else (Message("assistant", text),)
    if prompt is None or reply is None:
        return None
    conversation = (*prompt, *reply)
    return conversation if _well_ordered(conversation, "assistant", row, found) else None


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
    """The turns that a row's prompt stands for: a text is one user turn, a list of messages ends with one."""
    column = shape.columns["prompt"]
    if isinstance(row.values.get(column), list):
        messages = messages_of(row, column, found)
        return messages if messages and _well_ordered(messages, "user", row, found) else None
    text = text_of(row, shape, "prompt", found)
    return None if text is None else (Message("user", text),)


def messages_of(row: Row, column: str, found: Findings) -> Conversation | None:
    """The messages in a column, roles and contents checked one by one; None (and a bad row) where one is not right."""
    where, value = row.place(found.path), row.values.get(column)
    if not isinstance(value, list) or not value:
        kind = f"`{clip(column)}` is not a list of messages"
        got = "an empty list" if value == [] else type_name(value) if column in row.values else "no such column"
        found.bad(row.number, where, kind, f"found {got}", 'write `[{"role": "user", "content": "…"}, …]`')
        return None
    messages = []
    for place, item in enumerate(value, 1):
        fault = message_fault(item)
        if fault:
            found.bad(row.number, where, fault[0], f"message {place}: {fault[1]}")
            return None
        messages.append(Message(item["role"], item["content"]))
    return tuple(messages)


def message_fault(item: Any) -> tuple[str, str] | None:
    """What is wrong with one message, as (kind, detail).

    >>> message_fault({"role": "asistant", "content": "Hello."})
    ('unknown role', '`asistant`; did you mean `assistant`?')
    """
    if not isinstance(item, dict):
        return "a message is not an object", f"found {type_name(item)}"
    for key in ("role", "content"):
        if key not in item:
            hint = ' (`from`/`value` messages: rename them to "role" and "content")' if "from" in item else ""
            return f"a message has no `{key}`", f"it has {', '.join(f'`{clip(name, 20)}`' for name in item)}{hint}"
    role, content = item["role"], item["content"]
    if role in ("tool", "function"):
        return "tool calls are not supported", f"role `{role}`"
    if role not in ROLES:
        close = nearest(role, ROLES) if isinstance(role, str) else None
        other = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}.get(str(role), close)
        shown = f"`{clip(role)}`" if isinstance(role, str) else type_name(role)
        return "unknown role", f"{shown}; " + (f"did you mean `{other}`?" if other else f"known: {', '.join(ROLES)}")
    lost = next((key for key in LOSSY if item.get(key)), None)
    if lost:
        return "a message has more than role and content", f"`{lost}` would be lost"
    if not isinstance(content, str):
        return "the content of a message is not text", f"found {type_name(content)}"
    return None if content.strip() else ("the content of a message is empty", f"role `{role}`")


def _well_ordered(messages: Conversation, last: str, row: Row, found: Findings) -> bool:
    """A system turn may come first; then user and assistant take turns, and the last one is `last`."""
    where, turns = row.place(found.path), [message.role for message in messages]
    spoken = turns[1:] if turns[:1] == ["system"] else turns
    for place, role in enumerate(spoken):
        expected = ("user", "assistant")[place % 2]
        if role != expected:
            number = place + 1 + len(turns) - len(spoken)
            found.bad(row.number, where, "turns out of order", f"message {number}: expected {expected}, found {role}")
            return False
    if not spoken or spoken[-1] != last:
        kind = f"the last message is not the {last}'s"
        found.bad(row.number, where, kind, f"found {spoken[-1] if spoken else 'system'}")
        return False
    return True
