"""The rewards a stage names: functions, reward models, a judge; checked before anything runs, and opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import torch

from temper.errors import ConfigError, Fault, TemperError
from temper.models.device import DeviceConfig, placed
from temper.models.reward_card import read_card
from temper.rewards import REWARDS, Reward, load_rewards
from temper.rewards.judge import Judge, JudgeConfig
from temper.rewards.steps import StepReward, load_step_rewards
from temper.rewards.user import probe_rewards
from temper.rollout.reward_model import RewardModel
from temper.rollout.steps import StepModel
from temper.stages.context import StageContext


def open_rewards(
    names: Sequence[str], ctx: StageContext, where: DeviceConfig, judge: JudgeConfig | None = None
) -> dict[str, Reward]:
    """The rewards by the names the config gives them; a file's path is relative to the recipe. Reward models are
    computed where and with what numbers `where` says; the judge keeps its verdicts beside the stage's checkpoints.
    Raises ConfigError, ArtifactError."""
    functions = [name for name in names if not _is_model(name, ctx)]
    found = _load_functions(functions, ctx, judge, ctx.work / "judge.jsonl")
    loaded: dict[str, Reward] = dict(zip(functions, found.values(), strict=True))
    dtype, device = placed(where)
    models = {name: ctx.inputs[name] for name in names if _is_model(name, ctx)}
    loaded |= {name: RewardModel.load(path, torch.device(device), dtype, ctx.log.warn) for name, path in models.items()}
    return {name: loaded[name] for name in names}


def _is_model(name: str, ctx: StageContext) -> bool:
    if name in REWARDS or name == "judge":  # whatever folders there are
        return False
    return name.startswith("@") or ctx.inputs.get(name, Path(name)).is_dir()


def _load_functions(
    names: Sequence[str], ctx: StageContext, judge: JudgeConfig | None, memory: Path | None = None
) -> dict[str, Reward]:
    given = {"judge": Judge(judge, memory)} if judge is not None and "judge" in names else {}
    return load_rewards([str(ctx.inputs.get(name, name)) for name in names], given=given) if names else {}


def reward_label(name: str) -> str:
    """What a reward is called in metrics and samples.

    >>> reward_label("@helpful"), reward_label("models/safe/"), reward_label("accuracy"), reward_label("my.py:brevity")
    ('helpful', 'safe', 'accuracy', 'my.py:brevity')
    """
    if name.startswith("@"):
        return name[1:]
    return name if ":" in name else PurePath(name).name


def check_rewards(names: Sequence[str], ctx: StageContext, judge: JudgeConfig | None = None) -> list[Fault]:
    """Faults of the rewards. Functions are tried on a few replies: one that raises or says two things at once is warned
    of. Reward models that exist are looked at without their weights; the judge is not asked."""
    faults = check_labels(names)
    for path in (ctx.inputs[name] for name in names if _is_model(name, ctx) and name in ctx.inputs):
        faults += check_reward_model(path)
    try:
        loaded = _load_functions([name for name in names if not _is_model(name, ctx)], ctx, judge)
        warnings = probe_rewards({name: reward for name, reward in loaded.items() if not isinstance(reward, Judge)})
    except ConfigError as error:
        return [*faults, *error.faults]
    for warning in warnings:
        ctx.log.warn(warning.render("").removeprefix(": "))
    return faults


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


def open_step_rewards(names: Sequence[str], ctx: StageContext, where: DeviceConfig) -> dict[str, StepReward]:
    """The step rewards by what they are called in metrics; a file's path is relative to the recipe. Process reward
    models are computed where and with what numbers `where` says. Raises ConfigError, ArtifactError."""
    dtype, device = placed(where)

    def opened(name: str) -> StepReward:
        if _is_model(name, ctx):
            return StepModel(RewardModel.load(ctx.inputs[name], torch.device(device), dtype, ctx.log.warn))
        (function,) = load_step_rewards([str(ctx.inputs.get(name, name))]).values()
        return function

    return {reward_label(name): opened(name) for name in names}


def check_step_rewards(names: Sequence[str], ctx: StageContext) -> list[Fault]:
    """Faults of the step rewards, of models among them without their weights."""
    faults = check_labels(names)
    for path in (ctx.inputs[name] for name in names if _is_model(name, ctx) and name in ctx.inputs):
        faults += check_reward_model(path) or check_judges_steps(path)
    try:
        load_step_rewards([str(ctx.inputs.get(name, name)) for name in names if not _is_model(name, ctx)])
    except ConfigError as error:
        faults += error.faults
    return faults


def check_judges_steps(path: Path) -> list[Fault]:
    """A fault for a reward model that judges whole replies."""
    kind = read_card(path).kind
    if kind == "process":
        return []
    what = f"a {kind} reward model cannot judge steps"
    return [Fault(what, str(path), fix="name it in `reward_funcs`, or train one of `kind: process`")]
