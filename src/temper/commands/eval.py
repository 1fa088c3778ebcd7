"""`temper eval MODEL --tasks …`: pass@1, pass@k, cons@k with intervals; truncation, length and language beside them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from temper.commands.run import folder
from temper.commands.sampling import add_sampling_arguments, checked_sampling, warn_once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    parser.add_argument("--tasks", required=True, help="built-in tasks (arithmetic, general) or files, comma-separated")
    parser.add_argument("-n", "--samples", type=int, default=4, help="completions a prompt (default: 4)")
    parser.add_argument("-k", default="", help="the k of pass@k, or several: 1,4,16 (default: the number of samples)")
    parser.add_argument("--prompts", type=int, default=None, help="only the first so many of each task")
    add_sampling_arguments(parser)
    parser.add_argument("--out", type=folder, metavar="DIR",
                        help="keep the scores and completions there: `temper compare` reads them")  # fmt: skip
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.data.tasks import load_prompts, resolve_task
    from temper.errors import ConfigError, Fault
    from temper.runs import resolve_model

    faults = []
    if args.samples < 1:
        faults.append(Fault(f"-n {args.samples}: an evaluation needs at least 1 sample a prompt"))
    ks = [part.strip() for part in args.k.split(",")] if args.k.strip() else [str(max(args.samples, 1))]
    if wrong := [k for k in ks if not (k.isascii() and k.isdigit() and int(k) >= 1)]:
        faults.append(Fault(f"-k {args.k}: `{wrong[0]}` is no whole number of at least 1", fix="write `-k 1,4,16`"))
    elif max(map(int, ks)) > max(args.samples, 1):
        most = max(map(int, ks))
        faults.append(Fault(f"pass@{most} cannot be measured with {args.samples} samples a prompt",
                            fix=f"-k at most {args.samples}, or -n at least {most}"))  # fmt: skip
    if args.prompts is not None and args.prompts < 1:
        faults.append(Fault(f"--prompts {args.prompts}: at least 1"))
    if faults:
        raise ConfigError(faults)
    checked_sampling(args)
    if args.out is not None and args.out.exists() and any(args.out.iterdir()):
        raise ConfigError(Fault(f"`{args.out}` is not empty", fix="name a new directory with --out"))
    path = resolve_model(args.model)
    prompts: dict[str, Any] = {}
    for name in args.tasks.split(","):
        task = resolve_task(name.strip())
        file = task.test or task.train
        assert file is not None  # what resolve_task finds has one
        prompts[task.name] = load_prompts(file, task.name, task.config)[: args.prompts]
    report = evaluate(path, prompts, args, [int(k) for k in ks])
    print(json.dumps(report, ensure_ascii=False) if args.json else render(report))
    return 0


def evaluate(path: Path, prompts: dict[str, Any], args: argparse.Namespace, ks: list[int]) -> dict[str, Any]:
    """The scores of the model on every task; with `--out`, an evaluation is left there as a stage would leave it."""
    from temper.stages.evaluate import Config, evaluate_model, evaluation, write_evaluation, write_scored

    config = Config(
        models=[str(path)],
        tasks=list(prompts),
        num_samples=args.samples,
        pass_k=ks,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        stop=args.stop,
        max_completion_length=args.max_tokens,
    )
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", str(args.model)).strip("-") or "model"
    tasks, scored = {}, {}
    for task, of_task in prompts.items():
        print(f"{len(of_task)} prompts × {args.samples} samples …", file=sys.stderr)
        tasks[task], scored[name, task], samples = evaluate_model(path, of_task, config, (args.seed, "eval"), warn_once)
        if args.out is not None:
            save(args.out, lambda task=task, rows=samples: write_scored(args.out, name, task, scored[name, task], rows))
    found = evaluation(config, [{"stage": name, "tasks": tasks}], scored, prompts)
    if args.out is not None:
        save(args.out, lambda: write_evaluation(args.out, found))
    setting = {key: found[key] for key in ("temperature", "top_p", "top_k", "min_p")}
    return {"model": str(args.model), **setting, "tasks": tasks}


def save(out: Path, write: Any) -> None:
    from temper.errors import Fault, ResourceError

    try:
        out.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise ResourceError(Fault(f"cannot write the evaluation: {error.strerror or error}", str(out))) from error


def render(report: dict[str, Any]) -> str:
    cut = f", top-k {report['top_k']}" * bool(report["top_k"]) + f", min-p {report['min_p']:g}" * bool(report["min_p"])
    lines = [f"{report['model']}   T {report['temperature']:g}, top-p {report['top_p']:g}{cut}"]
    for name, task in report["tasks"].items():
        language = task["language_consistency"]
        lines += [
            f"\n{name}: {task['n']} prompts × {task['k']} samples",
            f"  pass@1    {_with_interval(task['accuracy'], task['accuracy_interval'])}",
            *(f"  pass@{k:<4} {_with_interval(of['value'], of['interval'])}" for k, of in task["pass_at"].items()
              if k != "1"),
            f"  cons@{task['k']:<4} {_with_interval(task['cons_at_k'], task['cons_at_k_interval'])}"
            "   (ties share the point)",
            f"  format    {task['format']:.3f}",
            f"  language  {'–' if language is None else f'{language:.3f}'}",
            f"  truncated {task['truncated']:.3f}",
            f"  tokens    {task['mean_tokens']:.1f}",
        ]
    return "\n".join(lines)


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f}   95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
