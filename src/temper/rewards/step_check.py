"""Is each step of a worked solution right? For sums and linear equations every step can be checked exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from temper.rewards.accuracy import accuracy
from temper.rewards.claims import Claim, find_claims
from temper.types import Prompt, Reply, Step


def step_check(prompt: Prompt, reply: Reply, steps: Sequence[Step]) -> list[float]:
    """1.0 for each step that is right, else 0.0; the answer's step is right where the answer is.

    The prompt is a sum (`38+33-49`) or a linear equation (`Solve: 3x - 5 = 10`); of any other prompt only the answer
    can be right. A step is right when all it claims holds and follows: it adds up numbers that the problem or the steps
    before have left over, or moves the equation towards x = number, with numbers that stand in it; or it states the
    result, once, when all is done. Judged by itself: after a wrong step, the next is right if it goes on correctly from
    what was written. Each right step uses something up and none is right twice, so that saying more earns nothing.

    >>> from temper.text.reply import parse_reply
    >>> from temper.text.steps import reply_steps
    >>> from temper.types import Message
    >>> def check(question, gold, text):
    ...     reply = parse_reply(text)
    ...     return step_check(Prompt("1", "sums", (Message("user", question),), gold), reply, reply_steps(reply))
    >>> check("38+33-49", "22", "<think>First 38+33=71. Then 71-49=22. So it is 22.</think><answer>22</answer>")
    [1.0, 1.0, 1.0, 1.0]
    >>> check("38+33-49", "22", "<think>First 38+33=72. Hm. Then 72-49=23. So it is 23.</think><answer>23</answer>")
    [0.0, 0.0, 1.0, 1.0, 0.0]
    >>> check("Solve: 3x - 5 = 10", "5", "<think>First 3x=10+5=15. Then x=15/3=6.</think><answer>6</answer>")
    [1.0, 0.0, 0.0]
    """
    work = read_problem(prompt.text)
    return [
        float(accuracy(prompt, reply) == 1.0) if step.is_answer else _judge(work, step.text_of(reply)) for step in steps
    ]


def _judge(work: Sum | Equation | None, text: str) -> float:
    claims = find_claims(text)
    equations = [claim for claim in claims if len(claim.sides) != 1]  # malformed ones among them
    if work is None or not claims:
        return 0.0
    if equations:
        verdicts = [work.goes_on(claim) for claim in equations]  # each is worked in, right or wrong
        return float(all(verdicts))
    stated = [claim.sides[0].constant for claim in claims if claim.sides[0].is_number]
    return float(len(stated) == 1 and work.is_result(stated[0]))


def read_problem(text: str) -> Sum | Equation | None:
    """What there is to work out in a question; None unless it is one sum of numbers or one linear equation.

    >>> read_problem("What is 38+33-49?").left
    [Fraction(38, 1), Fraction(33, 1), Fraction(-49, 1)]
    >>> read_problem("Capital of France?")
    """
    claims = find_claims(text)
    if len(claims) != 1:
        return None
    sides = claims[0].sides
    if len(sides) == 1 and 1 < len(sides[0].terms) == len(sides[0].numbers):
        return Sum(list(sides[0].terms))
    if len(sides) == 2 and sides[0].slope != 0 and sides[1].is_number:
        return Equation(sides[0].slope, sides[0].constant, sides[1].constant)
    return None


class Sum:
    """The numbers still to be added up; a step replaces some of them by their sum."""

    def __init__(self, left: list[Fraction]):
        self.left = left
        self.stated = False

    def goes_on(self, claim: Claim) -> bool:
        """Whether `claim` adds up numbers that are left, exactly; the number it writes takes their place in any case,
        if it used one of them at all."""
        if len(claim.sides) < 2 or any(side.slope for side in claim.sides) or not claim.sides[-1].is_number:
            return False
        terms, written = claim.sides[0].terms, claim.sides[-1].constant
        rest = list(self.left)
        for term in terms:
            if term in rest:
                rest.remove(term)
        used = len(self.left) - len(rest)
        follows = used == len(terms) > 1
        if used and len(terms) > 1:  # a number that was copied wrong stands for the next one that is left
            self.left = [written, *rest[len(terms) - used :]]
        return follows and claim.holds

    def is_result(self, number: Fraction) -> bool:
        """Whether `number` is what remains when all is added up, said for the first time."""
        is_new = self.left == [number] and not self.stated
        self.stated = self.stated or is_new
        return is_new


class Equation:
    """`slope`·x + `shift` = `right`; a step takes the shift away, then the slope."""

    def __init__(self, slope: Fraction, shift: Fraction, right: Fraction):
        self.slope, self.shift, self.right = slope, shift, right
        self.stated = False

    @property
    def moves_left(self) -> int:
        return (self.shift != 0) + (self.slope != 1)

    def goes_on(self, claim: Claim) -> bool:
        """Whether `claim` makes the equation simpler, exactly; what it writes is the equation in any case."""
        if len(claim.sides) < 2 or not claim.sides[-1].is_number or any(side.slope for side in claim.sides[1:]):
            return False
        first, written = claim.sides[0], claim.sides[-1].constant
        if first.is_number:  # "15=15" shows nothing
            return False
        known = {abs(self.slope), abs(self.shift), abs(self.right)}
        computed = [side for side in claim.sides if not side.slope and not side.is_number]
        follows = claim.holds and all(known.issuperset(map(abs, side.numbers)) for side in computed)
        slope, shift = (first.slope, first.constant) if first.slope else self._without_unknown()
        if slope not in (1, self.slope):
            return False
        after = Equation(slope, shift, written)
        if after.moves_left >= self.moves_left:
            return self.moves_left == 0 and after.moves_left == 0 and self.is_result(written)
        follows = follows and (written - shift) / slope == (self.right - self.shift) / self.slope
        self.slope, self.shift, self.right = slope, shift, written
        return follows

    def _without_unknown(self) -> tuple[Fraction, Fraction]:
        """What stands before the result in "10+5=15": the equation without its shift, or without its slope."""
        return (self.slope if self.shift else Fraction(1)), Fraction(0)

    def is_result(self, number: Fraction) -> bool:
        """Whether `number` is the unknown's value, worked out, said for the first time."""
        is_new = self.moves_left == 0 and self.right == number and not self.stated
        self.stated = self.stated or is_new
        return is_new
