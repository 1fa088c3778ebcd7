"""Built-in rewards: their values, their range, their total, and what happens when one fails."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_rows import QUICK, THINKING, answered, prompt

from temper.commands.hacks import run_hacks
from temper.errors import ConfigError, Fault, ResourceError
from temper.rewards import REWARDS, load_rewards
from temper.rewards.cosine_length import cosine_length_up_to
from temper.rewards.length import length_up_to
from temper.rewards.returns import WrongReturn
from temper.rewards.score import Scorer
from temper.text.reply import TAGS, parse_reply

RANGES = {"repetition_penalty": (-1.0, 0.0), "cosine_length": (-1.0, 1.0)}
OF_ROWS = ("code", "forbidden_words")  # of prompts whose row has tests or words: those made here have neither
PIECES = st.lists(st.sampled_from([*TAGS, "5", "First ", "the ", "das ", "\n- ", "1. ", ". ", "\\boxed{5}", "¼"])).map(
    "".join
)


@QUICK
@given(PIECES | st.text(max_size=60))
def test_every_reward_of_every_reply_is_in_its_range(text):
    for name, reward in REWARDS.items():
        low, high = RANGES.get(name, (0.0, 1.0))
        value = reward(prompt("5"), parse_reply(text))
        assert value is None if name in OF_ROWS else low <= value <= high, name


@QUICK
@given(st.text(max_size=30), st.sampled_from(["math", "text"]))
def test_accuracy_and_format_are_all_or_nothing(text, answer_type):
    reply = parse_reply(answered(text))
    assert REWARDS["accuracy"](prompt("5", answer_type=answer_type), reply) in (0.0, 1.0)
    assert REWARDS["format"](prompt("5"), reply) in (0.0, 1.0)


@QUICK
@given(st.lists(st.sampled_from([*TAGS, "word"]), max_size=10))
def test_tag_count_gives_a_quarter_for_each_tag_that_stands_once(pieces):
    expected = sum(pieces.count(tag) == 1 for tag in TAGS) / 4
    assert REWARDS["tag_count"](prompt("5"), parse_reply(" ".join(pieces))) == expected


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [("Paris", " paris\n", 1), ("the big dog", "The  Big dog", 1), ("Paris", "Paris, France", 0), ("yes", "yes no", 0),
     ("Straße", "STRASSE", 1), ("5", "5.0", 0), ("Paris", "", 0)],
)  # fmt: skip
def test_text_answers_are_the_same_words(gold, answer, expected):
    assert REWARDS["accuracy"](prompt(gold, answer_type="text"), parse_reply(answered(answer))) == expected


@pytest.mark.parametrize(
    ("thinking", "steps"),
    [
        ("2+3=5", 0),
        ("First 2+3=5.", 1),
        ("First 38+33=71. Then 71-49=22.", 2),
        ("First 38+33=71. Then 71-49=22. Finally, 22.", 3),
        ("Zuerst 38+33=71. Dann 71-49=22. Schließlich 22.", 3),
        ("Step 1: add.\nStep 2: subtract.\n**Step 3**: check.", 3),
        ("1. add\n2. subtract\n3) check\n4. done", 3),
        ("- add\n* subtract", 2),
        ("## Add\ntwo\n## Check\nit", 2),
        ("First. Then. Next. Finally.", 0),
        ("First, first, first, first", 1),
        ("the second and then the next", 0),
        ("3.5 is a number\n2.25 too", 0),
        ("- \n- \n- ", 0),
    ],
)
def test_reasoning_steps_are_steps_that_say_something(thinking, steps):
    reply = parse_reply(f"<think>{thinking}</think><answer>5</answer>")
    assert REWARDS["reasoning_steps"](prompt("5"), reply) == min(1.0, steps / 3)


def test_steps_outside_the_thinking_do_not_count():
    text = "<think>hm</think><answer>First a. Then b. Finally c.</answer>"
    assert REWARDS["reasoning_steps"](prompt("5"), parse_reply(text)) == 0.0


def test_language_consistency_is_that_of_the_thinking_in_the_prompts_language():
    reply = parse_reply("<think>Zuerst addieren wir.</think><answer>the answer is this</answer>")
    assert REWARDS["language_consistency"](prompt("5", language="de"), reply) == 1.0
    assert REWARDS["language_consistency"](prompt("5", language="en"), reply) == 0.0
    assert REWARDS["language_consistency"](prompt("5"), parse_reply("the answer is 5")) == 0.0


def test_repetition_costs_more_the_more_there_is():
    once = "one two three four five six seven eight nine ten "
    penalties = [REWARDS["repetition_penalty"](prompt("5"), parse_reply(once * times)) for times in (1, 2, 4, 40)]
    assert penalties[0] == 0.0
    assert penalties == sorted(penalties, reverse=True)
    assert penalties[-1] < -0.9
    for loop in ("!" * 500, "ha" * 500, "中" * 500, "wait\n" * 500):
        assert REWARDS["repetition_penalty"](prompt("5"), parse_reply(loop)) < -0.9, loop[:5]


@QUICK
@given(st.lists(st.sampled_from(["fool", "Kuh", "c++", "dumme Frage"]), min_size=1, unique=True), st.booleans())
def test_a_forbidden_word_counts_wherever_it_stands_whatever_its_case_and_not_within_another(words, thought):
    asked = replace(prompt("5"), row={"forbidden_words": words})

    def earned(said):
        text = f"<think>So {said}, well.</think><answer>5</answer>" if thought else answered(f"5 ({said})")
        return REWARDS["forbidden_words"](asked, parse_reply(text))

    for word in words:
        assert earned(word) == earned(word.upper()) == 0.0
        assert earned(f"a{word}") == earned(f"{word}a") == 1.0
    assert REWARDS["forbidden_words"](replace(asked, row={"forbidden_words": words[0]}), parse_reply(words[0])) == 0.0


@pytest.mark.parametrize("column", [7, {"fool": 1}, ["fool", None]])
def test_forbidden_words_that_are_no_words_are_told(column):
    asked = replace(prompt("5"), row={"forbidden_words": column})
    score = Scorer(load_rewards(["forbidden_words"])).score(asked, parse_reply("fool"))
    assert "no list of words" in score.reasons["forbidden_words"]
    assert REWARDS["forbidden_words"](replace(asked, row={"forbidden_words": []}), parse_reply("fool")) is None


def of_words(count, answer="5"):
    return parse_reply(f"<think>{'so ' * (count - 1)}</think><answer>{answer}</answer>")


def test_length_counts_words_up_to_its_bound_and_characters_where_there_are_no_words():
    lengths = [REWARDS["length"](prompt("5"), of_words(count)) for count in (1, 100, 1000, 5000)]
    assert lengths == [0.001, 0.1, 1.0, 1.0]
    assert REWARDS["length"](prompt("5"), parse_reply("中" * 500)) == 0.5
    assert length_up_to(50)(prompt("5"), of_words(25)) == 0.5


def test_cosine_length_falls_for_right_replies_rises_for_wrong_ones_and_never_mixes_them():
    counts = (2, 10, 100, 500, 900, 999)
    right = [REWARDS["cosine_length"](prompt("5"), of_words(count)) for count in counts]
    wrong = [REWARDS["cosine_length"](prompt("5"), of_words(count, "6")) for count in counts]
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert min(right) > 0.5 > -0.5 > max(wrong)
    assert [right[3], wrong[3]] == pytest.approx([0.75, -0.75])
    assert {REWARDS["cosine_length"](prompt("5"), of_words(1000, answer)) for answer in ("5", "6")} == {-1.0}
    own = cosine_length_up_to(4, right=(2.0, 1.0), wrong=(-10.0, 0.0), too_long=-10.0)
    assert [own(prompt("5"), of_words(2, answer)) for answer in ("5", "6")] == pytest.approx([1.5, -5.0])
    assert own(prompt("5"), of_words(4)) == -10.0


@QUICK
@given(st.text(max_size=60), st.text(max_size=5))
def test_the_random_reward_is_a_coin_that_falls_alike_for_equal_replies(text, identity):
    asked, reply = replace(prompt("5"), id=identity), parse_reply(text)
    assert REWARDS["random"](asked, reply) == REWARDS["random"](replace(asked, gold="6"), parse_reply(text))
    assert REWARDS["random"](asked, reply) in (0.0, 1.0)


def test_the_random_reward_knows_nothing_of_the_answer():
    coins = [REWARDS["random"](prompt("5"), of_words(count, answer)) for count in range(2, 502) for answer in "56"]
    assert abs(sum(coins) - 500) < 70  # 4.4 standard deviations of a fair coin thrown 1,000 times
    assert abs(sum(coins[::2]) - sum(coins[1::2])) < 70
    assert len({REWARDS["random"](replace(prompt("5"), id=str(i)), RIGHT) for i in range(20)}) == 2


@pytest.mark.parametrize("names", [["accuracy", "cosine_length"], ["accuracy", "format", "cosine_length"]])
def test_a_length_reward_beside_accuracy_rewards_no_hack(names):
    assert run_hacks(names).rewarded == ()


# -- scoring ----------------------------------------------------------------------------------------------------------

RIGHT, HALF = parse_reply(answered("5")), parse_reply("<think>we think</think> 6")


def test_the_worked_example_of_the_specification():
    names = ["accuracy", "format", "tag_count"]
    scorer = Scorer(load_rewards(names), [1.0, 0.1, 0.05])
    assert scorer.score(prompt("5"), RIGHT).total == 1.15
    wrong_half = {"accuracy": lambda p, r: 0.0, "format": lambda p, r: 1.0, "tag_count": lambda p, r: 0.5}
    assert Scorer(wrong_half, [1.0, 0.1, 0.05]).score(prompt("5"), RIGHT).total == 0.125


@QUICK
@given(st.permutations([name for name in REWARDS if name not in OF_ROWS]), st.data())
def test_the_total_is_the_weighted_sum_in_any_order(names, data):
    weights = {name: data.draw(st.floats(-10, 10)) for name in sorted(names)}
    score = Scorer(load_rewards(names), [weights[name] for name in names]).score(prompt("5"), HALF)
    assert list(score.rewards) == names
    assert score.total == math.fsum(weights[name] * score.rewards[name] for name in sorted(names))


def test_without_weights_each_reward_counts_once():
    assert Scorer(load_rewards(["accuracy", "format"]), None).score(prompt("5"), RIGHT).total == 2.0


def broken(p, r):
    raise KeyError("answer")


@pytest.mark.parametrize("value", ["1", float("nan"), float("inf"), [1.0], 1j, -1e308, 10**400, NotImplemented])
def test_a_reward_that_fails_counts_as_0_and_is_named(value):
    rewards = {"good": lambda p, r: 1.0, "bad": lambda p, r: value, "broken": broken}
    score = Scorer(rewards).score(prompt("5"), RIGHT)
    assert (score.rewards, score.total) == ({"good": 1.0, "bad": 0.0, "broken": 0.0}, 1.0)
    assert score.failures == ("bad", "broken")
    assert "KeyError" in score.reasons["broken"]
    with pytest.raises(WrongReturn, match="`bad` got"):
        Scorer(rewards, strict=True).score(prompt("5"), RIGHT)


def test_a_reward_that_does_not_apply_is_no_part_of_the_total():
    scorer = Scorer({"good": lambda p, r: 0.5, "not_for_this": lambda p, r: None}, [1.0, 3.0])
    score = scorer.score(prompt("5"), RIGHT)
    assert (score.rewards, score.total, score.failures, score.inapplicable) == (
        {"good": 0.5}, 0.5, (), ("not_for_this",)
    )  # fmt: skip
    only = Scorer({"batched": Batched(lambda pairs: [1.0, None, 0.0])}).score_all(PAIRS)
    assert [dict(score.rewards) for score in only] == [{"batched": 1.0}, {}, {"batched": 0.0}]
    assert [score.total for score in only] == [1.0, 0.0, 0.0]


def test_a_reward_that_exits_does_not_end_the_run():
    assert Scorer({"leaves": lambda p, r: sys.exit(1)}).score(prompt("5"), RIGHT).failures == ("leaves",)


class Batched:
    """A reward with `batch`, which notes how often and how it is asked."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def __call__(self, p, r):
        self.calls.append("alone")
        if r is HALF:
            raise ValueError("no verdict")
        return 0.5

    def batch(self, pairs):
        self.calls.append(len(pairs))
        return self.answer(pairs)


