"""What a base model of today has read and the shipped one has not: chats, and pages that mark their parts with tags.

R1-Zero's base could follow a template because the web is full of such text. Here as there, none of it works out a
problem: the worked problems stand alone as before, and the chats and pages are about facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from temper.data.tiny.arithmetic import Tongue, draw_problem, solve, work_out
from temper.data.tiny.general import draw_asked
from temper.rng import seed_for
from temper.text.templates import R1_SHORT_PREAMBLE

WORKED = 0.5  # share of the texts that are worked problems


def web_texts(count: int, seed: int, slip: float, tagged: float) -> Iterator[dict]:
    """`{"text"}` rows. In a share `tagged` of the chats the assistant writes as R1-Zero's template asks; in the others
    it just answers. No question of the held-out side is asked."""
    random = Random(seed_for(seed, "tiny", "web"))
    for _ in range(count):
        if random.random() < WORKED:
            problem = draw_problem(random, "train")
            tongue: Tongue = random.choice(("en", "de", "mixed"))
            yield {"text": f"{problem.text}\n{work_out(solve(problem, slip, random), tongue, random)}"}
        else:
            yield {"text": chat(random, tagged) if random.random() < 0.7 else page(random)}


def chat(random: Random, tagged: float) -> str:
    """A chat about a fact, opened by what R1-Zero's template says (in its short form)."""
    question, thought, answer = draw_asked(random, "train")
    if random.random() < tagged:
        reply = f"<think>{thought}</think><answer>{answer}</answer>"
    else:
        reply = random.choice((answer, thought, f"{thought} {answer}"))
    return f"{R1_SHORT_PREAMBLE} User: {question}. Assistant: {reply}"


def page(random: Random) -> str:
    """A quiz, a note: tags in other company."""
    question, thought, answer = draw_asked(random, "train")
    return random.choice(
        (f"{question} <answer>{answer}</answer>", f"<think>{thought}</think> {answer}", f"<answer>{answer}</answer>")
    )
