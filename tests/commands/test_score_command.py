"""`temper score`: one row out for each row in, in order; bad rows told with file, line and column."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from reward_rows import DATA, answered, rows

from temper import cli
from temper.commands.score import read_row
from temper.rewards.accuracy import accuracy
from temper.rewards.worker import WORKER
from temper.text.reply import parse_reply
from temper.types import Message, Prompt

SOURCE = Path(cli.__file__).parents[1]
GOOD = {"id": "a", "prompt": "2+3", "reply": answered("5"), "gold": "5"}


def line(**changes) -> str:
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not ...}) + "\n"


@pytest.fixture
def score(tmp_path, monkeypatch, capfd):
    """Runs the command on a file's bytes, or on standard input; gives (exit code, rows out, standard error)."""

    def run(data: bytes | str, *options: str, stdin: bool = False):
        data = data.encode() if isinstance(data, str) else data
        file = tmp_path / "rows.jsonl"
        file.write_bytes(data)
        if stdin:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = cli.main(["score", *options, "-" if stdin else str(file)])
        printed = capfd.readouterr()
        return code, [json.loads(row) for row in printed.out.splitlines()], printed.err

    return run


def test_every_case_of_the_families_in_order(score):
    cases = rows("reward_cases.jsonl") + rows("reward_families.jsonl")
    data = (DATA / "reward_cases.jsonl").read_bytes() + (DATA / "reward_families.jsonl").read_bytes()
    code, out, err = score(data, "--rewards", "accuracy,format")
    assert (code, err) == (0, "")
    assert [row["id"] for row in out] == [case["id"] for case in cases]
    for row, case in zip(out, cases, strict=True):
        assert all(case[name] is None or row[name] == case[name] for name in ("accuracy", "format")), case
        assert (row["verdict"] == "correct") == (row["accuracy"] == 1)
        assert list(row) == ["id", "accuracy", "format", "total", "verdict"]


@pytest.mark.parametrize("stdin", [False, True])
def test_rewards_weights_and_verdicts(score, stdin):
    data = line() + line(reply=answered("6")) + line(reply="no idea", id=...) + line(reply=answered(" "), id=7)
    code, out, _ = score(data, "--rewards", "accuracy,format,tag_count", "--weights", "1.0,0.1,0.05", stdin=stdin)
    assert code == 0
    assert [row["total"] for row in out] == pytest.approx([1.15, 0.15, 0.0, 0.05])
    assert [row["verdict"] for row in out] == ["correct", "wrong", "no_answer", "no_answer"]
    assert [row.get("id") for row in out] == ["a", "a", None, 7]


def test_the_default_rewards_are_accuracy_and_format(score):
    assert score(line())[1] == [{"id": "a", "accuracy": 1.0, "format": 1.0, "total": 2.0, "verdict": "correct"}]


def test_text_answers_and_languages(score):
    data = line(gold="Paris", reply="<think>Das ist gut.</think><answer>paris</answer>")
    code, (row,), _ = score(
        data, "--answer-type", "text", "--language", "de", "--rewards", "accuracy,language_consistency"
    )
    assert (code, row["accuracy"], row["language_consistency"], row["verdict"]) == (0, 1.0, 1.0, "correct")


def test_the_verdict_needs_no_accuracy_reward(score):
    _, (row,), _ = score(line(), "--rewards", "format")
    assert (row["total"], row["verdict"]) == (1.0, "correct")


BAD = [
    (line(gold="2+"), 1, "`gold` cannot be verified"),
    (line(gold=" "), 1, "`gold` is empty"),
    (line(gold="It depends on who asks"), 1, "`gold` cannot be verified"),
    (line(gold="\\boxed{5"), 1, "`gold` cannot be verified"),
    (line(gold=5), 1, "`gold` is not a string"),
    (line(reply=None), 1, "`reply` is not a string"),
    (line(prompt=[]), 1, "`prompt` is not a string"),
    (line(reply=...), 1, "no `reply`"),
    (line(gold=..., Gold="5"), 1, "no `gold`"),
    ("[1, 2]\n", 1, "not an object"),
    ("null\n", 1, "not an object"),
    ('"text"\n', 1, "not an object"),
    ('{"prompt": "a", x}\n', 17, "not valid JSON"),
    ('{"prompt": "a"\n', 15, "not valid JSON"),
    (line().strip() + " {}\n", len(line()) + 1, "not valid JSON"),
    ('{"prompt": NaN}\n', 1, "not valid JSON"),
    (line().replace('"gold"', '"prompt"'), 1, "duplicate key"),
    ('{"prompt": "caf\udce9"}\n'.encode("utf-8", "surrogateescape"), 16, "not UTF-8"),
    (b"\xff\xfe{\x00}\x00\n", None, "UTF-16"),
    ("[" * 100_000 + "\n", 1, "not"),
]


