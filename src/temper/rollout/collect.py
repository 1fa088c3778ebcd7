"""collect(prompts) -> groups of scored rollouts: the first of temper's two verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from temper.distributed.ranks import ranks
from temper.errors import Exit, Fault, TemperError
from temper.rewards.code import told
from temper.rewards.score import Score, Scorer
from temper.rng import seed_for
from temper.rollout.engine import Engine, Request, Sampling
from temper.rollout.scoring import Decoder, Scoring
from temper.rollout.statistics import grade_of
from temper.types import Group, Message, Prompt, Rollout

Tell = Callable[[str, str], None]  # what about (told once each), and the words


class Chat(Decoder, Protocol):
    """What collecting needs of a chat format (`text/chat.py`)."""

    def prompts_ids(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]: ...


def collect(
    engine: Engine,
    chat: Chat,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    samples: int,
    sampling: Sampling,
    key: Sequence[int | str],
    tell: Tell | None = None,
) -> list[Group]:
    """`samples` completions of each prompt, parsed and scored. The draws are named by (`key`, prompt, sample). `tell`
    hears of rewards that failed on some replies or do not apply to them. Raises TemperError for one that fails on all.
    With several ranks each draws and scores its share of the prompts, and all get all groups.
    """
    own = ranks().share(prompts)
    found = ranks().together(lambda: list(_scored_groups(engine, chat, scorer, own, samples, sampling, key)))
    scores = [score for _, of_group in found for score in of_group]
    stop_if_a_reward_is_broken(scores)
    if tell is not None:
        tell_of_gaps(scores, tell)
    return [group for group, _ in found]


def _scored_groups(
    engine: Engine,
    chat: Chat,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    samples: int,
    sampling: Sampling,
    key: Sequence[int | str],
) -> Iterator[tuple[Group, list[Score]]]:
    prompt_ids = chat.prompts_ids([prompt.messages for prompt in prompts])
    requests = [
        Request(ids, seed_for(*key, prompt.id, sample))
        for prompt, ids in zip(prompts, prompt_ids, strict=True)
        for sample in range(samples)
    ]
    asked = [prompt for prompt in prompts for _ in range(samples)]
    with Scoring(chat, scorer, asked) as scoring:
        completions = engine.generate(requests, sampling, None, scoring.finished)
        scored = scoring.results(completions)
    totals = [
        total
        for start in range(0, len(scored), samples)
        for total in comparable([score for _, score in scored[start : start + samples]])
    ]
    rollouts = [
        Rollout(prompt, completion, reply, score.rewards, total, score.failures, score.inapplicable)
        for prompt, completion, (reply, score), total in zip(asked, completions, scored, totals, strict=True)
    ]
    for i, (prompt, ids) in enumerate(zip(prompts, prompt_ids, strict=True)):
        part = slice(i * samples, (i + 1) * samples)
        yield Group(prompt, ids, tuple(rollouts[part])), [score for _, score in scored[part]]


def comparable(scores: Sequence[Score]) -> list[float]:
    """The totals of one group; a reply that a reward could not judge takes the mean of the others: it is neither better
    nor worse than they are, and changes nothing for them.

    >>> comparable([Score({}, 1.0), Score({}, 0.0), Score({}, 0.0, unknown=("code",))])
    [1.0, 0.0, 0.5]
    """
    known = [score.total for score in scores if not score.unknown]
    middle = sum(known) / len(known) if known else 0.0
    return [middle if score.unknown else score.total for score in scores]


def stop_if_a_reward_is_broken(scores: Sequence[Score]) -> None:
    """Raise TemperError (exit code 7) where a reward failed on every reply that it was asked about: what is learned or
    kept without it is not what the recipe asks for."""
    asked = Counter(name for score in scores for name in (*score.rewards, *score.inapplicable))
    failed = Counter(name for score in scores for name in score.failures)
    broken = [name for name, count in failed.items() if count == asked[name]]
    if broken:
        reasons = {name: next(score.reasons[name] for score in scores if name in score.reasons) for name in broken}
        raise TemperError(
            [
                Fault(
                    f"guard: the reward `{name}` failed on all {asked[name]:,} replies of this step",
                    why=reasons[name],
                    fix="mend it, then run the same command again: it goes on from the last checkpoint",
                )
                for name in broken
            ],
            Exit.GUARD,
        )


def tell_of_gaps(scores: Sequence[Score], tell: Tell) -> None:
    """What is to know of rewards without a value for some replies: (which reward and what of it, in words)."""
    failed = Counter(name for score in scores for name in score.failures)
    for name, count in failed.items():
        reason = next(score.reasons[name] for score in scores if name in score.reasons)
        said = f"the reward `{name}` failed on {count:,} of {len(scores):,} replies, which it gives 0: {reason}"
        tell(f"failed {name}", said)
    for name, count in Counter(name for score in scores for name in score.inapplicable).items():
        said = (
            f"the reward `{name}` does not apply to {count:,} of {len(scores):,} replies (it returned None): it is no "
            "part of their totals; `reward_tasks` names the tasks that a reward is for"
        )
        tell(f"inapplicable {name}", said)


def rollout_row(rollout: Rollout, sample: int) -> dict:
    """A rollout as it is written to disk and shown to people."""
    return {
        "prompt_id": rollout.prompt.id,
        "task": rollout.prompt.task,
        "prompt": rollout.prompt.text,
        "gold": rollout.prompt.gold,
        "reply": rollout.reply.text,
        "rewards": dict(rollout.rewards),
        "total": rollout.total,
        "finish_reason": rollout.completion.finish_reason,
        "tokens": len(rollout.completion.token_ids),
        "sample": sample,
        **({"code": told(grade)} if (grade := grade_of(rollout)) is not None else {}),
        **({"coverage": rollout.prompt.coverage} if rollout.prompt.coverage else {}),
    }
