"""`.eval` files: Inspect's own reader finds every completion, score and setting in them."""

from __future__ import annotations

import json
import zipfile
from importlib import util

import pytest

from temper import cli
from temper.report.inspectlog import Ids, sample_of, write_log

ROWS = [
    {
        "prompt_id": "sums:1", "task": "sums", "prompt": "2+3", "gold": "5", "finish_reason": "stop", "tokens": 9,
        "reply": "<think>2+3</think><answer>5</answer>", "rewards": {"accuracy": 1.0, "format": 1.0}, "total": 1.1,
    },
    {
        "prompt_id": "sums:1", "task": "sums", "prompt": "2+3", "gold": "5", "finish_reason": "length", "tokens": 3,
        "reply": "\ud800 no</think>", "rewards": {"accuracy": 0.0, "format": None}, "total": 0.0, "sample": 1,
    },
    {"prompt_id": "../etc/x y", "prompt": "?", "reply": "", "rewards": {}, "total": float("nan")},
]  # fmt: skip


def test_the_rows_of_a_prompt_are_epochs_of_one_sample():
    ids = Ids()
    samples = [sample_of(row, "m", ids) for row in ROWS]
    assert [(sample["id"], sample["epoch"]) for sample in samples] == [("sums:1", 1), ("sums:1", 2), ("_etc_x_y", 1)]
    assert samples[0]["messages"][1]["content"][0] == {"type": "reasoning", "reasoning": "2+3"}
    assert samples[1]["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert samples[2]["scores"] == {}


def test_no_name_in_the_archive_leaves_its_folder(tmp_path):
    write_log(tmp_path / "a.eval", ROWS, task="sums", model="m", metadata={})
    names = zipfile.ZipFile(tmp_path / "a.eval").namelist()
    assert all("/.." not in name and " " not in name for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.eval"]


@pytest.mark.skipif(util.find_spec("inspect_ai") is None, reason="inspect-ai is not installed")
def test_inspect_reads_every_sample_whole(tmp_path):
    from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries

    path = tmp_path / "a.eval"
    assert write_log(path, ROWS, task="sums", model="temper/tiny", metadata={"seed": 0}) == 3
    log = read_eval_log(str(path))
    assert (log.status, log.eval.model, log.eval.metadata) == ("success", "temper/tiny", {"seed": 0})
    first = next(sample for sample in log.samples if (sample.id, sample.epoch) == ("sums:1", 1))
    assert first.scores["accuracy"].value == 1.0
    assert first.output.completion.endswith("<answer>5</answer>")
    assert first.metadata == {"tokens": 9}
    assert {score.name: score.metrics["mean"].value for score in log.results.scores}["accuracy"] == 0.5
    assert len(read_eval_log_sample_summaries(str(path))) == 3
    assert len(list_eval_logs(str(tmp_path))) == 1


def test_a_run_is_exported_model_by_model_and_with_its_rollouts(finished_run, tmp_path, capsys):
    assert cli.main(["export-log", str(finished_run), str(tmp_path / "logs"), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert any(name.endswith("cold_start.arithmetic.eval") for name in files)
    assert cli.main(["export-log", str(finished_run), str(tmp_path / "all"), "--rollouts", "--json"]) == 0
    more = json.loads(capsys.readouterr().out)["files"]
    assert len(more) > len(files)
    held = zipfile.ZipFile(files[0]).read("header.json")
    assert json.loads(held)["eval"]["metadata"]["recipe"]
