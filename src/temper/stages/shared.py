"""What several stages do alike: open what they start from, check it before anything runs, leave a model behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from random import Random
from typing import Any, Literal

import torch

from temper.data.conversations import load_conversations
from temper.data.findings import Note, tell_all
from temper.data.overlap import overlap
from temper.data.tasks import load_prompts
from temper.errors import ConfigError, Exit, Fault, Preempted, TemperError
from temper.models.adapters import FOLDER, add_adapters, merge_adapters, missing_peft
from temper.models.device import DeviceConfig, missing_device, pick_device, pick_dtype, pin, placed
from temper.models.load import load_model
from temper.models.reward_card import is_reward_model, read_card
from temper.models.save import save_model
from temper.models.scalar import SharedTrunk
from temper.report.rollouts import read_rows, write_rows
from temper.rewards import REWARDS, Reward, load_rewards
from temper.rewards.judge import Judge, JudgeConfig
from temper.rewards.steps import StepReward, load_step_rewards
from temper.rewards.user import probe_rewards
from temper.rng import seed_for
from temper.rollout.reward_model import RewardModel
from temper.rollout.steps import StepModel
from temper.stages.context import StageContext
from temper.text.chat import ChatFormat
from temper.text.templates import missing_template_fault
from temper.train.learner import Learner, OptimizerConfig
from temper.train.optimizers import missing_optimizer
from temper.types import Example, Prompt


def listed(verdicts: Mapping[str, int]) -> str:
    """Counts by name, the largest first.

    >>> listed({"truncated": 2, "kept": 1200})
    'kept 1,200, truncated 2'
    """
    return ", ".join(f"{name} {count:,}" for name, count in sorted(verdicts.items(), key=lambda item: -item[1]))


def check_model(ref: str, ctx: StageContext, scores: bool = False, chats: bool = True) -> list[Fault]:
    """Faults of a model directory that already exists and, if it `chats`, has a template; nothing to say of one that a
    stage will make. `scores`: a reward model will do."""
    from temper.models.checks import check_model_dir

    path = ctx.inputs.get(ref)
    if path is None or ref.startswith("@"):
        return []
    faults = list(check_model_dir(path))
    if not faults:
        try:
            chat = ChatFormat.load(path)
        except TemperError as error:
            return list(error.faults)
        if chats and not chat.is_chat:
            faults.append(missing_template_fault(str(path)))
        if not scores and is_reward_model(path):
            faults.append(Fault("a reward model, where one that writes is needed", where=str(path), code=Exit.ARTIFACT))
        for warning in chat.warnings:
            ctx.log.warn(warning.what)
    return faults


def check_tasks(names: Sequence[str], split: Literal["train", "test"], ctx: StageContext) -> list[Fault]:
    """Faults of the tasks' prompts, for files that already exist."""
    faults: list[Fault] = []
    for name in names:
        task = ctx.tasks.get(name)
        if task is None:
            continue
        if getattr(task.config, split) is None:
            faults.append(
                Fault(f"task `{name}` has no `{split}` file", fix=f"give it one: tasks.{name}.{split}: prompts.jsonl")
            )
        path = getattr(task, split)
        if path is not None:
            try:
                prompts = load_prompts(path, name, task.config, tell=tell_warnings(ctx))
                if split == "test" and task.train is not None:
                    met = overlap(load_prompts(task.train, name, task.config, tell=_silent), prompts).note(str(path))
                    tell_all([met] if met else [], tell_warnings(ctx))
            except TemperError as error:
                faults += error.faults
    return faults


def open_prompts(names: Sequence[str], split: Literal["train", "test"], ctx: StageContext) -> dict[str, list[Prompt]]:
    """The prompts of each task; what is odd about a file goes to the stage's log."""
    tasks = {name: ctx.tasks[name] for name in names}
    tell = tell_warnings(ctx)
    return {name: load_prompts(getattr(task, split), name, task.config, tell=tell) for name, task in tasks.items()}


def _silent(note: Note) -> None:
    """Its training file has been told of already."""


def tell_warnings(ctx: StageContext) -> Callable[[Note], None]:
    """A listener of what is odd about a file: it goes to the stage's log."""

    def tell(note: Note) -> None:
        if note.level == "warning":
            ctx.log.warn(note.render().removeprefix("warning: "))

    return tell


def check_conversations(ref: str, columns: Mapping[str, str], ctx: StageContext) -> list[Fault]:
    """Faults of a file of conversations that already exists."""
    path = ctx.inputs.get(ref)
    if path is None or ref.startswith("@"):
        return []
    try:
        load_conversations(path, columns, tell=tell_warnings(ctx))
    except TemperError as error:
        return list(error.faults)
    return []


def check_lengths(prompts: Sequence[Prompt], chat: ChatFormat) -> None:
    """Raise DataError for prompts that leave no room for a completion in the model's context."""
    chat.prompts_ids([prompt.messages for prompt in prompts], room=1)


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


