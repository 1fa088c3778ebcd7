"""A run directory as a finished (or stopped) run leaves it: curves and completions that look like real ones."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from random import Random

import pytest
import yaml

from temper.sealed import seal, seal_text

RL = ("reasoning_rl", "final_rl")
MODELS = ("base", "cold_start", "reasoning_rl", "second_sft", "final_rl")
SCORES = {  # accuracy, format, language, general skills, tokens
    "base": (0.01, 0.00, None, 0.02, 61),
    "cold_start": (0.52, 0.84, 0.67, 0.91, 47),
    "reasoning_rl": (0.93, 0.995, 0.985, 0.41, 44),
    "second_sft": (0.86, 0.985, 0.975, 0.94, 43),
    "final_rl": (0.958, 0.998, 0.988, 0.93, 42),
}
WORDS = {
    "en": ["plus", "makes", "then", "minus", "so", "carry"],
    "de": ["und", "ergibt", "dann", "weniger", "also", "trage"],
}
RECIPE = """\
name: tiny
description: Cold start, reasoning RL, rejection sampling, second SFT, final RL, on a laptop CPU.
seed: 0
threads: 2
tasks:
  arithmetic: {train: "@world/arithmetic.train.jsonl", test: "@world/arithmetic.test.jsonl"}
  general: {train: "@world/general.train.jsonl", test: "@world/general.test.jsonl", answer: text}
stages:
  world: {stage: tiny_world, arithmetic_train: 4000, arithmetic_test: 500, slip: 0.2}
  base: {stage: import_model, model: tiny-base}
  cold_start:
    {stage: sft, model: "@base", data: "@world/cold_start.jsonl", num_train_epochs: 2, learning_rate: 0.0005}
  reasoning_rl:
    stage: grpo
    model: "@cold_start"
    tasks: [arithmetic]
    reward_funcs: [accuracy, format, language_consistency]
    reward_weights: [1.0, 0.2, 0.3]
    learning_rate: 0.0003
    max_steps: 60
    num_generations: 16
    prompts_per_step: 32
    kl_penalty: 0.01
    max_completion_length: 96
    num_mini_batches: 1
    num_iterations: 1
  harvest: {stage: sample, model: "@reasoning_rl", tasks: [arithmetic], mix: ["@world/general_conversations.jsonl"]}
  second_sft: {stage: sft, model: "@base", data: "@harvest", num_train_epochs: 2, learning_rate: 0.0005}
  final_rl:
    stage: grpo
    model: "@second_sft"
    tasks: [arithmetic, general]
    reward_funcs: [accuracy, format, language_consistency]
    reward_weights: [1.0, 0.2, 0.3]
    learning_rate: 0.0002
    clip_range: 0.2
    top_p: 1.0
    max_steps: 30
    num_generations: 16
    kl_penalty: 0.01
    max_completion_length: 96
  report:
    stage: evaluate
    models: ["@base", "@cold_start", "@reasoning_rl", "@second_sft", "@final_rl"]
    tasks: [arithmetic, general]
    temperature: 1.0
    num_samples: 4
