"""Rewards held to what they must do: a gold answer in a well-formed reply scores 1, none fails."""

from __future__ import annotations

from collections.abc import Sequence

from temper.data.findings import Findings, Note, clip
from temper.data.rows import Row
from temper.errors import ConfigError, Fault
from temper.rewards import REWARDS, load_rewards
from temper.rewards.score import Scorer
from temper.rewards.user import WrongReturn, probe_rewards
from temper.text.reply import parse_reply
from temper.types import AnswerType, Message, Prompt, Reply

MUST_SCORE_ONE = ("accuracy", "format", "tag_count")  # what a right and well-formed reply earns in full
TWICE = 100  # rows that a reward of the user's is asked about twice


def right_reply(gold: str) -> Reply:
    """A well-formed reply with this answer.

    >>> right_reply("42").answer
    '42'
    """
    return parse_reply(f"<think>We work it out step by step and check the result.</think><answer>{gold}</answer>")


def check_golds(pairs: Sequence[tuple[Row, Prompt]], names: Sequence[str], found: Findings) -> dict[str, float]:
    """The mean of each reward over the gold answers; a gold answer that does not earn its reward is a bad row.

    Raises `ConfigError` for a reward that does not exist, or that returns anything but a finite number.
    """
    rewards = load_rewards(names)
    scorer = Scorer(rewards, strict=True)
    sums = dict.fromkeys(names, 0.0)
    own = {name: reward for name, reward in rewards.items() if name not in REWARDS}
    sound: dict[str, list[tuple[Prompt, Reply]]] = {name: [] for name in own}  # where that reward does not fail
    for row, prompt in pairs:
        reply = right_reply(prompt.gold)
        try:
            score = scorer.score(prompt, reply)
        except WrongReturn as error:
            what, where = "a reward does not return a number", row.place(found.path)
            raise ConfigError(Fault(what, where, str(error), "return one finite float for each reply")) from None
        for name in names:
            sums[name] += score.rewards[name]
            _check_gold(row, prompt, name, score.rewards[name], score.reasons.get(name), found)
        for name in own:
            if name not in score.reasons and len(sound[name]) < TWICE:
                sound[name].append((prompt, reply))
    for name, reward in own.items():
        found.notes += [Note("warning", fault) for fault in probe_rewards({name: reward}, sound[name])]
    return {name: total / len(pairs) for name, total in sums.items()}


def _check_gold(row: Row, prompt: Prompt, name: str, value: float, failed: str | None, found: Findings) -> None:
    where = row.place(found.path)
    if failed is not None:
        fix = "a failure counts as 0: let the reward give a number for every reply"
        found.odd(
            row.number, where, f"the reward `{name}` fails on the gold answer", f"{prompt.id}: {clip(failed)}", fix
        )
    elif name in MUST_SCORE_ONE and value != 1:
        detail = f"`{clip(prompt.gold)}` scores {value:g}"
        found.bad(row.number, where, f"the gold answer does not score 1 on `{name}`", detail)


def lint_reward(spec: str) -> tuple[dict[str, float], list[Note]]:
    """A reward alone, on right, wrong, malformed and empty replies: the mean on each kind, and what is odd.

    Raises `ConfigError` for a reward that cannot be loaded, returns no number, or fails on every reply.
    """
    rewards = load_rewards([spec])
    notes = [Note("warning", fault) for fault in probe_rewards(rewards, [one for of in PROBES.values() for one in of])]
    scorer = Scorer(rewards)
    scores = {kind: [scorer.score(*one) for one in replies] for kind, replies in PROBES.items()}
    if all(score.reasons for of_kind in scores.values() for score in of_kind):
        why = next(iter(scores["right"][0].reasons.values()))
        raise ConfigError(Fault("this reward fails on every reply", spec, why, "let it return one finite float"))
    means = {kind: sum(score.total for score in of_kind) / len(of_kind) for kind, of_kind in scores.items()}
    if means["right"] <= means["empty"]:
        what = f"an empty reply earns {means['empty']:g}, a right one {means['right']:g}"
        notes.append(Note("warning", Fault(what, spec, fix="look again at what it rewards")))
    return means, notes


def _probe(number: int, question: str, gold: str, answer_type: AnswerType) -> Prompt:
    return Prompt(f"probe {number}", "probe", (Message("user", question),), gold, answer_type)


_ASKED = (
    _probe(1, "What is 38+33?", "71", "math"),
    _probe(2, "What is one half of one half?", "1/4", "math"),
    _probe(3, "What is the capital of France?", "Paris", "text"),
)
PROBES: dict[str, list[tuple[Prompt, Reply]]] = {
    "right": [(prompt, right_reply(prompt.gold)) for prompt in _ASKED],
    "wrong": [(prompt, right_reply(wrong)) for prompt, wrong in zip(_ASKED, ("72", "1/2", "Rome"), strict=True)],
    "malformed": [(prompt, parse_reply(f"It is {prompt.gold}.")) for prompt in _ASKED],
    "empty": [(prompt, parse_reply("")) for prompt in _ASKED],
}
