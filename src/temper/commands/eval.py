"""`temper eval MODEL --tasks …`: pass@1, pass@k, cons@k with intervals; truncation, length and language beside them."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.benchmarks import samples_of
from temper.commands.check import read_columns, split
from temper.commands.run import folder
from temper.commands.sampling import add_sampling_arguments, checked_sampling, warn_once
from temper.commands.score import load_all
from temper.errors import tell

if TYPE_CHECKING:
    from temper.types import Prompt

MOST_EXTENSIONS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    named = "benchmarks (gsm8k, math500, aime24 …; gsm8k=FILE for one's own copy), built-in tasks, files, hf:// names, "
    named += "sets of reasoning-gym (gym:chain_sum?size=100&seed=7), comma-separated"
    parser.add_argument("--tasks", required=True, help=named)
    samples = "completions a prompt (default: 4; of a benchmark what published figures take, 4 to 64)"
    parser.add_argument("-n", "--samples", type=int, default=None, help=samples)
    parser.add_argument("--trained-on", default="", metavar="FILES", help="warn of questions that are also in these")
    parser.add_argument("-k", default="", help="the k of pass@k, or several: 1,4,16 (default: the number of samples)")
    parser.add_argument("--thinking-budgets", default="", metavar="N,N,…",
                        help="accuracy with thoughts cut after so many tokens, too: 0,64,256")  # fmt: skip
    parser.add_argument("--thinking-extensions", default="", metavar="N,N,…",
                        help="and with thoughts that go on so often where they would have ended: 1,2,4")  # fmt: skip
    parser.add_argument("--extend-with", default="Wait,", metavar="WORD", help="what they go on from (default: Wait,)")
    parser.add_argument("--columns", default="", metavar="ROLE=COLUMN,…",
                        help="of the files: prompt=frage,answer=antwort")  # fmt: skip
    parser.add_argument("--answer", choices=("math", "text"), help="how answers of files compare (default: math)")
    parser.add_argument("--system-prompt", metavar="TEXT", help="before every prompt that brings none")
    named = "measured too: names, my.py:function, RUN:stage or the directory of a reward model"
    parser.add_argument("--rewards", default="", metavar="NAMES", help=named)
    parser.add_argument("--prompts", type=int, default=None, help="only the first so many of each task")
    add_sampling_arguments(parser)
    parser.add_argument("--out", type=folder, metavar="DIR",
                        help="keep the scores and completions there: `temper compare` reads them")  # fmt: skip
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.data.tasks import BUILTIN_TASKS, load_prompts, resolve_task
    from temper.errors import ConfigError, Fault
    from temper.runs import resolve_model
    from temper.stages.forced import without_thoughts
    from temper.stages.programs import without_golds

    faults = []
    least = args.samples if args.samples is not None else min(map(samples_of, args.tasks.split(",")))
    if least < 1:
        faults.append(Fault(f"-n {args.samples}: an evaluation needs at least 1 sample a prompt"))
    ks = [part.strip() for part in args.k.split(",")] if args.k.strip() else []
    if wrong := [k for k in ks if not (k.isascii() and k.isdigit() and int(k) >= 1)]:
        faults.append(Fault(f"-k {args.k}: `{wrong[0]}` is no whole number of at least 1", fix="write `-k 1,4,16`"))
    elif (most := max(map(int, ks), default=1)) > max(least, 1):
        faults.append(Fault(f"pass@{most} cannot be measured with {least} samples a prompt",
                            fix=f"-k at most {least}, or -n at least {most}"))  # fmt: skip
    if args.prompts is not None and args.prompts < 1:
        faults.append(Fault(f"--prompts {args.prompts}: at least 1"))
    forced, wrong_lengths = read_lengths(args)
    faults += wrong_lengths
    columns, wrong_columns = read_columns(args.columns)
    faults += wrong_columns
    if faults:
        raise ConfigError(faults)
    checked_sampling(args)
    more = own_rewards(split(args.rewards))
    if args.out is not None and args.out.exists() and any(args.out.iterdir()):
        raise ConfigError(Fault(f"`{args.out}` is not empty", fix="name a new directory with --out"))
    path = resolve_model(args.model)
    prompts: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for name in args.tasks.split(","):
        task = resolve_task(name.strip())
        file = task.test or task.train
        assert file is not None  # what resolve_task finds has one
        config = said(task.config, args, columns, name.strip() in BUILTIN_TASKS)
        golds = golds_asked(config, args, more)
        prompts[task.name] = load_prompts(file, task.name, config, golds=golds)[: args.prompts]
        if config.gym is None and (told := without_golds(task.name, prompts[task.name])):
            tell(f"note: {told}")
        counts[task.name] = args.samples or samples_of(name)
        warn_of_training(args.trained_on, task.name, file, config)
    try_rewards(more, [prompt for of_task in prompts.values() for prompt in of_task])
    if forced and (faults := [without_thoughts(of.reply, str(args.model), of.task) for of in thoughtless(prompts)]):
        raise ConfigError(faults)
    report = evaluate(path, prompts, args, [int(k) for k in ks], more, counts, forced)
    print(json.dumps(report, ensure_ascii=False) if args.json else render(report))
    return 0


def read_lengths(args: argparse.Namespace) -> tuple[dict[str, Any], list[Any]]:
    """The keys of an evaluation that forces thoughts, from its options, and what is wrong with them."""
    from temper.errors import Fault

    found: dict[str, Any] = {}
    faults = []
    for key, text, least in (("budgets", args.thinking_budgets, 0), ("extensions", args.thinking_extensions, 1)):
        for part in split(text):
            if not (part.isascii() and part.isdigit() and int(part) >= least):
                faults.append(Fault(f"--thinking-{key} {text}: `{part}` is no whole number of at least {least}"))
            elif key == "budgets" and int(part) >= args.max_tokens:
                why = f"--max-tokens is {args.max_tokens}: no room to answer"
                faults.append(Fault(f"--thinking-{key} {text}: `{part}` is too many tokens", why=why))
            elif key == "extensions" and int(part) > MOST_EXTENSIONS:
                faults.append(Fault(f"--thinking-{key} {text}: `{part}` is more than {MOST_EXTENSIONS} times"))
            else:
                found.setdefault(f"thinking_{key}", []).append(int(part))
    if not args.extend_with:
        faults.append(Fault("--extend-with is empty", fix="a word such as `Wait,`"))
    return found | ({"extend_with": args.extend_with} if found else {}), faults


def thoughtless(prompts: dict[str, Any]) -> list[Any]:
    """A prompt of each task whose replies are read in a form without a thought."""
    from temper.rollout.forcing import CLOSINGS

    return [of_task[0] for of_task in prompts.values() if of_task and of_task[0].reply not in CLOSINGS]


def golds_asked(config: Any, args: argparse.Namespace, more: dict[str, Any]) -> Any:
    """Which rows of a task must have a gold answer: all where a reward that is named needs them."""
    from temper.rewards import needs_gold

    if config.gym is not None:
        return "none"
    return "all" if "accuracy" in split(args.rewards) or any(map(needs_gold, more.values())) else "given"


def warn_of_training(files: str, task: str, test: Path, config: Any) -> None:
    """Warnings about the questions of a task that stand in files that were trained on."""
    from temper.data.overlap import overlap
    from temper.data.tasks import load_prompts, resolve_task

    bare = {"prompt_template": None, "choice_template": None}
    for name in split(files):
        trained = resolve_task(name)
        file = trained.train or trained.test
        assert file is not None
        settings: Any = trained.config
        known = load_prompts(file, trained.name, settings.model_copy(update=bare), golds="none", tell=lambda _: None)
        asked = load_prompts(test, task, config.model_copy(update=bare), golds="none", tell=lambda _: None)
        if met := overlap(known, asked).note(f"{name} and {task}"):
            tell(met.render())


def said(config: Any, args: argparse.Namespace, columns: dict[str, str], builtin: bool) -> Any:
    """A task's config with what the options say of it. A built-in one's rows are temper's own: it needs no columns."""
    of_file = {} if builtin else {"columns": columns or None, "answer": args.answer}
    given = {**of_file, "system_prompt": args.system_prompt, "reply": args.reply}
    return config.model_copy(update={key: value for key, value in given.items() if value is not None})


