"""Conversations come whole from the file, in the order people speak, or the row is named and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temper.data.conversations import load_conversations, load_texts
from temper.data.findings import Note
from temper.errors import ConfigError, DataError, Exit
from temper.types import Message

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, rows: list) -> Path:
    path = folder / "t.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def load(folder: Path, rows: list, columns: dict | None = None) -> list[tuple[Message, ...]]:
    return load_conversations(write(folder, rows), columns or {}, tell=lambda _: None)


def turn(role: str, content: object = "text") -> dict:
    return {"role": role, "content": content}


@QUICK
@given(
    system=st.booleans(),
    turns=st.lists(st.tuples(st.text("ab é\n", min_size=1), st.text("<think>x", min_size=1)), min_size=1, max_size=3),
)
def test_messages_come_back_word_for_word(tmp_path: Path, system: bool, turns: list[tuple[str, str]]) -> None:
    messages = [turn("system", "be kind")] if system else []
    for asked, said in turns:
        messages += [turn("user", "q" + asked), turn("assistant", said)]
    (loaded,) = load(tmp_path, [{"messages": messages}])
    assert [{"role": m.role, "content": m.content} for m in loaded] == messages


def test_prompt_and_completion_are_a_conversation_of_two(tmp_path: Path) -> None:
    expected = (Message("user", " Hi "), Message("assistant", "Hello.\n"))
    assert load(tmp_path, [{"prompt": " Hi ", "completion": "Hello.\n"}]) == [expected]
    assert load(tmp_path, [{"prompt": [turn("user", " Hi ")], "completion": [turn("assistant", "Hello.\n")]}]) == [
        expected
    ]
    assert load(tmp_path, [{"f": " Hi ", "a": "Hello.\n"}], {"prompt": "f", "completion": "a"}) == [expected]


@pytest.mark.parametrize("column", ["thinking", "reasoning"])
def test_thinking_and_answer_in_columns_of_their_own_become_one_reply(tmp_path: Path, column: str) -> None:
    (loaded,) = load(tmp_path, [{"question": "2+2?", column: "Two and two.\n", "answer": "4"}])
    assert loaded[-1].content == "<think>Two and two.</think><answer>4</answer>"
    with pytest.raises(DataError, match="tag"):
        load(tmp_path, [{"question": "2+2?", column: "<think>so</think>", "answer": "4"}])


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], ["an empty list"]),
        (None, ["null"]),
        ("hello", ["a string"]),
        ([turn("user")], ["last message is not the assistant's", "user"]),
        ([turn("system")], ["last message"]),
        ([turn("assistant")], ["message 1", "expected user", "found assistant"]),
        ([turn("user"), turn("user"), turn("assistant")], ["message 2", "expected assistant"]),
        ([turn("user"), turn("assistant"), turn("assistant")], ["message 3", "expected user"]),
        ([turn("user"), turn("system"), turn("assistant")], ["message 2", "found system"]),
        ([turn("system"), turn("system"), turn("user"), turn("assistant")], ["message 2", "found system"]),
        ([turn("user"), turn("assistant", "")], ["message 2", "is empty"]),
        ([turn("user", " \n"), turn("assistant")], ["message 1", "is empty"]),
        ([turn("user"), turn("assistant", None)], ["message 2", "null"]),
        ([turn("user", [{"type": "text"}]), turn("assistant")], ["message 1", "a list"]),
        ([turn("user"), turn("asistant")], ["message 2", "`asistant`", "did you mean `assistant`?"]),
        ([turn("humann"), turn("gpt")], ["message 1", "`humann`", "did you mean `human`?"]),
        ([turn("user"), turn("tool"), turn("assistant")], ["tool calls are not supported"]),
        ([turn("user"), turn("assistant") | {"tool_calls": [1]}], ["`tool_calls`"]),
        ([turn("user"), turn("assistant") | {"reasoning_content": "hm"}], ["`reasoning_content`"]),
        ([turn(5), turn("assistant")], ["unknown role", "a number"]),
        ([turn("user"), "hello"], ["message 2", "a string"]),
        ([{"role": "user"}, turn("assistant")], ["no `content`"]),
        ([{"who": "human", "content": "a"}, turn("assistant")], ["message 1", "no `role`", "`who`"]),
    ],
)
def test_a_row_that_is_no_conversation_is_told(tmp_path: Path, messages: object, says: list[str]) -> None:
    good = [turn("user"), turn("assistant")]
    with pytest.raises(DataError) as caught:
        load(tmp_path, [{"messages": good}, {"messages": messages}])
    text = caught.value.render()
    assert caught.value.code == Exit.DATA
    assert "row 2" in text
    assert "t.jsonl:2" in text
    assert text.count("error:") == 1
    assert [word for word in says if word not in text] == [], text


@pytest.mark.parametrize("row", [
    {"prompt": "", "completion": "a"}, {"prompt": "a", "completion": " \t"}, {"prompt": "a", "completion": None},
    {"prompt": "a", "completion": 5}, {"prompt": "a"}, {"completion": "a"}, {"prompt": [], "completion": "a"},
    {"prompt": [turn("user")], "completion": [turn("user")]},
])  # fmt: skip
def test_a_half_row_is_told(tmp_path: Path, row: dict) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, [{"prompt": "a", "completion": "b"}, row])
    assert "row 2" in caught.value.render()


def test_both_messages_and_prompt_must_be_chosen_between(tmp_path: Path) -> None:
    row = {"messages": [turn("user"), turn("assistant")], "prompt": "p", "completion": "c"}
    with pytest.raises(DataError, match="ambiguous"):
        load(tmp_path, [row])
    assert load(tmp_path, [row], {"messages": "messages"})[0][0].content == "text"
    assert load(tmp_path, [row], {"prompt": "prompt"})[0][0].content == "p"
    with pytest.raises(ConfigError):
        load(tmp_path, [row], {"mesages": "messages"})


def test_replies_without_the_form_are_fine_and_counted(tmp_path: Path) -> None:
    notes: list[Note] = []
    rows = [
        {"prompt": "a", "completion": c} for c in ("plain", "<think>hm</think><answer>5</answer>", "<think>hm</think>5")
    ]
    load_conversations(write(tmp_path, rows), tell=notes.append)
    assert [note.level for note in notes] == ["note"]
    assert "2 of 3 replies" in notes[0].render()


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    notes: list[Note] = []
    path = write(tmp_path, [{"prompt": "a", "completion": "b"}, "{oops", {"prompt": "", "completion": "b"}])
    assert len(load_conversations(path, skip_bad=True, tell=notes.append)) == 1
    assert any("left out" in note.render() for note in notes)


def test_texts_for_pretraining_come_word_for_word(tmp_path: Path) -> None:
    assert load_texts(write(tmp_path, [{"text": " one\n"}, {"text": "two", "meta": 1}])) == [" one\n", "two"]
    with pytest.raises(DataError) as caught:
        load_texts(write(tmp_path, [{"text": "one"}, {"text": " "}, {"text": 5}]))
    assert "row 2: `text` is empty" in caught.value.render()
    assert "row 3: `text` is not text" in caught.value.render()
    with pytest.raises(DataError, match="verifiable rows"):
        load_texts(write(tmp_path, [{"question": "a", "answer": "b"}]))
