"""A reply cut into the steps that process supervision judges one by one, and where each ends among its tokens."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from temper.text.reply import CLOSE_THINK, OPEN_THINK
from temper.text.stops import PIECE
from temper.types import Reply, Step

# Every repeat is bounded, so that cutting takes time linear in the text.
_STEP = r"(?:(?:step|schritt)[ \t]{1,4}[0-9]{1,4}[ \t]?[:.)\-–—]|第[0-9]{1,4}步)"
_BOUNDARY = re.compile(
    rf"""(?P<heading>(?:[*_\#>]{{1,6}}[ \t]{{0,2}})?(?<![^\W_]){_STEP}[\s*_]{{0,8}})  # begins a step by itself
      | (?P<sentence>[.!?…]{{1,8}}["'”’»)\]}}*_`$]{{0,4}}(?=\s|$)|[。！？｡][」』”’）]{{0,4}})
      | (?P<line>(?:\r\n|[\n\r\v\f\x85\u2028\u2029]){{1,64}})""",
    re.VERBOSE | re.IGNORECASE,
)
# After these a full stop ends no sentence
_ABBREVIATIONS = re.compile(
    "e.g|i.e|etc|cf|vs|approx|ca|resp|viz|al|figs?|eqs?|nos|nr|vol|sec|ch|pp|dr|mrs?|ms|prof|st|jr|sr|dept|est|"
    "z.b|d.h|u.a|o.ä|usw|bzw|evtl|ggf|vgl|abb|bsp|inkl|zzgl".replace(".", r"\."),
    re.IGNORECASE,
)
_LAST_WORD = re.compile(r"(?<![^\W_])[^\W\d_](?:[^\W\d_]|\.(?=[^\W\d_])){0,11}\Z")
_NEXT_LETTER = re.compile(r"[ \t]?[^\W\d_]\.")
_LETTER_BEFORE = re.compile(r"(?<![^\W_])[^\W\d_]\.[ \t]?[^\W\d_]\Z")
_COUNTS = re.compile(r"\s{0,8}\(?(?:[0-9]{1,4}|[A-Za-z])")  # "2." at the start of a step numbers it
_FACTORIAL = re.compile(r"[ \t]{1,4}[=+\-−*/×·^<>≤≥]")  # what goes on after "5!"
_CONTENT = re.compile(r"[^\W_]")


def split_steps(text: str) -> list[tuple[int, int]]:
    """The steps of a chain of thought as ranges of characters, one after the other from 0 to the end of `text`.

    A step ends with its sentence or its line, or where a heading ("Step 2:") begins the next; white space before a step
    belongs to it. Decimals, abbreviations and numbers that count ("1.") end none, and every step holds a word or
    a number, so a line of dashes is part of a step beside it. No text, no steps; time linear in the length.

    >>> text = "First 38+3.5=41.5. Then, e.g. 41.5-1=40.5.\\n\\nStep 3. It is 40.5."
    >>> [text[start:end] for start, end in split_steps(text)]
    ['First 38+3.5=41.5.', ' Then, e.g. 41.5-1=40.5.', '\\n\\nStep 3. It is 40.5.']
    """
    steps: list[tuple[int, int]] = []
    start = looked = 0
    for end in _cuts(text):
        if _CONTENT.search(text, looked, end):
            steps.append((start, end))
            start = end
        looked = end
    if start < len(text):
        if steps and not _CONTENT.search(text, looked):  # nothing more is said
            start, _ = steps.pop()
        steps.append((start, len(text)))
    return steps


def _cuts(text: str) -> Iterator[int]:
    """Where steps may end, ascending."""
    last = 0
    for found in _BOUNDARY.finditer(text):
        if found["sentence"] and _goes_on(text, last, found):
            continue
        last = found.end() if found["sentence"] else found.start()
        yield last


def _goes_on(text: str, last: int, found: re.Match[str]) -> bool:
    """Whether the sign belongs to what stands before it and the sentence goes on; `last` is where the step began."""
    sign = found["sentence"]
    if sign == "!":
        return text[found.start() - 1 : found.start()].isdigit() and _FACTORIAL.match(text, found.end()) is not None
    if sign != ".":
        return False
    if _COUNTS.fullmatch(text, last, found.start()):
        return True
    before = text[max(last, found.start() - 16) : found.start()]
    word = _LAST_WORD.search(before)
    if word is None:
        return False
    if len(word.group()) == 1:  # "z. B.", "J. K.", but not "the line through A."
        return bool(_NEXT_LETTER.match(text, found.end()) or _LETTER_BEFORE.search(before))
    return _ABBREVIATIONS.fullmatch(word.group()) is not None


def reply_steps(reply: Reply) -> list[Step]:
    """The steps of a reply: those of its thinking, then one for all that follows it, the answer. They cover its text.

    The tags belong to the step beside them. A reply whose thinking never ends, or whose form is broken, is cut like
    a thought, and nothing in it is an answer; of a plain reply the last step is. Every reply has a step, an empty one
    too: nothing goes unjudged.

    >>> from temper.text.reply import parse_reply
    >>> reply = parse_reply("<think>First 2+3=5. So it is 5.</think><answer>5</answer>")
    >>> [step.text_of(reply) for step in reply_steps(reply)]
    ['<think>First 2+3=5.', ' So it is 5.', '</think><answer>5</answer>']
    >>> reply_steps(parse_reply(""))
    [Step(start=0, end=0, is_answer=False)]
    """
    text = reply.text
    start = len(OPEN_THINK) if text.startswith(OPEN_THINK) else 0
    close = len(text) if reply.thinking is None else text.index(CLOSE_THINK, start)
    ends = [start + end for _, end in split_steps(text[start:close])] if text[start:close].strip() else [close]
    if ends == [0]:  # nothing before the answer, or nothing at all
        return [Step(0, len(text), is_answer=close < len(text))]
    steps = [Step(begin, end) for begin, end in pairwise([0, *ends])]
    if reply.form == "plain":
        return [*steps[:-1], replace(steps[-1], is_answer=True)]
    return steps if close == len(text) else [*steps, Step(close, len(text), is_answer=True)]


class TokenEnds:
    """For each token of a reply the number of characters of its text that are whole once it is there; ascending.

    Exact for byte-level vocabularies: a character that is split over tokens is whole with its last one. What a token
    reads alone is looked up once; only where that does not add up to the text, the text is decoded token by token.

    >>> TokenEnds(lambda ids: bytes(ids).decode("utf-8", "replace"))("aé!".encode())
    [1, 1, 2, 3]
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        """`decode` gives the text of any stretch of a reply's tokens."""
        self.decode = decode
        self._alone: dict[int, str] = {}

    def __call__(self, token_ids: Sequence[int]) -> list[int]:
        for token in token_ids:
            if token not in self._alone:
                self._alone[token] = self.decode([token])
        texts = [self._alone[token] for token in token_ids]
        if "".join(texts) == self.decode(token_ids):
            return list(accumulate(map(len, texts)))
        return self._token_by_token(token_ids)

    def _token_by_token(self, token_ids: Sequence[int]) -> list[int]:
        ends: list[int] = []
        done = begin = read = 0  # characters that are whole; the stretch of tokens whose text was added last
        known = ""
        for i in range(len(token_ids)):
            text = self.decode(token_ids[begin : i + 1])
            if len(text) > len(known) and not text.endswith(PIECE):
                done += len(text) - len(known)
                if text[len(known) :].strip():  # a stretch begins with more than white space, which may be dropped
                    begin = read
                read = i + 1
                known = self.decode(token_ids[begin:read])
            ends.append(done)
        return ends


def step_ends(ends: Sequence[int], steps: Sequence[Step], thinking_opened: bool) -> list[int]:
    """The index of the token that ends each step: the first with which the step's text is whole. Ascending; steps that
    share a token share its index. The last step ends with the completion, so that its end token is supervised too.

    `ends` are the `TokenEnds` of the completion, `steps` those of the reply that it reads (at least one of each);
    `thinking_opened` says that the reply's text begins with a `<think>` that the prompt wrote.

    >>> step_ends([1, 2, 3, 4, 5, 5], [Step(0, 2), Step(2, 5)], False)  # "a. b." and an end token
    [1, 5]
    """
    before, last = len(OPEN_THINK) if thinking_opened else 0, len(ends) - 1
    return [*(min(bisect_left(ends, step.end - before), last) for step in steps[:-1]), last]
