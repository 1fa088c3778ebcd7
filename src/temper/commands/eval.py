"""`temper eval MODEL --tasks …`: pass@1, pass@k, cons@k with intervals; truncation, length and language beside them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from temper.commands.sampling import add_sampling_arguments, checked_sampling, warn_once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    parser.add_argument("--tasks", required=True, help="built-in tasks (arithmetic, general) or files, comma-separated")
    parser.add_argument("-n", "--samples", type=int, default=4, help="completions a prompt (default: 4)")
    parser.add_argument("-k", type=int, default=None, help="the k of pass@k (default: the number of samples)")
    parser.add_argument("--prompts", type=int, default=None, help="only the first so many of each task")
    add_sampling_arguments(parser)
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.data.tasks import load_prompts, resolve_task
    from temper.errors import ConfigError, Fault
    from temper.runs import resolve_model

    faults = []
    if args.samples < 1:
        faults.append(Fault(f"-n {args.samples}: an evaluation needs at least 1 sample a prompt"))
    if args.k is not None and not 1 <= args.k <= max(args.samples, 1):
        faults.append(Fault(f"pass@{args.k} cannot be measured with {args.samples} samples a prompt",
                            fix=f"-k at most {args.samples}, or -n at least {args.k}"))  # fmt: skip
    if args.prompts is not None and args.prompts < 1:
        faults.append(Fault(f"--prompts {args.prompts}: at least 1"))
    if faults:
        raise ConfigError(faults)
    checked_sampling(args)
    path = resolve_model(args.model)
    results: dict[str, Any] = {}
    for name in args.tasks.split(","):
        task = resolve_task(name.strip())
        file = task.test or task.train
        assert file is not None  # what resolve_task finds has one
        prompts = load_prompts(file, task.name, task.config)[: args.prompts]
        results[task.name] = evaluate(path, prompts, args)
    setting = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k, "min_p": args.min_p}
    report = {"model": str(args.model), **setting, "tasks": results}
    print(json.dumps(report, ensure_ascii=False) if args.json else render(report))
    return 0


def evaluate(path: Any, prompts: list, args: argparse.Namespace) -> dict[str, Any]:
    from temper.stages.evaluate import Config, evaluate_model

    config = Config(
        models=[str(path)],
        tasks=["task"],
        num_samples=args.samples,
        pass_k=args.k,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        stop=args.stop,
        max_completion_length=args.max_tokens,
    )
    print(f"{len(prompts)} prompts × {args.samples} samples …", file=sys.stderr)
    measured, _ = evaluate_model(path, prompts, config, (args.seed, "eval"), warn_once)
    return measured


def render(report: dict[str, Any]) -> str:
    cut = f", top-k {report['top_k']}" * bool(report["top_k"]) + f", min-p {report['min_p']:g}" * bool(report["min_p"])
    lines = [f"{report['model']}   T {report['temperature']:g}, top-p {report['top_p']:g}{cut}"]
    for name, task in report["tasks"].items():
        low, high = task["accuracy_interval"]
        language = task["language_consistency"]
        lines += [
            f"\n{name}: {task['n']} prompts × {task['k']} samples",
            f"  pass@1    {task['accuracy']:.3f}   95 % interval {low:.3f} to {high:.3f}",
            f"  pass@{task['pass_k']:<4} {task['pass_at_k']:.3f}",
            f"  cons@{task['k']:<4} {task['cons_at_k']:.3f}   (ties share the point)",
            f"  format    {task['format']:.3f}",
            f"  language  {'–' if language is None else f'{language:.3f}'}",
            f"  truncated {task['truncated']:.3f}",
            f"  tokens    {task['mean_tokens']:.1f}",
        ]
    return "\n".join(lines)
