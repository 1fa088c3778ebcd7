"""What a step's rollouts say of the policy: rewards, lengths, dead groups, reflection. Names as in docs/metrics.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean, pstdev

from temper.code.grader import VERDICTS, Grade
from temper.rewards.code import code
from temper.types import Group, Prompt, Reply, Rollout

REFLECTION = re.compile(
    r"\b(wait|verify|check|however|mistake|hmm|actually|again|alternatively|warte|moment|prüfe|nochmal|stattdessen)\b",
    re.IGNORECASE,
)
PASS_RATE_BINS = 5
Advantages = Sequence[Sequence[tuple[float, ...]]]  # of each group's each completion's tokens


def rollout_metrics(groups: Sequence[Group], advantages: Advantages) -> dict[str, float | list[float]]:
    """Means over the rollouts of one step, shares of groups, and the histogram of group pass rates in fifths. The
    mean of a reward is over the rollouts it applies to, that of advantages over completions."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    count = len(rollouts)
    metrics: dict[str, float | list[float]] = {}
    for name in dict.fromkeys(name for rollout in rollouts for name in rollout.rewards):
        metrics[f"reward/{name.removeprefix('@')}"] = fmean(r.rewards[name] for r in rollouts if name in r.rewards)
    metrics["reward/total"] = sum(rollout.total for rollout in rollouts) / count
    of_rollouts = [fmean(values) for group in advantages for values in group]
    metrics["advantage/mean"] = fmean(of_rollouts)
    metrics["advantage/std"] = pstdev(of_rollouts)
    metrics["completion/length"] = count_tokens(groups) / count
    metrics["completion/truncated"] = sum(rollout.completion.finish_reason == "length" for rollout in rollouts) / count
    metrics["groups/dead"] = dead_share(advantages)
    if judged := [group for group in groups if any("accuracy" in r.rewards for r in group.rollouts)]:
        metrics["groups/pass_rate"] = _pass_rates(judged)
    metrics["reflection_words"] = sum(reflections(r.reply) for r in rollouts) / count
    if left_out := unverifiable([group.prompt for group in groups]):
        metrics["prompts/unverifiable"] = left_out
    metrics["grader_failures"] = sum(len(rollout.grader_failures) for rollout in rollouts)
    if inapplicable := sum(len(rollout.inapplicable) for rollout in rollouts):
        metrics["rewards_inapplicable"] = inapplicable
    return metrics | verdict_metrics(rollouts)


def reflections(reply: Reply) -> int:
    """How many words of a thought look back on it, in English or German.

    >>> reflections(Reply("", "First 2+3=6. Wait, that is wrong. Check again: 2+3=5.", "5", True))
    3
    """
    return len(REFLECTION.findall(reply.reasoning or ""))


def unverifiable(prompts: Sequence[Prompt]) -> int:
    """How many rows of the prompts' files were left out, since no reply could be held against their gold answers.

    >>> unverifiable([Prompt("1", "t", (), "5", coverage="1,410 of 1,500 rows"), Prompt("2", "t", (), "6")])
    90
    """
    of_tasks = {prompt.task: prompt.coverage for prompt in prompts if prompt.coverage}
    counts = [[int(number.replace(",", "")) for number in re.findall(r"[\d,]+", rows)] for rows in of_tasks.values()]
    return sum(rows - kept for kept, rows in counts)


def grade_of(rollout: Rollout) -> Grade | None:
    """How a rollout's program was graded; None where it has none that the reward `code` was asked about."""
    asked = "code" in rollout.rewards or "code" in rollout.grader_failures
    return code.grade_of(rollout.prompt, rollout.reply) if asked else None


def verdict_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """The share of each verdict among the programs of a step, and of those that pass only what their question shows
    (`Grade`); nothing where there are none."""
    grades = [grade for rollout in rollouts if (grade := grade_of(rollout)) is not None]
    verdicts = [grade.verdict for grade in grades]
    if not grades:
        return {}
    shares = {f"code/{name}": verdicts.count(name) / len(verdicts) for name in VERDICTS}
    shares["code/shown_only"] = sum(grade.shown_only for grade in grades) / len(grades)
    return {**shares, "code/hard_coded": sum(grade.hard_coded for grade in grades) / len(grades)}


def dead_share(advantages: Advantages) -> float:
    """The share of groups that nothing is learned from.

    >>> dead_share([[(0.0, 0.0), (0.0,)], [(0.5, 0.5), (-0.5,)]])
    0.5
    """
    return sum(not any(any(values) for values in group) for group in advantages) / len(advantages)


def count_tokens(groups: Sequence[Group]) -> int:
    """Completion tokens, end tokens included."""
    return sum(len(rollout.completion.token_ids) for group in groups for rollout in group.rollouts)


def _pass_rates(groups: Sequence[Group]) -> list[float]:
    """The share of groups whose pass rate lies in each fifth of [0, 1], the last one closed."""
    bins = [0] * PASS_RATE_BINS
    for group in groups:
        rate = sum(rollout.rewards.get("accuracy") == 1.0 for rollout in group.rollouts) / len(group.rollouts)
        bins[min(PASS_RATE_BINS - 1, int(rate * PASS_RATE_BINS))] += 1
    return [n / len(groups) for n in bins]
