"""Rewards held to what they must do: a gold answer in a well-formed reply scores 1, twice the same, and never fails."""

from __future__ import annotations

from collections.abc import Sequence

from temper.data.findings import Findings, Note, clip
from temper.data.rows import Row
from temper.errors import ConfigError, Fault
from temper.rewards import load_rewards
from temper.rewards.score import Scorer
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

    Raises `ConfigError` for a reward that does not exist.
    """
    scorer = Scorer(load_rewards(names))
    sums = dict.fromkeys(names, 0.0)
    for row, prompt in pairs:
        score = scorer.score(prompt, right_reply(prompt.gold))
        where = row.place(found.path)
        for name in names:
            value = score.rewards[name]
            sums[name] += value
            if name in score.failures:
                found.odd(row.number, where, f"the reward `{name}` fails", f"on {prompt.id}")
            elif name in MUST_SCORE_ONE and value != 1:
                detail = f"`{clip(prompt.gold)}` scores {value:g}"
                found.bad(row.number, where, f"the gold answer does not score 1 on `{name}`", detail)
    for name in names:
        if ".py:" in name:
            unsteady(name, [(prompt, right_reply(prompt.gold)) for _, prompt in pairs[:TWICE]], found.notes)
    return {name: total / len(pairs) for name, total in sums.items()}


def lint_reward(spec: str) -> tuple[dict[str, float], list[Note]]:
    """A reward alone, on right, wrong, malformed and empty replies: the mean on each kind, and what is odd.

    Raises `ConfigError` for a reward that cannot be loaded, or that fails on every reply.
    """
    scorer, notes = Scorer(load_rewards([spec])), []
    means, failed = {}, []
    for kind, replies in PROBES.items():
        scores = [(prompt, scorer.score(prompt, reply)) for prompt, reply in replies]
        failed += [f"{kind} reply to {prompt.id}" for prompt, score in scores if spec in score.failures]
        means[kind] = sum(score.rewards[spec] for _, score in scores) / len(scores)
    asked = sum(map(len, PROBES.values()))
    if len(failed) == asked:
        why = "it failed on each of the replies that it was tried on; a reward is called as `f(prompt, reply)`"
        raise ConfigError(Fault("this reward gives no number", spec, why, "return one finite float"))
    if failed:
        what = f"the reward fails on {len(failed)} of {asked} replies; a failure counts as 0"
        notes.append(Note("warning", Fault(what, spec, ", ".join(failed[:3]))))
    if means["right"] <= means["empty"]:
        what = f"an empty reply earns {means['empty']:g}, a right one {means['right']:g}"
        notes.append(Note("warning", Fault(what, spec, fix="look again at what it rewards")))
    unsteady(spec, [pair for replies in PROBES.values() for pair in replies], notes)
    return means, notes


def unsteady(spec: str, replies: Sequence[tuple[Prompt, Reply]], notes: list[Note]) -> None:
    """A warning if the reward gives the same reply two values: it must be a function of prompt and reply alone."""
    scorer = Scorer(load_rewards([spec]))
    for prompt, reply in replies:
        first, second = (scorer.score(prompt, reply).rewards[spec] for _ in range(2))
        if first != second:
            what, why = (
                "the reward is not deterministic",
                f"the same reply to {prompt.id} got {first:g}, then {second:g}",
            )
            notes.append(Note("warning", Fault(what, spec, why, "no clock, no random numbers, no state between calls")))
            return


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
