"""A completion's text, parsed once into thinking and answer, by the form its task asks for. Tags have one spelling."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from temper.types import Reply, ReplyForm

OPEN_THINK, CLOSE_THINK, OPEN_ANSWER, CLOSE_ANSWER = TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# A tag in any spelling that a reader would take for one. Possessive: a run of spaces is walked over once.
_TAG = re.compile(r"<\s*+/?+\s*+(?:think|answer)\s*+/?+\s*+>", re.IGNORECASE)
_THINK_TAG = re.compile(r"<\s*+/?+\s*+think\s*+/?+\s*+>", re.IGNORECASE)
_WRAPPED = re.compile(r"<answer>((?:(?!</?answer>).)*+)</answer>", re.DOTALL)
_LAYOUT = re.compile(r"\\(?:boxed|fbox|text[a-z]*|math[a-z]*|mbox|left|right|displaystyle)(?![A-Za-z])")
_CONTENT = re.compile(r"[^\W_]")


def parse_reply(text: str, thinking_opened: bool = False, form: ReplyForm = "tags") -> Reply:
    r"""The thinking and the answer of a completion, in time linear in its length.

    `tags`: `thinking` is set when there is one `</think>` and what stands before it is unambiguous, `answer` when one
    `<answer>…</answer>` follows it and nothing else can be meant: a second tag of a kind, a tag inside a tag, a tag in
    another spelling, thinking without a word or number, or text after `</answer>` leave it None. Text before `<think>`
    or between the two parts breaks only the form.

    `think`, as R1, its distilled models and Qwen 3 write: what follows the one `</think>` is the answer, what stands
    before it the thinking, whether or not `<think>` is written (many templates write it); a second tag, or one in
    another spelling, leaves no answer. Well-formed needs content in both, and nothing before `<think>`. Where the whole
    answer stands between `<answer>` and `</answer>`, they are taken off.

    `plain`: the whole reply is the answer; well-formed where it has content and no tag.

    `thinking_opened` says that the prompt ended with `<think>`: the tag then counts as the reply's first characters,
    and `text` begins with it.

    >>> reply = parse_reply("<think>2+3=5</think> <answer>5</answer>")
    >>> reply.thinking, reply.answer, reply.well_formed
    ('2+3=5', '5', True)
    >>> parse_reply("2+3=5</think><answer>5</answer>", thinking_opened=True).well_formed
    True
    >>> reply = parse_reply("<think>2+3=5</think>So:<answer>5</answer>")
    >>> reply.answer, reply.well_formed
    ('5', False)
    >>> parse_reply("<think>2+3=5</think><answer>5</answer> or <answer>6</answer>").answer is None
    True
    >>> parse_reply("2+3=5</think>So it is 5.", form="think").answer, parse_reply("It is 5.", form="plain").answer
    ('So it is 5.', 'It is 5.')
    """
    return _PARSERS[form](OPEN_THINK + text if thinking_opened else text)


def _parse_tags(text: str) -> Reply:
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


def _parse_think(text: str) -> Reply:
    places = _places(text, _THINK_TAG)
    close = None if places is None else places.get(CLOSE_THINK)
    opened = 0 if places is None else places.get(OPEN_THINK, 0)
    if places is None or close is None or opened > close:
        return Reply(text, None, None, False, "think")
    thinking, answer = text[opened:close].removeprefix(OPEN_THINK), text[close + len(CLOSE_THINK) :]
    if wrapped := _WRAPPED.fullmatch(answer.strip()):
        answer = wrapped[1]
    if not _holds_content(answer):
        return Reply(text, thinking, None, False, "think")
    return Reply(text, thinking, answer.strip(), not text[:opened].strip() and _holds_content(thinking), "think")


def _parse_plain(text: str) -> Reply:
    has_content = _holds_content(text)
    return Reply(text, None, text.strip() if has_content else None, has_content and not _TAG.search(text), "plain")


_PARSERS: Mapping[ReplyForm, Callable[[str], Reply]] = {
    "tags": _parse_tags,
    "think": _parse_think,
    "plain": _parse_plain,
}
FORMS: tuple[ReplyForm, ...] = tuple(_PARSERS)


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
    if reply.answer is not None or reply.form != "tags":
        return (reply.answer or "").strip() or None
    if _TAG.search(reply.text) is None:
        return reply.text.strip() or None
    places = _places(reply.text)
    if reply.thinking is None or places is None or OPEN_ANSWER in places or CLOSE_ANSWER in places:
        return None
    return reply.text[places[CLOSE_THINK] + len(CLOSE_THINK) :].strip() or None


def _places(text: str, tag: re.Pattern[str] = _TAG) -> dict[str, int] | None:
    """Where each tag stands; None when one occurs twice or in another spelling."""
    places: dict[str, int] = {}
    for found in tag.finditer(text):
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
