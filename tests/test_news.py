"""News fragments: each is of a known type, and one paragraph of whole sentences."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEWS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
TYPES = [kind["directory"] for kind in NEWS["type"]]
LONGEST = 600  # characters


def faults_of(name: str, text: str) -> list[str]:
    faults = []
    if not re.fullmatch(rf"\+[a-z0-9]+(-[a-z0-9]+)*\.({'|'.join(TYPES)})\.md", name):
        faults.append(f"`{name}` is not named `+what-it-is.TYPE.md` with TYPE one of {', '.join(TYPES)}")
    paragraph = text.strip()
    if not re.match(r"[A-Z`]", paragraph) or not paragraph.endswith((".", "`.", ").")):
        faults.append(f"{name} is not a whole sentence")
    if "\n\n" in paragraph or re.search(r"(?m)^\s*([#*-]|\d+\.)\s", paragraph):
        faults.append(f"{name} is more than one paragraph, or has a heading or a list in it")
    if len(paragraph) > LONGEST:
        faults.append(f"{name} is longer than {LONGEST} characters")
    return faults


def test_fragments_are_well_formed() -> None:
    found = [path for path in (ROOT / NEWS["directory"]).iterdir() if path.name != "README.md"]
    assert [fault for path in found for fault in faults_of(path.name, path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("+time-left.added.md", "A run tells how long it will still take.\n", 0),
        ("+plan.fixed.md", "`temper plan` counts adapters on the head, too\n(`lora`).\n", 0),
        ("time-left.added.md", "A run tells.", 1),
        ("+time.new.md", "A run tells.", 1),
        ("+time.added.md", "more speed", 1),
        ("+time.added.md", "Two things.\n\n* This.", 1),
        ("+time.added.md", "Long " * 200 + "sentence.", 1),
        ("+Time.added.md", "", 2),
    ],
)  # fmt: skip
def test_what_is_malformed_is_found(name: str, text: str, count: int) -> None:
    assert len(faults_of(name, text)) == count


def test_the_changelog_has_the_place_where_they_go() -> None:
    text = (ROOT / NEWS["filename"]).read_text(encoding="utf-8")
    assert text.count(NEWS["start_string"]) == 1
    assert text.index(NEWS["start_string"]) < text.index("\n## ")
