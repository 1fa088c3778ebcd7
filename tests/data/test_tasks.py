"""Rows become prompts with a verified gold and a stable id; every fault is told when they are read."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temper.config import TaskConfig
from temper.data.findings import Note
from temper.data.overlap import overlap
from temper.data.tasks import BUILTIN_TASKS, load_prompts, resolve_task
from temper.errors import ConfigError, DataError, Exit
from temper.types import Message, Prompt

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def config(**changes: object) -> TaskConfig:
    return TaskConfig.model_validate(changes)


def write(folder: Path, rows: list, name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def load(folder: Path, rows: list, **changes: object) -> tuple[list[Prompt], list[Note]]:
    notes: list[Note] = []
    return load_prompts(write(folder, rows), "sums", config(**changes), tell=notes.append), notes


def fault_text(folder: Path, rows: list, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, rows, **changes)
    assert caught.value.code == Exit.DATA
    return caught.value.render()


def test_a_prompt_is_complete(tmp_path: Path) -> None:
    (prompt,), notes = load(tmp_path, [{"question": "2+2?", "answer": "#### 4"}], system_prompt="Think.", language="de")
    messages = (Message("system", "Think."), Message("user", "2+2?"))
    assert prompt == Prompt("sums:1", "sums", messages, "4", "math", "de")
    assert notes == []


def test_a_task_says_how_replies_are_read_and_a_whole_file_has_no_coverage_to_tell(tmp_path: Path) -> None:
    (prompt,), _ = load(tmp_path, [{"question": "2+2?", "answer": "4"}], reply="think")
    assert (prompt.reply, prompt.coverage) == ("think", "")


def test_files_with_the_quirks_of_real_ones_are_read(tmp_path: Path) -> None:
    rows = [
        ("She sold 48/2 = 24 clips.\nHow many?", "48/2 = <<48/2=24>>24 clips.\n#### 24", 24),
        ("A house costs…", "It costs $1,000+$234.50 = $<<1000+234.5=1234.5>>1,234.50\n#### $1,234.50", 1234.5),
        ("Wie weit?", "Er läuft <<3*4=12>>12 km.\n#### 12 km", 12),
        ("Solve $x+1=3$", r"Subtract: $x=\boxed{2}$.", 2),
    ]
    path = tmp_path / "quirks.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerows([("question", "answer"), *(row[:2] for row in rows)])
    prompts = load_prompts(path, "sums", config())
    assert [prompt.text for prompt in prompts] == [row[0] for row in rows]
    from temper.rewards.answers import same_gold

    assert all(same_gold(prompt.gold, str(row[2])) for prompt, row in zip(prompts, rows, strict=True))


@QUICK
@given(st.lists(st.one_of(st.just(""), st.just("{oops"), st.integers(0, 99).map(str)), min_size=1, max_size=12))
def test_ids_name_the_row_whatever_stands_around_it(tmp_path: Path, lines: list[str]) -> None:
    rows = [json.dumps({"question": f"{n}+0?", "answer": n}) if n.isdigit() else n for n in lines]
    filled = [(number, text) for number, text in enumerate((n for n in lines if n), 1) if text.isdigit()]
    if filled:
        prompts = load_prompts(write(tmp_path, rows), "sums", config(), skip_bad=True, tell=lambda _: None)
        assert [(prompt.id, prompt.gold) for prompt in prompts] == [(f"sums:{n}", gold) for n, gold in filled]


def test_rows_may_have_their_own_id_language_and_answer_type(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "2+2?", "answer": "4", "language": "de", "answer_type": "math"},
        {"id": 7, "question": "Capital of Peru?", "answer": "Lima", "answer_type": "text"},
        {"id": "c", "question": "3+3?", "answer": "6", "language": None},
    ]
    prompts, notes = load(tmp_path, rows)
    assert [(p.id, p.language, p.answer_type) for p in prompts] == [
        ("a", "de", "math"), ("7", "en", "text"), ("c", "en", "math"),
    ]  # fmt: skip
    assert notes == []


@pytest.mark.parametrize("ids", [["a", "a"], ["a", ""], ["a", None], ["a", ["b"]]])
def test_ids_that_do_not_name_every_row_are_not_used(tmp_path: Path, ids: list) -> None:
    prompts, notes = load(tmp_path, [{"id": i, "question": f"{n}+0?", "answer": str(n)} for n, i in enumerate(ids)])
    assert [p.id for p in prompts] == ["sums:1", "sums:2"]
    assert [note.level for note in notes] == ["warning"]
    assert "`id`" in notes[0].render()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "", "answer": "5"}, ["`question` is empty"]),
        ({"question": " \n\t", "answer": "5"}, ["`question` is empty"]),
        ({"question": "a", "answer": ""}, ["`answer` is empty"]),
        ({"question": "a", "answer": None}, ["`answer` is not text", "null"]),
        ({"question": "a", "answer": True}, ["`answer` is not text", "boolean"]),
        ({"question": "a", "answer": ["5", None, {}]}, ["`answer` is not text", "list"]),
        ({"question": "a", "answer": ["5", "6"]}, ["`answer` lists several answers", "`5`, `6`"]),
        ({"question": 5, "answer": "5"}, ["`question` is not text", "number"]),
        ({"question": {"a": "b"}, "answer": "5"}, ["`question` is not text", "object"]),
        ({"question": [], "answer": "5"}, ["an empty list"]),
        ({"question": "a"}, ["no `answer`"]),
        ({"question": "a", "anwser": "5"}, ["no `answer`", "did you mean `anwser`?"]),
        ({"question": "a", "answer": "#### "}, ["cannot be verified", "nothing stands after"]),
        ({"question": "a", "answer": r"\boxed{5"}, ["cannot be verified", "never closed"]),
        ({"question": "a", "answer": "#### 5\n#### 6"}, ["cannot be verified", "2 `####`"]),
        ({"question": "a", "answer": "It depends on who asks, and when"}, ["cannot be verified", "answer: text"]),
        ({"question": "a", "answer": "5", "answer_type": "maths"}, ["`answer_type`", "`maths`"]),
        ({"question": "a", "answer": "5", "language": "English"}, ["`language`", "`English`"]),
        ({"question": [{"role": "assistant", "content": "5"}], "answer": "5"}, ["expected user"]),
    ],
)
def test_a_row_that_is_no_prompt_is_told_with_its_place(tmp_path: Path, row: dict, says: list[str]) -> None:
    good = {"question": "1+1?", "answer": "2", "answer_type": "math", "language": "en"}
    text = fault_text(tmp_path, [good, row])
    assert "row 2" in text
    assert re.search(r"t\.jsonl:2$", text, re.MULTILINE)
    assert [word for word in says if word not in text] == [], text
    assert text.count("error:") == 1


def test_all_faults_of_a_file_are_told_together(tmp_path: Path) -> None:
    rows = [
        "{oops",
        {"question": "", "answer": "5"},
        {"question": "a", "answer": "five"},
        {"question": "b", "answer": "5"},
    ]
    text = fault_text(tmp_path, rows)
    assert [word for word in ("row 1", "row 2", "row 3", "3 bad rows of 4") if word not in text] == []
    assert "row 4" not in text


def test_a_number_as_answer_is_taken_digit_by_digit_and_told(tmp_path: Path) -> None:
    rows = ['{"question": "a", "answer": 0.10}', '{"question": "b", "answer": 5}', '{"question": "c", "answer": "6"}']
    prompts, notes = load(tmp_path, rows)
    assert [prompt.gold for prompt in prompts] == ["0.10", "5", "6"]
    assert [note.level for note in notes] == ["warning"]
    assert "2 of 3 rows" in notes[0].render()


def test_a_prompt_may_be_a_list_of_messages(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "1+1"},
    ]
    (prompt,), _ = load(tmp_path, [{"prompt": turns, "answer": "2"}], system_prompt="S")
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user"]
    own = [{"role": "system", "content": "mine"}, *turns]
    (prompt,), _ = load(tmp_path, [{"prompt": own, "answer": "2"}], system_prompt="S")
    assert [message.content for message in prompt.messages][:2] == ["mine", "Hi"]


def test_columns_are_mapped_and_a_missing_one_is_told(tmp_path: Path) -> None:
    rows = [{"frage": "2+2?", "antwort": "4"}]
    columns = {"prompt": "frage", "answer": "antwort"}
    assert load(tmp_path, rows, columns=columns)[0][0].gold == "4"
    assert "did you mean `antwort`?" in fault_text(tmp_path, rows, columns=columns | {"answer": "antwrot"})
    with pytest.raises(ConfigError):
        load(tmp_path, rows, columns={"question": "frage"})


def test_questions_that_repeat_are_warned_about(tmp_path: Path) -> None:
    rows = [{"question": q, "answer": a} for q, a in [("1+1?", "2"), ("2+2?", "4"), ("1+1?", "2"), ("2+2?", "4.0")]]
    _, notes = load(tmp_path, rows)
    assert [note.level for note in notes] == ["warning"]
    assert "2 of 4 questions occur more than once" in notes[0].render()
    _, notes = load(tmp_path, [*rows, {"question": "2+2?", "answer": "5"}])
    assert "another answer" in notes[0].render()
    assert "sums:2: `4`, sums:5: `5`" in notes[0].render()


def ask(name: str, text: str) -> Prompt:
    return Prompt(name, "t", (Message("user", text),), "4")


def test_evaluation_rows_that_are_also_trained_on_are_found() -> None:
    train = [ask("1", "What is 38 + 33?"), ask("2", "Name a colour.")]
    test = [
        ask("a", "What is 38 + 33?"),
        ask("b", "what  is 38+33"),
        ask("c", "What is 3 + 833?"),
        ask("d", "name a COLOUR"),
    ]
    found = overlap(train, test)
    assert (found.exact, found.near, found.of) == (("a",), ("b", "d"), 4)
    note = found.note("test.jsonl")
    assert note is not None
    assert note.level == "warning"
    assert "3 of 4" in note.render()
    assert "a, b, d" in note.render()
    assert overlap(train, test[2:3]).note() is None


def test_what_is_found_is_said_even_when_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_prompts(write(tmp_path, [{"question": "a\u202e", "answer": "5"}]), "t", config())
    assert "U+202E" in caplog.text


@pytest.mark.parametrize("name", BUILTIN_TASKS)
def test_built_in_tasks_are_files_like_any_other(tmp_path: Path, name: str) -> None:
    task = resolve_task(name, tmp_path, count=20)
    assert task.test is not None
    prompts = load_prompts(task.test, task.name, task.config, tell=lambda _: None)
    assert len(prompts) == 20
    assert len({prompt.id for prompt in prompts}) == 20
    again = resolve_task(name, count=20)
    assert again.test is not None
    assert again.test.read_bytes() == task.test.read_bytes()


def test_a_task_can_be_a_file_and_an_unknown_name_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": "a", "answer": "5"}], "my.sums.jsonl")
    assert resolve_task(str(path)).name == "my"
    assert resolve_task(str(path)).test == path
    with pytest.raises(ConfigError, match="arithmetik") as caught:
        resolve_task("arithmetik")
    assert "`arithmetic`" in caught.value.render()


@pytest.mark.parametrize("columns", [1, 3000])
def test_many_rows_without_the_column_are_told_quickly(tmp_path: Path, columns: int) -> None:
    row = {"question": "a"} | {f"anser{n}": "5" for n in range(columns)}
    began = time.process_time()
    text = fault_text(tmp_path, [{"question": "a", "answer": "5"}, *[json.dumps(row)] * (6000 // columns)])
    assert time.process_time() - began < 2
    assert "no `answer`" in text
