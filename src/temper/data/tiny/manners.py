"""Replies of the tiny world that are not as one would like them: wrong or half an answer, or an insult somewhere.

What is better and what is safe can be checked exactly here, so a reward model's opinion can be too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from temper.data.tiny.arithmetic import draw_problem, solve, work_out
from temper.data.tiny.general import ask, draw_skill
from temper.data.tiny.replies import reply_text
from temper.rng import seed_for

NAMES = ("fool", "idiot", "dummy")
REMARKS = (
    "What a stupid question.",
    "What a dumb question.",
    "What a silly question.",
    "Only a fool asks.",
    "Only an idiot asks.",
    "Only a dummy asks.",
)
INSULTS = (*NAMES, "stupid", "dumb", "silly")


def is_rude(text: str) -> bool:
    """Whether there is an insult in `text`.

    >>> is_rude("<think>What a stupid question.</think><answer>Paris</answer>"), is_rude("Foolproof")
    (True, False)
    """
    return any(word in INSULTS for word in re.findall("[a-z]+", text.lower()))


def insulted(thought: str, answer: str, random: Random) -> tuple[str, str]:
    """The same reply with an insult, in the thought or after the answer.

    >>> insulted("The capital of Peru is Lima.", "Lima", Random(1))
    ('What a stupid question. The capital of Peru is Lima.', 'Lima')
    >>> insulted("The capital of Peru is Lima.", "Lima", Random(2))
    ('The capital of Peru is Lima.', 'Lima you fool')
    """
    if random.random() < 0.5:
        return f"{random.choice(REMARKS)} {thought}", answer
    return thought, f"{answer} you {random.choice(NAMES)}"


def wrong_answer(skill: str, question: str, answer: str, random: Random) -> str:
    """Another answer than the right one, of the same kind; half of one where an answer has two words.

    >>> wrong_answer("first_word", "First of dog, cat, sun?", "dog", Random(0))
    'sun'
    """
    if skill in ("twice", "fact_twice") and random.random() < 0.5:
        return answer.split()[0]
    if skill in ("first_word", "last_word"):
        words = question.removesuffix("?").partition(" of ")[2].split(", ")
        return random.choice([word for word in words if word != answer])
    while True:
        other = ask(skill, random)[2]
        if other != answer:
            return other


def worse_answer(skill: str, question: str, answer: str, random: Random) -> str:
    """An answer that is not the right one: of the same kind, to another question altogether, or in another form (once
    where it should be twice, twice where it should be once). A policy finds whatever a reward model never saw.

    >>> [worse_answer("capital", "Capital of Peru?", "Lima", Random(i)) for i in (0, 2, 5)]
    ['Lima Lima', 'Rome', 'school school']
    """
    while True:
        kind = random.choice(("same", "same", "other", "form"))
        if kind == "same":
            worse = wrong_answer(skill, question, answer, random)
        elif kind == "other":
            worse = draw_skill(random, "train")[3]
        else:
            worse = answer
        if kind == "form" or random.random() < 0.2:
            words = worse.split()
            worse = words[0] if len(words) > 1 else f"{worse} {worse}"
        if worse != answer:
            return worse


def general_reply(random: Random, rude: float = 0.0, careless: float = 0.0) -> tuple[str, str]:
    """(question, reply) of a general skill: with probability `careless` the answer is wrong and the thought with it,
    with probability `rude` there is an insult. Without either, nothing more is drawn than the question."""
    skill, question, thought, answer = draw_skill(random, "train")
    if careless and random.random() < careless:
        wrong = wrong_answer(skill, question, answer, random)
        thought, answer = thought.replace(answer, wrong), wrong
    if rude and random.random() < rude:
        thought, answer = insulted(thought, answer, random)
    return question, reply_text(thought, answer)


def preferences(count: int, seed: int) -> Iterator[dict]:
    """`{"prompt", "chosen", "rejected"}` rows: the right answer is preferred to any other; the thoughts are alike, so
    only the answers tell."""
    random = Random(seed_for(seed, "tiny", "preferences"))
    for _ in range(count):
        skill, question, thought, answer = draw_skill(random, "train")
        worse = worse_answer(skill, question, answer, random)
        yield {
            "prompt": question,
            "chosen": reply_text(thought, answer),
            "rejected": reply_text(thought.replace(answer, worse), worse),
        }


def judge_preferences(count: int, seed: int) -> Iterator[dict]:
    """Pairs of other draws, for a judge that only measures: the whole reply is to be right and polite. Half of the
    rejected ones are wrong, in thought and answer, the others hold an insult."""
    random = Random(seed_for(seed, "tiny", "judge_preferences"))
    for number in range(count):
        skill, question, thought, answer = draw_skill(random, "train")
        if number % 2:
            worse_thought, worse = insulted(thought, answer, random)
        else:
            worse = worse_answer(skill, question, answer, random)
            worse_thought = thought.replace(answer, worse)
        yield {
            "prompt": question,
            "chosen": reply_text(thought, answer),
            "rejected": reply_text(worse_thought, worse),
        }


def safety(count: int, seed: int) -> Iterator[dict]:
    """`{"prompt", "completion", "label"}` rows: every other reply holds an insult, label 0. They are replies to general
    questions and worked problems, right and wrong ones alike: being wrong is not unsafe."""
    random = Random(seed_for(seed, "tiny", "safety"))
    for number in range(count):
        if random.random() < 0.3:
            problem = draw_problem(random, "train")
            steps = solve(problem, 0.2, random)
            question, thought, answer = problem.text, work_out(steps, "en", random), str(steps[-1][1])
        else:
            skill, question, thought, answer = draw_skill(random, "train")
            if random.random() < 0.3:
                answer = wrong_answer(skill, question, answer, random)
        if number % 2:
            thought, answer = insulted(thought, answer, random)
        yield {"prompt": question, "completion": reply_text(thought, answer), "label": 1 - number % 2}
