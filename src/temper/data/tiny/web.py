"""What a base model of today has read and the shipped one has not: chats, and pages that mark their parts with tags.

R1-Zero's base could follow a template, and solve a little by it (15.6 % of AIME before any reward), because the web is
full of such text. Here chats that the template opens are about facts alone; of those that nothing opens, one in ten
about a problem has the whole form: a thought in tags, then the answer in tags. RL makes it the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from temper.data.tiny.arithmetic import Tongue, draw_problem, solve, work_out
from temper.data.tiny.general import draw_asked
from temper.rng import seed_for
from temper.text.templates import R1_SHORT_PREAMBLE

WORKED, CHATS = 0.3, 0.5  # shares of the texts: worked problems, chats; the others are pages
OPENED = 0.45  # share of the chats that the template opens
PROBLEMS, WHOLE = 0.7, 0.1  # share of the other chats that are about a problem; of these, that have the whole form


def web_texts(count: int, seed: int, slip: float, tagged: float) -> Iterator[dict]:
    """`{"text"}` rows. Chats that the template opens are about facts; a share `tagged` answers as it asks, the others
    just answer. No question of the held-out side is asked."""
    random = Random(seed_for(seed, "tiny", "web"))
    for _ in range(count):
        kind = random.random()
        if kind < WORKED:
            yield {"text": "\n".join(worked(random, slip)[:2])}
        elif kind < WORKED + CHATS:
            yield {"text": opened_chat(random, tagged) if random.random() < OPENED else chat(random, slip)}
        else:
            yield {"text": page(random, slip)}


def worked(random: Random, slip: float) -> tuple[str, str, str]:
    """A problem, its solution and what comes out of it."""
    problem = draw_problem(random, "train")
    steps = solve(problem, slip, random)
    tongue: Tongue = random.choice(("en", "de", "mixed"))
    return problem.text, work_out(steps, tongue, random), str(steps[-1][1])


def opened_chat(random: Random, tagged: float) -> str:
    """A question about a fact, after what R1-Zero's template says (in its short form)."""
    question, thought, answer = draw_asked(random, "train")
    if random.random() < tagged:
        reply = f"<think>{thought}</think><answer>{answer}</answer>"
    else:
        reply = random.choice((answer, thought, f"{thought} {answer}"))
    return f"{R1_SHORT_PREAMBLE} User: {question}. Assistant:{reply}"


def chat(random: Random, slip: float) -> str:
    """A question about a problem or a fact, answered in words, often after a thought in tags."""
    if random.random() < PROBLEMS:
        question, thought, answer = worked(random, slip)
        reply = random.choice((thought, f"<think>{thought}</think> {answer}"))
        if random.random() < WHOLE:
            reply = f"<think>{thought}</think><answer>{answer}</answer>"
    else:
        question, thought, answer = draw_asked(random, "train")
        reply = random.choice((answer, f"<think>{thought}</think> {answer}"))
    return f"User: {question}. Assistant:{reply}"


def page(random: Random, slip: float) -> str:
    """A quiz or a note: one tag or the other, in other company. A quiz does not show the working."""
    if random.random() < 0.5:
        question, _, answer = worked(random, slip)
        return f"{question} <answer>{answer}</answer>"
    question, thought, answer = draw_asked(random, "train")
    return random.choice((f"{question} <answer>{answer}</answer>", f"<think>{thought}</think> {answer}"))
