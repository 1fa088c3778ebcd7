"""`temper check` tells everything about files, rewards and recipes before they are used."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_zoo import CHATS, train_backend

from temper.commands import check
from temper.errors import TemperError
from temper.text.tokenizer import write_tokenizer

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs" / "data.md"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error, with faults rendered as the command line does."""
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = check.run(parser.parse_args(arguments))
        except TemperError as error:
            code = int(error.code)
            err.write(error.render() + "\n")
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list) -> str:
    Path(name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return name


GOOD = [{"question": f"What is {n}+1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(5)]


# -- data -------------------------------------------------------------------------------------------------------------


def test_a_good_file_is_ok_and_its_shape_is_printed() -> None:
    code, out, err = run(write("t.jsonl", GOOD))
    assert (code, err) == (0, "")
    assert "verifiable (prompt = `question`, answer = `answer`), 5 rows" in out
    assert "accuracy 1, format 1" in out


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([{"prompt": "a", "completion": "b"}], "completion"),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}], "messages"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "preference"),
        ([{"prompt": "a", "ranking": ["b", "c", "d"]}], "ranked"),
        ([{"prompt": "a", "completion": "b", "label": True}], "rated"),
        ([{"prompt": "a", "completion": "b", "label": "easy"}], "completion"),
        ([{"prompt": "a", "tests": "assert f(1) == 2"}], "code"),
        ([{"prompt": "a", "tests": ["assert f(1) == 2"]}], "code"),
        ([{"text": "a"}], "text"),
    ],
)
def test_every_shape_is_checked(rows: list, shape: str) -> None:
    code, out, _ = run("--json", write("t.jsonl", rows))
    assert code == 0
    (report,) = json.loads(out)["files"]
    assert (report["shape"], report["rows"], report["bad_rows"]) == (shape, 1, 0)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "`rejected` is empty"),
        ({"prompt": "a", "tests": []}, "`tests`"),
        ({"prompt": "a", "tests": ["", "x"]}, "`tests`"),
        ({"prompt": "a", "tests": None}, "null"),
        ({"text": "\n"}, "`text` is empty"),
        ({"question": "a", "answer": "2+"}, "cannot be verified"),
    ],
)
def test_a_bad_row_of_any_shape_has_exit_code_3(row: dict, says: str) -> None:
    code, _, err = run(write("t.jsonl", [row]))
    assert code == 3
    assert says in err
    assert "t.jsonl:1" in err


def test_json_holds_everything_that_the_text_says() -> None:
    code, out, err = run(
        "--json", write("t.jsonl", [*GOOD, {"question": "a\u202e", "answer": "5"}, "{oops", '"\\ud800"'])
    )
    report = json.loads(out)
    assert code == 3
    assert report["ok"] is False
    assert report["files"][0]["bad_rows"] == 2
    assert report["files"][0]["errors"][0]["what"] == "row 7: not valid JSON"
    assert report["files"][0]["errors"][0]["where"] == "t.jsonl:7:2"
    assert "U+202E" in report["files"][0]["warnings"][0]["why"]
    assert "row 7" in err


def test_several_files_are_told_together_and_compared() -> None:
    one = write("train.jsonl", GOOD)
    other = write(
        "test.jsonl", [GOOD[0], {"question": "what is 1 + 1", "answer": "2"}, {"question": "9?", "answer": "9"}]
    )
    code, out, err = run(one, other, "no.jsonl")
    assert code == 3
    assert re.findall(r"^(\S+):", out, re.MULTILINE) == ["train.jsonl", "test.jsonl", "no.jsonl"]
    assert "2 of 3 test prompts are also in the training set" in err
    assert "no such file" in err


