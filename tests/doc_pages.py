"""What README and docs show: commands, snippets, files."""

from __future__ import annotations

import re
from pathlib import Path

from temper.recipe.foreign.shell import read_commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = re.compile(r"(?:\S*/)?(temper|make|pip|python|torchrun|vllm|lm_eval|sbatch)|\.")  # what commands begin with
_BEGINS = re.compile(rf"(?m)^(?:\w+=\S+ )*(?:{PROGRAMS.pattern}) \S")
_DOCUMENT = re.compile(r"<<'(\w+)'\n.*?^\1$", re.M | re.S)  # what a here-document holds is no command
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```|((?:^    \S[^\n]*\n(?:^     [^\n]*\n)*)+)", re.M | re.S)


def snippets(language: str) -> list[tuple[str, str]]:
    """Every fenced block in a language: (page, text)."""
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    ]


def commands_shown(page: Path | None = None) -> list[tuple[str, list[str]]]:
    """Every command in blocks of commands, in their order: (page, words)."""
    shown = []
    for path in PAGES if page is None else [page]:
        for block in _blocks(path.read_text(encoding="utf-8")):
            text = _DOCUMENT.sub("", re.sub(r"(?m)^(    |\$ )", "", block))
            if not _BEGINS.search(text):
                continue
            for command in read_commands(text, path.name):
                words = [word.text for word in command]
                if words and PROGRAMS.fullmatch(words[0]):
                    shown.append((path.name, words))
    return shown


def _blocks(text: str) -> list[str]:
    """Fenced ones of a shell and indented ones, in the order in which they stand."""
    found = _BLOCK.finditer(text)
    return [match[3] or match[2] for match in found if match[3] or match[1] in ("sh", "bash", "console")]
