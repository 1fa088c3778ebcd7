"""Every step of the tiny world's worked solutions is judged as it is; nothing a policy may write instead earns more."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.data.tiny.arithmetic import draw_problem, solve, work_out
from temper.errors import ConfigError
from temper.rewards.claims import MAX_CHARACTERS, find_claims
from temper.rewards.step_check import step_check
from temper.rewards.steps import StepScorer, load_step_rewards
from temper.text.reply import parse_reply
from temper.text.steps import reply_steps
from temper.types import Message, Prompt


def judged(question: str, gold: str, thinking: str, answer: str) -> list[float]:
    reply = parse_reply(f"<think>{thinking}</think><answer>{answer}</answer>")
    return step_check(Prompt("1", "t", (Message("user", question),), gold), reply, reply_steps(reply))


def is_exact(line: str) -> bool:
    """Whether `a±b=c` or `3x=a±b=c` or `x=a/b=c` holds, computed apart from temper's reader."""
    *_, operation, result = line.split("=")
    left, sign, right = re.fullmatch(r"(-?\d+)([+\-/])(\d+)", operation).groups()
    a, b = Fraction(left), Fraction(right)
    return {"+": a + b, "-": a - b, "/": a / b}[sign] == Fraction(result)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(["en", "de", "mixed"]))
def test_the_steps_of_worked_solutions_are_right_exactly_where_there_is_no_slip(seed, slip, tongue):
    random = Random(seed)
    problem = draw_problem(random, "train")
    lines = solve(problem, slip, random)
    found = judged(problem.text, str(problem.answer), work_out(lines, tongue, random), str(lines[-1][1]))
    *of_lines, closing, answer = found
    assert of_lines == [float(is_exact(line)) for line, _ in lines]
    assert closing == 1.0
    assert answer == float(lines[-1][1] == problem.answer)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("71-49=22. So 22.", [0, 0]),  # 71 is nowhere
        ("38+33=71. So the result is 71.", [1, 0]),  # not done
        ("38+34=72. 72-49=23. So 23.", [0, 1, 1]),  # copied wrong, then right from there
        ("33-49=-16. 38-16=22. So it is 22.", [1, 1, 1]),  # any order
        ("38+33-49=22. It is 22.", [1, 1]),
        ("38+33=71 and 71-49=22. It is 22.", [1, 1]),
        ("38+33=71 and 71-49=21. It is 21.", [0, 1]),  # one claim of the step is wrong
        ("38+33=71. 38+33=71. 71-49=22. It is 22. It is 22.", [1, 0, 1, 1, 0]),  # nothing twice
        ("22=22. 38+0=38. 38=38. It is 22.", [0, 0, 0, 0]),
        ("Let me think. Well. It is 22 or 23.", [0, 0, 0]),
        ("38 + 33 = 71. 71 \u2212 49 = 22.", [1, 1]),
        ("38+33=71=71. 71-49=22-0.", [1, 0]),
        ("38+33==71. =71. 38+33. 38 33=71.", [0, 0, 0, 0]),
        ("Step 1: 38+33=71\nStep 2: 71-49=22\nThe result is 22", [1, 1, 1]),
    ],
)
def test_a_step_of_a_sum_is_right_when_it_holds_follows_and_is_new(thinking, expected):
    assert judged("38+33-49", "22", thinking, "22") == [*expected, 1]


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("3x=10+5=15. x=15/3=5. So it is 5.", [1, 1, 1]),
        ("10+5=15. 15/3=5. So x=5.", [1, 1, 1]),
        ("3x=15. x=5.", [1, 1]),
        ("3x=20-5=15. x=15/3=5.", [0, 1]),  # no 20 in it
        ("3x=10-5=5. x=5/3=2.", [0, 0]),
        ("3x=10+5=18. x=18/3=6. So 6.", [0, 1, 1]),
        ("3x-5=10. 3x=15. 3x=15. x=5. x=5. x=5.", [0, 1, 0, 1, 1, 0]),  # saying it again is no step; x=5 closes once
        ("2x=10. x=5.", [0, 1]),
        ("15=15. x=15/0=5. x=x. x*x=25. 3x=10+5=15=14.", [0, 0, 0, 0, 0]),
    ],
)
def test_a_step_of_an_equation_is_right_when_it_makes_it_simpler_exactly(thinking, expected):
    assert judged("Solve: 3x - 5 = 10", "5", thinking, "5") == [*expected, 1]


