"""Which reward says that a reply is right: of programs `code` (all tests pass), of the sets of reasoning-gym `gym`, of
everything else `accuracy`, where there is a gold answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from temper.code.grader import Score
from temper.code.refusals import SandboxError
from temper.code.tiers import Tier
from temper.errors import DataError, Fault
from temper.record.warnings import HIGHEST_HARD_CODED
from temper.rewards.accuracy import accuracy, vote
from temper.rewards.code import InfrastructureFailure, code
from temper.rewards.gym import is_of_set
from temper.stages.context import StageContext
from temper.types import Group, Prompt, Reply, Rollout


def programs_of(names: Sequence[str], tasks: Sequence[str], reward_tasks: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks whose replies are programs.

    >>> programs_of(["code"], ["sums", "programs"], {"code": ["programs"]}), programs_of([], ["sums"], {})
    (['programs'], [])
    """
    wanted = reward_tasks.get("code", tasks)
    return [task for task in tasks if task in wanted] if "code" in names else []


def with_tests(
    prompts: Mapping[str, list[Prompt]], of: Sequence[str], warn: Callable[[str], None]
) -> dict[str, list[Prompt]]:
    """The prompts by task; of tasks whose replies are programs only those that can be judged.

    Raises DataError where none of a task's can.
    """
    found = {}
    for task, of_task in prompts.items():
        judged = [prompt for prompt in of_task if task not in of or code.tests_of(prompt) is not None]
        if left := len(of_task) - len(judged):
            warn(f"{left:,} of {len(of_task):,} prompts of the task `{task}` have no tests that can be run: left out")
        if of_task and not judged:
            fix = "give rows tests (docs/code.md), or take the task out of the reward's (`reward_tasks`)"
            raise DataError(Fault(f"no row of the task `{task}` has tests that can be run", of_task[0].place, fix=fix))
        found[task] = judged
    return found


def accuracy_but(tasks: Sequence[str]) -> Callable[[Prompt, Reply], float | None]:
    """The reward `accuracy`; None for prompts of these tasks, of sets, and without a gold answer."""

    def measured(prompt: Prompt, reply: Reply) -> float | None:
        other = prompt.task in tasks or prompt.gold is None or is_of_set(prompt)
        return None if other else accuracy(prompt, reply)

    return measured


def by_rewards(group: Group, names: Sequence[str]) -> Group:
    """The group, its replies to an open prompt with the sum of these rewards as their total."""
    if "accuracy" in group.rollouts[0].rewards:
        return group
    totals = [sum(rollout.rewards.get(name, 0.0) for name in names) for rollout in group.rollouts]
    rollouts = [replace(rollout, total=total) for rollout, total in zip(group.rollouts, totals, strict=True)]
    return replace(group, rollouts=tuple(rollouts))


def is_set(ctx: StageContext, task: str) -> bool:
    """Whether a task is a set of reasoning-gym."""
    return task in ctx.tasks and ctx.tasks[task].config.gym is not None


def knows_by_heart(model: str, task: str, measured: Mapping[str, Any]) -> str:
    """A warning where programs of an evaluated model answer for the examples in their question alone; else "".

    >>> knows_by_heart("rl", "programs", {"verdicts": {"code/hard_coded": 0.25, "code/shown_only": 0.5}})[:36]
    'rl: 25% of the programs on programs '
    """
    shares = measured.get("verdicts", {})
    share = shares.get("code/hard_coded", 0.0)
    if share <= HIGHEST_HARD_CODED:
        return ""
    text = f"{model}: {share:.0%} of the programs on {task} compare with an example of their question, pass the tests"
    return f"{text} that stand there and fail one that is held back ({shares['code/shown_only']:.0%} of all pass so)"


def right_by_set(group: Group) -> Group:
    """The group with the `accuracy` of its replies to a prompt of a set: right is what the set gives 1."""
    return replace(group, rollouts=tuple(_with_accuracy(rollout, rollout.rewards, "gym") for rollout in group.rollouts))


def right_by_tests(group: Group, score: Score = "all", tier: Tier = "landlock") -> Group:
    """The group with the `accuracy` of its programs. A program that the sandbox could not run is run again.

    Raises SandboxError where it cannot be run then either: what is not known is not counted as wrong.
    """
    return replace(group, rollouts=tuple(_judged(rollout, score, tier) for rollout in group.rollouts))


def _judged(rollout: Rollout, score: Score, tier: Tier) -> Rollout:
    found = dict(rollout.rewards)
    if "code" in rollout.grader_failures:
        try:
            found["code"] = code.scored(score, tier)(rollout.prompt, rollout.reply) or 0.0
        except InfrastructureFailure as failure:
            fix = "`temper doctor` shows what the sandbox needs"
            raise SandboxError(Fault("the sandbox could not run a program twice", why=str(failure), fix=fix)) from None
    failures = tuple(name for name in rollout.grader_failures if name != "code")
    return replace(_with_accuracy(rollout, found, "code"), grader_failures=failures)


def _with_accuracy(rollout: Rollout, rewards: Mapping[str, float], by: str) -> Rollout:
    right = float(rewards[by] == 1.0)
    inapplicable = tuple(name for name in rollout.inapplicable if name != "accuracy")
    return replace(rollout, rewards={"accuracy": right, **rewards}, total=right, inapplicable=inapplicable)


def without_golds(task: str, prompts: Sequence[Prompt]) -> str:
    """What is to know of a task some of whose prompts are open, "" of any other."""
    count = sum(prompt.gold is None for prompt in prompts)
    if not count:
        return ""
    rest = "accuracy, pass@k and cons@k are not measured" if count == len(prompts) else "accuracy is that of the others"
    return f"{count:,} of {len(prompts):,} prompts of the task `{task}` have no gold answer: {rest}"


def votes(group: Group) -> list[Hashable | None] | None:
    """What the samples of a group vote for: their answers, equal ones alike; None for one that does not parse. None for
    an open prompt."""
    if "accuracy" not in group.rollouts[0].rewards:
        return None
    as_written = "code" in group.rollouts[0].rewards or is_of_set(group.prompt)  # equal programs are one vote
    return [r.reply.answer if as_written else vote(r.prompt, r.reply) for r in group.rollouts]
