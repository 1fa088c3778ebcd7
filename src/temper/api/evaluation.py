"""What a model can do: pass@1, pass@k and cons@k of tasks, with intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.api.models import Model, load
from temper.benchmarks import samples_of
from temper.errors import ConfigError, Fault
from temper.types import AnswerType, Prompt, Reply, ReplyForm


def evaluate(
    model: str | Path | Model,
    tasks: str | Sequence[str],
    *,
    samples: int | None = None,
    k: int | Sequence[int] | None = None,
    temperature: float = 0.6,
    top_p: float = 0.95,
    max_tokens: int = 512,
    stop: Sequence[str] = (),
    seed: int = 0,
    max_prompts: int | None = None,
    rewards: Sequence[str | Callable[[Prompt, Reply], float | None]] = (),
    answer: AnswerType | None = None,
    columns: Mapping[str, str] | None = None,
    system_prompt: str | None = None,
    form: ReplyForm | None = None,
    thinking_budgets: Sequence[int] = (),
    thinking_extensions: Sequence[int] = (),
    extend_with: str = "Wait,",
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a model on tasks: benchmarks by name, built-in tasks, data files or `hf://` names, as `temper eval` does.

    `samples` completions a prompt (4 if not given; of a benchmark what published figures take), `max_prompts` of each
    task. `thinking_budgets` (tokens) and `thinking_extensions` (times, from `extend_with`) measure the same thoughts
    cut and extended (budget forcing, 2501.19393), under "forced" of a task. `rewards` are measured beside `accuracy`,
    `format` and their like: names, or functions. `out` keeps scores and completions for `temper compare`.

    Gives what `temper eval --json` prints: the sampling, and under "tasks" by name "accuracy" with
    "accuracy_interval", "pass_at", "cons_at", "cons_at_k", "format", "truncated", "mean_tokens",
    "reflection_words", "rewards", "n" prompts and "k" samples. Raises ConfigError, DataError, ArtifactError.
    """
    from temper.environment import go_offline

    go_offline()
    from temper.stages.evaluate import Config
    from temper.stages.prompts import check_lengths

    names = [tasks] if isinstance(tasks, str) else list(tasks)
    loaded = model if isinstance(model, Model) else load(model)
    given = {"columns": columns, "answer": answer, "system_prompt": system_prompt, "reply": form}
    prompts = _prompts(names, {key: value for key, value in given.items() if value is not None}, max_prompts)
    counts = {task: samples or samples_of(name) for task, name in zip(prompts, names, strict=True)}
    for of_task in prompts.values():
        check_lengths(of_task, loaded.chat)
    folder = _empty(out)
    more = _rewards(rewards)
    config = _checked(Config, models=[loaded.name or "model"], tasks=list(prompts), num_samples=min(counts.values()),
                      pass_k=list(k) if isinstance(k, Sequence) else k, temperature=temperature, top_p=top_p,
                      stop=list(stop), max_completion_length=max_tokens, thinking_budgets=list(thinking_budgets),
                      thinking_extensions=list(thinking_extensions), extend_with=extend_with)  # fmt: skip
    whole = _measured(loaded, prompts, config, counts, seed, more, folder)
    setting = {key: whole[key] for key in ("temperature", "top_p", "top_k", "min_p")}
    of_tasks = whole["models"][0]["tasks"]
    return {"model": loaded.name, **setting, "system_prompt": system_prompt, "rewards": list(more), "tasks": of_tasks}


def _measured(
    model: Model,
    prompts: Mapping[str, Sequence[Prompt]],
    config: Any,
    counts: Mapping[str, int],
    seed: int,
    more: Mapping[str, Any],
    folder: Path | None,
) -> dict[str, Any]:
    """What evaluation.json says of one model, `counts` completions a prompt of each task; kept in `folder` if there is
    one. Raises ConfigError where thoughts are to be forced and replies have none."""
    from temper.rollout.forcing import CLOSINGS
    from temper.stages.evaluate import evaluate_with, evaluation, write_evaluation, write_scored
    from temper.stages.forced import without_thoughts

    if config.forced and (plain := [of[0] for of in prompts.values() if of and of[0].reply not in CLOSINGS]):
        raise ConfigError([without_thoughts(of.reply, model.name or "model", of.task) for of in plain])
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", model.name).strip("-") or "model"
    found: dict[str, Any] = {}
    scored: dict[tuple[str, str], Any] = {}
    with model.open_engine() as engine:
        for task, of_task in prompts.items():
            of = config.model_copy(update={"num_samples": counts[task]})
            found[task], scored[name, task], rows = evaluate_with(engine, model.chat, of_task, of, (seed, "eval"), more)
            if folder is not None:
                write_scored(folder, name, task, scored[name, task], rows)
    whole = evaluation(config, [{"stage": name, "tasks": found}], scored, prompts)
    if folder is not None:
        write_evaluation(folder, whole)
    return whole


def _prompts(names: Sequence[str], given: Mapping[str, Any], most: int | None) -> dict[str, list[Prompt]]:
    from temper.data.tasks import BUILTIN_TASKS, load_prompts, resolve_task

    if not names:
        raise ConfigError(Fault("no tasks", fix=f"name some of {', '.join(BUILTIN_TASKS)}, a benchmark or a file"))
    if most is not None and most < 1:
        raise ConfigError(Fault(f"max_prompts = {most}: at least 1"))
    found: dict[str, list[Prompt]] = {}
    for name in names:
        task = resolve_task(name)
        if task.name in found:
            raise ConfigError(Fault(f"the task `{task.name}` is named twice"))
        file = task.test or task.train
        assert file is not None  # what resolve_task finds has one
        config: Any = task.config
        of_file = {
            key: value for key, value in given.items() if name not in BUILTIN_TASKS or key in ("system_prompt", "reply")
        }
        golds = "given" if config.gym is None else "none"
        found[task.name] = load_prompts(file, task.name, config.model_copy(update=of_file), golds=golds)[:most]
    return found


def _empty(out: str | Path | None) -> Path | None:
    """The directory for what is kept. Raises ConfigError if there is something in it."""
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(Fault(f"`{folder}` is not empty", fix="name a new directory"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _rewards(given: Sequence[str | Callable[[Prompt, Reply], float | None]]) -> dict[str, Any]:
    from temper.rewards import load_rewards
    from temper.stages.evaluate import MEASURED
    from temper.stages.rewards import reward_label

    found: dict[str, Any] = {}
    for reward in given:
        if not isinstance(reward, str):
            found[getattr(reward, "__name__", "reward")] = reward
        elif reward not in MEASURED:
            found |= {reward_label(name): loaded for name, loaded in load_rewards([reward]).items()}
    return found


def _checked(config: Any, **values: Any) -> Any:
    """The config of an evaluation. Raises ConfigError with every value that is out of range."""
    from pydantic import ValidationError

    try:
        return config(**values)
    except ValidationError as problem:
        faults = [Fault(f"{'.'.join(map(str, e['loc'])) or 'the setting'}: {e['msg']}") for e in problem.errors()]
        raise ConfigError(faults) from None
