r"""Gold answers: GSM8K's `####`, MATH's `\boxed{}` and plain final forms are found; what is unclear is told."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.data.gold import boxed, gold_of
from temper.rewards.answers import read_gold, same_gold


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("He has 48/2 = <<48/2=24>>24 clips.\nTogether 48+24 = <<48+24=72>>72.\n#### 72", "72"),
        ("#### 72\n\n", "72"),
        ("so much work\r\n#### $1,234.50\r\n", "1234.5"),
        ("it costs\n####-5", "-5"),
        ("#### 18 dollars", "18"),
        ("#### <<9+9=18>>18", "18"),
        (r"#### \boxed{18}", "18"),
        (r"Thus $x = \boxed{\frac{3}{4}}$.", "3/4"),
        (r"We get $\boxed{12}$ and check: $\boxed{12}$", "12"),
        (r"We get $\boxed{0.5}$, that is $\boxed{\frac12}$", "1/2"),
        (r"$\boxed{\boxed{7}}$", "7"),
        (r"so $\boxed 5$.", "5"),
        (r"$\fbox{5}$", "5"),
        (r"the pair is $\boxed{(1,\ 2)}$", "(1, 2)"),
        (r"\boxed{\{1, 2\}}", r"\{2, 1\}"),
        (r"\boxed{\text{5}}", "5"),
        (r"#### 5, as \boxed{5} says"[:6], "5"),
        ("7", "7"),
        (" -3/4 ", "-3/4"),
        ("50%", "50%"),
    ],
)
def test_the_final_form_is_found(text: str, gold: str) -> None:
    assert same_gold(gold_of(text), gold)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#### ", "nothing stands after `####`"),
        ("work\n####", "nothing stands after `####`"),
        ("#### <<1+1=2>>", "nothing stands"),
        ("#### 5\n#### 6", "2 `####`"),
        ("#### 5 #### 5", "2 `####`"),
        ("#### 5\nand more", "several lines"),
        ("#### five", "final form"),
        ("twenty-five", "final form"),
        ("one half", "final form"),
        ("One hundred and five.", "final form"),
        ("#### 5 or six", "final form"),
        (r"\boxed{5", "never closed"),
        (r"\boxed{\frac{1}{2}", "never closed"),
        (r"\boxed{5\}", "never closed"),
        (r"\boxed{}", "empty"),
        (r"\boxed{ }", "empty"),
        (r"\boxed", "followed by nothing"),
        (r"\boxed{5} or \boxed{6}", "several answers"),
        ("\\boxed{5}\n#### 6", "several answers"),
        (r"\boxed{2+}", "final form"),
        ("2+3=6", "final form"),
        ("the answer could be anything", "final form"),
        ("", "final form"),
        ("٥", "final form"),
        ("5</answer>", "</answer>"),
    ],
)
def test_what_cannot_be_verified_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        gold_of(text)
    assert why in str(caught.value)


def test_a_text_answer_is_taken_whole() -> None:
    assert gold_of(" New  York ", "text") == "New  York"
    assert gold_of("#### the end", "text") == "#### the end"
    with pytest.raises(ValueError, match="</answer>"):
        gold_of("a</answer>b", "text")


@given(st.integers(-(10**9), 10**9), st.lists(st.text("ab0 $=<>{}\\\n#", max_size=20), max_size=4))
def test_gsm8k_rows_give_their_number(number: int, work: list[str]) -> None:
    text = "\n".join(work).replace("#", "").replace("\\", "") + f"\n#### {number:,}"
    assert same_gold(gold_of(text), str(number))


_latex = st.recursive(
    st.sampled_from(["x", "1", r"\frac", r"\{", r"\}", "\\\\", " ", ","]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=12,
)


@given(_latex, st.text("ab{} \n", max_size=10))
def test_a_box_holds_what_stands_between_its_braces(inner: str, after: str) -> None:
    if inner.strip():
        assert next(boxed(rf"so \boxed{{{inner}}}{after}")) == inner.strip()


@given(st.text(r"\boxedfrac{}#$<>=0123456789/,. " + "\n", max_size=60))
def test_any_text_is_a_gold_or_a_value_error(text: str) -> None:
    try:
        gold = gold_of(text)
    except ValueError:
        return
    assert read_gold(gold).text == gold


@pytest.mark.parametrize(
    "piece", [r"\boxed{", r"\boxed{}", r"\boxed{\boxed{", "<<", "####", r"\boxed 5 ", "{", "}", "\\"]
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    with contextlib.suppress(ValueError):
        gold_of(text + "}" * 100_000)
    assert time.process_time() - began < 1.0
