"""The report is one file that asks nothing of the network, says what the run knows, and never runs a model's text."""

from __future__ import annotations

import json
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from temper import cli
from temper.report import sections
from temper.report.completions import completions
from temper.report.curves import main_curves, more_curves
from temper.report.gather import TASK_KEYS, gather
from temper.report.html import page, write
from temper.report.picks import pick
from temper.report.table import render
from temper.sealed import read_sealed, read_sealed_text, seal, seal_text

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> \x1b[31m\u202e</main>"
LIMIT = 5_000_000


class Reader(HTMLParser):
    """Collects tags, attributes that fetch something, and text; and checks that tags nest."""

    VOID = ("meta", "link", "img", "br", "hr", "input", "base", "source")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.fetches: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        wanted = ("src", "href", "action", "data", "srcset", "xlink:href", "poster")
        inside = tag == "a" and str(dict(attrs).get("href")).startswith("#")  # the list of contents
        self.fetches += [value or "" for name, value in attrs if name in wanted and not inside]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def finished(finished_run: Path) -> str:
    return write(finished_run).read_text("utf-8")


def edited(source: Path, target: Path, name: str, change) -> Path:
    """A copy of a run with one file changed."""
    shutil.copytree(source, target)
    for path in target.glob(name):
        path.write_text(change(path.read_text("utf-8")), encoding="utf-8")
    return target


def check_self_contained(text: str) -> None:
    read = Reader(text)
    assert read.fetches == []
    assert read.handlers == []
    assert not re.search(r"@import|url\((?!#)|<link|<iframe|<object|<embed|fetch\(|XMLHttpRequest|WebSocket", text)
    assert "default-src 'none'" in text
    assert len(text.encode()) < LIMIT


def test_the_page_is_self_contained_and_small(finished):
    check_self_contained(finished)
    assert Reader(finished).tags.count("script") == 1


def test_a_long_run_stays_below_five_megabytes(finished_run, tmp_path):
    rows = [{"step": s, "of": 20_000, **dict.fromkeys(("loss", "reward/total"), 0.5)} for s in range(1, 20_001)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    run = edited(finished_run, tmp_path / "run", "stages/*-reasoning_rl/metrics.jsonl", lambda _: lines)
    sample = {"reply": "word " * 40_000, "rewards": {"accuracy": 1.0}, "total": 1.0, "prompt": "x" * 100_000}
    for path in run.glob("artifacts/*/samples/*.jsonl"):
        path.write_text((json.dumps(sample) + "\n") * 20, encoding="utf-8")
    check_self_contained(page(gather(run)))


def test_every_string_of_a_run_is_escaped(finished_run, tmp_path):
    run = edited(finished_run, tmp_path / "run", "nothing", str)
    (run / "run.json").write_bytes(seal("run.json", {**read_sealed(run / "run.json"), "recipe": HOSTILE}))
    for path in run.glob("artifacts/*/samples/*.jsonl"):
        row = {
            **json.loads(path.read_text("utf-8").splitlines()[0]),
            "rewards": {HOSTILE: 1.0},
            "finish_reason": HOSTILE,
        }
        row |= dict.fromkeys(("prompt", "gold", "reply"), HOSTILE)
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    evaluation = next(run.glob("artifacts/*/evaluation.json"))
    told = json.loads(evaluation.read_text("utf-8"))
    told["claims"][0] |= {"claim": HOSTILE, "target": HOSTILE}
    told["models"][0]["stage"] = HOSTILE
    told["models"][0]["tasks"][HOSTILE] = told["models"][0]["tasks"].pop("general")
    evaluation.write_text(json.dumps(told), encoding="utf-8")
    recipe = run / "recipe.resolved.yaml"
    hostile = f"description: {json.dumps(HOSTILE)}\n"
    recipe.write_bytes(seal_text(recipe.name, read_sealed_text(recipe) + hostile))
    work = next(run.glob("stages/*-reasoning_rl"))
    warning = {"step": 1, "key": "k", "level": 'x" onclick="y', "text": HOSTILE}
    (work / "warnings.jsonl").write_text(json.dumps(warning) + "\n", encoding="utf-8")
    text = page(gather(run))
    check_self_contained(text)
    read = Reader(text)
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert "alert(1)" in read.text  # it is shown, as text


def test_the_page_shows_each_part_the_run_has(finished):
    read = Reader(finished)
    for wanted in ("Pipeline", "Results on held-out problems", "Claims", "Training", "Completions", "Cost", "Settings"):
        assert wanted in read.text
    for wanted in (
        "KL to the reference",
        "Dead groups",
        "Pass rate of the groups",
        "Reflection words",
        "Loss",
        "0.476–0.564",
    ):
        assert wanted in read.text
    for rank in ("best", "median", "worst"):
        assert rank in read.text
    assert "6 of 7 claims hold" in read.text


def test_the_contents_lead_to_every_section(finished):
    titles = re.findall(r'<section[^>]* id="([^"]+)"[^>]*><h2>([^<]*)</h2>', finished)
    links = re.findall(r'<a href="#([^"]+)">([^<]*)</a>', finished)
    assert links == titles
    assert len(links) == finished.count("<section") > 5


def test_the_head_says_when_what_size_and_by_which_command(finished_run, tmp_path):
    data = gather(finished_run)
    data["run"] |= {"started": "2026-11-27T10:00:00+0000", "command": ["temper", "run", "tiny", "--set", "seed=<1>"]}
    data["stages"][2]["parameters"] = 1_540_000_000
    text = Reader(page(data)).text
    assert "2026-11-27 10:00" in text
    assert "1.5 billion parameters" in text
    assert "temper run tiny --set 'seed=<1>'" in text


def test_warnings_are_those_of_explain_to_the_letter(finished_run, finished, capsys):
    assert cli.main(["explain", str(finished_run), "--json"]) == 0
    told = [f["text"] for stage in json.loads(capsys.readouterr().out)["stages"] for f in stage["findings"]]
    assert told
    assert all(escape(text) in finished for text in told)


def test_equal_replies_are_shown_once_with_their_number():
    rows = [{"prompt_id": "a:1", "reply": "4", "total": 1.0, "sample": i} for i in range(30)]
    shown = pick(rows)
    assert [(row["rank"], row["equal"]) for row in shown[:1]] == [("worst", 30)]
    assert len(shown) <= 4  # the three that stand open, and one for all others
    assert "30 equal replies" in completions({"samples": {"rl": {"sums": shown}}})


def test_every_setting_says_where_it_came_from(finished_run, finished):
    stages = {stage["name"]: stage["config"] for stage in gather(finished_run)["stages"]}
    told = {item["key"]: item["origin"] for item in stages["final_rl"]}
    assert told["learning_rate"] == "--set"
    assert told["top_p"] == "default"
    assert told["max_steps"].startswith("recipe tiny.yaml:")
    assert "recipe tiny.yaml:" in finished


def test_an_unfinished_run_has_a_report_that_says_what_is_missing(stopped_run):
    text = write(stopped_run).read_text("utf-8")
    check_self_contained(text)
    read = Reader(text)
    assert "reasoning_rl: running, step 20 of 60" in read.text
    assert "not started: harvest, second_sft, final_rl, report" in read.text
    assert "nothing has been evaluated yet" in read.text


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "recipe.resolved.yaml",
        "artifacts/*/evaluation.json",
        "artifacts/*/samples/*",
        "stages/*/metrics.jsonl",
    ],
)
def test_torn_and_absent_files_never_stop_a_report(finished_run, tmp_path, name):
    torn = edited(finished_run, tmp_path / "torn", name, lambda text: text[: len(text) * 2 // 3])
    check_self_contained(page(gather(torn)))
    nothing = edited(finished_run, tmp_path / "nothing", name, lambda _: "")
    check_self_contained(page(gather(nothing)))
    for path in list(nothing.glob(name)):
        path.unlink()
    check_self_contained(page(gather(nothing)))


def test_an_empty_directory_has_a_report(tmp_path):
    check_self_contained(page(gather(tmp_path)))


def test_the_json_has_exactly_the_promised_keys(finished_run):
    data = json.loads(json.dumps(gather(finished_run), allow_nan=False, default=str))
    promised = {
        "recipe",
        "seed",
        "cpu_seconds",
        "wall_seconds",
        "peak_memory_bytes",
        "models",
        "stages",
        "claims",
        "samples",
    }
    assert promised <= set(data)
    assert (data["recipe"], data["seed"]) == ("tiny", 0)
    assert [model["stage"] for model in data["models"]] == [
        "base",
        "cold_start",
        "reasoning_rl",
        "second_sft",
        "final_rl",
    ]
    for model in data["models"]:
        assert set(model) == {"stage", "tasks"}
        assert set(model["tasks"]) == {"arithmetic", "general"}
        for scores in model["tasks"].values():
            assert list(scores)[: len(TASK_KEYS)] == list(TASK_KEYS)
    arithmetic = data["models"][-1]["tasks"]["arithmetic"]
    assert (arithmetic["n"], arithmetic["k"], arithmetic["accuracy"]) == (500, 4, 0.958)
    assert len(arithmetic["accuracy_interval"]) == 2


def test_metrics_are_columns_of_equal_length(finished_run):
    stages = {stage["name"]: stage for stage in gather(finished_run)["stages"]}
    metrics = stages["reasoning_rl"]["metrics"]
    assert metrics["step"] == list(range(1, 61))
    assert {len(column) for column in metrics.values()} == {60}


def test_edges_tell_models_from_data(finished_run):
    inputs = {
        stage["name"]: {(i["stage"], i["carries"]) for i in stage["inputs"]} for stage in gather(finished_run)["stages"]
    }
    assert inputs["second_sft"] == {("base", "model"), ("harvest", "data")}
    assert inputs["reasoning_rl"] == {("cold_start", "model"), ("world", "data")}


def test_completions_run_from_the_worst_to_the_best(finished_run):
    rows = gather(finished_run)["samples"]["cold_start"]["arithmetic"]
    totals = [row["total"] for row in rows]
    assert totals == sorted(totals)
    assert [rows[0]["rank"], rows[len(rows) // 2]["rank"], rows[-1]["rank"]] == ["worst", "median", "best"]


def test_a_kind_of_stage_that_nobody_foresaw_has_a_curve_for_each_of_its_numbers():
    columns = {"step": [1, 2], "loss": [2.0, 1.0], "held_out/accuracy": [0.5, 0.7], "words": ["a", "b"], "of": [2, 2]}
    titles = [re.search("<figcaption>([^<]*)", chart)[1].strip() for chart in main_curves("preferences", columns)]
    assert titles == ["Loss", "held_out/accuracy"]
    ppo = {"step": [1, 2], "reward/total": [0.1, 0.2], "value/loss": [1.0, 0.5], "value/return": [0.1, 0.2]}
    drawn = "".join(main_curves("ppo", ppo) + more_curves("ppo", ppo))
    assert all(title in drawn for title in ("Reward, total", "Value loss", "value/return"))


def test_pass_at_several_k_is_a_curve_a_model_and_differences_have_their_intervals():
    def scores(*values: float) -> dict:
        ks = zip(("1", "16", "64"), values, strict=True)
        pass_at = {k: {"value": value, "interval": [value - 0.1, value + 0.1]} for k, value in ks}
        return {"accuracy": values[0], "pass_at": pass_at}

    models = [{"stage": "base", "tasks": {"sums": scores(0.1, 0.6, 0.9)}},
              {"stage": "rl", "tasks": {"sums": scores(0.7, 0.75, 0.8)}}]  # fmt: skip
    rows = [{"model": "rl", "against": "base", "task": "sums", "difference": 0.6, "interval": [0.5, 0.7], "better": 30,
             "worse": 2}, {"model": "rl", "against": "base", "task": "torn"}]  # fmt: skip
    data = {"models": models, "tasks": ["sums"], "comparisons": rows}
    chart = sections.pass_at(data)
    assert all(text in chart for text in ("pass@k on sums", "k = 64", "base 0.900 (0.800 to 1.000)", "rl 0.800"))
    table = sections.comparisons(data)
    assert "rl − base" in table
    assert "+0.600" in table
    assert "+0.500 to +0.700" in table
    assert "torn" not in table
    text = render({"models": models}, encoding="utf-8")
    assert text.splitlines()[0].split()[:4] == ["stage", "accuracy", "pass@16", "pass@64"]
    assert text.splitlines()[1].split()[:4] == ["base", "0.100", "0.600", "0.900"]
    one = [{"stage": "base", "tasks": {"sums": {"accuracy": 0.1, "pass_at": {"4": {"value": 0.2}}}}}]
    assert "pass@" not in render({"models": one}, encoding="utf-8") + sections.pass_at(data | {"models": one})
