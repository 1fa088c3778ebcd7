"""The fields of `temper score` in rows as people have them: other names, lists of messages, nested columns, options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELDS = ("prompt", "reply", "gold")
# What they are called in the files people have, where there is no field of the name itself.
ALSO = {
    "prompt": ("question", "problem", "query", "instruction"),
    "reply": ("completion", "response", "output", "generation", "generated_solution", "model_output"),
    "gold": (
        "answer", "solution", "ground_truth", "final_answer", "expected_answer", "gold_answer", "correct_answer",
        "target", "reward_model.ground_truth", "verification_info.ground_truth",
    ),
}  # fmt: skip
CONVERSATIONS = ("messages", "conversations", "conversation")


def by_other_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a row has under another name, or as messages; a letter for the option that is right.

    >>> by_other_names({"question": "2+3", "response": "5", "reward_model": {"ground_truth": "5"}})
    {'prompt': '2+3', 'reply': '5', 'gold': '5'}
    >>> by_other_names({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})
    {'prompt': 'Hi', 'reply': 'Ho'}
    """
    from temper.data.columns import value_at
    from temper.data.rows import NOTHING

    found: dict[str, Any] = {}
    for name, others in ALSO.items():
        values = (value_at(row, other) for other in (name, *others))
        value = next((value for value in values if value is not NOTHING and value is not None), None)
        if value is not None and (name not in row or value is not row[name]):
            found[name] = value
    for name, side in (("prompt", "user"), ("reply", "assistant")):
        texts = _said_in(found.get(name, row.get(name)), side)
        if not texts and name not in {**row, **found}:
            whole = next((row[column] for column in CONVERSATIONS if column in row), None)
            texts = _said_in(whole, side, last=name == "reply")
        if texts:
            found[name] = texts[-1]
    return found | _right_option(row)


def _said_in(value: Any, side: str, last: bool = False) -> list[str]:
    """What one side says in messages; with `last` only where the last turn is that side's."""
    from temper.data.findings import Findings
    from temper.data.messages import is_message, is_messages, messages_of
    from temper.data.rows import Row

    if is_message(value):
        value = [value]
    if not is_messages(value):
        return []
    turns = messages_of(Row(1, 1, {}), value, "messages", Findings("")) or ()
    if last and (not turns or turns[-1].role != side):
        return []
    return [turn.content for turn in turns if turn.role == side]


def _right_option(row: Mapping[str, Any]) -> dict[str, str]:
    from temper.data.choices import LETTERS, find_choices
    from temper.data.columns import Table
    from temper.data.rows import Row

    if "gold" in row:
        return {}
    try:
        choices = find_choices(Table(row, [Row(1, 1, row)]), {})
        read = choices.read(row, "") if choices is not None else None
    except (ValueError, TypeError, KeyError):
        return {}
    return {"gold": LETTERS[read[1]]} if read is not None and read[1] is not None else {}
