"""The rewards a stage names: functions, reward models, a judge; checked before anything runs, and opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import torch
from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from temper.code.cpp import compiler
from temper.code.grader import Score
from temper.code.refusals import SandboxError
from temper.code.sandbox import shared_sandbox, tier_in_use
from temper.code.tiers import LOUD, Tier
from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.models.device import DeviceConfig, placed
from temper.models.reward_card import read_card
from temper.rewards import REWARDS, Reward, load_rewards, needs_gold
from temper.rewards.code import code
from temper.rewards.judge import Judge, JudgeConfig
from temper.rewards.names import our_name, what_it_means
from temper.rewards.probe import PROBES, probe_rewards, probe_steps, replies_to, spread
from temper.rewards.remote import is_remote
from temper.rewards.steps import StepReward, load_step_rewards
from temper.rewards.user import UserReward, UserStepReward
from temper.rewards.worker import TIMEOUT, Limits
from temper.rollout.reward_model import RewardModel
from temper.rollout.steps import StepModel
from temper.stages.context import StageContext
from temper.text.languages import LANGUAGES
from temper.text.steps import reply_steps
from temper.types import Prompt


class RewardsConfig(DeviceConfig):
    """What rewards need beside their names."""

    judge: JudgeConfig | None = None  # whom the reward `judge` asks
    code_score: Score = "all"  # how a program's tests make the reward `code`: all pass, the share, or half of each
    sandbox: Tier = "landlock"  # what stands around programs: nothing is run where that cannot be had
    reward_tasks: dict[str, list[str]] = {}  # a reward that only prompts of these of the stage's tasks earn
    # seconds that a reward of a file may take for a reply, or for a call where it takes many
    reward_timeout: Annotated[float, Field(gt=0, le=86_400)] = TIMEOUT
    _elsewhere: tuple[str, ...] = PrivateAttr(default=())  # rewards that were named as another tool does

    @model_validator(mode="wrap")
    @classmethod
    def _by_our_names(cls, written: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        taken: dict[str, None] = {}
        if isinstance(written, Mapping):
            written = {key: _ours(value, taken) if key in _NAMING else value for key, value in written.items()}
        config = handler(written)
        if taken:
            config._elsewhere = tuple(taken)
        return config

    @property
    def labelled_tasks(self) -> dict[str, list[str]]:
        """`reward_tasks`, by what rewards are called in metrics."""
        return {reward_label(name): tasks for name, tasks in self.reward_tasks.items()}


_NAMING = ("reward_funcs", "min_rewards", "reward_tasks", "reward_start_steps")  # keys that name rewards


def _ours(value: Any, taken: dict[str, None]) -> Any:
    """A list of rewards, or a mapping by them, with the names of other tools replaced; `taken` gets those."""
    if not isinstance(value, list | tuple | Mapping):
        return value
    ours = [our_name(name) if isinstance(name, str) else name for name in value]
    if isinstance(value, Mapping) and len(set(ours)) < len(ours):
        return value  # one reward by two names: told where they are loaded
    taken.update((name, None) for name, our in zip(value, ours, strict=True) if name != our)
    return dict(zip(ours, value.values(), strict=True)) if isinstance(value, Mapping) else ours


def check_reward_tasks(config: RewardsConfig, names: Sequence[str], tasks: Sequence[str]) -> None:
    """Raise ValueError for `reward_tasks` with a reward or a task that the stage does not have."""
    if unknown := [name for name in config.reward_tasks if name not in names]:
        raise ValueError(f"reward_tasks names `{unknown[0]}`, which is not among the rewards ({', '.join(names)})")
    if unknown := [task for of_name in config.reward_tasks.values() for task in of_name if task not in tasks]:
        raise ValueError(f"reward_tasks names the task `{unknown[0]}`, which is not among tasks")


def open_rewards(names: Sequence[str], ctx: StageContext, config: RewardsConfig) -> dict[str, Reward]:
    """The rewards by the names the config gives them; a file's path is relative to the recipe. Reward models are
    computed where and with what numbers `config` says; the judge keeps its verdicts beside the stage's checkpoints.
    Raises ConfigError, ArtifactError."""
    functions = [name for name in names if not _is_model(name, ctx)]
    found = _load_functions(functions, ctx, config, ctx.work / "judge.jsonl")
    loaded: dict[str, Reward] = dict(zip(functions, found.values(), strict=True))
    dtype, device = placed(config)
    models = {name: ctx.inputs[name] for name in names if _is_model(name, ctx)}
    loaded |= {name: RewardModel.load(path, torch.device(device), dtype, ctx.log.warn) for name, path in models.items()}
    return {name: loaded[name] for name in names}


def scoring_models(*rewards: Mapping[str, Any]) -> list[Any]:
    """The models among rewards, each once."""
    asked = [reward.model if isinstance(reward, StepModel) else reward for of in rewards for reward in of.values()]
    found = [reward.model for reward in asked if isinstance(reward, RewardModel)]
    return list({id(model): model for model in found}.values())


def golds_of(
    names: Sequence[str],
    ctx: StageContext,
    config: RewardsConfig,
    tasks: Sequence[str],
) -> dict[str, str]:
    """By task, a reward that asks for gold answers; tasks that no such reward is for are not there."""
    functions = [name for name in names if not _is_model(name, ctx)]
    try:
        loaded = dict(zip(functions, _load_functions(functions, ctx, config).values(), strict=True))
    except ConfigError:  # told by `check_rewards`
        loaded = {name: REWARDS[name] for name in functions if name in REWARDS}
    asking = [name for name in functions if name in loaded and needs_gold(loaded[name])]
    golds: dict[str, str] = {}
    for name in asking:
        for task in config.reward_tasks.get(name, tasks):
            golds.setdefault(task, reward_label(name))
    return golds


def tell_once(ctx: StageContext) -> Callable[[str, str], None]:
    """Warnings into the stage's log, one about each matter however often it comes up."""
    told: set[str] = set()

    def tell(matter: str, text: str) -> None:
        if matter not in told:
            told.add(matter)
            ctx.log.warn(text)

    return tell