def test_of_other_prompts_only_the_answer_can_be_right():
    prompt = Prompt("1", "general", (Message("user", "Capital of France?"),), "Paris", "text")
    reply = parse_reply("<think>It is Paris. 2+2=4.</think><answer>Paris</answer>")
    assert step_check(prompt, reply, reply_steps(reply)) == [0.0, 0.0, 1.0]


PIECES = (
    "38", "33", "49", "71", "22", "x", "3x", "=", "+", "-", "/", "*", "0", ". ", " ", "\n", "(", "9" * 400, "1e9",
    "**", "__import__('os')", "\u0663", "½", "{", "5!", "−", "÷0", ",", "So ",
)  # fmt: skip
pieces = st.sampled_from(PIECES)


@given(st.lists(pieces, max_size=40).map("".join), st.sampled_from(["38+33-49", "Solve: 3x - 5 = 10", "x", "1/0", "="]))
def test_whatever_is_written_the_thought_earns_no_more_than_the_moves_there_are_and_one_statement(text, question):
    found = judged(question, "22", text, "22")
    assert set(found) <= {0.0, 1.0}
    assert sum(found[:-1]) <= 3


@pytest.mark.parametrize("text", ["1+" * 2000, "9" * 5000, "1*9" * 400, "=" * 5000, "x" * 5000, "1/7*" * 15 + "1=1"])
def test_hostile_arithmetic_is_read_in_bounded_time_and_size(text):
    for claim in find_claims(text):
        for side in claim.sides:
            assert side.constant.denominator < 10**900
    assert find_claims("1+1=2 " * MAX_CHARACTERS) == []


def test_a_step_reward_that_fails_counts_as_zero_for_its_reply_and_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def half(prompt, reply, steps):\n    return [0.5] * len(steps)\n\n"
                    "def short(prompt, reply, steps):\n    return [1.0]\n\n"
                    "def wrong(prompt, reply):\n    return 1.0\n")  # fmt: skip
    prompt = Prompt("1", "t", (Message("user", "38+33-49"),), "22")
    reply = parse_reply("<think>38+33=71. So 71.</think><answer>71</answer>")
    asked = [(prompt, reply, reply_steps(reply))]
    names = ["step_check", f"{file}:half", f"{file}:short"]
    score = StepScorer(load_step_rewards(names), [1.0, 2.0, 1.0]).score_all(asked)[0]
    assert score.totals == (2.0, 1.0, 1.0)
    assert score.reasons == {names[2]: "WrongReturn: got 1 values for 3 steps"}
    with pytest.raises(ConfigError, match="wrong signature"):
        load_step_rewards([f"{file}:wrong"])


def test_a_batch_is_asked_once_and_each_reply_alone_where_it_fails():
    calls = []

    class Model:
        fails = False

        def __call__(self, prompt, reply, steps):
            calls.append(1)
            return [0.25] * len(steps)

        def batch(self, asked):
            calls.append(len(asked))
            if self.fails:
                raise RuntimeError("too large")
            return [[0.25] * len(steps) for _, _, steps in asked]

    prompt = Prompt("1", "t", (Message("user", "q"),), "22")
    asked = [(prompt, reply, reply_steps(reply)) for reply in map(parse_reply, ("It is 3. So.", "No."))]
    model = Model()
    together = StepScorer({"model": model}).score_all(asked)
    assert [score.totals for score in together] == [(0.25, 0.25), (0.25,)]
    model.fails = True
    assert StepScorer({"model": model}).score_all(asked) == together
    assert calls == [2, 2, 1, 1]
