"""What the card of an exported model says of its run: scores, base, data, licence, command."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from model_zoo import make

from temper.cli import main
from temper.models.save import licence_in
from temper.recipe.graph import ASSETS
from temper.text.chat import ChatFormat
from temper.text.ollama import go_template, modelfile
from temper.types import Message

RECIPE = """
name: mine
tasks:
  sums: {train: sums.jsonl, test: held.jsonl}
stages:
  base: {stage: import_model, model: model}
  rl: {stage: grpo, model: "@base", tasks: [sums], reward_funcs: [tag_count], max_steps: 1, kl_penalty: 0,
    num_generations: 2, prompts_per_step: 1, max_completion_length: 4}
  end: {stage: evaluate, models: ["@base", "@rl"], tasks: [sums], num_samples: 2, max_completion_length: 4}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    before = Path.cwd()
    try:
        import os

        os.chdir(folder)
        make("qwen2", folder / "model")
        (folder / "model/README.md").write_text("---\nlicense: mit\n---\n# A model\n")
        for name in ("sums", "held"):
            Path(f"{name}.jsonl").write_text("".join(json.dumps({"prompt": f"{n}+{name}", "answer": str(n)}) + "\n"
                                                     for n in range(3)))  # fmt: skip
        Path("my.yaml").write_text(RECIPE)
        assert main(["run", "my.yaml", "--out", str(folder / "run"), "--set", "seed=7"]) == 0
    finally:
        os.chdir(before)
    return folder / "run"


def test_the_card_says_what_the_run_knows(run, tmp_path):
    assert main(["export", f"{run}:rl", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    evaluation = json.loads(next(run.glob("artifacts/*/evaluation.json")).read_text())
    task = next(model for model in evaluation["models"] if model["stage"] == "rl")["tasks"]["sums"]
    low, high = task["accuracy_interval"]
    assert f"| sums | {task['accuracy']:.3f} | {low:.3f} to {high:.3f} | {task['format']:.3f} | 3 × 2 |" in card
    assert "T 0.6, top-p 0.95" in card
    assert "trained from `model`" in card
    assert "trained on `sums.jsonl`" in card
    assert "license: mit" in card
    assert "under `mit`" in card
    assert "Seed 7" in card
    assert "temper" in card.split("```sh\n")[1].split("\n")[0]


def test_a_model_that_was_not_measured_has_a_card_without_scores(run, tmp_path):
    (next(run.glob("artifacts/*/evaluation.json"))).rename(tmp_path / "away.json")
    try:
        assert main(["export", f"{run}:rl", str(tmp_path / "out")]) == 0
    finally:
        (tmp_path / "away.json").rename(next(run.glob("artifacts/*/prompts")).parent / "evaluation.json")
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "## Scores" not in card
    assert "trained on `sums.jsonl`" in card


@pytest.mark.parametrize(
    ("text", "licence"),
    [("---\nlicense: apache-2.0\ntags: [a]\n---\n", "apache-2.0"),
     ("---\nlicense: other\nlicense_name: qwen\n---\n", "qwen"),
     ("# no head\nlicense: mit\n", ""), ("---\nlicense: unknown\n---\n", ""), ("---\nlicense:\n---\n", "")],
)  # fmt: skip
def test_the_licence_is_that_of_the_front_matter(tmp_path, text, licence):
    (tmp_path / "README.md").write_text(text)
    assert licence_in(tmp_path) == licence


@pytest.mark.parametrize("name", ["tiny-base", "tiny-code-base"])
def test_the_shipped_models_are_under_the_licence_of_the_project(name):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert licence_in(ASSETS / name) == project["license"].lower()


TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
              "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "default system": "{% if messages[0].role != 'system' %}S: be good\n{% endif %}{% for m in messages %}"
                      "{{ m.role[0] | upper }}: {{ m.content }}\n{% endfor %}A:",
    "no system": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
                 "{{ 'A' if m.role == 'assistant' else 'Q' }} {{ m.content }}\n{% endfor %}A ",
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_for_ollama_writes_the_same_prompt(name, tmp_path):
    made = make("llama", tmp_path / "model")
    chat = ChatFormat.load(made, TEMPLATES[name])
    go = go_template(chat)
    assert go is not None
    assert filled(go, "", "1+1?") == chat.prompt_text((Message("user", "1+1?"),))
    if name != "no system":
        asked = (Message("system", "Be kind."), Message("user", "1+1?"))
        assert filled(go, "Be kind.", "1+1?") == chat.prompt_text(asked)
    assert modelfile(chat).startswith("FROM .\nTEMPLATE")  # type: ignore[union-attr]


def filled(template: str, system: str, prompt: str) -> str:
    """What Go makes of it."""
    head, branch, rest = template.partition("{{ if .System }}")
    if branch:
        inner, _, rest = rest.partition("{{ end }}")
        yes, _, no = inner.partition("{{ else }}")
        rest = (yes if system else no) + rest
    return (head + rest).replace("{{ .System }}", system).replace("{{ .Prompt }}", prompt)


def test_a_template_with_letters_that_go_would_read_has_no_form_for_ollama(tmp_path):
    quoted = '{% for m in messages %}{{ m.role }}: """{{ m.content }}"""\n{% endfor %}assistant: """'
    assert go_template(ChatFormat.load(make("llama", tmp_path / "model"), quoted)) is None
