"""Rewards held to what they must do: a gold answer in a well-formed reply scores 1, none fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from temper.data.findings import Findings, Note, clip
from temper.data.rows import Row
from temper.errors import ConfigError, Fault
from temper.rewards import REWARDS, Reward, load_rewards
from temper.rewards.probe import probe_rewards, replies_to, right_reply, spread
from temper.rewards.returns import WrongReturn
from temper.rewards.score import Scorer
from temper.rewards.user import UserReward
from temper.text.reply import parse_reply
from temper.types import AnswerType, Message, Prompt, Reply

MUST_SCORE_ONE = ("accuracy", "format", "tag_count")  # what a right and well-formed reply earns in full
TWICE = 100  # rows that a reward of the user's is asked about twice


def check_golds(pairs: Sequence[tuple[Row, Prompt]], names: Sequence[str], found: Findings) -> dict[str, float]:
    """The mean of each reward over the gold answers; a gold answer that does not earn its reward is a bad row.

    Raises `ConfigError` for a reward that does not exist, or that returns anything but a finite number.
    """
    rewards = load_rewards(names)
    scorer = Scorer(rewards, strict=True)
    warned = _try_own(rewards, [prompt for _, prompt in pairs])
    found.notes += [Note("warning", fault) for faults in warned.values() for fault in faults]
    sums, asked = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    own = {name: reward for name, reward in rewards.items() if name not in REWARDS}
    sound: dict[str, list[tuple[Prompt, Reply]]] = {name: [] for name in own}  # where that reward does not fail
    for row, prompt in pairs:
        reply = right_reply(prompt.gold or "", prompt.reply)
        try:
            score = scorer.score(prompt, reply)
        except WrongReturn as error:
            what, where = "a reward does not return a number", row.place(found.path)
            raise ConfigError(Fault(what, where, str(error), "return one finite float for each reply")) from None
        for name in names:
            if name in score.rewards:
                sums[name] += score.rewards[name]
                asked[name] += 1
                _check_gold(row, prompt, name, score.rewards[name], score.reasons.get(name), found)
        for name in own:
            if name not in score.reasons and len(sound[name]) < TWICE:
                sound[name].append((prompt, reply))
    for name, reward in own.items():
        if not warned.get(name):
            found.notes += [Note("warning", fault) for fault in probe_rewards({name: reward}, sound[name])]
    return {name: total / asked[name] for name, total in sums.items() if asked[name]}


def _try_own(rewards: Mapping[str, Reward], prompts: Sequence[Prompt]) -> dict[str, Sequence[Fault]]:
    """Warnings about each reward of the user's, tried on some replies to these prompts. Raises ConfigError for one that
    fails on all of them."""
    samples = [pair for prompt in spread(prompts) for pair in replies_to(prompt)]
    own = {name: reward for name, reward in rewards.items() if isinstance(reward, UserReward)}
    return {name: probe_rewards({name: reward}, samples, real=True) for name, reward in own.items() if samples}


def _check_gold(row: Row, prompt: Prompt, name: str, value: float, failed: str | None, found: Findings) -> None:
    where = row.place(found.path)
    if failed is not None:
        fix = "a failure counts as 0: let the reward give a number for every reply"
        found.odd(
            row.number, where, f"the reward `{name}` fails on the gold answer", f"{prompt.id}: {clip(failed)}", fix
        )
    elif name in MUST_SCORE_ONE and value != 1:
        detail = f"`{clip(prompt.gold or '')}` scores {value:g}"
        found.bad(row.number, where, f"the gold answer does not score 1 on `{name}`", detail)


def lint_reward(spec: str, prompts: Sequence[Prompt] = ()) -> tuple[dict[str, float], list[Note]]:
    """A reward alone, on right, wrong, malformed and empty replies: the mean on each kind, and what is odd. They answer
    some of the `prompts`, or made-up ones where there are none: a reward that needs columns may fail on all of those.

    Raises `ConfigError` for a reward that cannot be loaded, returns no number, or fails on every reply to `prompts`.
    """
    rewards = load_rewards([spec])
    asked = spread(prompts) or _ASKED
    replies = {kind: [(prompt, reply_to(prompt)) for prompt in asked] for kind, reply_to in KINDS.items()}
    every = [one for of_kind in replies.values() for one in of_kind]
    notes = [Note("warning", fault) for fault in probe_rewards(rewards, every, real=bool(prompts))]
    scorer = Scorer(rewards)
    scores = {kind: scorer.score_all(of_kind) for kind, of_kind in replies.items()}
    if all(score.reasons for of_kind in scores.values() for score in of_kind):
        return {}, notes
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
KINDS: dict[str, Callable[[Prompt], Reply]] = {
    "right": lambda prompt: right_reply(prompt.gold or "yes"),
    "wrong": lambda prompt: right_reply(_WRONG.get(prompt.gold or "", "something else entirely")),
    "malformed": lambda prompt: parse_reply(f"It is {prompt.gold}."),
    "empty": lambda prompt: parse_reply(""),
}
_WRONG = {"71": "72", "1/4": "1/2", "Paris": "Rome"}
