"""What a running stage says: metrics.jsonl on disk, a live panel in a terminal, plain `Step 10/60: …` lines in a pipe.

Everything goes to standard error; standard output belongs to results.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from temper.errors import escape
from temper.masking import mask
from temper.record.lines import duration, number, step_line, stride
from temper.record.metrics import MetricsFile, parse_row
from temper.record.warnings import Finding, find

QUIET_SECONDS = 30.0  # a pipe hears something at least this often, however the lines are thinned
RECENT = 20  # steps whose mean time makes the ETA


class StageLog:
    """The log of one stage. `work` is the stage's own directory: metrics.jsonl, warnings.jsonl and log.txt go there.

    `config` is the stage's resolved config as a plain mapping: the warnings of `record/warnings.py` quote it. `on_step`
    is told of each step once it is recorded; what it raises is raised by `step`.
    Closing it (it is a context manager) takes the live panel down. Raises ResourceError when metrics.jsonl cannot be
    written; a terminal or pipe that went away never stops a training run.

    >>> import io, tempfile
    >>> stream = io.StringIO()
    >>> with StageLog(Path(tempfile.mkdtemp()), "cold_start", kind="sft", stream=stream) as log:
    ...     log.step(1, 2, {"loss": 2.5})
    ...     log.step(2, 2, {"loss": 1.25})
    >>> print(stream.getvalue().splitlines()[-1])
    Step 2/2: loss 1.25
    """

    def __init__(
        self,
        work: Path,
        stage: str,
        *,
        kind: str = "",
        index: int = 1,
        count: int = 1,
        recipe: str = "",
        config: Mapping[str, Any] | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_step: Callable[[int, int, Mapping[str, Any]], None] | None = None,
    ):
        self.work, self.stage, self.kind = Path(work), stage, kind
        self.index, self.count, self.recipe = index, count, recipe
        self._config = dict(config or {})
        self._stream = stream if stream is not None else sys.stderr
        self._clock, self._on_step = clock, on_step
        self._metrics = MetricsFile(self.work / "metrics.jsonl")
        self._warned = _read_warnings(self.work / "warnings.jsonl")
        self._durations: deque[float] = deque(maxlen=RECENT)
        self._last_step_at = self._last_line_at = self._started = clock()
        self._first_here = True  # no step of this process shown yet
        self._panel: Any = None

    # -- what a stage calls -------------------------------------------------------------------------------------------

    def step(self, step: int, total: int, metrics: Mapping[str, Any]) -> None:
        """Record and show the metrics of `step` (1-based) of `total`. Steps rise; a repeated one replaces the later."""
        if self._metrics.rows and self._metrics.rows[-1]["step"] >= step:
            self.resume_at(step - 1)
        row = self._metrics.append(step, total, metrics)
        now = self._clock()
        seconds = row.get("seconds")
        self._durations.append(seconds if isinstance(seconds, (int, float)) else now - self._last_step_at)
        self._last_step_at = now
        eta = (total - step) * sum(self._durations) / len(self._durations)
        if self._is_terminal():
            self._live().update(self._metrics.rows, total, eta)
        if self._first_here or step in (1, total) or step % stride(total) == 0 or self._is_quiet(now):
            self._last_line_at, self._first_here = now, False
            line = step_line(step, total, row, None if step >= total else eta)
            self._note(line)
            if not self._is_terminal():
                self._write(line)
        for finding in find(self.kind, self._config, self._metrics.rows):
            self._find(finding, step)
        if self._on_step is not None:
            self._on_step(step, total, row)

    def resume_at(self, step: int, kept: Path | None = None) -> None:
        """Forget what was recorded after `step` (0: everything): the run goes on from a checkpoint of that step.

        `kept` is a directory with the records as they were then, which is believed more than the stage's own.
        """
        if kept is not None and self._metrics.restore(kept / "metrics.jsonl", step):
            self.warn(f"{self._metrics.path} was damaged; its rows up to step {step} are those of the checkpoint")
        if kept is not None and (kept / "warnings.jsonl").is_file():
            self._warned |= _read_warnings(kept / "warnings.jsonl")
        self._metrics.keep_until(step)
        still = {key: row for key, row in self._warned.items() if row["step"] <= step}
        if still != self._warned:
            self._warned = still
            self._append("warnings.jsonl", [json.dumps(row, ensure_ascii=False) for row in still.values()], mode="w")

    def info(self, text: str) -> None:
        """Say `text`, one line, in the terminal or pipe and in log.txt."""
        self._note(text)
        self._say(text)

    def warn(self, text: str, key: str = "") -> None:
        """Say `warning: text` and keep it for the report; the same warning (`key`, or the text) is said once."""
        self._find(Finding(key or text, text), self._last_recorded())

    def note(self, text: str, key: str = "") -> None:
        """Say `note: text`, once, and keep it for the report: something to know that asks for no change."""
        self._find(Finding(key or text, text, "note"), self._last_recorded())

    def close(self) -> None:
        """Take the live panel down, leaving one line that says how the stage ended. Called twice, it does nothing."""
        if self._panel is not None:
            panel, self._panel = self._panel, None
            panel.stop()
            self._write(self._summary())

    def __enter__(self) -> StageLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- how it is shown ----------------------------------------------------------------------------------------------

    def _is_terminal(self) -> bool:
        try:
            return self._stream.isatty() and os.environ.get("TERM", "") != "dumb"
        except (AttributeError, ValueError):  # no such method, or a closed stream
            return False

    def _is_quiet(self, now: float) -> bool:
        return now - self._last_line_at >= QUIET_SECONDS

    def _live(self) -> Any:
        if self._panel is None:
            from temper.record.panel import Panel  # rich takes 0.1 s to import: only a terminal pays

            title = f"{self.recipe}  " if self.recipe else ""
            heading = f"{title}stage {self.index}/{self.count}  {self.stage}" + (f" ({self.kind})" if self.kind else "")
            self._panel = Panel(heading, self._stream, self._clock)
        return self._panel

    def _summary(self) -> str:
        last = self._metrics.rows[-1] if self._metrics.rows else {}
        names = [name for name in ("reward/total", "reward/accuracy", "loss") if name in last]
        names = names if "reward/total" not in last else [name for name in names if name != "loss"]
        parts = [f"{name} {number(last[name])}" for name in names]
        took = duration(self._clock() - self._started)
        return "  ".join([f"{self.stage}: step {last.get('step', 0)}/{last.get('of', 0)}", *parts, f"in {took}"])

    def _find(self, finding: Finding, step: int) -> None:
        if mask(finding.key) in self._warned:
            return
        row = {"step": step, "key": mask(finding.key), "level": finding.level, "text": mask(finding.text)}
        self._warned[row["key"]] = row
        self._append("warnings.jsonl", [json.dumps(row, ensure_ascii=False)])
        text = f"{finding.level}: {finding.text}"
        self._note(text)
        self._say(text)

    def _say(self, text: str) -> None:
        if self._panel is not None:
            self._panel.say(escape(text))
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        shown = escape(text).encode(encoding, "backslashreplace").decode(encoding)
        with contextlib.suppress(OSError, ValueError):  # whoever read the log went away: the run goes on
            self._stream.write(shown + "\n")
            self._stream.flush()

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _last_recorded(self) -> int:
        rows = self._metrics.rows
        return rows[-1]["step"] if rows else 0

    def _note(self, text: str) -> None:
        self._append("log.txt", [escape(text)])

    def _append(self, name: str, lines: list[str], mode: str = "a") -> None:
        """Best effort: metrics.jsonl, written first, is what says that the disk is full."""
        with contextlib.suppress(OSError):
            self.work.mkdir(parents=True, exist_ok=True)
            with (self.work / name).open(mode, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.writelines(line + "\n" for line in lines)


def _read_warnings(path: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_warnings(path)}


def read_warnings(path: Path) -> list[dict[str, Any]]:
    """The rows {"step","key","level","text"} of a warnings.jsonl; torn lines are left out; [] without a file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    rows = [parse_row(line) for line in lines]
    return [row for row in rows if row and isinstance(row.get("key"), str) and isinstance(row.get("text"), str)]
