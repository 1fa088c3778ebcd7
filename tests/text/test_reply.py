"""Replies: one reading of the four tags, for every arrangement of them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from reward_rows import QUICK

from temper.text.reply import TAGS, parse_reply

WELL_FORMED = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
PIECES = st.lists(
    st.sampled_from([*TAGS, "5", "word", " ", "\n", "<", ">", "think>", "<Think>", "< answer>", "…", "\\boxed{}"]),
    max_size=9,
).map("".join)


def looks_like_a_tag(text: str) -> bool:
    return re.search(r"<\s*/?\s*(think|answer)\s*/?\s*>", text, re.IGNORECASE) is not None


def has_content(text: str) -> bool:
    return any(character.isalnum() for character in text.replace("\\boxed", ""))


@QUICK
@given(PIECES)
def test_well_formed_is_exactly_the_form_of_the_specification(text):
    found = WELL_FORMED.fullmatch(text)
    expected = found is not None and not any(looks_like_a_tag(part) or not has_content(part) for part in found.groups())
    assert parse_reply(text).well_formed == expected


@QUICK
@given(PIECES)
def test_an_answer_is_one_answer_after_one_thinking(text):
    reply = parse_reply(text)
    if reply.answer is not None:
        assert reply.thinking is not None
        assert [text.count(tag) for tag in TAGS[1:]] == [1, 1, 1]
        assert text.count("<think>") <= 1
        assert f"{reply.thinking}</think>" in text
        assert text.rstrip().endswith(f"<answer>{reply.answer}</answer>")
    if reply.well_formed:
        assert reply.answer is not None


@QUICK
@given(PIECES, st.sampled_from(TAGS))
def test_a_second_tag_of_a_kind_leaves_no_answer(text, tag):
    assert parse_reply(f"<think>so</think><answer>5</answer>{text}{tag}").answer is None
    assert parse_reply(f"{text}{tag}<think>so</think><answer>5</answer>").answer is None


@QUICK
@given(PIECES)
def test_a_tag_that_the_prompt_opened_counts_as_the_first_characters(text):
    assert parse_reply(text, thinking_opened=True) == parse_reply("<think>" + text)


@QUICK
@given(st.text())
def test_any_text_can_be_parsed(text):
    assert parse_reply(text).text == text


def test_words_between_the_parts_break_the_form_alone():
    reply = parse_reply("So: <think>2+3=5</think> hence <answer>5</answer>")
    assert (reply.thinking, reply.answer, reply.well_formed) == ("2+3=5", "5", False)


def test_layout_without_content_is_no_answer_form():
    for empty in ("\\boxed{}", "\\text{ }", "$$", "…", "**"):
        assert not parse_reply(f"<think>so</think><answer>{empty}</answer>").well_formed
    assert parse_reply("<think>so</think><answer>\\pi</answer>").well_formed