PAIRS = [(prompt("5"), RIGHT), (prompt("5"), HALF), (prompt("6"), RIGHT)]


def test_all_replies_are_scored_in_one_call_where_a_reward_can():
    reward = Batched(lambda pairs: [0.25, ValueError("no verdict"), 1])
    scores = Scorer({"batched": reward, "format": REWARDS["format"]}, [1.0, 0.5]).score_all(PAIRS)
    assert reward.calls == [3]
    assert [score.total for score in scores] == [0.75, 0.0, 1.5]
    assert [dict(score.reasons) for score in scores] == [{}, {"batched": "ValueError: no verdict"}, {}]
    assert Scorer({"batched": reward}).score_all([]) == []
    assert reward.calls == [3]


@QUICK
@given(st.lists(st.sampled_from(PAIRS), max_size=6))
def test_scoring_all_is_scoring_each(pairs):
    scorer = Scorer(load_rewards(list(REWARDS)))
    assert scorer.score_all(pairs) == [scorer.score(*pair) for pair in pairs]


def test_a_reward_of_some_tasks_is_asked_of_their_replies_alone():
    other = replace(prompt("5"), task="other")
    reward = Batched(lambda pairs: [1.0] * len(pairs))
    scorer = Scorer({"format": REWARDS["format"], "batched": reward}, [1.0, 0.5], tasks={"batched": ["other"]})
    scores = scorer.score_all([(prompt("5"), RIGHT), (other, RIGHT), (other, HALF)])
    assert reward.calls == [2]
    assert [dict(score.rewards) for score in scores] == [
        {"format": 1.0}, {"format": 1.0, "batched": 1.0}, {"format": 0.0, "batched": 1.0}
    ]  # fmt: skip
    assert [score.total for score in scores] == [1.0, 1.5, 0.5]


