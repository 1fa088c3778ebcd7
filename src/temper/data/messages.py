"""Messages as people write them: `role` and `content`, or the `from` and `value` of ShareGPT; one form comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from temper.data.findings import Findings, clip
from temper.data.rows import Row, nearest, type_name
from temper.types import Message

ROLES = ("system", "user", "assistant")
ALSO_CALLED = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
WHO, WHAT = ("role", "from"), ("content", "value")  # the keys that say who speaks, and what
LOSSY = ("tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking")

Conversation = tuple[Message, ...]


def is_message(value: Any) -> bool:
    """Whether this is meant to be a message, well-formed or not.

    >>> is_message({"from": "human", "value": "Hi"}), is_message({"input": "1", "output": "2"})
    (True, False)
    """
    return isinstance(value, dict) and any(key in value for key in WHO) and any(key in value for key in (*WHAT, "text"))


def is_messages(value: Any) -> bool:
    """A list of which some item is meant to be a message.

    >>> is_messages([{"role": "user", "content": "Hi"}]), is_messages(["Hi", "Hello."])
    (True, False)
    """
    return isinstance(value, list) and any(map(is_message, value[:4]))


def is_dialogue(value: Any) -> bool:
    """Two texts or more, spoken in turns: `["Hi", "Hello."]`."""
    return isinstance(value, list) and len(value) > 1 and all(isinstance(item, str) and item.strip() for item in value)


def turns_of(value: Any) -> list[tuple[str, str]]:
    """(role, text) of each message that can be read, roles by our names; empty where these are no messages.

    >>> turns_of([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}])
    [('user', 'Hi'), ('assistant', 'Hello.')]
    """
    if not is_messages(value):
        return []
    read = [(_role(item), _content(item)) for item in value if isinstance(item, dict)]
    return [(role, text) for role, text in read if isinstance(role, str) and isinstance(text, str)]


def ends_answered(value: Any) -> bool:
    """Whether the assistant has the last word, and says something."""
    if is_dialogue(value):
        return len(value) % 2 == 0
    turns = turns_of(value)
    return bool(turns) and turns[-1][0] == "assistant" and bool(turns[-1][1].strip())


def without_answer(value: Any) -> Any:
    """Messages without the assistant's turn at their end, where a user's stands before it: what a model is asked."""
    spoken = [_role(item) if isinstance(item, dict) else None for item in value] if is_messages(value) else []
    return value[:-1] if spoken[-2:] == ["user", "assistant"] else value


def _key(message: dict, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in message), None)


def _role(message: dict) -> Any:
    role = message.get(_key(message, WHO) or "")
    return ALSO_CALLED.get(role, role) if isinstance(role, str) else role


def _content(message: dict) -> Any:
    """The text of a message; parts that are all text are one text."""
    content = message.get(_key(message, WHAT) or "")
    parts = content if isinstance(content, list) and content else []
    if parts and all(isinstance(part, dict) and part.get("type") == "text" and "text" in part for part in parts):
        texts = [part["text"] for part in parts]
        return "".join(texts) if all(isinstance(text, str) for text in texts) else content
    return content


def row_of_messages(value: list) -> dict[str, Any]:
    """A row that is nothing but its messages, as Open-Reasoner-Zero writes it: the gold answer is the last one's.

    >>> row_of_messages([{"from": "human", "value": "1+1?"}, {"from": "assistant", "ground_truth": {"value": "2"}}])
    {'messages': [{'from': 'human', 'value': '1+1?'}], 'ground_truth': '2'}
    """
    golds = [item["ground_truth"] for item in value if isinstance(item, dict) and "ground_truth" in item]
    told = [gold.get("value") if isinstance(gold, dict) else gold for gold in golds]
    said = [item for item in value if not isinstance(item, dict) or "ground_truth" not in item or is_message(item)]
    return {"messages": said, **({"ground_truth": told[-1]} if told else {})}


def messages_of(row: Row, value: Any, column: str, found: Findings) -> Conversation | None:
    """The messages that stand in a column, roles and contents checked one by one; None (and a bad row) where one is
    not right."""
    where = row.place(found.path)
    if is_dialogue(value):
        return tuple(Message(("user", "assistant")[place % 2], text) for place, text in enumerate(value))
    if not isinstance(value, list) or not value:
        kind = f"`{clip(column)}` is not a list of messages"
        got = "an empty list" if value == [] else type_name(value) if value is not None else "null"
        found.bad(row.number, where, kind, f"found {got}", 'write `[{"role": "user", "content": "…"}, …]`')
        return None
    messages = []
    for place, item in enumerate(value, 1):
        fault = message_fault(item)
        if fault:
            found.bad(row.number, where, fault[0], f"message {place}: {fault[1]}")
            return None
        messages.append(Message(_role(item), _content(item)))
    return tuple(messages)


def message_fault(item: Any) -> tuple[str, str] | None:
    """What is wrong with one message, as (kind, detail).

    >>> message_fault({"role": "asistant", "content": "Hello."})
    ('unknown role', '`asistant`; did you mean `assistant`?')
    """
    if not isinstance(item, dict):
        return "a message is not an object", f"found {type_name(item)}"
    for names in (WHO, WHAT):
        if _key(item, names) is None:
            return f"a message has no `{names[0]}`", f"it has {', '.join(f'`{clip(name, 20)}`' for name in item)}"
    role, content = _role(item), _content(item)
    if role in ("tool", "function"):
        return "tool calls are not supported", f"role `{role}`"
    if role not in ROLES:
        close = nearest(role, (*ROLES, *ALSO_CALLED)) if isinstance(role, str) else None
        shown = f"`{clip(role)}`" if isinstance(role, str) else type_name(role)
        return "unknown role", f"{shown}; " + (f"did you mean `{close}`?" if close else f"known: {', '.join(ROLES)}")
    lost = next((key for key in LOSSY if item.get(key)), None)
    if lost:
        return "a message has more than role and content", f"`{lost}` would be lost"
    if not isinstance(content, str):
        return "the content of a message is not text", f"found {type_name(content)}"
    return None if content.strip() else ("the content of a message is empty", f"role `{role}`")


def well_ordered(messages: Conversation, last: str, row: Row, found: Findings) -> bool:
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


_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def written_turns(text: str) -> Conversation | None:
    r"""The turns of a dialogue in one text, as Anthropic's preference data write it; None for any other text.

    >>> written_turns("\n\nHuman: Hi\n\nAssistant: Hello.")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello.'))
    """
    if not text.startswith("\n\nHuman:"):
        return None
    parts = _TURN.split(text)
    return tuple(_spoken(parts[1::2], parts[2::2]))


def _spoken(who: Sequence[str], what: Sequence[str]) -> Iterator[Message]:
    for name, text in zip(who, what, strict=True):
        yield Message("user" if name == "Human" else "assistant", text.strip())