"""
KINDS = {
    "world": ("tiny_world", 3.1, 0, 210),
    "base": ("import_model", 0.4, 0, 240),
    "cold_start": ("sft", 48.2, 250, 690),
    "reasoning_rl": ("grpo", 171.0, 60, 1490),
    "harvest": ("sample", 39.5, 16, 980),
    "second_sft": ("sft", 61.7, 280, 700),
    "final_rl": ("grpo", 92.4, 30, 1510),
    "report": ("evaluate", 44.0, 10, 760),
}


def _bounded(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return max(low, min(high, value))


def rl_rows(draw: Random, steps: int, start: float, end: float) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        done = 1 - math.exp(-3.2 * step / steps)
        right = _bounded(start + (end - start) * done + draw.gauss(0, 0.02))
        form = _bounded(0.84 + 0.16 * done + draw.gauss(0, 0.008))
        language = _bounded(0.67 + 0.32 * done + draw.gauss(0, 0.012))
        rates = [_bounded(right + draw.gauss(0, 0.33)) for _ in range(32)]
        bins = [sum(min(4, int(r * 5)) == b for r in rates) / 32 for b in range(5)]
        rows.append(
            {
                "step": step,
                "of": steps,
                "reward/accuracy": right,
                "reward/format": form,
                "reward/language_consistency": language,
                "reward/total": right + 0.2 * form + 0.3 * language,
                "advantage/mean": draw.gauss(0, 1e-9),
                "advantage/std": _bounded(1 - done * 0.4),
                "policy/kl_divergence": 0.045 * done + abs(draw.gauss(0, 0.003)),
                "policy/entropy": 0.62 - 0.35 * done + draw.gauss(0, 0.01),
                "policy/clip_fraction": 0.0,
                "policy/mismatch_mean": 2e-7,
                "policy/mismatch_max": 6e-6,
                "completion/length": 47 - 4 * done + draw.gauss(0, 0.8),
                "completion/truncated": _bounded(0.06 * (1 - done) + draw.gauss(0, 0.004)),
                "groups/dead": _bounded(sum(r in (0.0, 1.0) for r in rates) / 32),
                "groups/pass_rate": bins,
                "reflection_words": 0.4 + 0.9 * done + draw.gauss(0, 0.05),
                "grader_failures": 0,
                "loss": draw.gauss(0, 1e-4) + 0.0004 * done,
                "gradient_norm": 0.4 + abs(draw.gauss(0, 0.1)),
                "learning_rate": 3e-4 * min(1, step / 5),
                "tokens_per_second": 14000 + draw.gauss(0, 600),
                "seconds": 2.8 + draw.gauss(0, 0.2),
                "cpu_seconds": 5.3 + draw.gauss(0, 0.3),
            }
        )
    return rows


def sft_rows(draw: Random, steps: int) -> list[dict]:
    return [
        {
            "step": step,
            "of": steps,
            "loss": 0.42 + 2.4 * math.exp(-step / 22) + draw.gauss(0, 0.03),
            "gradient_norm": 0.7 + 1.5 * math.exp(-step / 15) + abs(draw.gauss(0, 0.05)),
            "learning_rate": 5e-4 * min(1, step / 20) * (0.55 + 0.45 * math.cos(math.pi * step / steps)),
            "seconds": 0.19,
            "cpu_seconds": 0.37,
            "tokens_per_second": 21000 + draw.gauss(0, 800),
        }
        for step in range(1, steps + 1)
    ]


def completion(draw: Random, task: str, index: int, right: bool, formed: bool, language: float) -> dict:
    a, b, c = draw.randint(11, 60), draw.randint(11, 60), draw.randint(11, 40)
    gold = a + b - c
    said = gold if right else gold + draw.choice([-10, -1, 1, 10])

    def word(i: int) -> str:
        return WORDS["en" if draw.random() < language else "de"][i]

    thought = (
        f"{a} {word(0)} {b} {word(1)} {a + b}. {word(2)} {a + b} {word(3)} {c} {word(1)} {said}. "
        f"wait, let me check: {said} plus {c} makes {said + c}."
    )
    reply = f"<think>{thought}</think>\n<answer>{said}</answer>"
    prompt = f"{a}+{b}-{c}"
    if task == "general":
        prompt, gold, said = "Translate to German: the red house", "das rote haus", "das rote haus" if right else "haus"
        reply = f"<think>a word each: the, red, house.</think>\n<answer>{said}</answer>"
    reply = reply if formed else reply.replace("</think>", "", 1)
    rewards = {
        "accuracy": float(right and formed),
        "format": float(formed),
        "language_consistency": round(language if formed else 0.0, 4),
    }
    return {
        "prompt_id": f"{task}:{index}",
        "task": task,
        "prompt": prompt,
        "gold": str(gold),
        "reply": reply,
        "rewards": rewards,
        "total": rewards["accuracy"] + 0.2 * rewards["format"] + 0.3 * rewards["language_consistency"],
        "finish_reason": "stop" if formed else "length",
        "tokens": 44 if formed else 96,
        "sample": index % 4,
    }


def samples(draw: Random, task: str, accuracy: float, form: float, language: float, count: int) -> list[dict]:
    rows = []
    for index in range(count):
        rate = _bounded(draw.gauss(language, 0.1))
        rows.append(completion(draw, task, index, draw.random() < accuracy, draw.random() < form, rate))
    return rows


def scores(accuracy: float, form: float, language: float | None, tokens: float, n: int) -> dict:
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 0.002) / n)
    return {
        "n": n,
        "k": 4,
        "temperature": 1.0,
        "accuracy": accuracy,
        "accuracy_interval": [_bounded(accuracy - half), _bounded(accuracy + half)],
        "format": form,
        "format_interval": [_bounded(form - 0.01), _bounded(form + 0.006)],
        "language_consistency": language,
        "truncated": 0.02 if accuracy > 0.4 else 0.71,
        "mean_tokens": tokens,
        "pass_at_k": _bounded(accuracy + 0.04),
        "cons_at_k": _bounded(accuracy + 0.02),
        "rewards": {"accuracy": accuracy, "format": form},
    }


def evaluation() -> dict:
    models = []
    for stage, (accuracy, form, language, general, tokens) in SCORES.items():
        arithmetic = scores(accuracy, form, language, tokens, 500)
        models.append(
            {"stage": stage, "tasks": {"arithmetic": arithmetic, "general": scores(general, form, language, 23, 200)}}
        )
    claims = [
        ("base: accuracy on arithmetic", 0.01, "≤ 0.05", True),
        ("cold_start: accuracy on arithmetic", 0.52, "≥ 0.3 and ≤ 0.7", True),
        ("reasoning_rl: accuracy on arithmetic", 0.93, "≥ 0.88", True),
        ("reasoning_rl: accuracy on general", 0.41, "below cold_start (0.910) by 0.1", True),
        ("second_sft: accuracy on general", 0.94, "≥ 0.9", True),
        ("final_rl: accuracy on arithmetic", 0.958, "≥ 0.92", True),
        ("final_rl: language consistency on arithmetic", 0.988, "≥ 0.99", False),
    ]
    keys = ("claim", "value", "target", "holds")
    shown = [dict(zip(keys, claim, strict=True)) for claim in claims]
    return {"temperature": 1.0, "top_p": 1.0, "k": 4, "models": models, "claims": shown}


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def origins() -> str:
    """Where each setting came from, as the pipeline writes it; `clip_range` and `top_p` were not given."""
    recipe = yaml.safe_load(RECIPE)
    for stage in recipe["stages"].values():
        stage.update({"clip_range": 0.2, "top_p": 1.0} if stage["stage"] == "grpo" else {})
    keys = [f"stages.{name}.{key}" for name, stage in recipe["stages"].items() for key in stage]
    told = {
        key: "default" if key.endswith(("clip_range", "top_p")) else f"recipe tiny.yaml:{n}"
        for n, key in enumerate(keys, 9)
    }
    told["stages.final_rl.learning_rate"] = "--set"
    return "".join(f"{line}\n" for line in ["origins:", *(f'  "{key}": "{origin}"' for key, origin in told.items())])


def write_run(run_dir: Path, until: str = "report") -> Path:
    """A run that went up to and including the stage `until`; of the next one only a few steps."""
    draw = Random(0)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "recipe.resolved.yaml").write_bytes(seal_text("recipe.resolved.yaml", RECIPE + origins()))
    entries, reached = {}, list(KINDS).index(until)
    for number, (name, (kind, seconds, steps, megabytes)) in enumerate(KINDS.items()):
        state = "done" if number <= reached else "running" if number == reached + 1 else "waiting"
        if state == "waiting":
            continue
        write_stage(run_dir, draw, number, name, kind, steps if state == "done" else max(2, steps // 3), steps)
        if state == "done":
            made = {"seconds": seconds, "cpu_seconds": seconds * 1.87, "peak_memory_bytes": megabytes * 2**20}
            entries[name] = {
                "kind": kind,
                "state": state,
                "steps": steps or None,
                "fingerprint": f"{number:08x}",
                **made,
            }
        else:
            entries[name] = {"kind": kind, "state": state}
    run = {"recipe": "tiny", "seed": 0, "stages": entries, "versions": {"temper": "0.1.0", "torch": "2.13.0"}}
    (run_dir / "run.json").write_bytes(seal("run.json", run))
    return run_dir


def write_stage(run_dir: Path, draw: Random, number: int, name: str, kind: str, steps: int, planned: int) -> None:
    work, made = run_dir / "stages" / f"{number:02d}-{name}", run_dir / "artifacts" / f"{number:08x}"
    work.mkdir(parents=True)
    made.mkdir(parents=True)
    if kind == "grpo":
        start, end = (0.5, 0.94) if name == "reasoning_rl" else (0.87, 0.96)
        write_lines(work / "metrics.jsonl", rl_rows(draw, planned, start, end)[:steps])
        rollouts = samples(draw, "arithmetic", end, 0.98, 0.95, 64)
        write_lines(work / "rollouts" / f"step-{steps:06d}.jsonl.gz", [{"step": steps, **r} for r in rollouts])
    elif kind == "sft":
        write_lines(work / "metrics.jsonl", sft_rows(draw, planned)[:steps])
    elif kind == "sample":
        (made / "harvest.json").write_text(
            json.dumps(
                {"verdicts": {"accuracy below 1": 610, "kept": 2900, "over the cap": 4682}, "kept": 2900, "mixed": 1200}
            )
        )
    elif kind == "evaluate" and steps == planned:
        (made / "evaluation.json").write_text(json.dumps(evaluation()), encoding="utf-8")
        for stage, (accuracy, form, language, general, _) in SCORES.items():
            rows = samples(draw, "arithmetic", accuracy, form, language or 0.4, 400)
            write_lines(made / "samples" / f"{stage}.arithmetic.jsonl", rows)
            rows = samples(draw, "general", general, form, 1.0, 200)
            write_lines(made / "samples" / f"{stage}.general.jsonl", rows)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny-0a1b2c3d")


@pytest.fixture(scope="session")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny-stopped0", until="cold_start")
