"""The form of a reply in the tiny world."""

from __future__ import annotations


def reply_text(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"
