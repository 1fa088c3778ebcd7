"""The lists in README and docs say what the code has: extras, exit codes, commands, rewards, recipes, links."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, commands_shown, snippets

from temper.cli import COMMANDS, Parser, load_command
from temper.commands.doctor import OPTIONAL
from temper.errors import ConfigError, Exit, Fault
from temper.recipe.document import read_document
from temper.recipe.reader import load_recipe
from temper.rewards import REWARDS

NOT_FOR_RUNNING = {"bench", "docs", "test", "dev", "cuda"}  # of this project's own work, or part of torch's CUDA builds
SITE = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
COMMANDS_SHOWN = [(page, words[1:]) for page, words in commands_shown() if words[0].endswith("temper")]
RECIPES = {path.stem for path in (ROOT / "src/temper/recipes").glob("*.yaml")}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def extras() -> dict[str, list[str]]:
    return tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]


def test_doctor_looks_for_every_extra_by_the_package_it_installs():
    installs = {
        extra: re.match(r"[\w.-]+", needs[0])[0] for extra, needs in extras().items() if extra not in NOT_FOR_RUNNING
    }
    assert {extra: package for extra, (package, _) in OPTIONAL.items()} == installs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_named_are_extras(page: Path):
    named = re.findall(r"temper-rl\[([\w,-]+)\]", page.read_text(encoding="utf-8"))
    assert {extra for names in named for extra in names.split(",")} <= set(extras())


def test_exit_codes_are_those_of_the_code():
    section = text_of("docs/running.md").split("## Exit codes")[1].split("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == sorted(Exit)


def test_every_exit_code_is_used():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/temper").rglob("*.py"))
    assert {code for code in Exit if f"Exit.{code.name}" not in source} == set()


def test_every_command_is_in_the_readme():
    section = text_of("README.md").split("## Commands")[1].split("\n## ")[0]
    named = set(re.findall(r"`(?:temper )?([a-z-]+)[^`]*`", section))
    assert set(COMMANDS) <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_are_commands(page: Path):
    named = set(re.findall(r"(?:`|^ {4})temper ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= set(COMMANDS)


def test_every_reward_is_named_in_the_docs():
    words = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {name for name in REWARDS if f"`{name}`" not in words} == set()


def test_every_recipe_is_in_the_table_and_no_other():
    table = text_of("docs/recipes.md").split("## The keys")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == RECIPES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_menu_of_the_site_once():
    named = [page for part in SITE["nav"] for value in part.values() for page in pages_of(value)]
    assert sorted(named) == sorted(page.name for page in PAGES if page.name != "README.md")


def pages_of(value: str | list) -> list[str]:
    """The pages below one entry of the menu."""
    return [value] if isinstance(value, str) else [page for part in value for page in part.values()]


def test_links_to_a_heading_lead_to_one():
    for page in (page for page in PAGES if page.name != "README.md"):
        for target, heading in re.findall(r"\]\(([\w./-]*\.md)?#([^)]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / target).read_text(encoding="utf-8") if target else page.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}, page.name


def test_the_site_asks_no_other_host():
    assert SITE["theme"]["font"] is False
    assert "http" not in str(SITE)


def test_pictures_are_of_a_run_and_ask_no_other_host():
    svg, report = text_of("docs/assets/terminal.svg"), text_of("docs/assets/sample_report.html")
    assert "reasoning_rl" in svg
    assert set(re.findall(r"https?://[^\"' <>)]+", svg)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", report)


def test_snippets_can_be_read():
    """They are also run, by tests/test_docs_run.py and the tests that it names."""
    for page, text in snippets("yaml"):
        assert read_document(text, page)
    for page, text in snippets("jsonl"):
        assert all(isinstance(json.loads(line), dict) for line in text.splitlines() if line), page
    for page, text in snippets("python"):
        compile("" if ">>>" in text else text, page, "exec")


@pytest.mark.parametrize(("page", "words"), COMMANDS_SHOWN, ids=lambda part: part if type(part) is str else part[0])
def test_commands_shown_are_taken_and_their_keys_are_keys(page: str, words: list[str]):
    parser = Parser(prog="temper", allow_abbrev=False)
    load_command(words[0]).add_arguments(parser)
    said = parser.parse_args([re.sub(r"\bN\b", "0", word) for word in words[1:]])
    if words[0] in ("run", "plan", "sweep") and said.recipe in RECIPES:
        varied = [keys.partition("=")[0] for keys in getattr(said, "over", None) or ()]
        over = [f"{key}=null" for keys in varied for key in keys.split(",")]
        told: list[Fault] = []
        try:
            load_recipe(said.recipe, [*(getattr(said, "settings", None) or ()), *over])
        except ConfigError as error:
            told = list(error.faults)
        assert [fault.what for fault in told if "null" not in fault.what + fault.why] == []  # null: values of a sweep


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_files_of_tests_named_are_there(page: Path):
    named = re.findall(r"tests/[\w/]+\.py", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []
