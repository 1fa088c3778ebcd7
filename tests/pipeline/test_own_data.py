"""recipes/own_data.yaml runs from end to end on another architecture and on files with the quirks of real ones."""

from __future__ import annotations

import json
from pathlib import Path

import model_zoo
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from temper.cli import main

PROMPTS = [
    ("Natalia sold 48 clips, then half as many. How many in all?", "She sold 48/2 = <<48/2=24>>24.\n#### 72"),
    ("What does the car cost?", "It costs $1,000 + $234.50.\n#### $1,234.50"),
    ("How far is it?", "Two legs of 5 km.\n#### 10 km"),
    ("What is half of three?", r"We get $\frac{3}{2}$, so \boxed{\frac{3}{2}}"),
    ("Solve 2x = 8", r"\boxed{x = 4}"),
    ("How many people came?", "1,250"),
]
SMALL = [
    "cold_start.learning_rate=0.001", "cold_start.batch_size=4", "reasoning_rl.max_steps=2",
    "reasoning_rl.num_generations=2", "reasoning_rl.prompts_per_step=2", "reasoning_rl.max_completion_length=8",
    "reasoning_rl.reward_funcs=[accuracy, repetition_penalty]", "reasoning_rl.reward_weights=[1.0, 0.1]",
    "harvest.num_generations=16", "harvest.max_completion_length=8", "harvest.min_rewards={repetition_penalty: -1.0}",
    "final_rl.max_steps=1", "final_rl.num_generations=2", "final_rl.prompts_per_step=2",
    "final_rl.max_completion_length=8", "evaluation.num_samples=1", "evaluation.max_completion_length=8",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recipe as it ships, beside a model and files: a BOM, CRLF line ends, annotations, currency, LaTeX."""
    shipped = Path(__file__).parent.parent.parent / "src" / "temper" / "recipes" / "own_data.yaml"
    (tmp_path / "own_data.yaml").write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    model_zoo.make("qwen3", tmp_path / "my-model")
    rows = [json.dumps({"question": question, "answer": answer}) for question, answer in PROMPTS]
    (tmp_path / "my_prompts.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows[:4]).encode() + b"\r\n")
    (tmp_path / "my_held_out.jsonl").write_text("\n".join(rows[4:]) + "\n\n", encoding="utf-8")
    reply = "<think>We add them up.</think><answer>4</answer>"
    solutions = [{"prompt": question, "completion": reply} for question, _ in PROMPTS]
    (tmp_path / "my_cold_start.jsonl").write_text("\r\n".join(map(json.dumps, solutions)), encoding="utf-8")
    return tmp_path


def settings() -> list[str]:
    return [argument for setting in SMALL for argument in ("--set", setting)]


def test_the_recipe_for_own_data_runs_and_leaves_a_plain_model(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = str(folder / "own_data.yaml"), folder / "run"
    assert main(["run", recipe, "--out", str(out), *settings()]) == 0
    capsys.readouterr()
    assert main(["report", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [model["stage"] for model in report["models"]] == [
        "base", "cold_start", "reasoning_rl", "second_sft", "final_rl",
    ]  # fmt: skip
    assert main(["export", f"{out}:final_rl", str(folder / "exported")]) == 0
    model = AutoModelForCausalLM.from_pretrained(folder / "exported")
    tokenizer = AutoTokenizer.from_pretrained(folder / "exported")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Solve 2x = 8"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**asked, max_new_tokens=4, do_sample=False).shape[1] > asked["input_ids"].shape[1]


def test_a_gold_answer_that_cannot_be_verified_is_found_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "my_prompts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"question": "How many?", "answer": "It depends.\n#### "}) + "\r\n")
    assert main(["run", str(folder / "own_data.yaml"), "--out", str(folder / "run"), *settings()]) == 3
    assert "my_prompts.jsonl:5" in capsys.readouterr().err
    assert not list((folder / "run").glob("artifacts/*"))