@pytest.mark.parametrize("answer", [lambda pairs: 1 / 0, lambda pairs: [1.0], lambda pairs: None, lambda pairs: "abc"])
def test_where_a_batch_fails_each_reply_is_scored_alone(answer):
    reward = Batched(answer)
    scores = Scorer({"batched": reward}).score_all(PAIRS)
    assert reward.calls == [3, "alone", "alone", "alone"]
    assert [score.total for score in scores] == [0.5, 0.0, 0.5]
    assert [score.failures for score in scores] == [(), ("batched",), ()]


def test_one_wrong_value_of_a_batch_fails_that_reply_alone():
    rewards = {"batched": Batched(lambda pairs: [1.0, math.nan, "1"])}
    assert [score.failures for score in Scorer(rewards).score_all(PAIRS)] == [(), ("batched",), ("batched",)]
    with pytest.raises(WrongReturn, match="`batched` got nan"):
        Scorer(rewards, strict=True).score_all(PAIRS)


def test_a_reward_that_cannot_go_on_stops_the_run():
    def spent(*_):
        raise ResourceError(Fault("the budget is spent"))

    with pytest.raises(ResourceError):
        Scorer({"alone": spent}).score_all(PAIRS)
    with pytest.raises(ResourceError):
        Scorer({"batched": Batched(spent)}).score_all(PAIRS)


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 2.0, 3.0], [1.0, math.nan], [1.0, math.inf]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ConfigError, match="weight"):
        Scorer(load_rewards(["accuracy", "format"]), weights)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("acuracy", "accuracy"), ("acuracy_reward", "accuracy"), ("tag-count", "tag_count"), ("Format", "format")],
)
def test_an_unknown_reward_is_answered_with_the_nearest(name, meant):
    with pytest.raises(ConfigError, match="unknown reward") as raised:
        load_rewards([name])
    assert f"`{meant}`" in raised.value.faults[0].fix


def test_every_fault_of_a_list_of_rewards_is_told():
    with pytest.raises(ConfigError) as raised:
        load_rewards(["accuracy", "nope", "accuracy", "gone.py:f"])
    assert len(raised.value.faults) == 3
    with pytest.raises(ConfigError, match="no rewards"):
        load_rewards([])


def test_rewards_need_no_torch():
    code = (
        "import sys, temper.rewards, temper.rewards.score, temper.commands.score;"
        "print(sorted({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_thinking_of_the_shared_rows_is_well_formed():
    assert parse_reply(f"{THINKING}<answer>5</answer>").well_formed
