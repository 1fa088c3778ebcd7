"""The command line. Only the chosen verb's module is imported, so `temper --help` answers at once."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any, NoReturn

from temper import __version__
from temper.errors import EXHAUSTED, ConfigError, Exit, Fault, ResourceError, TemperError, system_error

COMMANDS = {
    "run": ("temper.commands.run", "run a recipe; run it again to go on where it stopped"),
    "sweep": ("temper.commands.sweep", "run a recipe once for each value of a key; one table of all runs"),
    "plan": ("temper.commands.plan", "what would run and why, what is done, memory, disk, time; writes nothing"),
    "launch": (
        "temper.commands.launch",
        "a file for Slurm, SkyPilot, Kubernetes or Ray that starts a run",
    ),
    "init": ("temper.commands.init", "copy a shipped recipe into a file of your own"),
    "import-config": ("temper.commands.import_config", "a recipe made of a config of TRL, Open-R1, verl or OpenRLHF"),
    "check": ("temper.commands.check", "look through data files row by row; every gold answer must score 1"),
    "score": ("temper.commands.score", "score prompt, reply and gold rows with the rewards"),
    "eval": ("temper.commands.eval", "measure a model on tasks: pass@1, pass@k, cons@k with intervals"),
    "compare": ("temper.commands.compare", "two measured models on the same prompts: paired, with intervals"),
    "chat": ("temper.commands.chat", "talk to a model"),
    "ui": ("temper.commands.ui", "a local page: runs live, every completion, comparison, chat"),
    "serve": ("temper.commands.serve", "an endpoint for a model that speaks OpenAI's protocol"),
    "samples": ("temper.commands.samples", "completions of a run with every reward beside them"),
    "show": ("temper.commands.show", "print a run's end table again"),
    "report": ("temper.commands.report", "one HTML file that shows a run"),
    "explain": ("temper.commands.explain", "why is my reward flat: a diagnosis with this run's numbers"),
    "export-metrics": ("temper.commands.export_metrics", "what a run measured, to a tracker or a CSV file"),
    "export-log": ("temper.commands.export_log", "completions as .eval files, for Inspect's viewer"),
    "export": ("temper.commands.export", "a trained model as a Hugging Face directory"),
    "completion": ("temper.commands.completion", "a script by which bash, zsh or fish complete commands and options"),
    "doctor": ("temper.commands.doctor", "look at this machine: what works, what does not, what to do"),
}
PYTHON = (3, 11)
PLATFORMS = ("linux", "darwin")


def command() -> int:
    """The whole process: what came of `main` is its exit code, whatever signals come while it ends."""
    signal.signal(signal.SIGTERM, _terminated)
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return code


def _terminated(number: int, frame: object) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, b"stopped\n")  # past Python's buffers: the signal may have come while they were written
    raise SystemExit(int(Exit.PREEMPTED))


class Parser(argparse.ArgumentParser):
    """A parser whose errors are told like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(Fault(message, fix=f"see `{self.prog} --help`"))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help that cannot be written is an error, not silence."""
        if message:
            (file or sys.stderr).write(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments[: arguments.index("--")] if "--" in arguments else "--debug" in arguments
    _open_ends()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run([argument for argument in arguments if argument != "--debug"])
        sys.stdout.flush()
        return int(code)
    except TemperError as error:
        lacking = _exhausted(error, _SCARCE)  # a file that cannot be opened for lack of descriptors is not damaged
        return _fail(error.render(), Exit.RESOURCES if lacking else error.code, debug)
    except SystemExit:  # of --help and --version, whose output may have nowhere to go
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
        except OSError as error:
            _drop_output()
            return _fail((_exhausted(error) or _bug(error)).render(), Exit.RESOURCES, debug)
        raise
    except KeyboardInterrupt:
        return _fail("interrupted", Exit.INTERRUPTED, debug)
    except BrokenPipeError:
        _drop_output()
        return int(Exit.OK)
    except Exception as error:
        if (exhausted := _exhausted(error)) is not None:
            _drop_output()
            return _fail(exhausted.render(), Exit.RESOURCES, debug)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return _fail(_too_long(error).render(), Exit.CONFIG, debug)
        return _fail(_bug(error).render(), Exit.BUG, debug)


def _fail(text: str, code: Exit, debug: bool) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # nobody may be listening any more
        _drop_output()
    with contextlib.suppress(OSError, ValueError):
        if debug:
            import traceback

            traceback.print_exc()
        print(text, file=sys.stderr, flush=True)
    return int(code)


def _drop_output() -> None:
    """Whoever read standard output went away: let nothing complain about it when the process ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_ends() -> None:
    """Where a standard stream was closed: the first file that is opened must not take its number. Standard output that
    nobody can have is a full one, so that a result is not lost in silence."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file-size limit is then an error like a full disk
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        full = number == 1 and os.path.exists("/dev/full")
        place = "/dev/full" if full else os.devnull
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                handle = os.open(place, os.O_RDWR)
                if handle != number:
                    os.dup2(handle, number)
                    os.close(handle)
        if getattr(sys, name) is None:  # by its number, which `_drop_output` can lead elsewhere
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115


_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _exhausted(error: BaseException | None, of: Collection[int] = EXHAUSTED) -> Fault | None:
    """What the machine lacks, where that is what `error` came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found = system_error(error)
        if found is not None and found.errno is not None and found.errno in of:
            what, fix = EXHAUSTED[found.errno]
            return Fault(what, str(found.filename or ""), found.strerror or "", fix)
        if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):  # of `tempfile`
            fix = "set TMPDIR to a directory that can be written"
            return Fault("there is no usable temporary directory", why=error.strerror or "", fix=fix)
        if isinstance(error, MemoryError):
            return Fault("out of memory", fix="free some memory")
        error = error.__cause__ or error.__context__
    return None