def shares(names: Sequence[str], count: int) -> dict[str, int]:
    """`count` prompts in equal shares, as equal as whole numbers go.

    >>> shares(["arithmetic", "general", "code"], 32)
    {'arithmetic': 10, 'general': 11, 'code': 11}
    """
    ends = [count * number // len(names) for number in range(len(names) + 1)]
    return {name: end - start for name, (start, end) in zip(names, pairwise(ends), strict=True)}


def open_limited_prompts(names: Sequence[str], limit: int | None, chat: ChatFormat, ctx: StageContext) -> list[Prompt]:
    """The first `limit` training prompts of each task, all of which leave room for a completion. Raises DataError."""
    prompts = [prompt for of_task in open_prompts(names, "train", ctx).values() for prompt in of_task[:limit]]
    check_lengths(prompts, chat)
    return prompts


def chunked_rows(
    prompts: Sequence[Prompt], size: int, make_rows: Callable[[Sequence[Prompt]], list[dict]], ctx: StageContext
) -> Iterator[tuple[int, int, list[dict]]]:
    """(number from 1, of how many, rows) for each `size` prompts, in order. What `make_rows` makes of them is kept on
    disk, and not made again after a kill. Raises Preempted between chunks once asked to stop."""
    chunks = -(-len(prompts) // size)
    for number in range(chunks):
        file = ctx.work / "chunks" / f"{number:05d}.jsonl"
        if not file.exists():
            write_rows(file, make_rows(prompts[number * size : (number + 1) * size]))
        yield number + 1, chunks, read_rows(file)
        if ctx.stopping():
            raise Preempted(f"sampled {number + 1} of {chunks} chunks of prompts")


def too_few(prompts: Mapping[str, Sequence[Prompt]], count: int) -> list[Fault]:
    """A fault for each task that has fewer prompts than one step draws of it."""
    wanted = shares(list(prompts), count)
    return [
        Fault(
            f"task `{name}` has {len(of_task)} training prompts, a step draws {wanted[name]}",
            why="a step's prompts must differ",
            fix="more prompts, or a smaller `prompts_per_step`",
            code=Exit.DATA,
        )
        for name, of_task in prompts.items()
        if len(of_task) < wanted[name]
    ]


def draw_prompts(
    prompts: Mapping[str, Sequence[Prompt]], count: int, step: int, key: Sequence[int | str]
) -> list[Prompt]:
    """The prompts of one step: tasks in equal shares, each task's in an order shuffled anew every epoch.

    A function of (key, step) alone, so a resumed run draws what the undisturbed one would have.
    """
    drawn: list[Prompt] = []
    for name, share in shares(list(prompts), count).items():
        of_task = prompts[name]
        for i in range(step * share, (step + 1) * share):
            epoch, at = divmod(i, len(of_task))
            drawn.append(of_task[shuffled(len(of_task), (*key, name, epoch))[at]])
    return drawn


_orders: dict[tuple[int, tuple[int | str, ...]], list[int]] = {}


def shuffled(count: int, key: tuple[int | str, ...]) -> list[int]:
    """The numbers below `count` in the order that `key` names."""
    if (count, key) not in _orders:
        if len(_orders) > 8:
            _orders.clear()
        order = list(range(count))
        Random(seed_for(*key)).shuffle(order)
        _orders[count, key] = order
    return _orders[count, key]


def conversation_examples(path: Path, columns: Mapping[str, str], chat: ChatFormat) -> list[Example]:
    return chat.conversation_examples(load_conversations(path, columns))


def check_training(config: OptimizerConfig) -> list[Fault]:
    """Faults of what a training stage asks for and this machine or installation does not have."""
    return missing_device(config.device) + missing_peft(config.lora) + missing_optimizer(config.optim)


def open_learner(source: Path | Any, config: OptimizerConfig, total_steps: int, ctx: StageContext) -> Learner:
    """A learner of the model in the directory `source`, or of `source` itself, on the device the config asks for and
    with new adapters where it asks for them."""
    device = pick_device(config.device)
    if isinstance(source, Path):
        # the learner rounds the weights it trains; those that adapters keep as they are, are rounded when they are read
        dtype = "float32" if config.lora is None else pick_dtype(config.dtype, device)
        source = load_model(source, dtype, str(device), warn=ctx.log.warn)
    model = source.to(device)
    if config.lora is not None:
        model = add_adapters(model, config.lora, seed_for(ctx.seed, ctx.name, "adapters"))
    return Learner(model, config, total_steps, seed_for(ctx.seed, ctx.name), ctx.log.warn)


def open_reference(source: Path, policy: Any, config: OptimizerConfig, offload: bool = False) -> Any:
    """π_ref: the model in `source`, on the policy's device or, with `offload`, in main memory. With adapters it is the
    policy itself, which is to be asked without them."""
    if config.lora is not None:
        return policy
    dtype = pick_dtype(config.dtype, policy.device)
    return pin(load_model(source, dtype)) if offload else load_model(source, dtype, str(policy.device))


def finish_model(learner: Learner, chat: ChatFormat, ctx: StageContext, trained_from: str, how: Sequence[str]) -> None:
    """Leave what was trained as the stage's artifact: a whole model in float32, and beside it the adapter, if any. Of a
    policy that shares its trunk with a value head it is the policy."""
    trained = learner.trained_model()
    policy = trained.policy if isinstance(trained, SharedTrunk) else trained
    model = merge_adapters(policy, ctx.out / FOLDER)
    save_model(model, chat, ctx.out, card={"stage": ctx.name, "trained_from": trained_from, "how": list(how)})
