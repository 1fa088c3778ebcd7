"""Reading the text of a recipe: YAML 1.2 scalars, precise faults, nothing that can hurt."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.errors import ConfigError
from temper.recipe.document import Table, decode, plain, read_document, read_scalar
from temper.recipe.resolved import render


def read(text: str):
    return plain(read_document(text, "my.yaml"))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read_document(text, "my.yaml")
    return [f"{fault.what} @ {fault.where}" for fault in error.value.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-1.5e+3", -1500.0), (".5", 0.5), ("5.", 5.0), ("+3", 3), ("007", 7),
        ("0o17", 15), ("0x1F", 31), ("-0", 0), ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"),
        ("y", "y"), ("true", True), ("TRUE", True), ("False", False), ("~", None), ("null", None), ("Null", None),
        (".inf", math.inf), ("-.INF", -math.inf), ("1_000", "1_000"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("0b11", "0b11"), ("1e", "1e"), ("e5", "e5"), (".", "."), ("inf", "inf"), ("nan", "nan"), ("0o8", "0o8"),
        ("=", "="), ("<<", "<<"), ("1,000", "1,000"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    read_back = read(f"a: {text}")["a"]
    assert read_back == value
    assert type(read_back) is type(value)


def test_quoted_scalars_are_strings():
    assert read("""{a: "1e-5", b: 'true', c: "", d: 'no'}""") == {"a": "1e-5", "b": "true", "c": "", "d": "no"}
    assert read("a: |\n  1\n") == {"a": "1\n"}


def test_nan_is_a_number():
    assert math.isnan(read("a: .nan")["a"])


def test_every_key_and_value_knows_its_line_and_column():
    table = read_document("a: 1\nb:\n    c: [x, y]\n", "my.yaml")
    entry = table.entries["b"].node.entries["c"]
    assert (str(entry.key), str(entry.node.items[1].place)) == ("my.yaml:3:5", "my.yaml:3:12")


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "{a: 1, a: 2}", "a: 1\n'a': 2\n", "x: {b: 1, c: 2, b: 3}"])
def test_a_duplicate_key_is_refused_with_both_places(text):
    with pytest.raises(ConfigError) as error:
        read(text)
    (fault,) = error.value.faults
    assert "duplicate key" in fault.what
    assert "my.yaml:" in fault.why


def test_all_faults_of_a_document_are_told_at_once():
    found = faults("a: 1\na: 2\nb: !!int 3\n1: x\nc: *no\n")
    assert [fault.split(" @ ")[1] for fault in found] == ["my.yaml:2:1", "my.yaml:3:4", "my.yaml:4:1", "my.yaml:5:4"]


@pytest.mark.parametrize(
    "tag", ["!!python/object:os.system", "!!python/object/apply:os.system ['true']", "!!str", "!mine", "!!binary", "!"]
)
def test_tags_are_refused_and_nothing_is_executed(tag):
    (fault,) = faults(f"a: {tag} x" if "[" not in tag else f"a: {tag}")
    assert "unsupported YAML tag" in fault
    assert fault.endswith("my.yaml:1:4")


@pytest.mark.parametrize("key", ["1", "true", "null", "1.5", "[a]", "{a: b}", "? [a]\n"])
def test_a_key_that_is_no_name_is_refused(key):
    assert any("a key is a name" in fault for fault in faults(f"{key}: x" if not key.startswith("?") else key + ": x"))


def test_aliases_repeat_what_they_name():
    assert read("a: &x {n: [1, 2]}\nb: *x\n") == {"a": {"n": [1, 2]}, "b": {"n": [1, 2]}}


def test_an_alias_inside_its_own_anchor_is_refused():
    assert "stands inside what it repeats" in faults("a: &x [1, *x]")[0]


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * 10) + "]")
    return "\n".join(lines)


def test_an_alias_bomb_is_refused_before_it_grows():
    began = time.process_time()
    assert "too many values" in faults(bomb(30))[0]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "a:\n" + "".join(
    " " * n + "a:\n" for n in range(1, 300))])  # fmt: skip
def test_deep_nesting_is_refused_quickly(text):
    began = time.process_time()
    assert any("nested too deep" in fault for fault in faults(text))
    assert time.process_time() - began < 3


def test_many_values_are_refused():
    assert "too many values" in faults("a: [" + "1," * 21_000 + "]")[0]


def test_a_number_beyond_all_use_is_refused():
    assert "out of range" in faults("a: " + "9" * 10_000)[0]


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "--- a\n--- b\n"])
def test_more_than_one_document_is_refused(text):
    assert "more than one YAML document" in faults(text)[0]


@pytest.mark.parametrize(
    "text", ["a: b: c", "\ta: 1", "a: [1,", 'a: "x', "a: 'x", "a: @x", "a:\n  b: 1\n c: 2", "a: %x", "a: b\n- c", "}"]
)
def test_broken_syntax_is_one_fault_with_its_place(text):
    (fault,) = faults(text)
    assert fault.startswith("not valid YAML")
    assert "my.yaml:" in fault


def test_an_unquoted_reference_says_to_quote_it():
    with pytest.raises(ConfigError) as error:
        read("stages:\n  a: {model: @base}\n")
    assert '"@stage"' in error.value.faults[0].fix


@pytest.mark.parametrize("escape", [r"\0", r"\e[31m", r"\x07", r"\u202e", r"\uD800", r"\x7f", r"\x9b"])
def test_escapes_for_control_characters_are_refused_and_shown_escaped(escape):
    with pytest.raises(ConfigError) as error:
        read(f'a: "x{escape}y"')
    shown = error.value.render()
    assert "control character" in shown or "not valid YAML" in shown
    assert shown.isprintable() or set(shown) - set("\n") <= {c for c in shown if c.isprintable()}


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u202e"])
def test_raw_control_characters_are_refused_with_their_place(character):
    (fault,) = faults(f"a: 1\nb: x{character}y\n")
    assert fault.endswith("my.yaml:2:5")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\xff\xfea\x00", "UTF-16"), (b"\xfe\xff\x00a", "UTF-16"), ("a: 1".encode("utf-16-le"), "UTF-16"),
        ("a: 1\nb: 2".encode("utf-16-be"), "UTF-16"), (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zip"), (b"\x7fELF\x02", "program"), (b"\x00\x01\x02\x03binary", "binary"),
        (b"a: caf\xe9", "byte 0xE9"),
    ],
)  # fmt: skip
def test_what_is_no_utf8_text_is_named(data, found):
    with pytest.raises(ConfigError) as error:
        decode(data, "my.yaml")
    assert found in error.value.faults[0].what


def test_a_bad_byte_is_given_by_line_column_and_offset():
    with pytest.raises(ConfigError) as error:
        decode(b"a: 1\nb: caf\xe9\n", "my.yaml")
    fault = error.value.faults[0]
    assert fault.where == "my.yaml:2:7"
    assert "byte offset 11" in fault.what


def test_a_byte_order_mark_and_crlf_are_fine():
    assert read(decode(b"\xef\xbb\xbfa: 1\r\nb: x\r\n", "my.yaml")) == {"a": 1, "b": "x"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_no 1-", min_size=1), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcxyz_1 ", min_size=1, max_size=6), VALUES, max_size=4))
def test_what_is_rendered_reads_back_the_same(values):
    assert read(render(values, {}) or "{}") == values


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused_with_a_place(text):
    refused = ()
    try:
        plain(read_document(text, "my.yaml"))
    except ConfigError as error:
        refused = error.faults
    assert all(fault.where.startswith("my.yaml:") for fault in refused)


@given(st.text("+-.0123456789eExoXinfaNFA_", max_size=12))
def test_a_scalar_reads_as_a_number_exactly_if_python_and_the_grammar_agree(text):
    value = read_scalar(text)
    if isinstance(value, float) and math.isfinite(value):
        assert value == float(text)
    if isinstance(value, int) and text[:2] not in ("0x", "0o"):
        assert value == int(text)


def test_an_empty_text_is_nothing():
    node = read_document("# only a comment\n", "my.yaml")
    assert not isinstance(node, Table)
    assert plain(node) is None