def _too_long(error: OSError) -> Fault:
    why = "no file, directory or run has so long a name"
    return Fault(f"`{error.filename}` is too long for a name", why=why, fix="check what the command was given")


def _bug(error: Exception) -> Fault:
    where, trace = "", error.__traceback__
    while trace is not None:
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    why = f"{type(error).__name__}: {error}"
    return Fault("internal bug", where, why, "run the command again with --debug and report what it prints")


def _run(arguments: list[str]) -> int:
    check_system()
    verb, rest = _split(arguments)
    if verb is None:
        return _top(rest)
    if verb not in COMMANDS:
        raise ConfigError(_unknown(verb))
    module = load_command(verb)
    parser = Parser(prog=f"temper {verb}", description=COMMANDS[verb][1], allow_abbrev=False)
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parsed = parser.parse_args(rest)
    _check_directory()
    from temper.environment import go_offline, wait_passively

    go_offline()
    wait_passively()
    return module.run(parsed)


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The verb and what follows it; None if options of temper itself come first."""
    if not arguments or arguments[0].startswith("-"):
        return None, arguments
    return arguments[0], arguments[1:]


def _top(arguments: list[str]) -> int:
    """`temper` alone, `--help`, `--version`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in COMMANDS.items()]
    parser = Parser(
        prog="temper",
        usage="temper COMMAND …",
        description="Train reasoning models the DeepSeek-R1 way.",
        epilog="\n".join(["commands:", *lines, "", "temper COMMAND --help tells more. Start with: temper run tiny"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"temper {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.parse_args(arguments)
    parser.print_help()
    return int(Exit.OK)


def _unknown(verb: str) -> Fault:
    from temper.recipe.words import did_you_mean

    return Fault(
        f"unknown command `{verb}`", "", f"the commands are {', '.join(COMMANDS)}", did_you_mean(verb, COMMANDS)
    )


def load_command(verb: str) -> ModuleType:
    """The module of a command. Raises TemperError if this installation lacks it."""
    name = COMMANDS[verb][0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise TemperError(Fault(f"`temper {verb}` is not part of this installation"), Exit.OPTIONAL_PART) from None


def check_system(version: tuple[int, ...] = sys.version_info[:2], platform: str = sys.platform) -> None:
    """Raise ConfigError on a Python or an operating system that temper does not run on.

    >>> check_system((3, 10), "linux")
    Traceback (most recent call last):
        ...
    temper.errors.ConfigError: temper does not run on Python 3.10 on linux
    """
    if version < PYTHON or platform not in PLATFORMS:
        what = f"temper does not run on Python {version[0]}.{version[1]} on {platform}"
        raise ConfigError(Fault(what, why="supported: Python 3.11 and later, on Linux and macOS"))


def _check_directory() -> None:
    try:
        os.getcwd()
    except OSError:
        why = "it was deleted while a shell stood in it"
        raise ResourceError(Fault("the current directory does not exist any more", "", why, "cd elsewhere")) from None
