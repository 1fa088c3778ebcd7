"""Makes the pictures of the README from a run: `python docs/assets/record.py RUN`, RUN a finished run of `tiny`.

terminal.svg         what a terminal shows: the panel in the middle of the RL, drawn from the run's own metrics, then
                     the run's end table and a reply of its last model, as the commands print them
sample_report.html   the run's report
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from temper.record.metrics import read_rows
from temper.record.panel import Panel
from temper.record.rundir import RunDir

HERE = Path(__file__).parent
WIDTH = 92
STAGE, QUESTION = "reasoning_rl", "38+33+19-49"


def shown(*words: str, question: str | None = None) -> Text:
    """What a command prints in a terminal of that width, colours included."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "temper", *words]
    child = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment,
                             stdin=subprocess.PIPE if question else subprocess.DEVNULL)  # fmt: skip
    os.close(theirs)
    if child.stdin is not None:
        child.stdin.write(f"{question}\n".encode())
        child.stdin.close()
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the command is over and its end of the terminal closed
        pass
    if child.wait():
        sys.exit(f"{' '.join(command)} ended with exit code {child.returncode}")
    return Text.from_ansi(said.decode().replace("\r\n", "\n").rstrip())


def record(run: Path) -> None:
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True, highlight=False)  # noqa: SIM115
    folder = RunDir(run)
    rows = list(read_rows(folder.work_folders()[STAGE] / "metrics.jsonl"))
    half = rows[: len(rows) * 2 // 3]
    name = f"runs/{run.name}"
    console.print("[bold]$ temper run tiny[/bold]")
    panel = Panel(STAGE, console.file, clock=lambda: 0.0)
    panel.stop()
    panel.console.width = WIDTH
    left = sum(row["seconds"] for row in rows[len(half) :])
    console.print(panel.render(half, rows[-1]["of"], left))
    table = shown("show", str(run)).split("\n")
    console.print(Text("\n").join(line for line in table[:6]))
    console.print(f"\n[bold]$ echo '{QUESTION}' | temper chat {name}[/bold]")
    console.print(shown("chat", str(run), question=QUESTION))
    svg = console.export_svg(title="temper")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # letters of the reader's own machine
    (HERE / "terminal.svg").write_text(svg, encoding="utf-8")
    (HERE / "sample_report.html").write_bytes((run / "report/index.html").read_bytes())


if __name__ == "__main__":
    record(Path(sys.argv[1]))
