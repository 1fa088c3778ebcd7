"""The examples of docs/python.md do what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/python.md"


def test_examples_give_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(line for line in PAGE.read_text(encoding="utf-8").splitlines() if not line.startswith("```"))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(test, out=said.append)
    assert tried > 20
    assert not failed, "".join(said)
