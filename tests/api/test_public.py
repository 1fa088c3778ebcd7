"""What `import temper` offers: these names and no other, lazily. A name that goes, or comes, is a decision."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import temper

PUBLIC = {
    "Completion": "class", "Fault": "class", "Finished": "class", "Generated": "class", "Graded": "class",
    "Message": "class", "Model": "class", "Prompt": "class", "Reply": "class", "Score": "class", "StepReport": "class",
    "Stopped": "class", "TemperError": "class", "__version__": "str",
    "evaluate": "(model, tasks, *, samples, k, temperature, top_p, max_tokens, stop, seed, max_prompts, rewards, "
    "answer, columns, system_prompt, form, thinking_budgets, thinking_extensions, extend_with, out)",
    "grade": "(reply, gold, *, tests, question, answer, form)",
    "load": "(model, *, device, dtype)",
    "parse_reply": "(text, thinking_opened, form)",
    "rewards": "module",
    "run": "(recipe, settings, *, out, on_step, accept_changes, ranks)",
    "score": "(replies, rewards, *, weights, question, gold, answer, form, row)",
    "testing": "module",
}  # fmt: skip
GENERATE = "(self, prompts, n, *, temperature, top_p, top_k, min_p, max_tokens, stop, seed, system_prompt, form)"


def signature(function) -> str:
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(parameter.name)
    return f"({', '.join(parts)})"


def kind(value: object) -> str:
    if inspect.isclass(value):
        return "class"
    if inspect.ismodule(value) or isinstance(value, str):
        return type(value).__name__
    return signature(value)


def test_the_public_names_are_these():
    assert {name: kind(getattr(temper, name)) for name in temper.__all__} == PUBLIC
    assert dir(temper) == sorted(PUBLIC)
    assert signature(temper.Model.generate) == GENERATE


def test_every_public_name_says_what_it_is():
    undocumented = [name for name in PUBLIC if name != "__version__" and not inspect.getdoc(getattr(temper, name))]
    assert undocumented == []


def test_every_public_name_is_on_its_page():
    page = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")
    assert [name for name in temper.__all__ if name not in page and name != "__version__"] == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = temper.nonsense  # type: ignore[attr-defined]


def test_importing_and_grading_load_nothing_heavy():
    code = (
        "import sys, temper; temper.grade('5', '5'); temper.score('5', gold='5'); temper.testing.FakeEngine(['a']);"
        "temper.load(temper.testing.FakeEngine(['a'])).generate('b');"
        "print({'torch', 'transformers', 'pydantic', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_package_says_that_it_is_typed():
    assert (Path(temper.__file__).parent / "py.typed").is_file()
