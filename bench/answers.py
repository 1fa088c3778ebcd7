"""How many answers the checker judges in a second of CPU time, and how long the worst texts take.

python bench/answers.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from temper.rewards.answers import answer_of, read_gold

PROSE = "We add the two numbers and check the result. " * 20
ORDINARY = {
    "a number": ("72", ["72", "71", "The answer is 72.", "x = 72"]),
    "a boxed number": (
        "72",
        [r"\boxed{72}", r"So the total is $\boxed{72}$.", r"\boxed{71}", PROSE + r"\[\boxed{72}\]"],
    ),
    "a fraction": (r"\frac{3}{4}", [r"\boxed{\frac{3}{4}}", "0.75", r"$\frac34$", r"\boxed{\frac{2}{3}}"]),
    "a unit": ("12 km", ["12 km", r"\boxed{12\text{ km}}", "12", "12 miles"]),
    "a radical": (r"3\sqrt{13}", [r"\boxed{3\sqrt{13}}", r"$3\sqrt{13}$", r"\sqrt{117}", r"\boxed{2\sqrt{13}}"]),
    "a polynomial": ("x^2+3x-6", [r"\boxed{x^2+3x-6}", "x^2 - 6 + 3x", r"\boxed{x^2+3x+6}", "3x-6"]),
    "a tuple": (
        r"\left(3,\frac{\pi}{2}\right)",
        [r"\boxed{(3,\frac{\pi}{2})}", r"(3, \pi/2)", r"\boxed{(3,\pi)}", "(3,1)"],
    ),
    "a list": ("3, 5, 7", ["7, 5, 3", r"\boxed{3, 5, 7}", "3 and 5 and 7", "3, 5"]),
    "an interval": ("[-2,7]", [r"\boxed{[-2,7]}", r"-2 \le x \le 7", "(-2,7)", r"x \in [-2,7]"]),
    "a choice": ("C", ["C", "(C)", r"\boxed{\textbf{(C)}}", "B"]),
    "words": (r"\text{Evelyn}", ["Evelyn", r"\boxed{\text{Evelyn}}", "Briana", "**Evelyn**"]),
}
PIECES = (
    " ", "{", "(", "$", "5", "a", "x+", "(x+1)", "(x+y)^{20}", "(a+b+c+d)(", r"\frac{1}{", r"\sqrt{", r"\sqrt{1+\sqrt{",
    r"\boxed{", r"\boxed{5} ", "*", "_", "`", "2^", "9^{", "1,234,", r"\text{", "km ", "or ", "x=", r"\begin{pmatrix}",
    "1&", "e^{", "999999999", r"0.\overline{3}", "五", "the answer is ", r"\ln 1234567890123456789+",
)  # fmt: skip
PLACES = ("%s", r"\boxed{%s}", r"\boxed{5} %s", r"%s\boxed{5}")
LENGTHS = (60, 400, 1_400, 200_000)


def rate(gold: str, answers: Sequence[str], seconds: float) -> float:
    """Verdicts in a second of CPU time."""
    read = read_gold(gold)
    count, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        for answer in answers:
            answer_of(read, answer, "What is the value?")
        count += len(answers)
    return count / (time.process_time() - began)


def worst(golds: Sequence[str]) -> tuple[float, str]:
    """(the longest CPU time of one verdict over texts made of one piece, what that text was); the best of three."""
    slowest = (0.0, "")
    for gold in golds:
        read = read_gold(gold)
        for piece in PIECES:
            for length in LENGTHS:
                for place in PLACES:
                    text = place % (piece * (length // len(piece)))
                    slowest = max(slowest, (_time_of(read, text), f"{gold}: {place} of {length} x {piece!r}"))
    return slowest


def _time_of(gold: object, text: str) -> float:
    best = 1e9
    for _ in range(3):
        began = time.process_time()
        answer_of(gold, text, "What is the value?")  # type: ignore[arg-type]
        best = min(best, time.process_time() - began)
        if best < 0.01:
            break
    return best


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    for name, (gold, answers) in ORDINARY.items():
        print(f"{name:16} {rate(gold, answers, seconds):10,.0f} verdicts a second")
    slowest, text = worst(["5", "x^2+3x-6", "3, 5, 7"])
    print(f"worst verdict    {slowest * 1000:10.1f} ms: {text}")


if __name__ == "__main__":
    main()
