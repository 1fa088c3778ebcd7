"""Problems of the tiny world that have to be searched: which two of some numbers make a sum?

    Two of 14, 13, 28, 11 make 25
    First 14+13=27, 25? Wait, 14+28=42, 25? Wait, 14+11=25, 25? Yes.

No step tells which pair is the right one, so a solution tries them in order, and what it is worth is how long it goes
on. Most people lose patience: they stop at some wrong pair and guess, and some think again even then. Those who mix two
languages are more often patient: who thinks for long does not mind the words.

The people may also reason better in one language than in the other: then sums in German sentences are written out, and
those in English ones added up in the head, `Wait, 14, 28: 43, 25?`, and wrong more often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from temper.data.tiny.arithmetic import slipped
from temper.data.tiny.replies import reply_text
from temper.data.tiny.split import Split, split_of
from temper.rng import seed_for

SMALLEST, LARGEST = 10, 49  # all numbers have two digits, sums of two as well
SIZES = (3, 4, 5)  # numbers of a problem: 3, 6 or 10 pairs
WORDS = {  # what a sentence begins with, in either language
    "en": {"first": "First", "wait": "Wait,", "yes": "Yes.", "guess": "Then"},
    "de": {"first": "Zuerst", "wait": "Warte,", "yes": "Ja.", "guess": "Dann"},
}
WRITTEN_OUT, IN_THE_HEAD = "{}+{}={}", "{}, {}: {}"


@dataclass(frozen=True)
class Search:
    """Numbers of which exactly one pair makes `target`."""

    numbers: tuple[int, ...]
    target: int

    @property
    def text(self) -> str:
        return f"Two of {', '.join(map(str, self.numbers))} make {self.target}"

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs, in the order in which they are tried."""
        return list(combinations(self.numbers, 2))

    @property
    def answer(self) -> str:
        return written(next(pair for pair in self.pairs if sum(pair) == self.target))


def written(pair: tuple[int, int]) -> str:
    return f"{pair[0]}, {pair[1]}"


def draw_search(random: Random, split: Split, size: int) -> Search:
    """A problem of `size` numbers on that side of the split.

    >>> draw_search(Random(1), "train", 3).text
    'Two of 18, 46, 14 make 32'
    """
    while True:
        numbers = tuple(random.sample(range(SMALLEST, LARGEST + 1), size))
        sums = Counter(map(sum, combinations(numbers, 2)))
        target = sum(random.choice(list(combinations(numbers, 2))))
        problem = Search(numbers, target)
        if sums[target] == 1 and split_of(problem.text) == split:
            return problem


@dataclass(frozen=True)
class Habits:
    """How people search: the chance that a sum is wrong, that one in an English sentence is where those are added up in
    the head (None: they are not), that a thought mixes languages, that who thinks so or in one language is patient,
    that the impatient and the patient give up at a wrong pair, that a guess is thought over, and that a find is tried
    again."""

    slip: float = 0.05
    slip_in_english: float | None = None
    mixed: float = 0.6
    patient: tuple[float, float] = (0.5, 0.2)
    gives_up: tuple[float, float] = (0.6, 0.05)
    thinks_again: float = 0.3
    checks: float = 0.15


def search_thought(problem: Search, habits: Habits, random: Random) -> tuple[str, str]:
    """(a thought, the answer it comes to)."""
    mixed = random.random() < habits.mixed
    gives_up = habits.gives_up[random.random() < habits.patient[not mixed]]
    sentences: list[str] = []

    def tongue() -> str:
        return random.choice(("en", "de")) if mixed else "en"

    def add(pair: tuple[int, int], slip: float) -> int:
        return slipped(sum(pair), random) if random.random() < slip else sum(pair)

    left = problem.pairs
    while left:
        pair, form = left.pop(0), WRITTEN_OUT
        if habits.slip_in_english is None:
            total, language = add(pair, habits.slip), tongue()
        elif (language := tongue()) == "de":
            total = add(pair, habits.slip)
        else:
            total, form = add(pair, habits.slip_in_english), IN_THE_HEAD
        begin = WORDS[language]["wait" if sentences else "first"]
        sentences.append(f"{begin} {form.format(*pair, total)}, {problem.target}?")
        if total == problem.target:
            sentences.append(WORDS[tongue()]["yes"])
            if random.random() >= habits.checks:
                return " ".join(sentences), written(pair)
            left.insert(0, pair)
        elif random.random() < gives_up or not left:
            guess = random.choice(left or problem.pairs)
            sentences.append(f"{WORDS[tongue()]['guess']} {written(guess)}.")
            if not left or random.random() >= habits.thinks_again:
                return " ".join(sentences), written(guess)
    raise AssertionError("a thought ends with a find or a guess")


def search_prompts(split: Split, count: int, seed: int, sizes: Sequence[int] = SIZES) -> Iterator[dict]:
    """`{"question", "answer", "level"}` rows, sizes in turn, no problem twice."""
    random = Random(seed_for(seed, "tiny", "search", split))
    seen: set[str] = set()
    while len(seen) < count:
        problem = draw_search(random, split, sizes[len(seen) % len(sizes)])
        if problem.text not in seen:
            seen.add(problem.text)
            yield {"question": problem.text, "answer": problem.answer, "level": len(problem.numbers)}


def search_conversations(count: int, seed: int, habits: Habits, sizes: Sequence[int] = SIZES) -> Iterator[dict]:
    """How people solved such problems, as conversations."""
    random = Random(seed_for(seed, "tiny", "search_cold_start"))
    for _ in range(count):
        problem = draw_search(random, "train", random.choice(sizes))
        thought, answer = search_thought(problem, habits, random)
        yield {"prompt": problem.text, "completion": reply_text(thought, answer)}
