"""Reading rows: what is right comes back as it was written, what is wrong is named by its place."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import random
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temper.data import sources
from temper.data.files import load_rows, read_rows
from temper.data.findings import Findings
from temper.data.rows import Number, to_json
from temper.errors import DataError, Exit, TemperError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = [{"question": f"What is {n}+1?", "answer": str(n + 1)} for n in range(8)]
LINES = [json.dumps(row) for row in GOOD]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault_text(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        load_rows(path)
    assert caught.value.code == Exit.DATA
    rendered = caught.value.render()
    assert rendered.startswith("error: ")
    assert rendered.isprintable() or set(filter(lambda c: not c.isprintable(), rendered)) == {"\n"}
    assert len(rendered) < 3000
    return rendered


def values(path: Path) -> list[dict]:
    return [dict(row.values) for row in load_rows(path)[0]]


# -- what is read back ------------------------------------------------------------------------------------------------

# Text without characters that are odd on purpose: those have tests of their own.
_plain = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cf", "Cn", "Co"), exclude_characters="\u2028\u2029\ufffd")
    | st.sampled_from('\n\t,;"{}[]\\ é你😀')
)
_cells = _plain
_columns = st.lists(
    st.text(st.characters(codec="ascii", categories=("Ll", "Lu", "Nd")), min_size=1),
    min_size=1,
    max_size=4,
    unique=True,
)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    columns = draw(_columns)
    rows = draw(st.lists(st.tuples(*(_cells for _ in columns)), min_size=1, max_size=6))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def as_csv(rows: list[dict[str, str]], end: str) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


@QUICK
@given(
    rows=tables(),
    form=st.sampled_from(["jsonl", "json", "csv"]),
    crlf=st.booleans(),
    bom=st.booleans(),
    packed=st.booleans(),
    escaped=st.booleans(),
    blanks=st.booleans(),
    last=st.booleans(),
)
def test_a_table_reads_back_the_same_in_every_dress(
    tmp_path: Path,
    rows: list[dict],
    form: str,
    crlf: bool,
    bom: bool,
    packed: bool,
    escaped: bool,
    blanks: bool,
    last: bool,
) -> None:
    end = "\r\n" if crlf else "\n"
    if form == "csv":
        text = as_csv(rows, end)
    elif form == "json":
        text = json.dumps(rows, ensure_ascii=escaped, indent=2).replace("\n", end)
    else:
        text = (end * (2 if blanks else 1)).join(json.dumps(row, ensure_ascii=escaped) for row in rows)
        text += end if last else ""
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode()
    path = write(tmp_path, f"t.{form}" + (".gz" if packed else ""), gzip.compress(data) if packed else data)
    loaded, notes = load_rows(path)
    assert [dict(row.values) for row in loaded] == rows
    assert [row.number for row in loaded] == list(range(1, len(rows) + 1))
    assert notes == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_plain, inner, max_size=3),
    max_leaves=8,
)


@QUICK
@given(st.lists(st.dictionaries(_plain, _json, max_size=3), min_size=1, max_size=4))
def test_any_json_row_keeps_its_values_and_its_digits(tmp_path: Path, rows: list[dict]) -> None:
    path = write(tmp_path, "t.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert [json.loads(to_json(dict(row.values))) for row in load_rows(path)[0]] == rows


def test_lines_are_named_as_an_editor_names_them(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", "\n\n".join(LINES[:3]))
    assert [row.place("t") for row in load_rows(path)[0]] == ["t:1", "t:3", "t:5"]
    path = write(tmp_path, "t.json", "[\n  " + LINES[0] + ", " + LINES[1] + "\n]")
    assert [row.place("t") for row in load_rows(path)[0]] == ["t:2:3", f"t:2:{len(LINES[0]) + 5}"]
    path = write(tmp_path, "t.csv", 'question,answer\n"two\nlines",4\nq,5\n')
    assert [row.place("t") for row in load_rows(path)[0]] == ["t:2", "t:4"]


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", '{"a": 0.10, "b": 1e400, "c": ' + "9" * 9000 + ', "d": -0}')
    row = load_rows(path)[0][0].values
    assert [row[key].text for key in "abd"] == ["0.10", "1e400", "-0"]
    assert row["c"] == Number("9" * 9000)


def test_an_array_in_lines_and_lines_in_json_are_accepted_and_noted(tmp_path: Path) -> None:
    for name, text in [
        ("a.jsonl", json.dumps(GOOD)),
        ("b.jsonl", json.dumps(GOOD, indent=1)),
        ("c.jsonl", "\n[\n" + ",\n".join(LINES) + "\n]\n\n"),
        ("d.json", "\n".join(LINES)),
        ("e.json", LINES[0]),
    ]:
        rows, notes = load_rows(write(tmp_path, name, text))
        assert dict(rows[0].values) == GOOD[0]
        assert [note.level for note in notes] == ["note"], name


# -- what is told -----------------------------------------------------------------------------------------------------

FILES = {
    "nothing in it": ("t.jsonl", "", ["0 rows"]),
    "only blank lines": ("t.jsonl", "\n \n\t\r\n", ["0 rows"]),
    "only a mark": ("t.jsonl", b"\xef\xbb\xbf", ["0 rows"]),
    "an empty array": ("t.json", " [ ] ", ["0 rows"]),
    "only a header": ("t.csv", "question,answer\n", ["0 rows"]),
    "latin-1": ("t.jsonl", (LINES[0] + "\n").encode() + '{"a": "né"}'.encode("latin-1"), [
        "row 2", "not UTF-8", "t.jsonl:2:9", f"byte offset {len(LINES[0]) + 9}", "0xE9"]),
    "latin-1 in csv": ("t.csv", b"question,answer\nok,1\ncaf\xe9,2\n", ["row 2", "not UTF-8", "offset 24", ":3:4"]),
    "latin-1 in an array": ("t.json", b'[{"a": "x"},\n{"a": "\xe9"}]', ["row 2", "not UTF-8", "byte offset 20"]),
    "UTF-16 with a mark": ("t.jsonl", LINES[0].encode("utf-16"), ["UTF-16"]),
    "UTF-16 without": ("t.csv", "question,answer\n".encode("utf-16-le"), ["UTF-16"]),
    "UTF-32": ("t.jsonl", LINES[0].encode("utf-32"), ["UTF-32"]),
    "a key twice": ("t.jsonl", LINES[0] + '\n{"answer": 1, "b": 2, "answer": 3}', ["row 2", ":2", "`answer`", "twice"]),
    "a key twice inside": ("t.jsonl", '{"a": {"deep": 1, "deep": 1}}', ["row 1", "`deep`"]),
    "a string row": ("t.jsonl", LINES[0] + '\n"just text"', ["row 2", "found a string"]),
    "a number row": ("t.jsonl", LINES[0] + "\n17", ["row 2", "found a number", "`17`"]),
    "a null row": ("t.jsonl", LINES[0] + "\nnull", ["row 2", "found null"]),
    "a list row": ("t.jsonl", LINES[0] + "\n[1, 2]", ["row 2", "found a list"]),
    "a first row that is a list": ("t.jsonl", "[1, 2]\n" + LINES[0], ["row 1", "found a list"]),
    "a boolean in an array": ("t.json", "[\n" + LINES[0] + ",\ntrue\n]", ["row 2", "t.json:3", "found a boolean"]),
    "broken JSON": ("t.jsonl", LINES[0] + '\n{"a": 1, b: 2}', ["row 2", "t.jsonl:2:10", "not valid JSON"]),
    "cut off": ("t.jsonl", LINES[0] + '\n{"a": "and th', ["row 2", "t.jsonl:2:7", "never closed"]),
    "two objects on a line": ("t.jsonl", LINES[0] + LINES[1], ["row 1", f":1:{len(LINES[0]) + 1}", "follows the end"]),
    "printed Python": ("t.jsonl", "{'a': 'b'}", ["double quotes", "json.dumps"]),
    "one object over lines": ("t.jsonl", json.dumps(GOOD[0], indent=1), ["one line is one row"]),
    "old Mac line ends": ("t.jsonl", "\r".join(LINES), ["carriage returns"]),
    "a missing comma in an array": ("t.json", '[{"a": 1}\n{"a": 2}]', ["t.json:2:1", "expected `,` or `]`"]),
    "an array that never ends": ("t.json", '[{"a": 1},\n', ["t.json:2:1", "found the end"]),
    "a comma too many": ("t.json", '[{"a": 1},]', ["t.json:1:11"]),
    "more after the array": ("t.json", '[{"a": 1}] x', ["t.json:1:12", "follows"]),
    "an object at the top": ("t.json", json.dumps({"rows": GOOD}, indent=1), ["an object", "`rows`"]),
    "a string at the top": ("t.json", '"rows"', ["found a string"]),
    "NaN": ("t.jsonl", '{"a": NaN}', ["row 1", "`NaN`"]),
    "infinity": ("t.jsonl", '{"a": [-Infinity]}', ["row 1", "`-Infinity`"]),
    "NUL": ("t.jsonl", '{"a": "x\\u0000y"}', ["row 1", "U+0000", "`a`"]),
    "NUL in csv": ("t.csv", "question,answer\na\0,b\n", ["row 1", "U+0000", "`question`"]),
    "a raw NUL": ("t.jsonl", '{"a": "x\0y"}', ["row 1", "t.jsonl:1:9", "control character"]),
    "half a surrogate": ("t.jsonl", '{"a": ["\\ud800"]}', ["row 1", "U+D800", "`a`"]),
    "half a surrogate in a key": ("t.jsonl", '{"\\udfff": "x"}', ["row 1", "U+DFFF"]),
    "deep nesting": ("t.jsonl", '{"a":' + "[" * 50_000 + "]" * 50_000 + "}", ["row 1", "nested too deep"]),
    "deep open nesting": ("t.json", "[" * 100_000, ["nested too deep"]),
    "nesting Python can still read": ("t.jsonl", '{"a":' + "[" * 99 + "]" * 99 + "}", ["row 1", "nested too deep"]),
    "gzip without the name": ("t.jsonl", gzip.compress(b"{}"), ["gzip", "rename it to `t.jsonl.gz`"]),
    "the name without gzip": ("t.jsonl.gz", LINES[0], ["not a gzip file", "rename it to `t.jsonl`"]),
    "gzip cut off": ("t.jsonl.gz", gzip.compress("\n".join(LINES).encode())[:-20], ["truncated gzip"]),
    "gzip cut to its header": ("t.jsonl.gz", gzip.compress(b"{}")[:12], ["truncated gzip"]),
    "gzip with a wrong sum": ("t.jsonl.gz", gzip.compress(b"{}")[:-8] + b"\1" * 8, ["damaged gzip"]),
    "gzip and more": ("t.jsonl.gz", gzip.compress(b"{}") + b"more", ["damaged gzip"]),
    "a zip": ("t.csv", b"PK\x03\x04....", ["zip"]),
    "a Git LFS pointer": ("t.jsonl", "version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
    "a web page": ("t.json", "\n<!DOCTYPE html><html>", ["web page"]),
    "text": ("notes.txt", "hello", [".jsonl", ".csv"]),
    "no ending": ("notes", "hello", [".jsonl"]),
    "ndjson": ("t.ndjson", LINES[0], ["rename"]),
    "tsv": ("t.tsv", "a\tb", [".csv"]),
    "semicolons": ("t.csv", "question;answer\na;1\n", [":1", "`;`", "expected", "found", "`question;answer`"]),
    "tabs": ("t.csv", "question\tanswer\na\t1\n", ["a tab", "expected", "found"]),
    "too many columns": ("t.csv", "question,answer\na,1\nb,2,3\n", ["row 2", "t.csv:3", "expected 2", "found 3"]),
    "too few columns": ("t.csv", 'question,answer\n"a\nb",1\nb\n', ["row 2", "t.csv:4", "expected 2", "found 1"]),
    "an open quote": ("t.csv", 'question,answer\na,1\n"b,2\nc,3\n', ["row 2", "t.csv:3", "never closed"]),
    "a quote inside quotes": ("t.csv", 'question,answer\n"a"b,1\n', ["row 1", "t.csv:2", "quot"]),
    "a column twice": ("t.csv", "a,b,a\n1,2,3\n", ["`a`", ":1"]),
    "a column without a name": ("t.csv", "a,,c\n1,2,3\n", ["column 2", "no name"]),
    "a space before a quote": ("t.csv", '"a", "b"\n"1", "2"\n', ["space"]),
    "Excel's hint": ("t.csv", "sep=,\na,b\n1,2\n", ["sep="]),
    "JSON called csv": ("t.csv", LINES[0], ["JSON", ".jsonl"]),
    "not parquet": ("t.parquet", "hello", ["not a parquet file"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    name, content, says = FILES[case]
    path = write(tmp_path, name, content)
    text = fault_text(path)
    assert str(path) in text
    assert [word for word in says if word not in text] == [], text


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", LINES[0])
    assert "did you mean" in fault_text(tmp_path / "trian.jsonl")
    assert "0 rows" in fault_text(tmp_path / "trian.jsonl")
    assert "a directory" in fault_text(tmp_path)
    assert "train.jsonl" in fault_text(tmp_path)
    assert "no such file" in fault_text(tmp_path / "no" / "such.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "not a regular file" in fault_text(tmp_path / "pipe.jsonl")
    fault_text(str(tmp_path) + "/nul\0.jsonl")
    fault_text(tmp_path / ("x" * 400 + ".jsonl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_one_may_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", LINES[0])
    path.chmod(0)
    assert "ermission" in fault_text(path)


def test_bad_rows_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    lines = [LINES[0]] * 1000
    for row in (17, 230, 411, 999):
        lines[row - 1] = "{oops"
    text = fault_text(write(tmp_path, "t.jsonl", "\n".join(lines)))
    assert "4 bad rows of 1,000" in text
    assert re.findall(r"t\.jsonl:(\d+)", text)[:3] == ["17", "230", "411"]
    assert "and 1 more" in text
    assert "999" not in text
    assert "--skip-bad" in text
    assert text.count("error:") == 1


def test_kinds_of_faults_are_told_apart_each_once(tmp_path: Path) -> None:
    text = fault_text(write(tmp_path, "t.jsonl", "\n".join([LINES[0], "{oops", "5", "6", LINES[0], '{"a":1,"a":2}'])))
    heads = re.findall("error: (.*)", text)
    assert heads == ["row 2: not valid JSON", "2 bad rows of 6: not an object", "row 6: duplicate key",
                     "4 bad rows of 6 in all"]  # fmt: skip


def test_skipping_keeps_the_good_rows_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", "\n".join([LINES[0], "{oops", LINES[1]]))
    rows, notes = load_rows(path, skip_bad=True)
    assert [row.number for row in rows] == [1, 3]
    assert [note.level for note in notes] == ["warning"]
    assert "left out" in notes[0].render()
    path.write_text("{oops\n{oops")
    with pytest.raises(DataError):
        load_rows(path, skip_bad=True)


@pytest.mark.parametrize(
    ("character", "code"),
    [("\u202e", "U+202E"), ("\u2066", "U+2066"), ("\u200b", "U+200B"), ("\ufeff", "U+FEFF"), ("\u0085", "U+0085"),
     ("\ufffd", "U+FFFD"), ("\U000e0041", "U+E0041"), ("\u200d", "U+200D"), ("\u007f", "U+007F")],
)  # fmt: skip
@pytest.mark.parametrize("form", ["jsonl", "escaped.jsonl", "csv"])
def test_odd_characters_are_warned_about(tmp_path: Path, character: str, code: str, form: str) -> None:
    text = f"pay{character}load"
    rows = ["clean", text, "clean"]
    body = "question\n" + "\n".join(rows) if form == "csv" else "\n".join(
        json.dumps({"question": row}, ensure_ascii="escaped" in form) for row in rows
    )  # fmt: skip
    loaded, notes = load_rows(write(tmp_path, f"t.{form}", body))
    assert [row.values["question"] for row in loaded] == rows
    (note,) = notes
    assert note.level == "warning"
    assert "row 2" in note.render()
    assert code in note.render()


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "می‌خواهم", "é ü 你好", "tab\tand\nline\r\n"])
def test_ordinary_writing_is_not_odd(tmp_path: Path, text: str) -> None:
    assert load_rows(write(tmp_path, "t.jsonl", json.dumps({"a": text}, ensure_ascii=False)))[1] == []


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [b"\0", b"\n", b"1\n", b"a"])
def test_a_gzip_bomb_is_refused_in_little_memory(
    tmp_path: Path, filler: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BOMB_SIZE", 4 << 20)
    path = write(tmp_path, "t.jsonl.gz", gzip.compress(filler * (12 << 20), 9))
    tracemalloc.start()
    text = fault_text(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bomb" in text
    assert peak < 16 << 20


def test_data_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    text = "\n".join(LINES[:2] * 2000)
    assert len(load_rows(write(tmp_path, "t.jsonl.gz", gzip.compress(text.encode())))[0]) == 4000


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_an_overlong_line_is_one_bad_row(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_ROW", 1000)
    monkeypatch.setattr(sources, "CHUNK", 256)
    body = ["answer", "x" * 5000, "short"] if name == "t.csv" else [LINES[0], '{"a": "' + "x" * 5000 + '"}', LINES[1]]
    found = Findings(name)
    rows = list(read_rows(write(tmp_path, name, "\n".join(body)), found))
    assert [row.number for row in rows] == ([2] if name == "t.csv" else [1, 3])
    assert "longer than" in found.faults()[0].what


def test_json_that_must_be_held_whole_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_WHOLE", 100)
    assert "too large" in fault_text(write(tmp_path, "t.json", json.dumps(GOOD)))


# -- damage -----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["t.jsonl", "t.json", "t.csv", "t.jsonl.gz", "t.csv.gz"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    how=st.sampled_from(["replace", "insert", "delete", "cut"]),
)
def test_one_damaged_byte_is_a_data_error_or_still_a_table(
    tmp_path: Path, form: str, place: float, value: int, how: str
) -> None:
    plain = (
        as_csv(GOOD, "\n") if "csv" in form else json.dumps(GOOD, indent=0) if form == "t.json" else "\n".join(LINES)
    )
    data = gzip.compress(plain.encode(), mtime=0) if form.endswith("gz") else plain.encode()
    at = int(place * len(data))
    piece = {"replace": bytes([value]) + data[at + 1 :], "insert": bytes([value]) + data[at:], "delete": data[at + 1 :]}
    path = write(tmp_path, form, data[:at] + piece.get(how, b""))
    rows, said = None, []
    try:
        rows = values(path)
    except DataError as error:
        said = [fault.what for fault in error.faults]
    if rows is None:
        assert said
        assert all(said)
    else:
        assert len(rows) <= len(GOOD) + 1
        assert rows == GOOD or not form.endswith("gz")  # packed data carries its own sum


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["t.jsonl", "t.json", "t.csv", "t.jsonl.gz", "t.csv.gz"]))
def test_any_bytes_are_rows_or_a_data_error(tmp_path: Path, data: bytes, name: str) -> None:
    with contextlib.suppress(DataError):
        load_rows(write(tmp_path, name, data))


def test_a_message_is_short_and_printable_whatever_the_file_holds(tmp_path: Path) -> None:
    random.seed(1)
    noise = "".join(chr(random.choice([27, 0x202E, 0x41, 0xD83, 0x1F600])) for _ in range(50_000))
    fault_text(write(tmp_path, "t.jsonl", noise))
    fault_text(write(tmp_path, "t.jsonl", json.dumps({noise: 1})[:-1] + f", {json.dumps(noise)}: 2}}"))
    fault_text(write(tmp_path, "t.csv", noise.replace("\n", "") + "," + noise + "\n"))


# -- parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_without_pyarrow_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(TemperError) as caught:
        load_rows(write(tmp_path, "t.parquet", b"PAR1...PAR1"))
    assert caught.value.code == Exit.OPTIONAL_PART
    assert 'pip install "temper-rl[parquet]"' in caught.value.render()


def test_parquet_reads_like_the_same_rows_in_lines(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"question": "a", "n": 5, "chat": [{"role": "user"}]}, {"question": None, "n": 6, "chat": []}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    loaded = load_rows(tmp_path / "t.parquet")[0]
    assert [dict(row.values) for row in loaded] == [row | {"n": Number(str(row["n"]))} for row in rows]
    assert loaded[1].place("t.parquet") == "t.parquet row 2"
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    assert "damaged" in fault_text(tmp_path / "t.parquet")