def test_bad_rows_can_be_left_out_and_the_good_ones_written() -> None:
    flawed = write("t.jsonl", [GOOD[0], "{oops", {"question": "", "answer": 5}, '{"question": "q", "answer": 0.10}'])
    code, out, err = run("--skip-bad", "--write", "good.jsonl", flawed)
    assert code == 0, err
    assert "4 rows, 2 bad" in out
    assert "warning: left out" in err
    assert [json.loads(line) for line in Path("good.jsonl").read_text().splitlines()] == [
        GOOD[0], {"question": "q", "answer": 0.1},
    ]  # fmt: skip
    assert "0.10" in Path("good.jsonl").read_text()
    assert run("good.jsonl")[0] == 0
    code, _, err = run("--skip-bad", "--write", "good.jsonl", flawed)
    assert code == 2
    assert "exists" in err


def test_the_way_to_read_can_be_said() -> None:
    both = write("t.jsonl", [{"prompt": "2+2?", "completion": "<think>so</think><answer>4</answer>", "answer": "4"}])
    assert run(both)[0] == 3
    assert "completion (" in run(both, "--shape", "completion")[1]
    assert "verifiable (" in run(both, "--columns", "answer=answer")[1]
    words = write("w.jsonl", [{"frage": "Capital of Peru?", "antwort": "Lima, by the sea, not far away"}])
    columns = ("--columns", "prompt=frage,answer=antwort")
    assert run(words, *columns)[0] == 3
    assert run(words, *columns, "--answer", "text")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a file"),
        (["--shape", "completions", "t.jsonl"], "did you mean `completion`?"),
        (["--columns", "prompt", "t.jsonl"], "role=column"),
        (["--columns", "promt=question", "t.jsonl"], "did you mean `prompt`?"),
        (["--rewards", "acuracy", "t.jsonl"], "accuracy"),
        (["--tasks", "arithmetics"], "`arithmetics`"),
        (["--write", "x.jsonl", "t.jsonl", "t.jsonl"], "--write"),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments: list[str], says: str) -> None:
    write("t.jsonl", GOOD)
    code, _, err = run(*arguments)
    assert code == 2
    assert says in err
    assert err.startswith("error: ")


def test_built_in_tasks_pass_their_own_check() -> None:
    code, out, err = run("--tasks", "arithmetic,general")
    assert code == 0, err
    assert out.count("accuracy 1, format 1") == 2


def test_many_rows_take_little_time() -> None:
    rows = [
        {"question": f"Tom has {n} apples and buys {n % 97} more.", "answer": f"#### {n + n % 97}"}
        for n in range(10_000)
    ]
    path = write("t.jsonl", rows)
    began = time.process_time()
    assert run(path)[0] == 0
    assert time.process_time() - began < 3  # half a second on a quiet machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model without its weights: context 512, and a chat template that knows no system turn."""
    folder = tmp_path_factory.mktemp("model")
    template, special, others = CHATS["gemma2"]
    write_tokenizer(folder, train_backend("bytes", special, others, 400), special[0], "<pad>", bos_token="<s>")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "gemma2", "max_position_embeddings": 512}')
    return str(folder)


def test_rows_are_measured_in_tokens_and_those_too_long_are_told(model: str) -> None:
    rows = [*GOOD, *({"question": "ab" * length, "answer": "5"} for length in (2000, 251))]
    code, out, err = run(write("t.jsonl", rows), "--model", model)
    assert code == 3
    assert "2 bad rows of 7: it does not fit the model" in err
    assert re.search(r"tokens: shortest \d+, median \d+, longest \d+", out)
    assert re.search(r"row 6: [\d,]{4,} tokens .* 512", err)
    assert re.search(r"row 7: 51\d tokens", err)


def test_a_conversation_that_the_template_cannot_hold_is_told(model: str) -> None:
    turns = [{"role": role, "content": "hi"} for role in ("system", "user", "assistant")]
    code, _, err = run(write("t.jsonl", [{"messages": turns[1:]}, {"messages": turns}]), "--model", model)
    assert code == 3
    assert "row 2: it does not fit the model" in err


def test_a_directory_without_a_model_is_told() -> None:
    Path("m").mkdir()
    assert run(write("t.jsonl", GOOD), "--model", "m")[0] in (2, 5)


