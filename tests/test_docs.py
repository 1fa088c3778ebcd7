"""The lists in README and docs say what the code has: extras, exit codes, commands, rewards, recipes, links."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from temper.cli import COMMANDS
from temper.commands.doctor import OPTIONAL
from temper.errors import Exit
from temper.rewards import REWARDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_FOR_RUNNING = {"bench", "test", "dev", "cuda"}  # of this project's own work, or part of torch's CUDA builds
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


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_files_of_tests_named_are_there(page: Path):
    named = re.findall(r"tests/[\w/]+\.py", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []
