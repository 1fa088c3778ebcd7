"""The page's server: who gets in, what each view is told; a hostile run or another site gets nowhere."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from demo_runs import HOSTILE, RECIPE, add_evaluation, completion, make_run
from model_zoo import make

from temper.artifacts import begin, seal
from temper.cli import main
from temper.record.rollouts import write_rows
from temper.sealed import seal_text
from temper.ui.library import id_of

ASSETS = Path(__file__).parents[2] / "src/temper/ui/assets"


@pytest.fixture(scope="module")
def run(runs) -> str:
    return id_of((runs / "demo-1").resolve())


# -- who gets in ------------------------------------------------------------------------------------------------------


def test_a_link_opens_one_browser_once(serve_page, runs) -> None:
    page = serve_page(runs)
    assert page.ask("/")[0] == 401
    assert page.ask("/api/runs")[0] == 401
    assert page.ask("/enter?token=guess")[0] == 401
    first = page.links[-1]
    _, _, headers = page.ask(f"/enter?token={first}")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert page.ask(f"/enter?token={first}")[0] == 401  # used up
    assert page.links[-1] != first
    page.cookie = cookie.partition(";")[0]
    assert page.ask("/")[0] == 200
    assert page.ask("/enter?token=anything")[0] == 200  # the browser that is in already
    page.cookie = cookie.partition(";")[0][:-1] + "x"
    assert page.ask("/")[0] == 401


def test_every_answer_forbids_what_the_page_does_not_need(page) -> None:
    for path in ("/", "/main.js", "/page.css", "/api/runs", "/no-such", "/enter?token=x"):
        _, _, headers = page.ask(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
    ],
)
def test_another_site_gets_nothing_done(page, run, headers, status) -> None:
    body = {"messages": [{"role": "user", "content": "?"}]}
    assert page.ask(f"/api/runs/{run}/chat/rl", "POST", body, **headers)[0] == status


def test_nothing_but_the_page_is_served(page) -> None:
    for path in (
        "/../app.py",
        "/%2e%2e/app.py",
        "/..%2fapp.py",
        "/__init__.py",
        "/index.html/../../app.py",
        "/etc/passwd",
    ):
        assert page.ask(path)[0] == 404
    assert page.ask("/", "POST", {})[0] == 405
    assert page.ask("/api/runs", "DELETE", {})[0] == 405


def test_the_page_is_small_and_needs_no_other_host() -> None:
    files = [path for path in ASSETS.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
        assert [line for line in text.splitlines() if "http" in line and "www.w3.org" not in line] == []
        assert " style=" not in text
        assert "<script>" not in text


# -- what the views are told ------------------------------------------------------------------------------------------


def test_the_overview_has_every_run_by_a_number(page, runs, run) -> None:
    found = {entry["name"]: entry for entry in page.get("/api/runs")}
    assert set(found) == {"demo-1", "demo-2"}
    assert found["demo-1"]["id"] == run
    assert found["demo-1"]["state"] == "done"
    assert found["demo-2"]["state"] == "stopped"  # it says that it runs, and nobody holds its lock
    assert str(runs) not in json.dumps(page.get("/api/runs"))


def test_a_run_that_goes_on_tells_where_it_is(page, runs) -> None:
    from temper.record.rundir import Lock

    lock = Lock(runs / "demo-2" / "lock")
    try:
        [live] = [entry for entry in page.get("/api/runs") if entry["name"] == "demo-2"]
        assert live["state"] == "running"
        assert (live["now"]["steps"], live["now"]["planned_steps"]) == (20, 30)
        assert live["now"]["eta"] == pytest.approx(20.0)
        curves = page.get(f"/api/runs/{live['id']}/curves/rl?after=18")
        assert curves["metrics"]["step"] == [19, 20]
        with (runs / "demo-2/stages/01-rl/metrics.jsonl").open("a") as file:
            file.write('{"step": 21, "of": 30, "reward/total": 0.7, "seconds": 2.0}\n')
        assert page.get(f"/api/runs/{live['id']}/curves/rl?after=20")["metrics"]["reward/total"] == [0.7]
    finally:
        lock.release()


def test_settings_come_with_their_origin_and_without_secrets(page, run) -> None:
    told = page.get(f"/api/runs/{run}")
    [stage] = told["settings"]
    settings = {entry["key"]: entry for entry in stage["config"]}
    assert settings["learning_rate"]["value"] == 0.001
    assert "origin" in settings["learning_rate"]
    assert "hunter22" not in json.dumps(told)
    assert "hf_abcdefghijklmnop" not in json.dumps(told)


def test_settings_that_json_has_no_number_for_are_told_as_text(serve_page, tmp_path) -> None:
    path = make_run(tmp_path / "demo")
    text = RECIPE.replace("max_steps: 30", "max_steps: 30, max_grad_norm: .inf, clip_range: .nan")
    (path / "recipe.resolved.yaml").write_bytes(seal_text("recipe.resolved.yaml", text))
    page = serve_page(tmp_path)
    page.enter()
    [stage] = page.get(f"/api/runs/{id_of(path.resolve())}")["settings"]
    assert {"inf", "nan"} <= {entry["value"] for entry in stage["config"] if isinstance(entry["value"], str)}


def test_completions_are_filtered_paged_and_exported(page, run) -> None:
    facets = page.indexed(run)
    assert facets["rows"] == 40
    assert [at["step"] for at in facets["stages"][0]["steps"]] == [10, 20]
    assert facets["rewards"] == ["accuracy", "format"]
    found = page.get(f"/api/runs/{run}/completions?stage=rl&step=10&verdict=wrong")
    wrong = [c for p in range(5) for s in range(4) if (c := completion(10, p, s))["rewards"]["accuracy"] == 0]
    assert found["total"] == len(wrong)
    assert [row["reply"] for row in found["rows"]] == [row["reply"] for row in wrong]
    searched = page.get(f"/api/runs/{run}/completions?text=carry+the+3&truncated=yes")
    truncated = [completion(step, p, 3) for step in (10, 20) for p in range(5)]
    assert searched["total"] == sum("3" in re.findall(r"\d+", c["prompt"] + c["reply"]) for c in truncated)
    group = page.get(f"/api/runs/{run}/group/{found['rows'][0]['id']}")
    assert [row["sample"] for row in group["rows"]] == [0, 1, 2, 3]
    assert len(group["elsewhere"]) == 2
    bins = page.get(f"/api/runs/{run}/histogram?of=format&verdict=wrong&step=10")["bins"]
    assert sum(bin[2] for bin in bins) == len(wrong)
    status, lines, headers = page.ask(f"/api/runs/{run}/export?step=10")
    assert status == 200
    assert "attachment" in headers["content-disposition"]
    assert len(lines.splitlines()) == 20
    logged = page.raw(f"/api/runs/{run}/export?step=10&verdict=wrong&as=eval")
    with zipfile.ZipFile(io.BytesIO(logged)) as archive:
        samples = [json.loads(archive.read(name)) for name in archive.namelist() if name.startswith("samples/")]
        header = json.loads(archive.read("header.json"))
    assert sorted(sample["output"]["completion"] for sample in samples) == sorted(row["reply"] for row in wrong)
    assert header["eval"]["metadata"]["filter"]["verdict"] == "wrong"
    assert page.ask(f"/api/runs/{run}/export?as=pdf")[0] == 400


def test_the_diagnosis_is_that_of_explain(page, run, runs, capsys) -> None:
    assert main(["explain", str(runs / "demo-1"), "--json"]) == 0
    assert page.get(f"/api/runs/{run}/explain") == json.loads(capsys.readouterr().out)["stages"]


def test_two_measured_models_are_paired_and_what_flipped_is_found(serve_page, tmp_path, capsys) -> None:
    path = make_run(tmp_path / "demo")
    add_evaluation(path, {"rl": (True, True, True, False), "base": (True, False, False, False)})
    page = serve_page(tmp_path)
    page.enter()
    number = id_of(path.resolve())
    [run] = page.get("/api/runs")
    assert [model["stage"] for model in run["models"]] == ["rl", "base"]
    assert run["claims"][0]["holds"]
    found = page.get(f"/api/compare?a_run={number}&a_stage=rl&b_run={number}&b_stage=base")
    assert main(["compare", f"{path}:rl", f"{path}:base", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]["sums"]
    assert told.items() <= found["tasks"]["sums"].items()
    assert [row["prompt_id"] for row in found["tasks"]["sums"]["flipped"]] == ["sums:1", "sums:2"]
    page.indexed(number)
    flipped = page.get(f"/api/runs/{number}/completions?stage=rl&task=sums&step=-1&prompt_id=sums:2")
    assert [row["prompt_id"] for row in flipped["rows"]] == ["sums:2"]


def test_a_prompt_is_found_in_another_run(serve_page, tmp_path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", steps=(7,))
    rows = [{**completion(7, p, s), "prompt": "something else"} for p in (1,) for s in range(2)]
    write_rows(make_run(tmp_path / "c", steps=()) / "stages/01-rl/rollouts/step-000007.jsonl.gz", rows)
    page = serve_page(tmp_path)
    page.enter()
    numbers = [id_of(path.resolve()) for path in (first, second, tmp_path / "c")]
    for number in numbers:
        page.indexed(number)
    row = page.get(f"/api/runs/{numbers[0]}/completions?step=10&prompt_id=sums:1&task=sums")["rows"][0]
    there = page.get(f"/api/runs/{numbers[1]}/prompt?of={numbers[0]}&row={row['id']}")["elsewhere"]
    assert [(at["stage"], at["step"], at["count"]) for at in there] == [("rl", 7, 4)]
    assert page.get(f"/api/runs/{numbers[2]}/prompt?of={numbers[0]}&row={row['id']}")["elsewhere"] == []
    assert page.ask(f"/api/runs/{numbers[1]}/prompt?of={numbers[0]}&row=x")[0] == 404
    assert page.ask(f"/api/runs/{numbers[1]}/prompt?of=nowhere&row=1")[0] == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs/nonsense", 404),
        ("/api/runs/../../etc", 404),
        ("/api/runs/{run}/curves/other", 404),
        ("/api/runs/{run}/curves/rl?after=x", 400),
        ("/api/runs/{run}/completions?step=x", 400),
        ("/api/runs/{run}/completions?by=other&low=1", 400),
        ("/api/runs/{run}/completions?start=-5", 200),
        ("/api/runs/{run}/histogram?of=total;drop", 400),
        ("/api/runs/{run}/group/999999999999999999", 200),
        ("/api/compare?a_run={run}&a_stage=rl&b_run={run}&b_stage=rl", 409),
    ],
)
def test_what_cannot_be_told_is_an_error_and_no_bug(page, run, runs, path, status) -> None:
    found, said, _ = page.ask(path.format(run=run))
    assert found == status
    assert str(runs) not in json.dumps(said)


# -- runs that are hostile, change or go ------------------------------------------------------------------------------


def test_a_hostile_run_is_text_like_any_other(serve_page, tmp_path) -> None:
    path = make_run(tmp_path / "<img src=x onerror=alert(1)>", stage="<b>rl")
    rows = [{**completion(30, 1, 0), "reply": HOSTILE, "rewards": {HOSTILE: 1.0}, "prompt_id": HOSTILE}]
    write_rows(path / "stages/01-<b>rl/rollouts/step-000030.jsonl.gz", rows)
    (path / "stages/01-<b>rl/metrics.jsonl").write_text(json.dumps({"step": 1, "of": 1, HOSTILE: 1.0}) + "\n[[[[\n")
    page = serve_page(tmp_path)
    page.enter()
    number = id_of(path.resolve())
    page.indexed(number)
    _, said, headers = page.ask(f"/api/runs/{number}/completions?step=30")
    assert headers["content-type"] == "application/json"
    assert said["rows"][0]["reply"] == HOSTILE
    assert HOSTILE in page.get(f"/api/runs/{number}/curves/%3Cb%3Erl")["metrics"]


def test_a_run_that_is_deleted_or_damaged_while_it_is_watched(serve_page, tmp_path) -> None:
    path = make_run(tmp_path / "demo")
    page = serve_page(tmp_path)
    page.enter()
    number = id_of(path.resolve())
    page.indexed(number)
    (path / "run.json").write_bytes(b"{torn")
    assert page.get(f"/api/runs/{number}")["told"]
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)  # the page closes its index meanwhile, which takes files away, too
    assert page.get("/api/runs") == []
    for view in ("", "/completions", "/facets", "/explain"):
        assert page.ask(f"/api/runs/{number}{view}")[0] == 404
    make_run(tmp_path / "demo", steps=(7,))  # as if it had been run again
    assert page.indexed(number)["rows"] == 20


def test_a_model_of_a_run_answers_as_served(serve_page, tmp_path) -> None:
    path = make_run(tmp_path / "demo")
    final = path / "artifacts" / ("ab" * 16)
    final.parent.mkdir()
    aside = begin(final)
    make("qwen2", aside)
    seal(aside, final, final.name, {"stage": "rl"})
    page = serve_page(tmp_path, directories=(final,))
    page.enter()
    number, alone = id_of(path.resolve()), id_of(final.resolve())
    assert [(m["run"], m["stage"]) for m in page.get("/api/models")] == [(alone, "model"), (number, "rl")]
    body = {"messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 5, "seed": 1}
    status, said, _ = page.ask(f"/api/runs/{number}/chat/rl", "POST", body)
    assert status == 200
    _, streamed, _ = page.ask(f"/api/runs/{number}/chat/rl", "POST", {**body, "stream": True})
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in streamed.split("\n\n") if line[6:7] == "{"]
    assert "".join(delta.get("content", "") for delta in deltas) == said["choices"][0]["message"]["content"]
    assert page.ask(f"/api/runs/{alone}/chat/model", "POST", body)[1]["choices"] == said["choices"]  # the same one
    assert page.ask(f"/api/runs/{number}/chat/other", "POST", body)[0] == 409
    assert page.ask(f"/api/runs/{number}/chat/rl", "POST", {**body, "tools": [{}]})[0] == 400


def test_folders_that_are_none_are_told_of(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ui", "no-such-run"]) == 2
    assert "no run `no-such-run`" in capsys.readouterr().err
    assert main(["ui", "--port", "-1"]) == 2
