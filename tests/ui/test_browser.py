"""The page in a browser: every view by real clicks, wide and narrow, and nothing in a run is ever run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from demo_runs import HOSTILE, completion, make_run
from startable import make_starts

from temper.record.rollouts import write_rows

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser here: chromium or google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
        browser = play.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def hostile(serve_page, tmp_path_factory) -> Any:
    """A page over an ordinary run and one whose every text is markup."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "demo")
    path = make_run(folder / "<img src=x onerror=window.hacked=1>", stage="<b>rl", steps=())
    rows = [{**completion(30, 1, i), "reply": HOSTILE, "prompt": HOSTILE, "rewards": {HOSTILE: 1.0}} for i in range(3)]
    write_rows(path / "stages/01-<b>rl/rollouts/step-000030.jsonl.gz", rows)
    metrics = [{"step": s, "of": 9, HOSTILE: float(s), "reward/total": s / 9, "seconds": 1.0} for s in range(1, 9)]
    (path / "stages/01-<b>rl/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return serve_page(folder)


@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_by_clicks(browser, hostile, width) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    tab, told = context.new_page(), []
    tab.set_default_timeout(60_000)
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    tab.on("response", lambda answer: told.append(answer.url) if answer.status >= 400 else None)
    tab.goto(f"http://127.0.0.1:{hostile.port}/enter?token={hostile.links[-1]}")
    tab.wait_for_selector(".card")
    assert tab.locator(".card").count() == 2

    tab.click(".card:has-text('<img') h2 a")  # the hostile run
    tab.wait_for_selector("table")
    tab.click("nav a:text('Curves')")
    tab.wait_for_selector("figure")
    assert tab.locator(f"figcaption:text-is({json.dumps(HOSTILE)})").count() == 1
    tab.locator("svg.chart").first.click()  # a point leads to its step's completions
    tab.wait_for_selector(".completion")
    assert HOSTILE in tab.locator(".completion .prompt").first.inner_text()
    tab.locator(".completion a:text('group')").first.click()
    tab.wait_for_selector(".group .completion")
    assert tab.locator(".group .completion").count() >= 3
    tab.go_back()

    tab.goto(f"http://127.0.0.1:{hostile.port}/#/")
    tab.click(".card:has-text('demo') a:text('completions') >> nth=-1")
    tab.wait_for_selector(".completion")
    tab.select_option("select[aria-label=verdict]", "wrong")
    tab.wait_for_selector(".completion.right", state="detached")
    tab.fill("input[type=search]", "carry the 4")
    tab.wait_for_selector("text=completions that fit")
    assert "verdict=wrong" in tab.url
    shown = tab.url
    tab.reload()  # all state stands in the address
    tab.wait_for_selector(".completion")
    assert tab.locator("select[aria-label=verdict]").input_value() == "wrong"
    assert tab.url.split("#")[1].split("&text")[0] == shown.split("#")[1].split("&text")[0]
    tab.locator(".hit").first.click()
    tab.get_by_role("button", name="clear").click()
    tab.wait_for_selector(".completion.right")

    for view in ("Run", "Compare", "Chat", "Overview"):
        tab.click(f"nav a:text('{view}')")
        tab.wait_for_selector("h1")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("window.hacked") is None
    assert told == []
    context.close()


@pytest.mark.parametrize(
    ("text", "like", "marked"),
    [
        ("a b c", "a b c", []), ("a x c", "a b c", ["x"]), ("a c", "a b c", []), ("new", "", ["new"]),
        ("so 7 is it", "so 8 is it", ["7"]), ("one two", "two", ["one "]),
        (" ".join(map(str, range(900))), " ".join(map(str, range(800))), None),
    ],
)  # fmt: skip
def test_what_differs_is_marked_word_by_word(browser, hostile, text, like, marked) -> None:
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{hostile.port}/enter?token={hostile.links[-1]}")
    tab.wait_for_selector(".card")
    script = "async (given) => (await import('/reply.js')).departures(...given)"
    found = [text[start:end] for start, end in tab.evaluate(script, [text, like])]
    assert found == ([text.removeprefix(like)] if marked is None else marked)
    tab.context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_run_is_planned_started_watched_and_stopped(browser, serve_page, tmp_path, width) -> None:
    starts = make_starts(tmp_path)
    page = serve_page(tmp_path / "runs", starts=starts)
    tab = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    tab.set_default_timeout(60_000)
    tab.goto(f"http://127.0.0.1:{page.port}/enter?token={page.links[-1]}")
    tab.click("nav a:text('Start')")
    tab.select_option("select[aria-label=recipe]", label="small (small.yaml)")
    tab.fill("textarea.settings", "rl.max_step=1")
    tab.click("button:text-is('plan')")
    tab.wait_for_selector(".faults:has-text('max_steps')")
    assert tab.locator("button.go").count() == 0
    tab.fill("textarea.settings", "rl.max_steps=1")
    tab.click("button:text-is('plan')")
    tab.click("button.go")
    tab.wait_for_selector(".card .state.running")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.click(".card a")
    tab.click("button:text-is('stop')")
    tab.click("button:text-is('yes, stop it')")
    tab.wait_for_selector(".stop", state="hidden")
    assert starts.started()[0]["code"] == 75
    tab.context.close()


def test_a_read_only_page_offers_no_start(browser, serve_page, tmp_path) -> None:
    make_run(tmp_path / "demo")
    page = serve_page(tmp_path, starts=None)
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{page.port}/enter?token={page.links[-1]}")
    tab.wait_for_selector(".card")
    assert tab.locator("nav a:text('Chat')").count() == 1
    assert tab.locator("nav a:text('Start')").count() == 0
    tab.context.close()
