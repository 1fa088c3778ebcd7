"""A completion's text, parsed once into thinking and answer. The four tags exist in one spelling."""

from __future__ import annotations

import re

from temper.types import Reply

OPEN_THINK, CLOSE_THINK, OPEN_ANSWER, CLOSE_ANSWER = TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# A tag in any spelling that a reader would take for one. Possessive: a run of spaces is walked over once.
_TAG = re.compile(r"<\s*+/?+\s*+(?:think|answer)\s*+/?+\s*+>", re.IGNORECASE)
_LAYOUT = re.compile(r"\\(?:boxed|fbox|text[a-z]*|math[a-z]*|mbox|left|right|displaystyle)(?![A-Za-z])")
_CONTENT = re.compile(r"[^\W_]")


def parse_reply(text: str, thinking_opened: bool = False) -> Reply:
    r"""The thinking and the answer of a completion, in time linear in its length.

    `thinking` is set when there is one `</think>` and what stands before it is unambiguous, `answer` when one
    `<answer>…</answer>` follows it and nothing else can be meant: a second tag of a kind, a tag inside a tag, a tag in
    another spelling, thinking without a word or number, or text after `</answer>` leave it None. Text before `<think>`
    or between the two parts breaks only the form. `thinking_opened` says that the prompt ended with `<think>`: the tag
    then counts as the reply's first characters, and `text` begins with it.

    >>> parse_reply("<think>2+3=5</think> <answer>5</answer>")
    Reply(text='<think>2+3=5</think> <answer>5</answer>', thinking='2+3=5', answer='5', well_formed=True)
    >>> parse_reply("2+3=5</think><answer>5</answer>", thinking_opened=True).well_formed
    True
    >>> reply = parse_reply("<think>2+3=5</think>So:<answer>5</answer>")
    >>> reply.answer, reply.well_formed
    ('5', False)
    >>> parse_reply("<think>2+3=5</think><answer>5</answer> or <answer>6</answer>").answer is None
    True
    """
    if thinking_opened:
        text = OPEN_THINK + text
    places = _places(text)
    if places is None or CLOSE_THINK not in places:
        return Reply(text, None, None, False)
    before, thinking = _thinking(text, places)
    if thinking is None:
        return Reply(text, None, None, False)
    between, answer, after = _answer(text, places)
    if answer is None or not _holds_content(thinking) or after.strip():
        return Reply(text, thinking, None, False)
    alone = OPEN_THINK in places and not before.strip() and not between.strip()
    return Reply(text, thinking, answer, alone and _holds_content(answer))


def final_text(reply: Reply) -> str | None:
    """What a reply says once it has thought: its answer, else all that follows the thinking; of a text without any tag,
    all of it. None where nothing follows, or where the form is too broken to tell.

    >>> final_text(parse_reply("<think>2+3=5</think><answer>It is 5.</answer>"))
    'It is 5.'
    >>> final_text(parse_reply("<think>2+3=5</think> It is 5. ")), final_text(parse_reply("Hello."))
    ('It is 5.', 'Hello.')
    >>> final_text(parse_reply("<think>2+3=5")) is None
    True
    """
    if reply.answer is not None:
        return reply.answer.strip() or None
    if _TAG.search(reply.text) is None:
        return reply.text.strip() or None
    places = _places(reply.text)
    if reply.thinking is None or places is None or OPEN_ANSWER in places or CLOSE_ANSWER in places:
        return None
    return reply.text[places[CLOSE_THINK] + len(CLOSE_THINK) :].strip() or None


def _places(text: str) -> dict[str, int] | None:
    """Where each tag stands; None when one occurs twice or in another spelling."""
    places: dict[str, int] = {}
    for found in _TAG.finditer(text):
        if found.group() not in TAGS or found.group() in places:
            return None
        places[found.group()] = found.start()
    return places


def _thinking(text: str, places: dict[str, int]) -> tuple[str, str | None]:
    """(text before the thinking, the thinking); no thinking where another tag stands inside it."""
    close = places[CLOSE_THINK]
    opened = places.get(OPEN_THINK)
    if opened is not None and opened > close:
        return "", None
    if any(places.get(tag, close) < close for tag in (OPEN_ANSWER, CLOSE_ANSWER)):
        return "", None
    start = 0 if opened is None else opened + len(OPEN_THINK)
    return text[: opened or 0], text[start:close]


def _answer(text: str, places: dict[str, int]) -> tuple[str, str | None, str]:
    """(text between thinking and answer, the answer, text after it)."""
    opened, close = places.get(OPEN_ANSWER), places.get(CLOSE_ANSWER)
    if opened is None or close is None or opened > close:
        return "", None, ""
    between = text[places[CLOSE_THINK] + len(CLOSE_THINK) : opened]
    return between, text[opened + len(OPEN_ANSWER) : close], text[close + len(CLOSE_ANSWER) :]


def _holds_content(part: str) -> bool:
    r"""Whether there is a word or a number: LaTeX that only lays out, as in `\boxed{}`, is neither."""
    first = _CONTENT.search(part)
    if first is None or "\\" not in part[max(0, first.start() - 1) : first.start()]:
        return first is not None
    return _CONTENT.search(_LAYOUT.sub(" ", part)) is not None