def own_rewards(names: list[str]) -> dict[str, Any]:
    """The rewards of `--rewards` beside those that every evaluation measures. Raises ConfigError, ArtifactError."""
    from temper.rewards import MEASURED
    from temper.rewards.names import our_name
    from temper.stages.rewards import reward_label

    names = [name for name in names if our_name(name) not in MEASURED]
    loaded = load_all(names) if names else {}
    return {reward_label(name): reward for name, reward in loaded.items()}


def try_rewards(rewards: dict[str, Any], prompts: list[Prompt]) -> None:
    """Functions of files on some of the prompts: warnings about them, or ConfigError."""
    from temper.rewards.probe import probe_rewards, replies_to, spread

    own = {name: reward for name, reward in rewards.items() if ".py:" in name}
    tried = [pair for prompt in spread(prompts) for pair in replies_to(prompt)]
    for warning in probe_rewards(own, tried, real=True):
        tell(warning.render("warning"))


def evaluate(
    path: Path,
    prompts: dict[str, Any],
    args: argparse.Namespace,
    ks: list[int],
    more: dict[str, Any],
    counts: dict[str, int],
    forced: dict[str, Any],
) -> dict[str, Any]:
    """The scores of the model on every task; with `--out`, an evaluation is left there as a stage would leave it."""
    from temper.stages.evaluate import Config, evaluate_model, evaluation, write_evaluation, write_scored

    config = Config(
        models=[str(path)],
        tasks=list(prompts),
        num_samples=min(counts.values()),
        pass_k=ks or None,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        stop=args.stop,
        max_completion_length=args.max_tokens,
        **forced,
    )
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", str(args.model)).strip("-") or "model"
    tasks, scored = {}, {}
    for task, of_task in prompts.items():
        tell(f"{len(of_task)} prompts × {counts[task]} samples …")
        of = config.model_copy(update={"num_samples": counts[task]})
        found = evaluate_model(path, of_task, of, (args.seed, "eval"), warn_once, more)
        tasks[task], scored[name, task], samples = found
        if args.out is not None:
            save(args.out, lambda task=task, rows=samples: write_scored(args.out, name, task, scored[name, task], rows))
    found = evaluation(config, [{"stage": name, "tasks": tasks}], scored, prompts)
    if args.out is not None:
        save(args.out, lambda: write_evaluation(args.out, found))
    setting = {key: found[key] for key in ("temperature", "top_p", "top_k", "min_p")}
    return {
        "model": str(args.model),
        **setting,
        "system_prompt": args.system_prompt,
        "rewards": list(more),
        "tasks": tasks,
    }


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
            f"\n{name}: {task['n']} prompts × {task['k']} samples, replies read as `{task['reply']}`",
            *(
                [f"  rows      {task['coverage']}; the gold answers of the others cannot be verified"]
                if task.get("coverage")
                else []
            ),
            *([f"  open      {task['open']} prompts without a gold answer"] if task.get("open") else []),
            f"  pass@1    {_with_interval(task['accuracy'], task['accuracy_interval'])}",
            *(
                f"  pass@{k:<4} {_with_interval(of['value'], of['interval'])}"
                for k, of in task["pass_at"].items()
                if k != "1"
            ),
            f"  cons@{task['k']:<4} {_with_interval(task['cons_at_k'], task['cons_at_k_interval'])}"
            "   (ties share the point)",
            *lengths(task),
            f"  format    {task['format']:.3f}",
            f"  language  {'–' if language is None else f'{language:.3f}'}",
            f"  truncated {task['truncated']:.3f}",
            f"  tokens    {task['mean_tokens']:.1f}",
            *(
                f"  {label} {task['rewards'][label]:.3f}"
                for label in dict.fromkeys((*report["rewards"], "gym"))
                if label in task["rewards"]
            ),
        ]
    return "\n".join(lines)


def lengths(task: dict[str, Any]) -> list[str]:
    """A line for each length of thinking that was measured."""
    from temper.report.thinking import length_name

    return [
        f"  {length_name(name):<17} {_with_interval(of['value'], of['interval'])}   {of['thinking_tokens']:.0f} tokens"
        for name, of in task.get("forced", {}).items()
    ]


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:.3f}   95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