def _is_model(name: str, ctx: StageContext) -> bool:
    if is_remote(name) or name in REWARDS or name in ("judge", "gym", "math_verify"):  # whatever folders there are
        return False
    return name.startswith("@") or os.path.isdir(ctx.inputs.get(name, name))


def _load_functions(
    names: Sequence[str], ctx: StageContext, config: RewardsConfig, memory: Path | None = None
) -> dict[str, Reward]:
    judge, limits = config.judge, Limits(config.reward_timeout, stopping=ctx.stopping)
    given: dict[str, Reward] = {"judge": Judge(judge, memory)} if judge is not None and "judge" in names else {}
    if "code" in names:
        given["code"] = code.scored(config.code_score, config.sandbox)
    paths = [str(ctx.inputs.get(name, name)) for name in names]
    return load_rewards(paths, given=given, limits=limits) if names else {}


def reward_label(name: str) -> str:
    """What a reward is called in metrics and samples.

    >>> reward_label("@helpful"), reward_label("models/safe/"), reward_label("accuracy"), reward_label("my.py:brevity")
    ('helpful', 'safe', 'accuracy', 'my.py:brevity')
    """
    if name.startswith("@"):
        return name[1:]
    if is_remote(name):
        parts = urlsplit(name)
        return f"{parts.netloc}{parts.path}".rstrip("/")
    return name if ":" in name else PurePath(name).name


def check_rewards(
    names: Sequence[str],
    ctx: StageContext,
    config: RewardsConfig,
    prompts: Callable[[], Mapping[str, Sequence[Prompt]]],
) -> list[Fault]:
    """Faults of the rewards. Functions of a file are tried on some rows of the tasks they are for: one that fails on
    all, or gives no number, is a fault; one that says two things at once or fails on some is warned of. `prompts` are
    those of the tasks whose files are there; where none is, made-up ones are taken. Reward models that exist are looked
    at without their weights; the judge is not asked."""
    for name in config._elsewhere:
        ctx.log.warn(what_it_means(name))
    faults = check_labels(names) + _check_languages(names, ctx, config)
    for path in (ctx.inputs[name] for name in names if _is_model(name, ctx) and name in ctx.inputs):
        faults += check_reward_model(path)
    functions = [name for name in names if not _is_model(name, ctx)]
    try:
        loaded = dict(zip(functions, _load_functions(functions, ctx, config).values(), strict=True))
    except ConfigError as error:
        return [*faults, *error.faults]
    own = {name: reward for name, reward in loaded.items() if isinstance(reward, UserReward)}
    known = prompts() if own or "code" in names else {}
    if "code" in names:
        asked = {task: known.get(task, ()) for task in config.reward_tasks.get("code", known)}
        faults += check_programs(asked, config.sandbox)
        if config.sandbox == "none":
            ctx.log.warn(LOUD)
    for name, reward in own.items():
        asked = [prompt for task in config.reward_tasks.get(name, known) for prompt in spread(known.get(task, ()))]
        samples = [pair for prompt in asked for pair in replies_to(prompt)]
        try:
            warnings = probe_rewards({reward_label(name): reward}, samples or PROBES, real=bool(samples))
        except ConfigError as error:
            faults += error.faults
            continue
        for warning in warnings:
            ctx.log.warn(warning.render("").removeprefix(": "))
    return faults


