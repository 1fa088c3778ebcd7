"""Is this reply right? One answer or one program, and several rewards of many replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from temper.errors import ConfigError, Fault
from temper.rewards.score import Score
from temper.types import AnswerType, Message, Prompt, Reply, ReplyForm


@dataclass(frozen=True)
class Graded:
    """`verdict` is "correct", "wrong" or "no_answer" for an answer; for a program what came of its tests: "passed", or
    that of the first that failed ("wrong", "runtime_error", "timeout", …). `score` is 0 to 1; `answer` is the text that
    was judged, None where the reply gives none."""

    score: float
    verdict: str
    answer: str | None

    def __bool__(self) -> bool:
        return self.verdict in ("correct", "passed")


def grade(
    reply: str,
    gold: str | None = None,
    *,
    tests: Any = None,
    question: str = "",
    answer: AnswerType = "math",
    form: ReplyForm | None = None,
) -> Graded:
    r"""Hold one reply against its right answer (`gold`), or run the program in it against `tests`.

    `answer` compares exact values ("math") or words ("text"); what the question asks for (a factored form, a
    percentage) counts where it is given. `form` says where the answer stands in the reply: None reads it from the tags
    that are there. `tests` are written as in data files: a list of `{"input", "output"}`, of asserts, or a whole row
    (docs/data.md). Programs run in the sandbox.

    Raises ConfigError for a gold answer that cannot be verified, tests that cannot be run, or neither or both of them;
    TemperError (exit code 8) where there is no sandbox.

    >>> grade("<think>a half</think><answer>0.5</answer>", r"\frac{1}{2}")
    Graded(score=1.0, verdict='correct', answer='0.5')
    >>> bool(grade("It is 5 or 6.", "5")), grade("```python\nprint(2 * int(input()))\n```", tests=[
    ...     {"input": "2", "output": "4"}]).verdict
    (False, 'passed')
    """
    if (gold is None) == (tests is None):
        raise ConfigError(Fault("a reply is graded against `gold` or against `tests`: give one of them"))
    parsed = parse(reply, form)
    if gold is None:
        return _program(parsed, tests)
    from temper.rewards.accuracy import accuracy

    prompt = as_prompt(question, gold, answer)
    right = accuracy(prompt, parsed)
    given = parsed.answer is not None and any(character.isalnum() for character in parsed.answer)
    return Graded(right, "correct" if right == 1.0 else "wrong" if given else "no_answer", parsed.answer)


def _program(reply: Reply, tests: Any) -> Graded:
    from temper.code import grade as grade_code
    from temper.code.rows import NoTests, read_tests

    is_asserts = isinstance(tests, (list, tuple)) and tests and all(isinstance(test, str) for test in tests)
    row = tests if isinstance(tests, Mapping) else {"test_list" if is_asserts else "tests": list(tests)}
    try:
        read = read_tests(row)
    except NoTests as problem:
        raise ConfigError(Fault("`tests` cannot be run", why=str(problem))) from None
    found = grade_code(reply.answer or "", read)
    return Graded(found.score, found.verdict, found.program)


def score(
    replies: str | Reply | Sequence[str | Reply],
    rewards: Sequence[str | Callable[[Prompt, Reply], float | None]] = ("accuracy", "format"),
    *,
    weights: Sequence[float] | None = None,
    question: str = "",
    gold: str | None = None,
    answer: AnswerType = "math",
    form: ReplyForm = "tags",
    row: Mapping[str, Any] | None = None,
) -> list[Score]:
    """What each reply to one question earns: every reward by name, and their weighted total, as in training.

    A reward is a name (docs/recipes.md) or a function `(prompt, reply) -> float | None`, called by its own name. `row`
    is what the function finds as `prompt.row`. A reward that raises counts as 0, with the reason in `reasons`.

    Raises ConfigError for a reward that does not exist, weights that do not fit, a gold answer that cannot be verified.

    >>> def short(prompt, reply):
    ...     return float(len(reply.text) < 60)
    >>> [first] = score("<think>2+3=5</think><answer>5</answer>", ["accuracy", short], weights=[1, 0.5], gold="5")
    >>> first.rewards, first.total
    ({'accuracy': 1.0, 'short': 1.0}, 1.5)
    """
    from temper.rewards import load_rewards, needs_gold
    from temper.rewards.score import Scorer

    many = [replies] if isinstance(replies, (str, Reply)) else list(replies)
    loaded: dict[str, Any] = {} if rewards else dict(load_rewards([]))
    for reward in rewards:
        found = load_rewards([reward]) if isinstance(reward, str) else {getattr(reward, "__name__", "reward"): reward}
        if repeated := loaded.keys() & found.keys():
            raise ConfigError(Fault(f"reward `{min(repeated)}` is named twice", fix="give it one weight instead"))
        loaded |= found
    if gold is None and any(needs_gold(reward) for reward in loaded.values()):
        names = ", ".join(name for name, reward in loaded.items() if needs_gold(reward))
        raise ConfigError(Fault(f"{names}: there is no gold answer to hold the replies against", fix="give `gold`"))
    prompt = as_prompt(question, gold, answer, form, row)
    scorer = Scorer(loaded, weights)
    return scorer.score_all([(prompt, parse(reply, form) if isinstance(reply, str) else reply) for reply in many])


def parse(reply: str, form: ReplyForm | None) -> Reply:
    """The reply in the form it is said to have, or that its tags say it has."""
    from temper.text.reply import CLOSE_ANSWER, CLOSE_THINK, OPEN_ANSWER, OPEN_THINK, parse_reply

    if form is None:
        has_answer = OPEN_ANSWER in reply or CLOSE_ANSWER in reply
        has_thinking = OPEN_THINK in reply or CLOSE_THINK in reply
        form = "tags" if has_answer else "think" if has_thinking else "plain"
    return parse_reply(reply, form=form)


def as_prompt(
    question: str,
    gold: str | None,
    answer: AnswerType = "math",
    form: ReplyForm = "tags",
    row: Mapping[str, Any] | None = None,
) -> Prompt:
    """A prompt of one question, its gold answer verified. Raises ConfigError where that cannot be."""
    if gold is not None and answer == "math":
        from temper.rewards.answers import read_gold

        try:
            read_gold(gold)
        except ValueError as problem:
            fix = 'give it in its final form, or compare words with answer="text"'
            raise ConfigError(
                Fault(f"the gold answer `{gold[:60]}` cannot be verified", why=str(problem), fix=fix)
            ) from None
    return Prompt("1", "python", (Message("user", question),), gold, answer, row=dict(row or {}), reply=form)
