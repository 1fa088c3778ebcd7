"""The exact checker: every way of writing a value scores 1, every other value and every second answer scores 0."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from reward_rows import QUICK, right

from temper.rewards.values import parse_answer, parse_gold, same_value

INTEGERS = st.integers(-(10**30), 10**30)
FRACTIONS = st.builds(Fraction, st.integers(-(10**9), 10**9), st.integers(2, 10**6)).filter(lambda f: f.denominator > 1)
DECIMALS = st.decimals(-(10**9), 10**9, places=4, allow_nan=False, allow_infinity=False)

DRESS = (
    "{}", " {}\n", "{}.", "${}$", "\\({}\\)", "\\[{}\\]", "$${}$$", "**{}**", "*{}*", "`{}`", "\\boxed{{{}}}",
    "$\\boxed{{{}}}$", "The answer is {}", "the answer is ${}$.", "**Answer:** {}", "{} is the answer", "x = {}",
    "$x={}$", "\\boxed{{x = {}}}", "{} apples", "{} cm", "{}\\text{{ cm}}", "We get \\boxed{{{}}}.", "= \\boxed{{{}}}",
    "Die Antwort ist {}.", "{} km/h", "\\${}", "€{}", "{} euros", "**The final answer is ${}$.**",
)  # fmt: skip


def write_integer(value: int, style: int) -> str:
    plain = str(value)
    styles = (
        plain, f"{value:,}", f"{value:,}".replace(",", "\\,"), f"{value:,}".replace(",", "{,}"),
        f"{value:,}".replace(",", "\u202f"), plain.replace("-", "−"), f"{value:+d}", f"{value}.0", f"{value}.000",
        plain.replace("-", "- "),
    )  # fmt: skip
    return styles[style % len(styles)]


def write_fraction(value: Fraction, style: int) -> str:
    above, below, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    styles = [f"{sign}{above}/{below}", f"{sign}{above} / {below}", f"{sign}\\frac{{{above}}}{{{below}}}",
              f"{sign}\\dfrac{{{above}}}{{{below}}}", f"\\frac{{{sign}{above}}}{{{below}}}",
              f"{sign.replace('-', '−')}\\tfrac{{{above}}}{{{below}}}"]  # fmt: skip
    if above > below:
        styles.append(f"{sign}{above // below} {above % below}/{below}")
        styles.append(f"{sign}{above // below}\\frac{{{above % below}}}{{{below}}}")
    return styles[style % len(styles)]


@QUICK
@given(INTEGERS, st.integers(0, 9), st.sampled_from(DRESS))
def test_an_integer_is_right_however_it_is_written(value, style, dress):
    assert right(str(value), dress.format(write_integer(value, style)))


@QUICK
@given(FRACTIONS, st.integers(0, 9), st.sampled_from(DRESS))
def test_a_fraction_is_right_however_it_is_written(value, style, dress):
    assert right(f"{value.numerator}/{value.denominator}", dress.format(write_fraction(value, style)))


@QUICK
@given(DECIMALS)
def test_a_decimal_equals_its_fraction_exactly(value):
    exact = Fraction(value)
    gold = str(exact) if exact.denominator > 1 else str(exact.numerator)
    assert right(gold, f"{value:f}")
    assert not right(gold, f"{value:f}" + "00001" if "." in f"{value:f}" else f"{value:f}.1")


@QUICK
@given(INTEGERS, INTEGERS.filter(bool), st.integers(0, 9), st.sampled_from(DRESS))
def test_another_value_is_wrong_however_close(value, change, style, dress):
    assert not right(str(value), dress.format(write_integer(value + change, style)))
    assert not right(f"{value}.5", dress.format(write_integer(value, style)))


@QUICK
@given(FRACTIONS, st.integers(2, 1000), st.integers(0, 5))
def test_a_fraction_not_in_lowest_terms_is_wrong(value, factor, style):
    above, below = abs(value.numerator) * factor, value.denominator * factor
    assume(above)
    gold = f"{abs(value.numerator)}/{value.denominator}"
    for written in (f"{above}/{below}", f"\\frac{{{above}}}{{{below}}}", f"\\boxed{{{above}/{below}}}"):
        assert not right(gold, written)


JOINS = (" or ", ", ", "; ", " and ", "\n", " / ", " = ", " oder ", " to ", "-", "–", "±", "\\pm ", " + ", " * ", "^",
         " \\times ", " < ", "!", " vs ", " (", "|", ":", "..", " \\text{ or } ", "\\boxed{", " x ")  # fmt: skip


@QUICK
@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from(JOINS), st.sampled_from(DRESS))
@example(5, 5, ", ", "{}")
def test_two_numbers_are_no_answer(one, other, join, dress):
    assume(not (join == "-" and dress == "{}" and one == 0))
    both = f"{one}{join}{other}"
    golds = {str(one), str(other), str(one + other), str(one - other), str(one * other)}
    assert not any(right(gold, dress.format(both)) for gold in golds if not is_one_fraction(one, other, join))


def is_one_fraction(one: int, other: int, join: str) -> bool:
    return join == " / " and other > 1


@QUICK
@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from((" or ", ", ", " and ", "; ", "\n", "")))
def test_two_boxes_are_no_answer(one, other, join):
    assert parse_answer(f"\\boxed{{{one}}}{join}\\boxed{{{other}}}") is None


@QUICK
@given(st.integers(1, 99), st.integers(1, 99))
def test_what_is_still_to_be_computed_is_no_answer(one, other):
    for gold, expression in (
        (one + other, f"{one}+{other}"),
        (one * other, f"{one} \\cdot {other}"),
        (one * other, f"{one}({other})"),
        (one, f"\\frac{{{one * other}}}{{{other}}}"),
        (one, f"\\sqrt{{{one * one}}}"),
        (one, f"{one}/1"),
        (one, f"{one}^1"),
        (one, f"x = {one} + 0"),
        (one, f"x + {other} = {one + other}"),
        (one, f"{one} = {one}"),
        (-one, f"-({one})"),
        (one, f"|-{one}|"),
    ):
        assert not right(str(gold), expression), expression


@QUICK
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5))
def test_tuples_keep_order_and_sets_do_not(numbers):
    listed = ", ".join(map(str, numbers))
    backwards = ", ".join(map(str, reversed(numbers)))
    assert right(f"({listed})", f"\\left({listed}\\right)")
    assert right(f"({listed})", f"({backwards})") == (numbers == numbers[::-1])
    assert not right(f"({listed})", listed)
    assert not right(f"({listed})", f"\\{{{listed}\\}}")
    assert not right(f"({listed})", f"[{listed}]")
    if len(set(numbers)) == len(numbers):
        assert right(f"\\{{{listed}\\}}", f"{{{backwards}}}")
        assert not right(f"\\{{{listed}\\}}", f"({listed})")
    else:
        assert parse_answer(f"\\{{{listed}\\}}") is None


@QUICK
@given(st.integers(0, 1000))
def test_percentages_compare_only_with_percentages(value):
    assert right(f"{value}%", f"{value}\\%")
    assert right(f"{value}%", f"{value}.0 percent")
    assert not right(f"{value}%", str(value))
    assert not right(str(value), f"{value}%")
    assert not right(str(Fraction(value, 100)) if value % 100 else str(value // 100), f"{value}%")


@QUICK
@given(st.text(max_size=40), st.text(max_size=10))
def test_no_text_makes_the_parser_raise(text, question):
    parse_answer(text, question)
    if parse_answer(text) is None:
        with pytest.raises(ValueError, match="final form"):
            parse_gold(text)
    else:
        assert parse_gold(text) == parse_answer(text)


ALPHABET = st.text(alphabet="0123456789.,+-−*/^=()[]{}\\$%'_ \n\tabcefrxfrac{}boxedtext", max_size=30)


@QUICK
@given(ALPHABET)
def test_what_parses_is_right_for_itself_as_gold(text):
    value = parse_answer(text)
    if value is not None:
        assert same_value(parse_gold(text), value)
        assert all(abs(number.numerator) < 10**1100 for number in value.numbers)


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("", "nothing"),
        ("2/4", "lowest terms"),
        ("5/1", "denominator"),
        ("1e5000", "exponent"),
        ("\\boxed{5", "not closed"),
        ("\\boxed{5}\\boxed{6}", "several boxes"),
        ("5 or 6", "`or`"),
        ("5x", "directly behind"),
        ("9" * 5000, "longer than"),
        ("(5)", "no tuple"),
        ("\\{1, 1\\}", "twice"),
        ("Paris", "begin with a number"),
        ("$5 or 5%", "another answer"),
    ],
)
def test_a_gold_that_cannot_be_verified_says_why(gold, reason):
    with pytest.raises(ValueError, match=reason):
        parse_gold(gold)


def test_an_answer_is_short():
    assert parse_answer("so it is " * 1_000 + "\\boxed{5}") is not None
    assert parse_answer("so it is " * 2_000 + "\\boxed{5}") is None
    assert parse_answer("5" + "0" * 990) is not None
    assert parse_answer("5" + "0" * 1_000) is None


def test_units_count_only_where_both_are_known():
    assert right("5 cm", "5 centimetres")
    assert right("5 cm", "5")
    assert right("5", "5 m")
    assert right("5 apples", "5 fruits")
    assert not right("5 cm", "5 m")
    assert not right("$5", "5 euros")
    assert right("20 degrees", "20°C")


def test_equal_values_are_one_vote_whatever_stands_beside_them():
    forms = [parse_answer(text) for text in ("5", "5.0", "5 cm", "x = 5", "$5")]
    assert len({repr(form) for form in forms}) == len({*forms}) == 1
