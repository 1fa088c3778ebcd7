"""Two models on the same prompts: the difference of their scores, prompt by prompt.

A difference of two means has the prompts' own difficulty in it twice; the mean of the differences does not.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from temper.rollout.measures import bootstrap_interval, cons_at_k, majority_is_right, pass_at_k
from temper.rollout.statistics import reflections
from temper.types import Group, Prompt

_OWN = ("mean_tokens", "truncated", "reflection_words")
_AT_K = re.compile(r"(pass|cons)@([0-9]+|k)")


@dataclass(frozen=True)
class PromptScore:
    """What one model scored on one prompt: `right` says of every sample whether it is, `consensus` whether the majority
    answer is (ties share), `rewards`, `mean_tokens`, `truncated` and `reflection_words` are means over the samples.
    `votes` numbers the answers: samples of the same answer have the same number, those that do not parse −1. `forced`
    is the accuracy where the thinking was cut or extended (`rollout/forcing.py`), by `budget@N` and `extended@N`. Of an
    open prompt, which has no right answer, `right`, `votes` and `forced` are empty and `consensus` None."""

    prompt_id: str
    right: tuple[bool, ...]
    consensus: float | None
    mean_tokens: float
    truncated: float
    rewards: Mapping[str, float]
    reflection_words: float = 0.0
    votes: tuple[int, ...] = ()
    forced: Mapping[str, float] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """A metric of this prompt: the name of a reward, `mean_tokens`, `truncated`, `reflection_words`, `pass@K`,
        `cons@K` or `cons@k` (of all samples), `budget@N` or `extended@N`.

        >>> PromptScore("1", (True, False), 0.5, 9.0, 0.0, {"accuracy": 0.5}).value("pass@2")
        1.0

        Raises KeyError for any other and for what this prompt has not, ValueError for a K above the number of samples.
        """
        if match := _AT_K.fullmatch(metric):
            samples = len(self.right)
            if self.consensus is None:
                raise KeyError(metric)
            k = samples if match[2] == "k" else int(match[2])
            if match[1] == "pass":
                return pass_at_k(samples, sum(self.right), k)
            if k == samples:
                return self.consensus
            return cons_at_k([vote if vote >= 0 else None for vote in self.votes], self.right, k)
        if metric in _OWN:
            return getattr(self, metric)
        return self.forced[metric] if metric in self.forced else self.rewards[metric]

    def has(self, metric: str) -> bool:
        """Whether this prompt has that metric: an open one has no accuracy, and not every reward is for every prompt.

        >>> PromptScore("1", (), None, 9.0, 0.0, {"format": 0.5}).has("pass@2")
        False
        """
        of_answers = _AT_K.fullmatch(metric) is not None
        return self.consensus is not None if of_answers else metric in (*self.rewards, *self.forced, *_OWN)

    def row(self) -> dict[str, Any]:
        return asdict(self)


def read_score(row: Mapping[str, Any]) -> PromptScore:
    """What `PromptScore.row` gave. Raises KeyError or TypeError for anything else."""
    return PromptScore(**{**row, "right": tuple(row["right"]), "votes": tuple(row.get("votes", ()))})


def prompt_score(
    group: Group, votes: Sequence[Hashable | None] | None, forced: Mapping[str, float] | None = None
) -> PromptScore:
    """What a group scored; `votes` are the answers that its samples vote for, None of an open prompt."""
    rollouts, k = group.rollouts, len(group.rollouts)
    names = dict.fromkeys(name for rollout in rollouts for name in rollout.rewards)
    values = {name: [r.rewards[name] for r in rollouts if name in r.rewards] for name in names}
    answers = dict.fromkeys(vote for vote in votes or () if vote is not None)
    numbers = {answer: i for i, answer in enumerate(answers)}
    right = () if votes is None else tuple(rollout.rewards["accuracy"] == 1.0 for rollout in rollouts)
    return PromptScore(
        prompt_id=group.prompt.id,
        right=right,
        consensus=None if votes is None else majority_is_right(votes, right),
        mean_tokens=sum(len(rollout.completion.token_ids) for rollout in rollouts) / k,
        truncated=sum(rollout.completion.finish_reason == "length" for rollout in rollouts) / k,
        rewards={name: sum(of_name) / len(of_name) for name, of_name in values.items()},
        reflection_words=sum(reflections(rollout.reply) for rollout in rollouts) / k,
        votes=tuple(-1 if vote is None else numbers[vote] for vote in votes or ()),
        forced=forced or {},
    )


def set_hash(prompts: Sequence[Prompt]) -> str:
    """What tells one set of held-out prompts from another: ids, texts and gold answers, in any order."""
    parts = sorted((p.id, [(m.role, m.content) for m in p.messages], p.gold or "", p.answer_type) for p in prompts)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def paired(
    a: Sequence[PromptScore], b: Sequence[PromptScore], metric: str = "accuracy", than: str | None = None
) -> dict[str, Any]:
    """Model a minus model b on the same prompts: the mean difference with its 95 % bootstrap interval over those that
    have the metric. `than`: the metric of b, where it is another one.

    `better`, `worse` and `equal` count prompts, `p_value` is the two-sided sign test on the first two; of single
    samples, the i-th of a beside the i-th of b, `both_right`, `only_a`, `only_b` and `neither` are McNemar's four.

    >>> a = [PromptScore(str(i), (True,), 1.0, 5.0, 0.0, {"accuracy": 1.0}) for i in range(4)]
    >>> b = [PromptScore(str(i), (i > 0,), 1.0, 5.0, 0.0, {"accuracy": float(i > 0)}) for i in range(4)]
    >>> found = paired(a, b)
    >>> found["difference"], found["better"], found["worse"], found["equal"], found["p_value"], found["only_a"]
    (0.25, 1, 0, 3, 1.0, 1)

    Raises ValueError if the prompts or the numbers of samples are not the same, KeyError for an unknown metric.
    """
    other = {score.prompt_id: score for score in b}
    if {score.prompt_id for score in a} != set(other) or len(a) != len(b):
        raise ValueError("the two models were not measured on the same prompts")
    than = metric if than is None else than
    pairs = [(score, other[score.prompt_id]) for score in a]
    pairs = [(x, y) for x, y in pairs if x.has(metric) and y.has(than)]
    if not pairs:
        raise KeyError(metric)
    differences = [x.value(metric) - y.value(than) for x, y in pairs]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    samples = [both for x, y in pairs for both in zip(x.right, y.right, strict=True)]
    return {
        "metric": metric,
        "n": len(pairs),
        "a": sum(x.value(metric) for x, _ in pairs) / len(pairs),
        "b": sum(y.value(than) for _, y in pairs) / len(pairs),
        "difference": sum(differences) / len(pairs),
        "interval": list(bootstrap_interval(differences)),
        "better": better,
        "worse": worse,
        "equal": len(pairs) - better - worse,
        "p_value": sign_test(better, worse),
        "both_right": samples.count((True, True)),
        "only_a": samples.count((True, False)),
        "only_b": samples.count((False, True)),
        "neither": samples.count((False, False)),
    }


def main_metric(scores: Sequence[PromptScore], rewards: Sequence[str]) -> str:
    """By what two models are compared where nobody says: accuracy; of open prompts the first of `rewards`, which are
    those that the evaluation was asked for, else `format`.

    >>> poem = PromptScore("1", (), None, 9.0, 0.0, {"format": 1.0, "helpful": 0.5})
    >>> main_metric([poem], ["accuracy", "helpful"]), main_metric([poem], [])
    ('helpful', 'format')
    """
    wanted = ("accuracy", *rewards)
    return next((name for name in wanted if any(score.has(name) for score in scores)), "format")


def sign_test(better: int, worse: int) -> float:
    """The two-sided exact probability of counts at least this uneven, were both equally likely.

    >>> sign_test(5, 0), sign_test(0, 0)
    (0.0625, 1.0)
    """
    n, least = better + worse, min(better, worse)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(least + 1)) / 2**n)
