"""What a running stage shows: plain lines in a pipe, a panel in a terminal, and each warning once."""

from __future__ import annotations

import io
import re

import pytest

from temper.record.lines import MOST_LINES, stride
from temper.record.metrics import read_rows
from temper.record.progress import StageLog, read_warnings

RL = {
    "reward/accuracy": 0.78,
    "reward/format": 0.99,
    "reward/total": 0.83,
    "advantage/mean": 1e-10,
    "advantage/std": 0.97,
    "policy/kl_divergence": 0.004,
    "completion/length": 41.2,
    "completion/truncated": 0.01,
    "groups/dead": 0.12,
    "groups/pass_rate": [0.1, 0.2, 0.3, 0.2, 0.2],
    "loss": 1e-7,
    "tokens_per_second": 14200.0,
    "seconds": 1.6,
}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def plain(tmp_path, total: int, metrics: dict | None = None, **more) -> list[str]:
    stream = io.StringIO()
    with StageLog(tmp_path, "rl", kind="grpo", stream=stream, clock=lambda: 0.0, **more) as log:
        for step in range(1, total + 1):
            log.step(step, total, RL if metrics is None else metrics)
    return [line for line in stream.getvalue().splitlines() if line.startswith("Step ")]


def test_a_plain_line_has_the_metric_names_and_the_time_left(tmp_path):
    lines = plain(tmp_path, 60)
    assert lines[9] == (
        "Step 10/60: reward/total 0.83  reward/accuracy 0.78  reward/format 0.99  advantage/mean 0.00  "
        "advantage/std 0.97  policy/kl_divergence 0.004  completion/length 41  completion/truncated 0.010  "
        "groups/dead 0.12  tokens/s 14200  ETA 1:20"
    )
    assert "ETA" not in lines[-1]


@pytest.mark.parametrize("total", [1, 2, 59, 60, 61, 250, 997])
def test_the_first_and_last_step_are_always_shown_and_long_stages_are_thinned(tmp_path, total):
    steps = [int(re.match(r"Step (\d+)/", line).group(1)) for line in plain(tmp_path, total)]
    assert steps[0] == 1
    assert steps[-1] == total
    assert len(steps) <= MOST_LINES + 2
    assert all(step % stride(total) == 0 for step in steps[1:-1])
    assert len(read_rows(tmp_path / "metrics.jsonl")) == total  # the file is never thinned


def test_a_slow_stage_is_heard_from_even_when_thinned(tmp_path):
    now = iter(range(0, 10_000_000, 20))
    stream = io.StringIO()
    log = StageLog(tmp_path, "slow", stream=stream, clock=lambda: float(next(now)))
    for step in range(1, 8):
        log.step(step, 5000, {"loss": 1.0})
    assert len(stream.getvalue().splitlines()) >= 4


def test_stages_that_do_not_train_show_what_they_measure(tmp_path):
    assert plain(tmp_path, 1, {"base/arithmetic/accuracy": 0.5}) == ["Step 1/1: base/arithmetic/accuracy 0.50"]


def test_a_pipe_gets_no_escape_sequences_and_hostile_text_is_escaped(tmp_path):
    stream = io.StringIO()
    with StageLog(tmp_path, "rl", stream=stream) as log:
        log.info("red \x1b[31m text \u202e")
        log.step(1, 1, RL)
    assert "\x1b" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()
    assert "\\x1b[31m" in stream.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_stream_will_do(tmp_path, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    with StageLog(tmp_path, "rl", stream=stream) as log:
        log.warn("≥ 5 % of 日本")
    stream.flush()
    assert b"warning: " in raw.getvalue()


def test_training_goes_on_when_nobody_reads_the_log(tmp_path):
    with StageLog(tmp_path, "rl", kind="grpo", stream=Gone()) as log:
        log.warn("x")
        log.step(1, 1, RL)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1


def test_a_warning_is_said_once_and_kept_for_the_report(tmp_path):
    stream = io.StringIO()
    with StageLog(tmp_path, "rl", stream=stream) as log:
        log.warn("disk is nearly full")
        log.warn("disk is nearly full")
    assert stream.getvalue().count("warning: disk is nearly full") == 1
    assert [row["text"] for row in read_warnings(tmp_path / "warnings.jsonl")] == ["disk is nearly full"]
    assert "warning: disk is nearly full" in (tmp_path / "log.txt").read_text("utf-8")


def test_resuming_forgets_the_later_steps_and_their_warnings_and_then_finds_them_again(tmp_path):
    def steps(first: int, last: int) -> None:
        with StageLog(tmp_path, "rl", kind="grpo", config={"kl_penalty": 0.01}, stream=io.StringIO()) as log:
            log.resume_at(first - 1)
            for step in range(first, last + 1):
                log.step(step, 20, RL | {"policy/kl_divergence": 0.01 * step})

    steps(1, 20)
    whole = (tmp_path / "metrics.jsonl").read_bytes(), (tmp_path / "warnings.jsonl").read_bytes()
    assert b"kl_high" in whole[1]
    steps(1, 14)
    steps(5, 20)
    assert ((tmp_path / "metrics.jsonl").read_bytes(), (tmp_path / "warnings.jsonl").read_bytes()) == whole


@pytest.mark.parametrize("columns", ["12", "40", "80", "200"])
def test_the_panel_fits_the_terminal_and_leaves_a_summary(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with StageLog(tmp_path, "reasoning_rl", kind="grpo", index=4, count=8, recipe="tiny", stream=stream) as log:
        for step in range(1, 31):
            log.step(step, 30, RL)
        log.info("a line above")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    boxes = [line for line in re.split(r"[\r\n]", shown) if line[:1] in ("╭", "│", "╰")]
    assert boxes
    assert max(map(len, boxes)) <= int(columns)
    assert "reasoning_rl: step 30/30  reward/total 0.83" in shown
    if int(columns) >= 40:
        assert "step 30/30" in shown
        assert "KL to reference" in shown


def test_no_color_is_honoured_and_colour_is_used_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9](;[0-9]+)*m")

    def shown() -> str:
        stream = Terminal()
        with StageLog(tmp_path, "rl", kind="grpo", stream=stream) as log:
            log.step(1, 2, RL)
            log.step(2, 2, RL)
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured.search(shown())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(shown())
