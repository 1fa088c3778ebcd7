"""What PPO and GRPO hold in memory, with a reward model (RLHF) and with rules (RLVR), side by side.

    python bench/rl_memory.py [--hidden 384] [--layers 6] [--completions 32] [--lora R] [--json]

A decoder of random weights and a reward model of its size are made; then each of the settings takes one step of as many
completions in a process of its own. The parts are counted on the tensors (metrics `memory/…` of the first step); the
peak is that of the process: activations, the sampler and Python with its libraries are in it. The last line of
standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from session import main_of, say

from temper.recipe.sources import RECIPES

GROUP = 8
RULES = ["accuracy", "format"]
PARTS = ("policy", "gradients", "optimizer", "reference", "value_model", "reward_models", "total")
WORLD = {"stage": "tiny_world", "arithmetic_train": 200, "arithmetic_test": 10, "general_train": 50, "general_test": 10,
         "cold_start": 50, "general_share": 0.5, "preferences": 64, "pretraining": 2000}  # fmt: skip


def base_recipe(hidden: int, layers: int) -> dict[str, Any]:
    """A policy that can chat and has learned nothing, and a reward model of its size."""
    template = yaml.safe_load((RECIPES / "tiny_base.yaml").read_text())["stages"]["base"]["chat_template"]
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers,
             "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64}  # fmt: skip
    once = {"max_steps": 1, "batch_size": 4, "block_size": 64}
    return {
        "name": "made",
        "stages": {
            "world": WORLD,
            "policy": {"stage": "pretrain", "data": "@world/pretraining.jsonl", "architecture": shape,
                       "chat_template": template, **once},
            "opinion": {"stage": "reward_model", "model": "@policy", "data": "@world/preferences.jsonl",
                        "num_train_epochs": 1, "batch_size": 32},
        },
    }  # fmt: skip


def settings(completions: int, opinion: Path) -> dict[str, dict[str, Any]]:
    """The stages that are compared: as many completions a step, the same anchor where there is one."""
    ppo = {"stage": "ppo", "prompts_per_step": completions, "kl_penalty": 0.01}
    grpo = {"stage": "grpo", "prompts_per_step": completions // GROUP, "num_generations": GROUP, "kl_penalty": 0.01}
    return {
        "RLHF, PPO": {**ppo, "reward_funcs": [str(opinion)]},
        "RLHF, GRPO": {**grpo, "reward_funcs": [str(opinion)]},
        "RLVR, PPO": {**ppo, "reward_funcs": RULES},
        "RLVR, GRPO": {**grpo, "reward_funcs": RULES},
        "RLVR, GRPO, no KL": {**grpo, "reward_funcs": RULES, "kl_penalty": 0},
    }


def run(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run a recipe in a process of its own; run.json."""
    path = folder.with_suffix(".yaml")
    path.write_text(json.dumps({"threads": 1, **recipe}))
    command = [sys.executable, "-m", "temper", "run", str(path), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {recipe['name']} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads((folder / "run.json").read_text())


def measure(stage: Mapping[str, Any], name: str, made: Path, model: Path, world: Path, adapters: int) -> dict[str, Any]:
    """Bytes by part and at the peak of one setting."""
    task = {"train": str(world / "arithmetic.train.jsonl")}
    more = {"model": str(model), "tasks": ["sums"], "max_steps": 1, "max_completion_length": 32, "learning_rate": 1e-6}
    lora = {"lora": {"r": adapters, "alpha": 2 * adapters}} if adapters else {}
    folder = made.with_name(name)
    record = run({"name": name, "tasks": {"sums": task}, "stages": {"rl": {**stage, **more, **lora}}}, folder)
    first = json.loads(next(iter((folder / "stages" / "01-rl" / "metrics.jsonl").open())))
    found = {part: int(first.get(f"memory/{part}", 0)) for part in PARTS}
    peak = record["stages"]["rl"]["peak_memory_bytes"]
    return {**found, "peak": peak, "parameters": int(first["policy/parameters"])}


def table(rows: Mapping[str, Mapping[str, int]]) -> str:
    """The figures in MB, and their sum in copies of the policy's weights.

    >>> print(table({"RLVR": dict.fromkeys([*PARTS, "peak"], 2_000_000)}).splitlines()[-1])
    | RLVR | 2 | 2 | 2 | 2 | 2 | 2 | 2 | 1.0 × | 2 |
    """
    names = [*(part.replace("_", " ") for part in PARTS[:-1]), "together", "in policies", "peak of the process"]
    lines = [f"| MB | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[part] / 1e6:,.0f}" if row[part] else "–" for part in PARTS]
        cells += [f"{row['total'] / row['policy']:.1f} ×", f"{row['peak'] / 1e6:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="memory of PPO and GRPO, with a reward model and with rules")
    parser.add_argument("--hidden", type=int, default=384, metavar="N", help="a multiple of 64 (384)")
    parser.add_argument("--layers", type=int, default=6, metavar="N", help="(6)")
    parser.add_argument("--completions", type=int, default=32, metavar="N", help=f"a step, a multiple of {GROUP} (32)")
    parser.add_argument("--lora", type=int, default=0, metavar="R", help="adapters of this rank are trained")
    parser.add_argument("--json", action="store_true", help="the JSON line alone on standard output")
    args = parser.parse_args(given)
    if args.hidden % 64 or args.hidden < 64 or args.completions % GROUP or args.completions < 2 * GROUP:
        parser.error(f"--hidden is a multiple of 64, --completions of {GROUP} and at least {2 * GROUP}")
    rows: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as scratch:
        made = Path(scratch) / "made"
        say("making a policy and a reward model")
        stages = run(base_recipe(args.hidden, args.layers), made)["stages"]
        world, model, opinion = (made / "artifacts" / stages[name]["fingerprint"] for name in stages)
        for number, (name, stage) in enumerate(settings(args.completions, opinion).items()):
            say(name)
            rows[name] = measure(stage, f"rl-{number}", made, model, world, args.lora)
    count = next(iter(rows.values()))["parameters"]
    if not args.json:
        print(f"{count:,} parameters, {args.completions} completions of at most 32 tokens a step\n\n{table(rows)}")
    print(json.dumps({"parameters": count, "completions": args.completions, "lora": args.lora, "settings": rows}))


if __name__ == "__main__":
    main_of(main)
