"""collect(prompts) -> groups of scored rollouts: the first of temper's two verbs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from temper.distributed.ranks import ranks
from temper.errors import Exit, Fault, TemperError
from temper.rewards.code import told
from temper.rewards.score import Score, Scorer
from temper.rng import seed_for
from temper.rollout.engine import AheadEngine, Engine, Request, Sampling
from temper.rollout.scoring import Decoder, Scoring
from temper.rollout.statistics import grade_of
from temper.types import Completion, Group, Message, Prompt, Rollout

T = TypeVar("T")
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
    return Collecting(engine, chat, scorer, prompts, samples, sampling, key).groups(tell)


class Collecting:
    """Completions under way that become scored groups; those of an `AheadEngine` are drawn from here on, others once
    they are asked for. All ranks begin, and ask, in the same order."""

    def __init__(
        self, engine: Engine, chat: Chat, scorer: Scorer, prompts: Sequence[Prompt], samples: int, sampling: Sampling,
        key: Sequence[int | str], known: Sequence[Completion] = (),
    ):  # fmt: skip
        """As for `collect`. `known`: the completions of all prompts, where they were drawn before."""
        self.all_prompts, self.prompts = prompts, ranks().share(prompts)
        self.began = self.ended = time.perf_counter()  # seconds; the last completion so far was finished at `ended`
        self._samples = samples
        self._ids = chat.prompts_ids([prompt.messages for prompt in self.prompts])
        self._asked = [prompt for prompt in self.prompts for _ in range(samples)]
        self._scoring = Scoring(chat, scorer, self._asked)
        self._known: list[Completion] | None = None
        if known:
            families = [known[i : i + samples] for i in range(0, len(known), samples)]
            self._known = [completion for family in ranks().share(families) for completion in family]
            for number, completion in enumerate(self._known):
                self._finished(number, completion)
            return
        requests = [
            Request(ids, seed_for(*key, prompt.id, sample))
            for prompt, ids in zip(self.prompts, self._ids, strict=True)
            for sample in range(samples)
        ]
        if isinstance(engine, AheadEngine):
            self._result = engine.begin(requests, sampling, self._finished).result
        else:
            self._result = partial(engine.generate, requests, sampling, None, self._finished)

    def _finished(self, number: int, completion: Completion) -> None:
        self.ended = time.perf_counter()
        self._scoring.finished(number, completion)

    def completions(self) -> list[Completion]:
        """Those of all ranks, in order."""
        families = ranks().together(lambda: _in_parts(self._drawn(), self._samples))
        return [completion for family in families for completion in family]

    def groups(self, tell: Tell | None = None) -> list[Group]:
        """Those of all ranks, in order. To be asked once."""
        found = ranks().together(self._scored_groups)
        scores = [score for _, of_group in found for score in of_group]
        stop_if_a_reward_is_broken(scores)
        if tell is not None:
            tell_of_gaps(scores, tell)
        return [group for group, _ in found]

    def _drawn(self) -> list[Completion]:
        if self._known is None:
            self._known = self._result()
        return self._known

    def _scored_groups(self) -> list[tuple[Group, list[Score]]]:
        with self._scoring as scoring:
            completions = self._drawn()
            scored = scoring.results(completions)
        parts = _in_parts(scored, self._samples)
        totals = [total for part in parts for total in comparable([score for _, score in part])]
        rollouts = [
            Rollout(prompt, completion, reply, score.rewards, total, score.failures, score.inapplicable)
            for prompt, completion, (reply, score), total in zip(self._asked, completions, scored, totals, strict=True)
        ]
        of_prompts = zip(self.prompts, self._ids, _in_parts(rollouts, self._samples), parts, strict=True)
        return [
            (Group(prompt, ids, tuple(made)), [score for _, score in part]) for prompt, ids, made, part in of_prompts
        ]


def _in_parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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
