"""Steps cover their text, cut where sentences and lines end, and end at the token that completes them."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import temper
from temper.text.chat import ChatFormat
from temper.text.reply import parse_reply
from temper.text.steps import TokenEnds, reply_steps, split_steps, step_ends

CHAT = ChatFormat.load(Path(temper.__file__).parent / "assets" / "tiny-base", "plain")
PIECES = (
    "First 38+33=71.", " Then", " ", "\n", "\n\n", ".", "...", "!", "? ", "3.5", " e.g. ", "z. B. ", "Step 2: ", "1. ",
    "é", "完。", "😀", "---", "<think>", "</think>", "<answer>", "</answer>", "x=5", "\ufffd", "\r\n", "\u2028", "**",
)  # fmt: skip
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text(max_size=60))


@given(texts)
def test_ranges_follow_each_other_and_cover_the_text(text):
    steps = split_steps(text)
    assert [start for start, _ in steps] == [0, *(end for _, end in steps)][: len(steps)]
    assert "".join(text[start:end] for start, end in steps) == text
    assert all(start < end for start, end in steps)


@given(texts)
def test_every_step_holds_something_unless_the_text_holds_nothing(text):
    steps = split_steps(text)
    if len(steps) > 1:
        assert all(any(c.isalnum() for c in text[start:end]) for start, end in steps)


@given(texts)
def test_a_replys_steps_cover_it_and_only_the_last_can_be_the_answer(text):
    reply = parse_reply(text)
    steps = reply_steps(reply)
    assert (steps[0].start, steps[-1].end) == (0, len(text))
    assert all(a.end == b.start for a, b in pairwise(steps))
    assert not any(step.is_answer for step in steps[:-1])
    assert steps[-1].is_answer == (reply.thinking is not None)


@given(texts)
@example("First 38+33=71.\ufffd\u2028First 38+33=71.")
def test_a_steps_end_is_the_first_token_with_which_it_is_whole(text):
    """Byte-level tokens: written out, over the decoded prefixes."""
    ids = [*text.encode(), 256]  # 256: an end token, without text

    def decode(some):
        return bytes(i for i in some if i < 256).decode("utf-8", "replace")

    steps = reply_steps(parse_reply(text))
    found = step_ends(TokenEnds(decode)(ids), steps, thinking_opened=False)
    assert found[-1] == len(ids) - 1
    assert found == sorted(found)
    for step, end in zip(steps[:-1], found, strict=False):
        before, then = (decode(ids[:count]).rstrip("\ufffd") for count in (end, end + 1))  # less pieces of characters
        assert len(before) < step.end <= len(then)


@given(texts)
def test_the_mapping_is_exact_with_a_real_tokenizer(text):
    ids = CHAT.tokenizer.encode_on([text])[0]
    spoken = CHAT.decode(ids)
    steps = reply_steps(parse_reply(spoken))
    found = step_ends(TokenEnds(CHAT.decode)([*ids, CHAT.end_id]), steps, thinking_opened=False)
    assert found == sorted(found)
    assert found[-1] == len(ids)
    for step, end in zip(steps[:-1], found, strict=False):
        assert CHAT.decode(ids[: end + 1]).startswith(spoken[: step.end])
        assert not CHAT.decode(ids[:end]).startswith(spoken[: step.end]) or "\ufffd" in spoken


def test_where_the_prompt_opened_the_thinking_its_tag_has_no_tokens():
    text = "First 2+3=5. So it is 5.</think><answer>5</answer>"
    reply = parse_reply(text, thinking_opened=True)
    steps = reply_steps(reply)
    ends = step_ends(TokenEnds(lambda ids: bytes(ids).decode())(text.encode()), steps, thinking_opened=True)
    spoken = [text[a:b] for a, b in zip([0, *(end + 1 for end in ends)], [end + 1 for end in ends], strict=False)]
    assert spoken == ["First 2+3=5.", " So it is 5.", "</think><answer>5</answer>"]


def test_a_completion_that_ends_at_once_is_one_step_that_ends_with_its_end_token():
    assert step_ends(TokenEnds(CHAT.decode)([CHAT.end_id]), reply_steps(parse_reply("")), False) == [0]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It is 3.14 and 1,000.5 m. Then 2.", 2),
        ("Take e.g. 5, i.e. the prime, cf. Eq. 3. Done.", 2),
        ("Rechne z. B. 3+4=7. Dann d.h. 7-1=6.", 2),
        ("5! = 120. Hence 120!", 2),
        ("1. Add 3+4=7.\n2. Take 7-1=6.", 2),
        ("Step 1: 3+4=7 Step 2: 7-1=6", 2),
        ("## Step 1.\nAdd them\n## Step 2.\nTake one", 2),
        ("甲等于3。乙等于4！所以是7", 3),
        ("He said “go.” Then he went.", 2),
        ("no end in sight", 1),
        ("3+4=7\r\n7-1=6\u20286", 3),
    ],
)
def test_sentences_lines_and_headings_are_steps(text, count):
    assert len(split_steps(text)) == count


@pytest.mark.parametrize("unit", ["1.", "a. ", ". ", "e.g. ", "\n", "Step 1: ", " " * 9 + ".", "!", "x" * 9, "**"])
def test_cutting_takes_linear_time(unit):
    def seconds(text):
        began = time.process_time()
        split_steps(text)
        return time.process_time() - began

    short, long = unit * 1000, unit * 8000
    assert min(seconds(long) for _ in range(3)) < 24 * min(seconds(short) for _ in range(3)) + 0.005


@pytest.mark.parametrize(("line", "most"), [("First 38+33=71. Then 71-49=22.\n", 0.1), ("First 3+é=7. Then 😀.\n", 3)])
def test_a_long_reply_is_decoded_whole_once_or_in_short_stretches(line, most):
    ids = CHAT.tokenizer.encode_on([line * 400])[0]
    asked = []

    def decode(some):
        asked.append(len(some))
        return CHAT.decode(some)

    assert TokenEnds(decode)(ids)[-1] == len(CHAT.decode(ids))
    assert sorted(asked)[-2] < 20
    assert len(asked) <= most * len(ids)


@given(texts)
def test_token_ends_are_those_of_decoding_every_beginning(text):
    ids = [*CHAT.tokenizer.encode_on([text])[0], CHAT.end_id]
    beginnings = [CHAT.decode(ids[: i + 1]) for i in range(len(ids))]
    found = TokenEnds(CHAT.decode)(ids)
    assert found == sorted(found)
    if "\ufffd" not in text:
        assert found == [len(beginning.rstrip("\ufffd")) for beginning in beginnings]