@pytest.mark.parametrize(("bad", "column", "what"), BAD, ids=[str(bad)[:30] for bad, _, _ in BAD])
def test_a_bad_row_is_told_with_file_line_and_column(score, bad, column, what, tmp_path):
    bad = bad.encode() if isinstance(bad, str) else bad
    if column is None:
        code, out, err = score(bad)
        assert (code, out) == (3, [])
        assert what in err
        return
    code, out, err = score(line().encode() + b"\n" + bad + line(id="z").encode())
    assert code == 3
    assert f"{tmp_path / 'rows.jsonl'}:3:{column}\n" in err
    assert what in err
    assert "Traceback" not in err
    assert [row["verdict"] for row in out] == ["correct", "error", "correct"]
    assert out[1]["accuracy"] is None
    assert what in out[1]["error"]


def test_all_bad_rows_are_told_together(score):
    code, out, err = score(line(gold="x+") + line() + "{\n" + line(reply=...))
    assert (code, len(out)) == (3, 4)
    assert all(what in err for what in ("`gold` cannot be verified", "not valid JSON", "no `reply`"))


@pytest.mark.parametrize("data", ["", "\n\n", "\ufeff"])
@pytest.mark.parametrize("stdin", [False, True])
def test_nothing_to_score_is_an_error(score, data, stdin):
    code, out, err = score(data, stdin=stdin)
    assert (code, out) == (3, [])
    assert "0 rows" in err


def test_a_byte_order_mark_and_carriage_returns_are_passed_over(score):
    for stdin in (False, True):
        code, out, _ = score(("\ufeff" + line() + line()).replace("\n", "\r\n"), stdin=stdin)
        assert (code, len(out)) == (0, 2)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--rewards", "acuracy"], "did you mean `accuracy`?"),
        (["--rewards", ""], "no rewards"),
        (["--rewards", "accuracy,accuracy"], "named twice"),
        (["--weights", "1.0"], "1 weights for 2 rewards"),
        (["--weights", "1.0,x"], "--weights"),
        (["--weights", "1.0,nan"], "not a finite number"),
        (["--weights", ""], "--weights"),
        (["--language", "klingon"], "klingon"),
        (["--answer-type", "poem"], "poem"),
        (["--rewards", "gone.py:f"], "no such reward file"),
    ],
)
def test_wrong_options_are_told_before_anything_is_scored(score, options, what):
    code, out, err = score(line(), *options)
    assert (code, out) == (2, [])
    assert what in err


