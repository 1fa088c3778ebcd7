"""The host's end of one zygote (`guest.py`): starts it, sends it programs by descriptors, reads what they write.

One thread at a time uses a zygote. Nothing that a test expects is ever sent to it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

from temper.code.limits import DEFAULTS, Limits, Ran
from temper.code.tiers import Tier, wrapped

GUEST = Path(__file__).with_name("guest.py")
RECYCLED_AFTER = 400  # programs: nothing that one leaves in the zygote's memory grows without end
PATIENCE = 3  # as the guest's
GRACE = 10.0  # seconds beyond a program's last deadline after which its zygote counts as broken
KEPT_ERRORS = 16 << 10  # bytes of standard error


class Refused(Exception):
    """The kernel, or what stands around us, does not let a sandbox be made."""


@dataclass
class Job:
    """One process to be: `mode` is what the guest does with the program's text, `argv` another program instead."""

    program: bytes = b""
    stdin: bytes = b""
    mode: str = "run"
    limits: Limits = DEFAULTS
    line: socket.socket | None = None
    more: dict = field(default_factory=dict)  # further words for the guest: argv, cwd, profile, runs, writes, bound
    file_size: int = 1 << 20
    reports: bool = False  # it has a descriptor to report on
    request: bytes = b""  # what is sent to its line; it is ended when it has answered


class Zygote:
    """One guest process. `numpy` gives its programs numpy, one thread and 1 GB; `tier` is what stands around them."""

    def __init__(self, numpy: bool = False, python: str = sys.executable, tier: Tier = "landlock"):
        self.numpy = numpy
        self.tier: Tier = tier
        self.python = os.path.realpath(python) if tier == "bubblewrap" else python
        self.process: subprocess.Popen | None = None
        self.hello: dict = {}
        self._line: socket.socket | None = None
        self._count = self._served = 0

    def start(self) -> None:
        """Raises Refused where it cannot be confined."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path, reads = _numpy_folders() if self.numpy else ([], [])
        config: dict = {
            "reads": reads,
            "path": path,
            "imports": ["numpy"] if self.numpy else [],
            "known": known_packages(),
        }
        config |= {"tier": self.tier, "host": os.getpid()}
        flags = ["-I", "-S", "-B", "-X", "utf8"]
        around = wrapped(self.tier, self.python, str(GUEST), [*reads, *map(os.path.dirname, config["known"].values())])
        command = [*around, self.python, *flags, str(GUEST), str(theirs.fileno())]
        clean = {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        with theirs:
            self.process = subprocess.Popen(
                [*command, json.dumps(config)], pass_fds=[theirs.fileno()], env=clean, cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        self._line, self._served = mine, 0
        mine.settimeout(60)
        try:
            self.hello = json.loads(mine.recv(1 << 16) or b"{}")
        except (OSError, ValueError):
            self.hello = {}
        if "hello" not in self.hello:
            why = self.hello.get("refused") or self._last_words()
            self.stop()
            raise Refused(why)

    def _last_words(self) -> str:
        assert self.process is not None
        assert self.process.stderr is not None
        self.process.kill()
        said = self.process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else "its process ended before it spoke"

    def stop(self) -> None:
        """Ends it and all that it started."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self.process is not None:
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self.process.stderr is not None:
                self.process.stderr.close()
            self.process = None

    def run(self, jobs: list[Job], leads: int | None = None) -> list[Ran]:
        """Runs the jobs at the same time and waits for all; when the job of number `leads` ends, the others are ended
        too. What breaks here is said in each result (`broken`), never raised, but for Refused."""
        try:
            if self._line is None or self._served >= RECYCLED_AFTER:
                self.stop()
                self.start()
            self._served += len(jobs)
            running = [self._begin(job) for job in jobs]
            try:
                self._watch(running, leads)
            finally:
                for one in running:
                    one.close()
            return [one.outcome() for one in running]
        except (OSError, ValueError, EOFError) as problem:
            self.stop()
            return [Ran(-1, b"", broken=f"the sandbox failed: {type(problem).__name__}: {problem}") for _ in jobs]

    def _begin(self, job: Job) -> Running:
        self._count += 1
        running = Running(job, self._count, time.monotonic() + PATIENCE * job.limits.deadline + GRACE)
        theirs = {"program": _file_of(job.program), "in": _file_of(job.stdin)}
        try:
            for name in ("out", "err", *(["report"] if job.reports else [])):
                mine, theirs[name] = os.pipe()
                os.set_blocking(mine, False)
                running.streams[mine] = name
            if job.line is not None:
                theirs["line"] = os.dup(job.line.fileno())
            elif job.request:
                running.line, other = socket.socketpair()
                running.line.setblocking(False)
                theirs["line"] = other.detach()
            limits = job.limits
            header = {"start": running.number, "fds": list(theirs), "mode": job.mode, "wall": limits.deadline}
            header |= {"cpu": limits.seconds, "memory": limits.memory, "file_size": job.file_size, **job.more}
            assert self._line is not None
            socket.send_fds(self._line, [json.dumps(header).encode()], list(theirs.values()))
        except BaseException:
            running.close()
            raise
        finally:
            for number in theirs.values():
                os.close(number)
            if job.line is not None:
                job.line.close()  # it is the two processes' own: each sees when the other ends
        return running

    def _watch(self, running: list[Running], leads: int | None) -> None:
        """Reads all that comes until every job has ended and its streams are empty."""
        assert self._line is not None
        while not all(one.over for one in running):
            poll = select.poll()
            poll.register(self._line.fileno(), select.POLLIN)
            for one in running:
                one.register(poll)
            happened = poll.poll(1000)
            for number, _ in happened:
                if number == self._line.fileno():
                    self._heed(running, leads)
                for one in running:
                    one.heed(number)
            for one in running:
                if one.wants_end and one.done is None and not one.told:
                    one.told = True
                    self._kill(one)
            if time.monotonic() > min(one.latest for one in running):
                raise EOFError("a process did not end at its deadline")

    def _heed(self, running: list[Running], leads: int | None) -> None:
        assert self._line is not None
        message = self._line.recv(1 << 16)
        if not message:
            raise EOFError("its process ended")
        done = json.loads(message)
        for place, one in enumerate(running):
            if one.number == done["done"]:
                one.done = done
                if place == leads:
                    for other in running:
                        other.wants_end = True

    def _kill(self, one: Running) -> None:
        assert self._line is not None
        self._line.send(json.dumps({"kill": one.number}).encode())