def _check_languages(names: Sequence[str], ctx: StageContext, config: RewardsConfig) -> list[Fault]:
    """A fault for each task whose language the reward for one language knows no words of."""
    name = "language_consistency"
    asked = config.reward_tasks.get(name, getattr(config, "tasks", ())) if name in names else ()
    return [
        Fault(f"`{name}` knows no words of `{ctx.tasks[task].config.language}`, the language of task `{task}`",
              why=f"it can tell {', '.join(LANGUAGES)}", fix=f"`reward_tasks: {{{name}: […]}}` without the task")
        for task in asked if task in ctx.tasks and ctx.tasks[task].config.language not in LANGUAGES
    ]  # fmt: skip


def check_programs(prompts: Mapping[str, Sequence[Prompt]], tier: Tier = "landlock") -> list[Fault]:
    """A fault where there is no sandbox, and for each task that the reward `code` is for and no row of which has tests
    that can be run."""
    faults: list[Fault] = []
    try:
        shared_sandbox(tier)
    except SandboxError as error:
        faults += error.faults
    for task, of_task in prompts.items():
        why = [reason for prompt in of_task if (reason := code.no_tests(prompt))]
        if of_task and len(why) == len(of_task):
            what = f"no row of the task `{task}` has tests that can be run"
            fix = "give rows tests (docs/code.md), or name the tasks that have some: reward_tasks: {code: [TASK]}"
            faults.append(Fault(what, why=why[0], fix=fix, code=Exit.DATA))
    return faults + _without_compiler(prompt for of_task in prompts.values() for prompt in of_task)


def _without_compiler(prompts: Iterable[Prompt]) -> list[Fault]:
    """A fault where programs of a language are asked for that cannot be compiled here."""
    if any(tests is not None and tests.language == "cpp" for tests in map(code.tests_of, prompts)):
        try:
            compiler()
        except SandboxError as error:
            return list(error.faults)
    return []


def how_graded(names: Sequence[str]) -> list[str]:
    """A line for the model's card: in what the programs of its replies were run."""
    tier = tier_in_use()
    return [f"programs in replies were run; the sandbox: {tier}"] if "code" in names and tier else []


def check_labels(names: Sequence[str]) -> list[Fault]:
    """A fault for each name in metrics that two rewards would have."""
    labels = [reward_label(name) for name in names]
    return [
        Fault(f"two rewards are called `{label}`", why="each has a metric of its own", fix="name one of them")
        for label in dict.fromkeys(labels)
        if labels.count(label) > 1
    ]


def check_reward_model(path: Path) -> list[Fault]:
    """Faults of the directory of a reward model."""
    from temper.models.checks import check_model_dir

    try:
        read_card(path)
        return list(check_model_dir(path, values=False))
    except TemperError as error:
        return list(error.faults)


def open_step_rewards(names: Sequence[str], ctx: StageContext, config: RewardsConfig) -> dict[str, StepReward]:
    """The step rewards by what they are called in metrics; a file's path is relative to the recipe. Process reward
    models are computed where and with what numbers `config` says. Raises ConfigError, ArtifactError."""
    dtype, device = placed(config)
    limits = Limits(config.reward_timeout, stopping=ctx.stopping)

    def opened(name: str) -> StepReward:
        if _is_model(name, ctx):
            return StepModel(RewardModel.load(ctx.inputs[name], torch.device(device), dtype, ctx.log.warn))
        (function,) = load_step_rewards([str(ctx.inputs.get(name, name))], limits=limits).values()
        return function

    return {reward_label(name): opened(name) for name in names}


def check_step_rewards(
    names: Sequence[str],
    ctx: StageContext,
    config: RewardsConfig,
    prompts: Callable[[], Mapping[str, Sequence[Prompt]]],
) -> list[Fault]:
    """Faults of the step rewards, of models among them without their weights; functions of a file are tried, as those
    of whole replies are (`check_rewards`)."""
    faults = check_labels(names)
    for path in (ctx.inputs[name] for name in names if _is_model(name, ctx) and name in ctx.inputs):
        faults += check_reward_model(path) or check_judges_steps(path)
    limits = Limits(config.reward_timeout, stopping=ctx.stopping)
    functions = [str(ctx.inputs.get(name, name)) for name in names if not _is_model(name, ctx)]
    try:
        loaded = load_step_rewards(functions, limits=limits)
    except ConfigError as error:
        return [*faults, *error.faults]
    own = {name: reward for name, reward in loaded.items() if isinstance(reward, UserStepReward)}
    known = [prompt for of_task in prompts().values() for prompt in spread(of_task)] if own else []
    samples = [(prompt, reply, reply_steps(reply)) for one in known for prompt, reply in replies_to(one)]
    for name, reward in own.items():
        faults += probe_steps(reward_label(name), reward, samples)
    return faults


def check_judges_steps(path: Path) -> list[Fault]:
    """A fault for a reward model that judges whole replies."""
    kind = read_card(path).kind
    if kind == "process":
        return []
    what = f"a {kind} reward model cannot judge steps"
    return [Fault(what, str(path), fix="name it in `reward_funcs`, or train one of `kind: process`")]
