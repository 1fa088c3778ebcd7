"""`python -m fakes.ends`: every command with every end of its pipe, in forks of one process that has imported it all.

Prints one JSON value: for each command and end the exit code and what was said on standard error.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import fakes
from temper import cli

ROWS = {
    "rows.jsonl": '{"question": "1+1?", "answer": "2"}\n' * 2,
    "replies.jsonl": '{"prompt": "1+1?", "reply": "<think>a</think><answer>2</answer>", "gold": "2"}\n',
    "trl.yaml": "model_name_or_path: m\nlearning_rate: 1e-5\ndataset_name: rows.jsonl\nreward_funcs: [accuracy]\n",
    "my.yaml": fakes.RECIPE,
}
COMMANDS = {
    "run": "run my.yaml --out new", "plan": "plan my.yaml --out new", "show": "show run", "report": "report run --json",
    "report --out": "report run --out page.html", "export-metrics": "export-metrics run",
    "score": "score --rewards accuracy replies.jsonl",
    "check": "check rows.jsonl my.yaml", "init": "init smoke mine.yaml", "import-config": "import-config trl.yaml",
    "help": "--help", "version": "--version",
}  # fmt: skip
ENDS = ("closed", "full", "gone", "deaf", "mute", "no_file", "few_handles", "no_home")


def prepare() -> None:
    for name, text in ROWS.items():
        Path(name).write_text(text, encoding="utf-8")
    assert cli.main(["run", "my.yaml", "--out", "run"]) == 0
    for words in COMMANDS.values():  # so that every module is there, and no fork has to import it
        with contextlib.suppress(SystemExit):
            assert cli.main(words.split()) == 0, words


def become(end: str) -> None:
    """Give this process the end. Its own standard output and error lead elsewhere already."""
    full, null = os.open("/dev/full", os.O_WRONLY), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if end == "closed":
        os.close(1)
    elif end == "gone":  # the reader of a pipe
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        os.close(writer)
    elif end == "full":
        os.dup2(full, 1)
    elif end == "mute":
        os.dup2(full, 2)
    elif end == "deaf":
        os.close(0)
    elif end == "no_file":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    elif end == "few_handles":
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    elif end == "no_home":
        os.environ.update(HOME="/dev/full", XDG_CACHE_HOME="/dev/full", TMPDIR="/dev/full")
    os.close(full)
    os.close(null)
    tempfile.tempdir = None
    sys.stdin = None if end == "deaf" else open(0, closefd=False)  # type: ignore[assignment]  # noqa: SIM115
    sys.stdout = None if end == "closed" else open(1, "w", closefd=False)  # type: ignore[assignment]  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def attempt(arguments: list[str], end: str) -> int:
    try:
        become(end)
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        code = 0 if error.errno == errno.EPIPE else 120  # what Python would end with
    return code


def outcome(arguments: list[str], end: str) -> tuple[int, str]:
    shutil.rmtree("new", ignore_errors=True)
    for made in ("mine.yaml", "page.html"):
        Path(made).unlink(missing_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.close(reader)
            os.dup2(writer, 2)
            os.close(writer)
            code = attempt(arguments, end)
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as said:
        text = said.read().decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def main() -> None:
    fakes.install()
    result = os.dup(1)
    os.dup2(2, 1)
    prepare()
    gc.collect()
    gc.freeze()  # what every fork would walk
    found = {f"{name} {end}": outcome(words.split(), end) for name, words in COMMANDS.items() for end in ENDS}
    os.write(result, json.dumps(found).encode())


if __name__ == "__main__":
    main()