class Running:
    """A job that was begun: what it wrote so far, and what is still to be sent to it."""

    def __init__(self, job: Job, number: int, latest: float):
        self.job, self.number, self.latest = job, number, latest
        self.streams: dict[int, str] = {}
        self.got = {"out": bytearray(), "err": bytearray(), "report": bytearray(), "line": bytearray()}
        self.line: socket.socket | None = None
        self.unsent = job.request
        self.flooded = self.wants_end = self.told = False
        self.done: dict | None = None

    @property
    def over(self) -> bool:
        return self.done is not None and not self.streams

    def register(self, poll: select.poll) -> None:
        for number in self.streams:
            poll.register(number, select.POLLIN)
        if self.line is not None:
            poll.register(self.line.fileno(), select.POLLIN | (select.POLLOUT if self.unsent else 0))

    def heed(self, number: int) -> None:
        if number in self.streams:
            self._read(number)
        elif self.line is not None and number == self.line.fileno():
            self._speak()

    def _read(self, number: int) -> None:
        try:
            data = os.read(number, 1 << 16)
        except BlockingIOError:
            return
        name = self.streams[number]
        if not data:
            os.close(number)
            del self.streams[number]
            return
        got = self.got[name]
        got += data
        if name == "err" and len(got) > 2 * KEPT_ERRORS:
            del got[KEPT_ERRORS // 2 : -KEPT_ERRORS // 2]
        elif name != "err" and len(got) > self.job.limits.output:
            del got[self.job.limits.output :]
            self.flooded = self.wants_end = True

    def _speak(self) -> None:
        assert self.line is not None
        try:
            if self.unsent:
                self.unsent = self.unsent[self.line.send(self.unsent) :]
            data = self.line.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        got = self.got["line"]
        got += data
        if len(got) > self.job.limits.output:
            self.flooded = True
        if not data or self.flooded or len(got) >= 4 + int.from_bytes(got[:4], "big") >= 5:
            self.line.close()
            self.line, self.wants_end = None, self.flooded or bool(data)

    def outcome(self) -> Ran:
        assert self.done is not None
        done, ready = self.done, self.done["ready"]
        broken = "" if ready.startswith("+") else f"it could not be confined: {ready.lstrip('!') or 'it ended before'}"
        out, err = bytes(self.got["out"]), bytes(self.got["err"])
        used_up = (
            done["status"] == -9 and not self.told and done["cpu"] >= self.job.limits.seconds
        )  # it ignored SIGXCPU
        late, flooded = done["late"] or used_up, self.flooded
        more = {"report": bytes(self.got["report"]), "answer": bytes(self.got["line"]), "ended": self.told}
        return Ran(done["status"], out, err, done["cpu"], done["memory"], late, flooded, broken, **more)

    def close(self) -> None:
        for number in self.streams:
            os.close(number)
        self.streams.clear()
        if self.line is not None:
            self.line.close()
            self.line = None


def joined() -> tuple[socket.socket, socket.socket]:
    """The two ends of a line between two jobs."""
    return socket.socketpair()


def _file_of(data: bytes) -> int:
    """A file in memory with this content, read from its start."""
    number = os.memfd_create("input", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.lseek(number, 0, os.SEEK_SET)
    return number


def known_packages() -> dict[str, str]:
    """The packages that programs have beside the standard library, where they are installed: name -> its file. They are
    imported before any program is there, and read by none."""
    found = {name: util.find_spec(name) for name in ("sortedcontainers",)}
    return {name: spec.origin for name, spec in found.items() if spec is not None and spec.origin is not None}


def _numpy_folders() -> tuple[list[str], list[str]]:
    """The folder that numpy is imported from, and those that it reads."""
    found = util.find_spec("numpy")
    if found is None or not found.submodule_search_locations:
        raise Refused("numpy is not installed")
    inside = Path(found.submodule_search_locations[0])
    return [str(inside.parent)], [str(inside), str(inside.parent / "numpy.libs")]
