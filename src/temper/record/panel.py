"""The live panel of a running stage: where it is, how long it will take, and how its metrics move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel as Box
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from temper.record.lines import duration, number, shown_metrics, spark

LEAST_SECONDS = 0.1  # between two redraws: short steps must not spend their time on drawing
LABELS = {
    "reward/total": "reward",
    "policy/kl_divergence": "KL to reference",
    "completion/length": "length (tokens)",
    "completion/truncated": "truncated",
    "groups/dead": "dead groups",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "tokens_per_second": "tokens/s",
}
HIDDEN = ("advantage/mean", "advantage/std")  # nearly constant: in the plain lines and the report, not here


class Panel:
    """Draws on `stream`, a terminal. `update` redraws at most ten times a second; `stop` takes the panel away."""

    def __init__(self, heading: str, stream: TextIO, clock: Callable[[], float]):
        self.console = Console(file=stream, highlight=False, emoji=False, markup=False)
        self._heading, self._clock = heading, clock
        self._drawn_at = float("-inf")
        self._live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()

    def update(self, rows: Sequence[Mapping[str, Any]], total: int, eta: float) -> None:
        """Show the last of `rows`, and how each of its metrics moved over all of them."""
        now = self._clock()
        if now - self._drawn_at >= LEAST_SECONDS or rows[-1]["step"] >= total:
            self._drawn_at = now
            self._quietly(lambda: self._live.update(self.render(rows, total, eta), refresh=True))

    def say(self, text: str) -> None:
        """Print one line above the panel."""
        self._quietly(lambda: self.console.print(Text(text)))

    def stop(self) -> None:
        self._quietly(self._live.stop)

    def render(self, rows: Sequence[Mapping[str, Any]], total: int, eta: float) -> Box:
        step = rows[-1]["step"]
        width = self.console.width
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        ends = f"ETA {duration(eta)}" if step < total else "done"
        bar.add_row(Text(f"step {step}/{total}", style="bold"), ProgressBar(total=total, completed=step), Text(ends))
        body = Group(bar, Text(""), self._metrics(rows, width))
        return Box(body, title=Text(self._heading), title_align="left", border_style="dim", width=min(width, 88))

    def _metrics(self, rows: Sequence[Mapping[str, Any]], width: int) -> Table:
        ascii_only = not (self.console.encoding or "").lower().startswith("utf")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        table.add_column(no_wrap=True, justify="right", style="bold")
        spark_width = max(0, min(40, width - 42))
        for name in shown_metrics(rows[-1]):
            if name in HIDDEN:
                continue
            label = LABELS.get(name, name.removeprefix("reward/"))
            indent = "  " if name.startswith("reward/") and name != "reward/total" else ""
            line = spark((row.get(name) for row in rows), spark_width, ascii_only)
            table.add_row(indent + label, number(rows[-1][name]), Text(line, style="cyan"))
        return table

    def _quietly(self, draw: Callable[[], object]) -> None:
        # a terminal that went away, or cannot show a character, never stops a run
        with contextlib.suppress(OSError, ValueError, UnicodeError):
            draw()
