"""Small run directories as a run leaves them, made on the spot, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from temper.artifacts import begin, seal
from temper.record.rollouts import write_rows
from temper.rollout.paired import PromptScore
from temper.sealed import seal as sealed
from temper.sealed import seal_text, unseal

HOSTILE = "</pre><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
RECIPE = """\
name: demo
seed: 0
stages:
  rl: {stage: grpo, model: base, tasks: [sums], max_steps: 30, learning_rate: 0.001, num_generations: 4,
       api_key: hunter22}
"""


def completion(step: int, prompt: int, sample: int) -> dict[str, Any]:
    right = (step + prompt + sample) % 3 != 0
    answer = 2 * prompt + (not right)
    return {
        "step": step, "prompt_id": f"sums:{prompt}", "task": "sums", "prompt": f"What is {prompt}+{prompt}?",
        "gold": str(2 * prompt), "reply": f"<think>carry the {prompt}</think>\n<answer>{answer}</answer>",
        "rewards": {"accuracy": float(right), "format": sample / 4}, "total": float(right) + sample / 8,
        "finish_reason": "length" if sample == 3 else "stop", "tokens": 10 + step, "sample": sample,
        "advantage": sample - 1.5,
    }  # fmt: skip


def add_evaluation(run: Path, accuracies: dict[str, tuple[bool, ...]]) -> None:
    """Measure models of a run on the task `sums`: for each whether it is right on each prompt; seals the evaluation."""
    fingerprint = "cd" * 16
    final = run / "artifacts" / fingerprint
    final.parent.mkdir(exist_ok=True)
    aside = begin(final)
    models = []
    for model, right in accuracies.items():
        mean = sum(right) / len(right)
        models.append({"stage": model, "tasks": {"sums": {"n": len(right), "k": 1, "accuracy": mean}}})
        scores = [
            PromptScore(f"sums:{i}", (r,), float(r), 9.0, 0.0, {"accuracy": float(r)}) for i, r in enumerate(right)
        ]
        write_rows(aside / "prompts" / f"{model}.sums.jsonl", [score.row() for score in scores])
        write_rows(aside / "samples" / f"{model}.sums.jsonl", [completion(0, i, 0) for i in range(len(right))])
    about = {"models": models, "sets": {"sums": "the same"}, "temperature": 1.0, "k": 1, "claims": [
        {"claim": "rl is better than base", "holds": True, "value": 0.4, "target": "> 0"}]}  # fmt: skip
    (aside / "evaluation.json").write_text(json.dumps(about))
    seal(aside, final, fingerprint, {"stage": "ev"})
    record = unseal("run.json", (run / "run.json").read_bytes())
    for model in accuracies:
        record["stages"].setdefault(model, {"number": 0, "kind": "import_model", "makes": "model", "state": "done"})
    record["stages"]["ev"] = {"number": 2, "kind": "evaluate", "makes": "evaluation", "fingerprint": fingerprint,
                              "state": "done"}  # fmt: skip
    (run / "run.json").write_bytes(sealed("run.json", record, indent=1) + b"\n")


def make_run(path: Path, stage: str = "rl", steps: tuple[int, ...] = (10, 20), state: str = "done") -> Path:
    """A run of one stage, with kept steps of five prompts with four replies each."""
    work = path / "stages" / f"01-{stage}"
    work.mkdir(parents=True)
    for step in steps:
        rows = [completion(step, prompt, sample) for prompt in range(5) for sample in range(4)]
        write_rows(work / "rollouts" / f"step-{step:06d}.jsonl.gz", rows)
    rows = [{"step": s, "of": 30, "reward/total": s / 30, "seconds": 2.0, "cpu_seconds": 3.0} for s in range(1, 21)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = RECIPE.replace("  rl:", f"  {json.dumps(stage)}:")
    (path / "recipe.resolved.yaml").write_bytes(seal_text("recipe.resolved.yaml", recipe))
    entry = {"number": 1, "kind": "grpo", "makes": "model", "fingerprint": "ab" * 16, "state": state, "steps": 20}
    about = {"format": 1, "recipe": "demo", "seed": 0, "state": state, "stages": {stage: entry},
             "command": ["temper", "run", "demo", "--set", "token=hf_abcdefghijklmnop"]}  # fmt: skip
    (path / "run.json").write_bytes(sealed("run.json", about, indent=1) + b"\n")
    return path
