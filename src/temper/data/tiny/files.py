"""The tiny world as rows: prompts with gold answers, conversations, and the text the base model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from temper.data.tiny.arithmetic import LEVELS, Tongue, draw_problem, solve, work_out
from temper.data.tiny.general import ASKED, ask, draw_task
from temper.data.tiny.manners import INSULTS, general_reply
from temper.data.tiny.replies import reply_text
from temper.data.tiny.split import Split, split_of
from temper.rng import seed_for


def _random(seed: int, *parts: int | str) -> Random:
    return Random(seed_for(seed, "tiny", *parts))


def arithmetic_prompts(split: Split, count: int, seed: int, levels: Sequence[int] = LEVELS) -> Iterator[dict]:
    """`{"question", "answer", "level"}` rows, levels in turn, no problem twice."""
    seen: set[str] = set()
    random = _random(seed, "arithmetic", split)
    while len(seen) < count:
        problem = draw_problem(random, split, [levels[len(seen) % len(levels)]])
        if problem.text not in seen:
            seen.add(problem.text)
            yield {"question": problem.text, "answer": str(problem.answer), "level": problem.level}


def hard_arithmetic_prompts(
    count: int, seed: int, level: int = LEVELS[-1] + 1, split: Split = "test"
) -> Iterator[dict]:
    """Chains of `level` operations, no problem twice."""
    seen: set[str] = set()
    random = _random(seed, "arithmetic_hard", *(() if split == "test" else (split,)))
    while len(seen) < count:
        problem = draw_problem(random, split, [level])
        if problem.chain and problem.text not in seen:
            seen.add(problem.text)
            yield {"question": problem.text, "answer": str(problem.answer), "level": problem.level}


def general_prompts(split: Split, count: int, seed: int) -> Iterator[dict]:
    """`{"question", "answer", "forbidden_words"}` rows, skills in turn, no question twice: a skill without more
    questions drops out. Insults are forbidden."""
    random = _random(seed, "general", split)
    seen: set[str] = set()
    skills = list(ASKED)
    while len(seen) < count and skills:
        for name in tuple(skills):
            drawn = draw_new(name, split, random, seen)
            if drawn is None:
                skills.remove(name)
            elif len(seen) < count:
                question, answer = drawn
                seen.add(question)
                yield {"question": question, "answer": answer, "forbidden_words": list(INSULTS)}


def draw_new(skill: str, split: Split, random: Random, seen: set[str]) -> tuple[str, str] | None:
    """A (question, answer) of `skill` that is not in `seen`; None if hundreds of tries give no new one."""
    for _ in range(500):
        question, _, answer = ask(skill, random)
        if question not in seen and split_of(question) == split:
            return question, answer
    return None


def cold_start(
    count: int, seed: int, slip: float, mixed: float, general: float, rude: float = 0.0, careless: float = 0.0
) -> Iterator[dict]:
    """Conversations in the chat format: a share `general` of general tasks, the rest worked problems of which a share
    `mixed` changes language between sentences, every result off with probability `slip`. Of the replies to general
    questions a share `careless` is wrong and a share `rude` holds an insult."""
    random = _random(seed, "cold_start")
    for _ in range(count):
        if random.random() < general:
            yield general_conversation(random, rude, careless)
        else:
            problem = draw_problem(random, "train")
            steps = solve(problem, slip, random)
            tongue: Tongue = "mixed" if random.random() < mixed else "en"
            yield {"prompt": problem.text, "completion": reply_text(work_out(steps, tongue, random), str(steps[-1][1]))}


def general_conversation(random: Random, rude: float = 0.0, careless: float = 0.0) -> dict:
    question, reply = general_reply(random, rude, careless)
    return {"prompt": question, "completion": reply}


def general_conversations(count: int, seed: int) -> Iterator[dict]:
    random = _random(seed, "general_conversations")
    for _ in range(count):
        yield general_conversation(random)


def pretraining_texts(count: int, seed: int, slip: float) -> Iterator[dict]:
    """What the base model reads: worked problems in both languages with slips, and general skills in loose form.
    Never a chat, never a tag. A held-out question is never asked; the fact behind it is told like any other."""
    random = _random(seed, "pretraining")
    for _ in range(count):
        if random.random() < 0.72:
            problem = draw_problem(random, "train")
            steps = solve(problem, slip, random)
            tongue: Tongue = random.choice(("en", "de", "mixed"))
            yield {"text": f"{problem.text}\n{work_out(steps, tongue, random)}"}
        else:
            question, thought, answer = draw_task(random)
            form = random.randrange(3) if split_of(question) == "train" else 0
            yield {"text": (thought, f"{question} {answer}", f"{question} {thought} {answer}")[form]}