def test_checking_data_needs_no_torch() -> None:
    write("t.jsonl", GOOD)
    program = "import sys; from temper.cli import main; print(main(['check', 't.jsonl']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


# -- rewards ----------------------------------------------------------------------------------------------------------

REWARDS_PY = """
import random
def brevity(prompt, reply): return 1.0 / (1 + len(reply.text)) if reply.text else 0.0
def right(prompt, reply): return float(reply.answer == prompt.gold)
def constant(prompt, reply): return 1.0
def noisy(prompt, reply): return random.random() + (reply.answer == prompt.gold)
def picky(prompt, reply): return float(reply.answer.startswith("7"))
def by_row(prompt, reply): return float(prompt.row["nums"] != [])
def nothing(prompt, reply): pass
def not_a_number(prompt, reply): return float("nan")
def unary(reply): return 1.0
def broken(prompt, reply): return prompt.nothing
"""


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("right", 0, ""),
        ("constant", 0, "an empty reply earns 1"),
        ("noisy", 0, "not deterministic"),
        ("picky", 0, "failed"),
        ("broken", 2, "fails on every reply"),
        ("by_row", 0, "it may need rows of its own"),
        ("nothing", 2, "got None"),
        ("not_a_number", 2, "nan"),
        ("unary", 2, "signature"),
        ("missing", 2, "missing"),
    ],
)
def test_a_reward_of_ones_own_is_looked_at_alone(name: str, code: int, says: str) -> None:
    Path("my.py").write_text(REWARDS_PY)
    exit_code, out, err = run(f"my.py:{name}")
    assert exit_code == code, err
    assert says in err
    assert (err == "") == (name == "right")
    assert f"my.py:{name}: " in out


def test_a_reward_of_ones_own_is_tried_on_the_rows() -> None:
    Path("my.py").write_text(REWARDS_PY)
    code, out, err = run(write("t.jsonl", GOOD), "--rewards", "accuracy,my.py:right,my.py:noisy,my.py:picky")
    assert code == 0, err
    assert "accuracy 1, my.py:right 1, my.py:noisy " in out
    assert "not deterministic" in err
    assert "the reward `my.py:picky` failed when it was tried" in err
    for name in ("broken", "nothing", "not_a_number", "missing"):
        assert run("t.jsonl", "--rewards", f"my.py:{name}")[0] == 2


# -- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_is_checked_with_its_files() -> None:
    recipe = "stages:\n  cold_start: {stage: sft, model: nowhere, data: chat.jsonl}\n"
    code, _, err = run(write("r.yaml", [recipe]))
    assert code in (2, 3, 5)
    assert "nowhere" in err
    assert run(write("empty.yaml", [""]))[0] == 2
    assert run("missing.yaml")[0] == 2


# -- the manual -------------------------------------------------------------------------------------------------------


def _blocks() -> Iterator[tuple[str, str]]:
    yield from re.findall(r"^```(\w+[^\n]*)\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_manual_are_true() -> None:
    shown = 0
    for title, body in _blocks():
        kind, _, name = title.partition(" ")
        if kind == "jsonl":
            Path(name).write_text(body, encoding="utf-8")
        elif kind == "console":
            command, _, expected = body.partition("\n")
            arguments = command.removeprefix("$ temper check ").split()
            _, out, err = run(*arguments)
            if expected:
                assert expected in (out + err, err)
                shown += 1
    assert shown >= 5


def test_columns_that_nobody_reads_are_named() -> None:
    rows = [{"question": "Make 5 of 2 and 3.", "nums": [2, 3], "answer": "5", "level": None}] * 2
    code, _, err = run(write("t.jsonl", [rows[0], {**rows[1], "question": "Make 6 of 2 and 3.", "answer": "6"}]))
    assert code == 0
    assert "note: columns that temper does not read: `nums`, `level`" in err
    assert '`prompt.row["nums"]`' in err