def test_missing_and_foreign_files_are_data_errors(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("prompt,reply,gold\n")
    for file in (tmp_path / "gone.jsonl", tmp_path, tmp_path / "table.csv"):
        assert cli.main(["score", str(file)]) == 3
        assert str(file) in capsys.readouterr().err


# -- rewards of a user's own ------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path):
    def written(body: str) -> str:
        (tmp_path / "mine.py").write_text(f"def mine(prompt, reply):\n    {body}\n")
        return f"{tmp_path / 'mine.py'}:mine"

    return written


def test_a_reward_of_ones_own_is_scored_beside_the_others(score, mine):
    WORKER.close()  # the process prints where the one that started it did
    name = mine("print('hello'); return len(prompt.gold) / 2")
    code, (row,), err = score(line(), "--rewards", f"accuracy,{name}", "--weights", "1,2")
    assert (code, row["accuracy"], row[name], row["total"]) == (0, 1.0, 0.5, 2.0)
    assert "hello" in err  # what it prints is no result


def test_a_reward_that_raises_on_a_row_scores_0_and_is_told(score, mine):
    name = mine("assert prompt.id != 'b', 'not b'; return 1.0")
    code, out, err = score(line() + line(id="b"), "--rewards", f"accuracy,{name}")
    assert (code, [row[name] for row in out]) == (0, [1.0, 0.0])
    assert [row["verdict"] for row in out] == ["correct", "error"]
    assert "warning:" in err
    assert "b: AssertionError: not b" in err


@pytest.mark.parametrize("value", ["'x'", "float('nan')", "[1.0]", "-1e308"])
def test_a_reward_that_gives_no_number_is_a_config_error(score, mine, value):
    code, _, err = score(line(), "--rewards", mine(f"return {value}"))
    assert code == 2
    assert "expected one finite float" in err
    code, _, err = score(line() + line(id="b"), "--rewards", mine(f"return {value} if prompt.id == 'b' else 1.0"))
    assert code == 2
    assert "rows.jsonl:2" in err


def test_a_reward_that_does_not_apply_is_null_and_none_at_all_is_an_error(score, mine):
    name = mine("return None if prompt.id == 'b' else 0.5")
    code, out, _ = score(line() + line(id="b"), "--rewards", f"accuracy,{name}")
    assert (code, [(row[name], row["total"]) for row in out]) == (0, [(0.5, 1.5), (None, 1.0)])
    code, _, err = score(line(), "--rewards", mine("pass"))
    assert code == 2
    assert "got None for every row" in err


def test_a_reward_that_fails_on_every_row_is_an_error(score, mine):
    code, out, err = score(line() * 2, "--rewards", mine("return nonsense"))
    assert (code, len(out)) == (2, 2)
    assert "failed on every row" in err
    assert "mine.py:2" in err


def test_a_reward_that_changes_its_mind_is_warned_about(score, mine):
    code, out, err = score(line(), "--rewards", mine("import random; return random.random()"))
    assert (code, len(out)) == (0, 1)
    assert "not deterministic" in err


def test_a_pipe_is_answered_row_by_row():
    command = [sys.executable, "-m", "temper", "score", "-"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(line(id=number).encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number  # before the next row is there
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("form", "reply", "accuracy", "formed"),
    [
        ("think", "<think>2+3</think>\n\nIt is \\boxed{5}.", 1, 1),
        ("think", "2+3 is five</think>\n\n5", 1, 1),
        ("think", "<think>It is \\boxed{5}.</think>", 0, 0),
        ("plain", "\\boxed{5}", 1, 1),
        ("tags", "\\boxed{5}", 0, 0),
    ],
)
def test_the_form_in_which_replies_are_read_is_an_option(score, form, reply, accuracy, formed):
    code, [row], _ = score(line(reply=reply), "--reply", form)
    assert (code, row["accuracy"], row["format"]) == (0, accuracy, formed)


# -- rows by the names that data files have ---------------------------------------------------------------------------


def test_rows_go_by_the_names_of_data_files(score):
    rows = [
        {"question": "2+3?", "completion": "<think>a b</think><answer>5</answer>", "answer": "2+3=5\n#### 5"},
        {"problem": "2+3?", "reply": "<think>a b</think><answer>5</answer>", "solution": "It is \\boxed{5}."},
        {"prompt": "Which?", "reply": "<think>a</think><answer>Rome</answer>", "gold": "rome", "answer_type": "text"},
    ]
    code, out, err = score("\n".join(map(json.dumps, rows)))
    assert code == 0, err
    assert [row["verdict"] for row in out] == ["correct"] * 3
    code, out, _ = score(json.dumps({**rows[0], "answer_type": "maths"}))
    assert (code, out[0]["verdict"]) == (3, "error")


def test_rows_without_gold_are_scored_where_no_reward_asks_for_it(score, mine):
    row = json.dumps({"prompt": "Write a poem.", "reply": "<think>a b</think><answer>sea</answer>", "topic": "sea"})
    name = mine("return float(prompt.row['topic'] in reply.text)")
    code, out, err = score(row, "--rewards", f"format,{name}")
    assert code == 0, err
    assert (out[0]["total"], out[0]["verdict"]) == (2.0, "open")
    assert score(row)[0] == 3


AS_PEOPLE_HAVE_THEM = [
    {"problem": "2+3?", "response": "$\\boxed{5}$", "solution": "It is \\boxed{5}."},
    {"prompt": [{"role": "user", "content": "2+3?"}], "completion": [{"role": "assistant", "content": "5"}],
     "reward_model": {"ground_truth": "5", "style": "rule"}, "data_source": "sums"},
    {"messages": [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "5"}], "ground_truth": "5"},
    {"conversations": [{"from": "human", "value": "2+3?"}, {"from": "gpt", "value": "5"}], "answer": 5},
    {"question": "2+3?", "choices": ["1", "5", "7", "9"], "reply": "B", "answer": 1},
    {"instruction": "2+3?", "output": "5", "expected_answer": "5 (apples)"},
]  # fmt: skip


@pytest.mark.parametrize("row", AS_PEOPLE_HAVE_THEM, ids=lambda row: next(iter(row)))
def test_rows_are_read_as_people_have_them(row: dict) -> None:
    read, mistake = read_row(json.dumps(row).encode(), 0, "math")
    assert mistake is None
    assert read["prompt"] == "2+3?"
    prompt = Prompt("1", "t", (Message("user", read["prompt"]),), read["gold"])
    assert accuracy(prompt, parse_reply(read["reply"], form="plain")) == 1.0
