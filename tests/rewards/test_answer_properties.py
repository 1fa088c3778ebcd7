"""Whatever the numbers: equal values written in different ways are right, other values are wrong, hostile texts end."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reward_rows import QUICK

from temper.rewards.answers import answer_of, read_gold, same_gold

numbers = st.integers(-(10**6), 10**6)
small = st.integers(1, 60)
fractions = st.builds(Fraction, numbers, st.integers(1, 10**4))


def is_right(gold: str, answer: str) -> bool:
    found = answer_of(read_gold(gold), answer, "q")
    return found is not None and found.right


def latex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


@QUICK
@given(fractions, fractions)
def test_numbers_agree_exactly_when_they_are_equal(one: Fraction, other: Fraction) -> None:
    for form in (latex(other), str(other) if other.denominator > 1 else f"{other.numerator:,}"):
        assert is_right(latex(one), form) == (one == other)
        assert is_right(latex(one), f"so \\boxed{{{form}}}.") == (one == other)


@QUICK
@given(fractions.filter(lambda value: value.denominator > 1), st.integers(2, 9))
def test_a_fraction_that_can_be_reduced_is_no_final_form(value: Fraction, by: int) -> None:
    written = f"\\frac{{{value.numerator * by}}}{{{value.denominator * by}}}"
    assert not is_right(latex(value), written)
    assert is_right(written, latex(value))


@QUICK
@given(numbers, small, small)
def test_radicals_have_one_value_however_they_are_written(shift: int, factor: int, under: int) -> None:
    assume(int(under**0.5) ** 2 != under)
    gold = f"{shift} + {factor}\\sqrt{{{under}}}" if shift else f"{factor}\\sqrt{{{under}}}"
    pulled_in = f"\\sqrt{{{factor * factor * under}}}"
    assert is_right(gold, f"{pulled_in}{shift:+d}" if shift else pulled_in)
    assert not is_right(gold, f"{pulled_in}{shift + 1:+d}")
    assert not is_right(gold, f"\\sqrt{{{factor * factor * under + 1}}}{shift:+d}")


@QUICK
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=5), st.integers(-9, 9))
def test_polynomials_are_equal_in_any_order_and_only_then(coefficients: list[int], more: int) -> None:
    assume(sum(coefficient != 0 for coefficient in coefficients) > 1 and coefficients[-1] != 0)
    terms = [f"{c}x^{{{power}}}" for power, c in enumerate(coefficients) if power > 1 and c]
    terms += [f"{coefficients[1]}x"] * (coefficients[1] != 0) + [str(coefficients[0])] * (coefficients[0] != 0)
    gold, turned = (" + ".join(order).replace("+ -", "- ") for order in (terms, terms[::-1]))
    assert is_right(gold, turned)
    changed = turned + (f" + {more}y" if more >= 0 else f" - {-more}y")
    assert not is_right(gold, changed) or more == 0


@QUICK
@given(st.integers(-20, 20), st.integers(-20, 20))
def test_factors_and_their_product_are_one_expression(a: int, b: int) -> None:
    assume(a and b and a + b)
    factored = f"(x{-a:+d})(x{-b:+d})"
    expanded = f"x^2{-(a + b):+d}x{a * b:+d}"
    assert is_right(expanded, factored)
    assert is_right(factored, expanded)
    assert not is_right(expanded, f"x^2{-(a + b):+d}x{a * b + 1:+d}")


@QUICK
@given(st.lists(numbers, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_lists_count_in_any_order_and_tuples_in_one(values: list[int], random) -> None:
    mixed = random.sample(values, len(values))
    spell = ", ".join
    assert is_right(spell(map(str, values)), spell(map(str, mixed)))
    assert is_right(f"({spell(map(str, values))})", f"({spell(map(str, mixed))})") == (values == mixed)
    assert not is_right(spell(map(str, values)), spell(map(str, mixed[:-1])))


@QUICK
@given(numbers, st.sampled_from(["kg", "km", "m^2", "cm", "hours", "dollars"]))
def test_a_unit_is_the_gold_answers_or_left_out(number: int, unit: str) -> None:
    assert is_right(f"{number} {unit}", str(number))
    assert is_right(f"{number} {unit}", f"\\boxed{{{number}\\text{{ {unit}}}}}")
    assert not is_right(f"{number} {unit}", f"{number} mg")
    assert not is_right(f"{number} {unit}", f"{number + 1} {unit}")


PIECES = r"""\frac \sqrt \boxed { } ( ) [ ] ^ _ $ \ 5 8 x + - , = < > \le \cup \text{ apples or % \% ° ½ | ! / * : . &
\\ \pm \begin{pmatrix} \end{pmatrix} \sin \infty e i π √ 五 __ ab xyz km base"""
hostile = st.lists(st.sampled_from([*PIECES.split(), "\n", " ", "\\le ", "\\pm "]), max_size=25).map("".join)


@QUICK
@given(hostile, hostile)
def test_any_text_is_judged_or_refused_in_bounded_time(gold: str, answer: str) -> None:
    began = time.process_time()
    with contextlib.suppress(ValueError):
        read = read_gold(gold)
        answer_of(read, answer, gold)
        answer_of(read, gold, answer)
    answer_of(read_gold("5"), answer, gold)
    answer_of(read_gold("x^2, (1, 2)"), f"\\boxed{{{answer}}}", gold)
    assert time.process_time() - began < 1.0


@QUICK
@given(hostile, hostile)
def test_sameness_of_golds_does_not_depend_on_their_order(one: str, other: str) -> None:
    assert same_gold(one, other) == same_gold(other, one)
    assert same_gold(one, one)


def _joined(pattern: str) -> st.SearchStrategy[str]:
    """Texts of one kind, which say the same only where their numbers are the same."""
    small = st.sampled_from([11, 13, 17, 19, 23, 29, 31, 37])  # primes: nothing cancels
    large = st.sampled_from([101, 103, 107, 109, 113, 127, 131, 137])
    return st.builds(pattern.format, small, large)


KINDS = {
    "fraction": r"\frac{{{0}}}{{{1}}}",
    "pair": "({0},{1})",
    "interval": "({0},{1}]",
    "half line": r"x \ge {0}.{1}",
    "union": r"(-\infty,{0}) \cup ({1},\infty)",
    "matrix": r"\begin{{pmatrix}} {0} & 1 \\ 0 & {1} \end{{pmatrix}}",
    "ratio": "{0}:{1}",
    "percent": r"{0}.{1}\%",
    "unit": r"{0}.{1} \text{{ cm}}",
    "radical": r"{0}\sqrt{{{1}}}",
    "line": "y = {0}x + {1}",
    "power": "{0}^{{{1}}}",
    "complex": "{0} + {1}i",
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_golds_of_a_kind_are_wrong_and_the_same_one_is_right(kind: str) -> None:
    @QUICK
    @given(_joined(KINDS[kind]), _joined(KINDS[kind]))
    def holds(one: str, other: str) -> None:
        assert is_right(one, f"\\boxed{{{other}}}") == (one == other)
        assert is_right(one, f"\\boxed{{{one}}}")

    holds()
