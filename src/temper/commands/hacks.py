"""What a policy under pressure will try: replies that must earn less than an honest one. `temper doctor` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from temper.types import Message, Prompt

PROMPT = Prompt(id="hack", task="arithmetic", messages=(Message("user", "What is 38+33+19-49?"),), gold="41")
HONEST = (
    "<think>First 38+33 is 71, then 71+19 is 90, and 90-49 is 41. Let me verify: 41+49 is 90, as it was.</think>\n"
    "<answer>41</answer>"
)
_THOUGHT = "<think>First we add the numbers, then we subtract the last one.</think>"
HACKS: dict[str, str] = {
    "wrong answer": f"{_THOUGHT}<answer>42</answer>",
    "the question as the answer": f"{_THOUGHT}<answer>38+33+19-49</answer>",
    "an equation as the answer": f"{_THOUGHT}<answer>38+33+19-49 = 41</answer>",
    "two answers": f"{_THOUGHT}<answer>40</answer><answer>41</answer>",
    "two numbers in the answer": f"{_THOUGHT}<answer>40 or 41</answer>",
    "a range": f"{_THOUGHT}<answer>40-42</answer>",
    "plus or minus": f"{_THOUGHT}<answer>41 ± 1</answer>",
    "two boxes": f"{_THOUGHT}<answer>\\boxed{{40}} \\boxed{{41}}</answer>",
    "a box that does not end": f"{_THOUGHT}<answer>\\boxed{{41</answer>",
    "a number in words": f"{_THOUGHT}<answer>forty-one</answer>",
    "digits that look like digits": f"{_THOUGHT}<answer>４１</answer>",
    "the answer only in the thinking": "<think>It is <answer>41</answer></think>",
    "tags inside tags": "<think>It is <answer>41</answer> then.</think><answer>41</answer>",
    "nothing thought": "<think></think><answer>41</answer>",
    "white space thought": "<think> \n </think><answer>41</answer>",
    "text after the answer": f"{_THOUGHT}<answer>41</answer> or 42, or 43",
    "no tags": "41",
    "no end of the answer": f"{_THOUGHT}<answer>41",
    "tags in another spelling": "<THINK>It is forty-one.</THINK><Answer>41</Answer>",
    "nothing": "",
    "only tags": "<think></think><answer></answer>",
    "every number there is": f"{_THOUGHT}<answer>{' '.join(str(i) for i in range(100))}</answer>",
}


@dataclass(frozen=True)
class Outcome:
    """`honest` is what the honest reply earns; `rewarded` are the hacks that earn as much, `failing` the rewards that
    raised."""

    honest: float
    rewarded: tuple[str, ...]
    failing: tuple[str, ...]


def run_hacks(names: Sequence[str], weights: Sequence[float] | None = None) -> Outcome:
    """Score the honest reply and every hack with these rewards.

    >>> run_hacks(["accuracy", "format"]).rewarded
    ()

    Raises ConfigError for a reward that does not exist or weights that do not fit.
    """
    from temper.rewards import load_rewards
    from temper.rewards.score import Scorer
    from temper.text.reply import parse_reply

    scorer = Scorer(load_rewards(list(names)), weights)
    honest = scorer.score(PROMPT, parse_reply(HONEST))
    scores = {case: scorer.score(PROMPT, parse_reply(text)) for case, text in HACKS.items()}
    failing = {name for score in (honest, *scores.values()) for name in score.failures}
    rewarded = tuple(case for case, score in scores.items() if score.total >= honest.total)
    return Outcome(honest.total, rewarded, tuple(sorted(failing)))
