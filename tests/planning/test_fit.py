"""What a later stage would stumble over is told before the first one runs, by file and line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from temper import cli
from temper.recipe.graph import ASSETS

REFUSES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def run(folder: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    (folder / "my.yaml").write_text(recipe)
    code = cli.main(["plan", str(folder / "my.yaml"), "--out", str(folder / "run")])
    return code, capsys.readouterr().err


def rows(path: Path, *questions: str) -> None:
    path.write_text("".join(json.dumps({"question": q, "answer": "5"}) + "\n" for q in questions))


def chain(task: str, base: str = "{stage: import_model, model: tiny-base}") -> str:
    return f"""
tasks:
  sums: {{train: sums.jsonl{task}}}
stages:
  base: {base}
  first: {{stage: sft, model: "@base", data: cold.jsonl}}
  rl: {{stage: grpo, model: "@first", tasks: [sums], prompts_per_step: 1, num_generations: 2, max_steps: 1}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows(tmp_path / "sums.jsonl", "2+3", "1+4")
    reply = "<think>2+3=5</think><answer>5</answer>"
    (tmp_path / "cold.jsonl").write_text(json.dumps({"prompt": "2+3", "completion": reply}) + "\n")
    return tmp_path


def test_what_fits_is_planned(folder, capsys):
    assert run(folder, chain(", system_prompt: Add."), capsys)[0] == 0


def test_prompts_longer_than_the_context_of_a_model_yet_to_be_made(folder, capsys):
    rows(folder / "sums.jsonl", "2+3", *("1+1+" * 900 + f"{n}" for n in range(5)))
    code, told = run(folder, chain(""), capsys)
    assert code == 3
    assert re.search(r"sums\.jsonl:2\b", told)
    assert "`@first`" in told
    assert "2 more rows" in told
    assert told.count("error: ") == 4


def test_conversations_longer_than_the_context(folder, capsys):
    with (folder / "cold.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": "2+3", "completion": f"<think>{'2 ' * 2000}</think><answer>5</answer>"}))
    code, told = run(folder, chain(""), capsys)
    assert code == 3
    assert "cold.jsonl:2" in told


def test_a_system_prompt_that_the_imported_template_refuses(folder, capsys):
    base = '{stage: import_model, model: tiny-base, chat_template: "' + REFUSES + '"}'
    code, told = run(folder, chain(", system_prompt: Add.", base), capsys)
    assert code == 3
    assert "my.yaml:3" in told
    assert told.count("error: ") == 1
    assert run(folder, chain("", base), capsys)[0] == 0


@pytest.mark.parametrize("damage", [{"hidden_size": 8}, {"model_type": "bert"}, {"model_type": "nosuch"}])
def test_a_model_of_another_shape_or_kind_that_a_later_stage_imports(folder, capsys, damage):
    model = folder / "other"
    shutil.copytree(ASSETS / "tiny-base", model)
    (model / "manifest.json").unlink(missing_ok=True)
    config = json.loads((model / "config.json").read_text()) | damage
    (model / "config.json").write_text(json.dumps(config))
    late = '  late: {stage: import_model, model: other}\n  more: {stage: sft, model: "@late", data: cold.jsonl}\n'
    code, told = run(folder, chain("") + late, capsys)
    assert code == 5
    assert str(model) in told
    assert told.count("error: ") == 1


def test_files_of_a_task_that_no_stage_names_are_looked_at(folder, capsys):
    (folder / "spare.jsonl").write_text('{"question": 5}\nnot json\n')
    recipe = chain("").replace("stages:", "  spare: {train: spare.jsonl}\n  gone: {test: gone.jsonl}\nstages:")
    code, told = run(folder, recipe, capsys)
    assert code == 3
    assert "gone.jsonl" in told
    spare = run(folder, recipe.replace("  gone: {test: gone.jsonl}\n", ""), capsys)
    assert spare[0] == 3
    assert "spare.jsonl:2" in spare[1]


def test_a_student_and_a_teacher_yet_to_be_made_with_different_tokenizers(folder, capsys):
    recipe = chain("") + (
        "  new: {stage: pretrain, data: text.jsonl, model: other, max_steps: 1}\n"
        '  student: {stage: distill, model: "@new", teacher: "@first", mode: forward_kl, data: cold.jsonl}\n'
    )
    other = folder / "other"
    shutil.copytree(ASSETS / "tiny-base", other)
    (other / "manifest.json").unlink(missing_ok=True)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = [word for word in vocabulary if word.isalpha() and len(word) == 1][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "text.jsonl").write_text('{"text": "2+3=5"}\n')
    code, told = run(folder, recipe, capsys)
    assert code == 5, told
    assert "different tokenizers" in told


def test_a_conversation_mixed_into_a_harvest_that_the_model_after_it_cannot_take(folder, capsys):
    (folder / "mix.jsonl").write_text(json.dumps({"prompt": "Hi", "completion": "word " * 2000}) + "\n")
    harvest = '  keep: {stage: sample, model: "@rl", tasks: [sums], mix: [mix.jsonl]}\n'
    late = '  second: {stage: sft, model: "@base", data: "@keep"}\n'
    code, told = run(folder, chain("") + harvest + late, capsys)
    assert code == 3
    assert "mix.jsonl:1" in told
    assert "`second`" in told
    assert told.count("error: ") == 1


def test_a_prompt_that_two_models_cannot_take_is_told_once(folder, capsys):
    rows(folder / "sums.jsonl", "2+3", "1+1+" * 900 + "1")
    harvest = '  keep: {stage: sample, model: "@rl", tasks: [sums]}\n'
    code, told = run(folder, chain("") + harvest, capsys)
    assert code == 3
    assert told.count("error: ") == 1
