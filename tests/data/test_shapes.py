"""What columns mean is found from their names or said by a mapping; of two readings none is chosen."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.data.files import load_rows
from temper.data.findings import Findings
from temper.data.names import CONVERSATIONS, NAMES, OPTIONAL, SHAPES
from temper.data.rows import Row
from temper.data.shapes import detect_shape, shape_of_rows
from temper.errors import ConfigError, DataError, Exit

PROMPTS = NAMES["prompt"]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["prompt", "completion"], "completion"),
        (["messages"], "messages"),
        (["messages", "source", "score"], "messages"),
        (["prompt", "chosen", "rejected"], "preference"),
        (["problem", "solution", "level", "type"], "verifiable"),
        (["question", "answer"], "verifiable"),
        (["prompt", "gold"], "verifiable"),
        (["Question", "Answer"], "verifiable"),
        (["instruction", "output"], "completion"),
        (["conversations"], "messages"),
        (["prompt", "tests"], "code"),
        (["text"], "text"),
        (["text", "meta"], "text"),
    ],
)
def test_the_shapes_of_the_field_are_known(columns: list[str], name: str) -> None:
    assert detect_shape(columns).name == name
    assert detect_shape(columns, wanted=(name,)).name == name


@given(st.permutations(["id", "level", "question", "answer", "language"]))
def test_the_order_of_columns_says_nothing(columns: list[str]) -> None:
    shape = detect_shape(columns)
    assert shape.columns == {role: role for role in ("answer", "id", "language")} | {"prompt": "question"}


def faults_of(columns: list[str], mapping: dict | None = None, wanted: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as caught:
        detect_shape(columns, mapping, wanted, "t.jsonl")
    assert caught.value.code == Exit.DATA
    return caught.value.render()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("wanted", [(), CONVERSATIONS, ("verifiable",)])
def test_messages_beside_a_prompt_are_ambiguous_until_one_is_chosen(prompt: str, wanted: tuple[str, ...]) -> None:
    columns = ["messages", prompt, "completion", "answer"]
    text = faults_of(columns, None, wanted)
    assert "ambiguous" in text
    assert f"`{prompt}`" in text
    assert "choose with" in text
    assert (f"columns: {{prompt: {prompt}}}" in text) == (wanted != ())  # else it would only lead to the next choice
    if wanted == CONVERSATIONS:
        assert detect_shape(columns, {"messages": "messages"}, wanted).name == "messages"
        assert detect_shape(columns, {"prompt": prompt}, wanted).name == "completion"
    if wanted == ("verifiable",):
        assert detect_shape(columns, {"prompt": prompt}, wanted).columns["answer"] == "answer"


@pytest.mark.parametrize("role", [role for role in NAMES if len(NAMES[role]) > 1 and role not in OPTIONAL])
def test_two_columns_for_one_role_are_ambiguous(role: str) -> None:
    wanted = next(name for name, roles in SHAPES.items() if role in roles and name != "text")
    others = [NAMES[other][0] for other in SHAPES[wanted] if other != role]
    for two in itertools.combinations(NAMES[role], 2):
        columns = [*others, *two]
        text = faults_of(columns, None, (wanted,))
        assert "ambiguous" in text
        assert all(f"`columns: {{{role}: {name}}}`" in text for name in two)
        for name in two:
            assert detect_shape(columns, {role: name}, (wanted,)).columns[role] == name


def test_what_the_error_offers_works() -> None:
    columns = ["prompt", "completion", "answer"]
    text = faults_of(columns)
    assert "--shape completion" in text
    assert "--shape verifiable" in text
    choices = re.findall(r"columns: \{(\w+): (\w+)\}", text)
    assert {detect_shape(columns, {role: column}).name for role, column in choices} == {"completion", "verifiable"}


@pytest.mark.parametrize(
    ("columns", "wanted", "offer"),
    [
        (["zz"], ("verifiable",), "{prompt: YOUR_COLUMN"),
        (["source", "output"], ("completion",), "{prompt: source}"),
        (["frage", "antwort"], ("verifiable",), "{answer: antwort}"),
        (["questoin", "anwser"], ("verifiable",), "{prompt: questoin, answer: anwser}"),
        (["mesages"], CONVERSATIONS, "{messages: mesages}"),
        (["question", "answer"], CONVERSATIONS, "{completion: answer}"),
    ],
)
def test_an_unknown_table_is_shown_with_a_mapping_that_might_be_meant(
    columns: list[str], wanted: tuple[str, ...], offer: str
) -> None:
    text = faults_of(columns, None, wanted)
    assert offer in text
    assert all(f"`{column}`" in text for column in columns)


def test_rows_of_another_shape_than_wanted_are_named() -> None:
    assert "these are preference rows" in faults_of(["prompt", "chosen", "rejected"], None, ("verifiable",))


def test_columns_can_be_mapped() -> None:
    shape = detect_shape(["frage", "antwort", "nr"], {"prompt": "frage", "answer": "antwort", "id": "nr"})
    assert shape.columns == {"prompt": "frage", "answer": "antwort", "id": "nr"}
    assert "prompt = `frage`" in str(shape)


def test_a_mapping_that_cannot_be_is_told_with_what_might_be_meant() -> None:
    assert "did you mean `frage`?" in faults_of(["frage", "antwort"], {"prompt": "farge", "answer": "antwort"})
    text = faults_of(["a", "b"], {"prompt": "x", "answer": "y"})
    assert text.count("error:") == 2
    with pytest.raises(ConfigError) as caught:
        detect_shape(["frage"], {"promt": "frage"})
    assert caught.value.code == Exit.CONFIG
    assert "did you mean `prompt`?" in caught.value.render()
    with pytest.raises(ConfigError):
        detect_shape(["a"], {"prompt": "a", "answer": "a"})


def shape_of(tmp_path: Path, rows: list[dict]) -> str:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(shape_of_rows(load_rows(path)[0], Findings("t.jsonl")))


def test_rows_of_different_shapes_in_one_file_are_refused(tmp_path: Path) -> None:
    one, other = {"prompt": "a", "completion": "b"}, {"messages": []}
    with pytest.raises(DataError, match="different shapes") as caught:
        shape_of(tmp_path, [one, one, other, one])
    assert "row 1: completion" in caught.value.render()
    assert "row 3: messages" in caught.value.render()
    assert "t.jsonl:3" in caught.value.render()


def test_a_column_that_some_rows_lack_does_not_change_the_shape(tmp_path: Path) -> None:
    assert shape_of(tmp_path, [{"question": "a", "answer": "b"}, {"question": "a"}]).startswith("verifiable")


_CHOICE = re.compile(r"columns: \{([^}]*)\}")


@given(
    st.lists(st.sampled_from(["prompt", "question", "problem", "answer", "gold", "solution", "completion", "messages",
                              "reasoning", "thinking", "chosen", "rejected", "text", "frage", "antwort", "output",
                              "instruction", "label", "meta"]), min_size=1, max_size=6, unique=True),
    st.sampled_from([CONVERSATIONS, ("verifiable",), ("preference",), ("text",)]),
)  # fmt: skip
def test_advice_does_not_run_in_a_circle(columns: list[str], wanted: tuple[str, ...]) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    rows = [Row(1, 1, {name: talk if name == "messages" else f"{name} 1" for name in columns})]
    mapping: dict[str, str] = {}
    said: list[str] = []
    for _ in range(4):
        try:
            assert set(mapping) <= set(detect_shape(columns, mapping, wanted, "t", rows).columns)
            return
        except DataError as error:
            faults = error.faults
        assert [fault.what for fault in faults] != said, f"{mapping}: {said}"
        said = [fault.what for fault in faults]
        offers = [_CHOICE.search(fault.fix) for fault in faults]
        if any(
            offer is None or "YOUR_COLUMN" in offer[0] or "perhaps" in f.fix
            for offer, f in zip(offers, faults, strict=True)
        ):
            return  # nothing that could be followed word for word
        mapping |= {
            role: name
            for offer in offers
            if offer
            for role, name in [part.split(": ") for part in offer[1].split(", ")]
        }
    pytest.fail(f"{columns}: {mapping}")
