"""Reply forms: where the answer stands is the task's or the stage's to say, and every reader of a reply keeps to it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_rows import QUICK

from temper.rewards import REWARDS
from temper.rewards.score import Scorer
from temper.text.reply import CLOSE_THINK, FORMS, final_text, parse_reply
from temper.text.steps import reply_steps
from temper.text.streaming import PartStream
from temper.types import Message, Prompt

PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<THINK>", "5", "word ", "\n", "<", "\\boxed{}"]),
    max_size=8,
).map("".join)
R1 = "<think>\nFirst 2+3. Then it is 5.\n</think>\n\nThe answer is \\boxed{5}"


def ask(form) -> Prompt:
    return Prompt("1", "sums", (Message("user", "What is 2+3?"),), gold="5", reply=form)


@pytest.mark.parametrize(
    ("form", "text", "answer", "well_formed"),
    [
        ("think", R1, "The answer is \\boxed{5}", True),
        ("think", R1.removeprefix("<think>"), "The answer is \\boxed{5}", True),  # the template wrote the tag
        ("think", "<think>2+3</think><answer>5</answer>", "5", True),
        ("think", "<think>2+3</think>5 <answer>5</answer>", "5 <answer>5</answer>", True),
        ("think", "<think>\n\n</think>\n\n5", "5", False),  # as a hybrid model without thinking writes
        ("think", "so <think>2+3</think>5", "5", False),
        ("think", "<think>2+3 is 5", None, False),
        ("think", "5", None, False),
        ("think", "<think>2+3</think> \n", None, False),
        ("think", "<think>5</think>6</think>5", None, False),
        ("think", "<think>5</think>6<think>5", None, False),
        ("think", "</think><think>5", None, False),
        ("think", "<think>2+3</Think></think>5", None, False),
        ("plain", " It is 5.\n", "It is 5.", True),
        ("plain", "<think>2+3</think>5", "<think>2+3</think>5", False),
        ("plain", " ", None, False),
    ],
)
def test_a_form_says_where_the_answer_stands(form, text, answer, well_formed):
    reply = parse_reply(text, form=form)
    assert (reply.answer, reply.well_formed, reply.form) == (answer, well_formed, form)
    assert final_text(reply) == answer
    assert REWARDS["format"](ask(form), reply) == well_formed


@QUICK
@given(PIECES)
def test_think_answers_only_with_what_follows_the_one_end_of_thinking(text):
    reply = parse_reply(text, form="think")
    tags = re.findall(r"</?think>", text, re.IGNORECASE)
    if reply.answer is not None:
        assert tags in ([CLOSE_THINK], ["<think>", CLOSE_THINK])
        assert reply.answer in text.partition(CLOSE_THINK)[2]
        assert reply.thinking is not None
    elif tags in ([CLOSE_THINK], ["<think>", CLOSE_THINK]):
        assert not re.search(r"[^\W_]", re.sub(r"</?answer>|\\boxed", "", text.partition(CLOSE_THINK)[2]))


@QUICK
@given(PIECES, st.sampled_from(FORMS), st.booleans())
def test_every_form_reads_any_text(text, form, opened):
    reply = parse_reply(text, opened, form)
    assert reply.text == ("<think>" if opened else "") + text
    assert not reply.well_formed or reply.answer is not None
    steps = reply_steps(reply)
    assert "".join(step.text_of(reply) for step in steps) == reply.text
    for name, reward in REWARDS.items():
        value = reward(ask(form), reply)
        if name in ("code", "forbidden_words") or (name == "tag_count" and form == "plain"):  # no tests, words, tags
            assert value is None
        else:
            assert -1 <= value <= 1, name


@QUICK
@given(PIECES, st.sampled_from(FORMS), st.booleans())
def test_what_is_shown_while_a_reply_is_drawn_is_its_text(text, form, opened):
    stream = PartStream(opened, form)
    parts = [part for character in text for part in stream.push(character)] + stream.end()
    shown = "".join(piece for _, piece in parts)
    reply = parse_reply(text, opened, form)
    if form == "plain":
        assert shown == text
    if form == "think" and reply.answer is not None and "<answer>" not in text:
        assert "".join(piece for part, piece in parts if part == "answer").strip() == reply.answer


def test_rewards_look_where_the_reasoning_stands():
    worked = "First 2+3. Then we add. Finally, it is 5."
    rewards = ("reasoning_steps", "language_consistency", "tag_count")
    scorer = Scorer({name: REWARDS[name] for name in rewards})
    of_form = {
        "tags": f"<think>{worked}</think><answer>5</answer>",
        "think": f"<think>{worked}</think>5",
        "plain": worked,
    }
    for form, text in of_form.items():
        score = scorer.score(ask(form), parse_reply(text, form=form))
        applying = [name for name in rewards if (name, form) != ("tag_count", "plain")]
        assert dict(score.rewards) == dict.fromkeys(applying, 1.0), form
    half = scorer.score(ask("think"), parse_reply("First 2+3</think>5", form="think"))
    assert half.rewards["tag_count"] == 0.5
    assert "tag_count" in scorer.score(ask("plain"), parse_reply("<think> 5", form="plain")).inapplicable


def test_the_last_step_of_a_plain_reply_is_its_answer():
    steps = reply_steps(parse_reply("First 2+3=5. So it is 5.", form="plain"))
    assert [step.is_answer for step in steps] == [False, True]
    assert [step.is_answer for step in reply_steps(parse_reply("", form="plain"))] == [False]
