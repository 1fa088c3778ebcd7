"""What an evaluation says: pass@k, majority, intervals, claims; and what rejection sampling keeps."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.rollout.measures import interval, majority_is_right, pass_at_k
from temper.rollout.paired import PromptScore
from temper.stages.evaluate import Claim, judge
from temper.stages.sample import Config, harvest
from temper.text.reply import parse_reply
from temper.types import Completion, Group, Message, Prompt, Rollout


@given(st.integers(1, 12), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    product = math.prod((n - correct - i) / (n - i) for i in range(k))
    assert pass_at_k(n, correct, k) == pytest.approx(1 - product)


def test_more_samples_than_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        pass_at_k(4, 1, 5)


def test_unparsed_answers_do_not_vote_and_ties_share() -> None:
    assert majority_is_right([None, None, "7"], [False, False, True]) == 1.0
    assert majority_is_right([None], [False]) == 0.0
    assert majority_is_right(["a", "b", "c"], [False, True, False]) == pytest.approx(1 / 3)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    random, truth, covered = Random(0), 0.8, 0
    for _ in range(400):
        prompts = []
        for _ in range(60):  # half of the prompts are certain, half are even: samples of one prompt go together
            p = 1.0 if random.random() < 0.6 else 0.5
            prompts.append(sum(random.random() < p for _ in range(4)) / 4)
        low, high = interval(prompts, 4)
        covered += low <= truth <= high
    assert 0.91 <= covered / 400 <= 0.99


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=50))
def test_the_interval_holds_its_mean_and_stays_in_bounds(values: list[float]) -> None:
    low, high = interval(values, 4)
    assert 0.0 <= low <= sum(values) / len(values) + 1e-9
    assert sum(values) / len(values) - 1e-9 <= high <= 1.0


MODELS = [
    {"stage": "before", "tasks": {"t": {"accuracy": 0.9, "format": None}}},
    {"stage": "after", "tasks": {"t": {"accuracy": 0.6, "format": 1.0}}},
]


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        ({"model": "after", "at_least": 0.5, "at_most": 0.7}, True),
        ({"model": "after", "at_least": 0.61}, False),
        ({"model": "after", "below": "before", "by": 0.3}, True),
        ({"model": "after", "below": "before", "by": 0.31}, False),
        ({"model": "before", "metric": "format", "at_least": 0.0}, False),
    ],
)
def test_a_claim_holds_exactly_when_its_numbers_do(claim: dict, holds: bool) -> None:
    assert judge(Claim(task="t", **claim), MODELS)["holds"] is holds


def scores(rights: list[int]) -> list[PromptScore]:
    return [PromptScore(str(i), (bool(r),), float(r), 5.0, 0.0, {"accuracy": float(r)}) for i, r in enumerate(rights)]


@pytest.mark.parametrize(
    ("before", "after", "by", "holds"),
    [
        ([0, 1] * 50, [1, 1] * 50, 0.0, True),
        ([0, 1] * 50, [1, 1] * 50, 0.4, True),
        ([0, 1] * 50, [1, 1] * 50, 0.6, False),
        ([0, 1] * 50, [0, 1] * 50, 0.0, False),
        ([0, 1] * 50, [0, 1] * 50, -0.02, True),  # nothing is lost
        ([1] * 100, [0, *[1] * 99], -0.05, True),  # one in a hundred is, and the interval says no more than three
        ([1] * 100, [0, *[1] * 99], -0.005, False),
        ([1] * 100, [0] * 10 + [1] * 90, -0.05, False),
    ],
)
def test_a_difference_holds_by_its_whole_interval(before: list, after: list, by: float, holds: bool) -> None:
    scored = {("before", "t"): scores(before), ("after", "t"): scores(after)}
    found = judge(Claim(model="after", task="t", difference="before", by=by), MODELS, scored)
    assert found["holds"] is holds


def rollout(text: str, reason: str = "stop", **rewards: float) -> Rollout:
    prompt = Prompt("t:1", "t", (Message("user", "2+2"),), "4")
    return Rollout(
        prompt, Completion((1,), (0.0,), reason), parse_reply(text), {"accuracy": 1.0, "format": 1.0, **rewards}, 1.0
    )


def verdicts(*rollouts: Rollout, **options: object) -> list[str]:
    group = Group(rollouts[0].prompt, (1,), rollouts)
    config = Config(model="m", tasks=["t"], num_generations=8, **options)
    return [row["verdict"] for row in harvest([group], config)]


def good(thinking: str = "First 2+2=4.") -> str:
    return f"<think>{thinking}</think><answer>4</answer>"


def test_only_verified_readable_and_whole_completions_are_kept() -> None:
    assert verdicts(rollout(good())) == ["kept"]
    assert verdicts(rollout(good(), accuracy=0.0)) == ["accuracy below 1"]
    assert verdicts(rollout(good(), reason="length")) == ["truncated"]
    assert verdicts(rollout(good("```python\n2+2\n```"))) == ["code block"]
    assert verdicts(rollout(good("word " * 600))) == ["long paragraph"]
    assert verdicts(rollout(" ")) == ["empty"]
    for broken in ("\x00", "2+2\ufffd=4", "\ufffd\ufffd"):  # a file would not hold it; pieces of characters
        assert verdicts(rollout(good(broken))) == ["broken text"]


def test_a_program_that_was_run_may_stand_in_its_answer_but_not_in_the_thought() -> None:
    block = "```python\nprint(4)\n```"
    program = f"<think>Print it.</think><answer>{block}</answer>"
    assert verdicts(rollout(program)) == ["code block"]
    assert verdicts(rollout(program, code=1.0), min_rewards={"code": 1.0}) == ["kept"]
    assert verdicts(rollout(program, code=0.0), min_rewards={"code": 1.0}) == ["code below 1"]
    thought = f"<think>{block}</think><answer>{block}</answer>"
    assert verdicts(rollout(thought, code=1.0), min_rewards={"code": 1.0}) == ["code block"]


def test_copies_are_dropped_and_a_prompt_gives_no_more_than_its_cap() -> None:
    many = [rollout(good(f"Way {i}: 2+2=4.")) for i in (1, 1, 2, 3)]
    assert verdicts(*many, max_per_prompt=2) == ["kept", "duplicate", "kept", "over the cap"]
