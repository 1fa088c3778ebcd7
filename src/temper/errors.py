"""What a user is told when something is wrong: one block a fault, one exit code a family of faults."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from temper.masking import mask


class Exit(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    CONFIG = 2
    DATA = 3
    RESOURCES = 4
    ARTIFACT = 5
    LOCKED = 6
    GUARD = 7
    SANDBOX = 8
    OPTIONAL_PART = 9
    BUG = 70
    PREEMPTED = 75
    INTERRUPTED = 130


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, where, why it matters, how to mend it.

    >>> print(Fault("unknown key `optim.lrr`", where="my.yaml:14:3", fix="did you mean `optim.lr`?").render())
    error: unknown key `optim.lrr`
      where: my.yaml:14:3
      fix:   did you mean `optim.lr`?
    """

    what: str
    where: str = ""
    why: str = ""
    fix: str = ""
    code: Exit | None = field(default=None, compare=False)  # set by the TemperError that carried it first

    def render(self, level: str = "error") -> str:
        lines = [f"{level}: {escape(self.what)}"]
        for label, text in (("where: ", self.where), ("why:   ", self.why), ("fix:   ", self.fix)):
            if text:
                lines.append(f"  {label}{escape(text)}")
        return "\n".join(lines)


class TemperError(Exception):
    """Faults the user can mend. Carries them all, and the exit code of the family."""

    def __init__(self, faults: Fault | Iterable[Fault], code: Exit = Exit.CONFIG):
        faults = (faults,) if isinstance(faults, Fault) else tuple(faults)
        self.faults = tuple(fault if fault.code is not None else replace(fault, code=code) for fault in faults)
        self.code = code
        super().__init__("; ".join(fault.what for fault in self.faults))

    def __reduce__(self) -> tuple[Any, ...]:  # it may come from another process
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def render(self) -> str:
        return "\n".join(dict.fromkeys(fault.render() for fault in self.faults))


class ConfigError(TemperError):
    def __init__(self, faults: Fault | Iterable[Fault]):
        super().__init__(faults, Exit.CONFIG)


class DataError(TemperError):
    def __init__(self, faults: Fault | Iterable[Fault]):
        super().__init__(faults, Exit.DATA)


class HandedOver(DataError):
    """A stage stopped for a person: it goes on once they run the same command again."""


class ResourceError(TemperError):
    def __init__(self, faults: Fault | Iterable[Fault]):
        super().__init__(faults, Exit.RESOURCES)


class ArtifactError(TemperError):
    def __init__(self, faults: Fault | Iterable[Fault]):
        super().__init__(faults, Exit.ARTIFACT)


class Preempted(Exception):
    """Raised by a stage that was asked to stop, once what it did so far is saved; the message says up to where."""


_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\u061c\u180e\ud800-\udfff\U000e0000-\U000e007f]"
)
_LONG_WORD = re.compile(r"\S{301,}")
_MOST_SHOWN = 3000  # characters of one line of a message


EXHAUSTED = {  # what the system ran out of, by its number: what to say, what to do
    errno.EMFILE: ("too many open files", "raise the limit with `ulimit -n 1024`"),
    errno.ENFILE: ("too many open files on this machine", "close other programs"),
    errno.ENOSPC: ("nothing more can be written: the disk, or what the output goes to, is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EFBIG: ("a file would be larger than the limit allows", "raise the limit with `ulimit -f unlimited`"),
    errno.EROFS: ("the file system is read-only", "use another directory"),
    errno.EACCES: ("permission denied", "make it accessible, or use another directory"),
    errno.EIO: ("reading or writing failed", "look at the disk, or at what the output goes to"),
    errno.EBADF: ("a standard stream is closed", "leave it open, or send it to /dev/null"),
    errno.ENOMEM: ("out of memory", "free some memory"),
    errno.EAGAIN: ("no more processes or threads can be started", "raise the limit with `ulimit -u`"),
}


def system_error(error: BaseException) -> OSError | None:
    """What the system said, of an OSError or of a library's own error that quotes it.

    >>> system_error(ValueError("I/O error: File too large (os error 27)"))
    OSError(27, 'File too large')
    >>> type(system_error(RuntimeError("can't start new thread")))
    <class 'BlockingIOError'>
    """
    if isinstance(error, OSError):
        return error
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def tell(text: str) -> None:
    """A line on standard error. One that nobody can have is no obstacle: results and exit codes are elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def escape(text: str) -> str:
    r"""Control, bidirectional and zero-width characters as visible escapes; access tokens masked; words of hundreds of
    characters cut; new lines indented.

    >>> escape("a\x1b[31mb")
    'a\\x1b[31mb'
    >>> escape("token hf_abcdefghijklmnop")
    'token hf_…'
    """
    visible = _CONTROL.sub(lambda m: m.group().encode("unicode_escape", "surrogatepass").decode("ascii"), mask(text))
    shown = _LONG_WORD.sub(_shortened, visible)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}… ({len(shown):,} characters)"
    return shown.replace("\n", "\n         ")


def _shortened(match: re.Match[str]) -> str:
    word = match.group()
    return f"{word[:60]}… ({len(word):,} characters)"
