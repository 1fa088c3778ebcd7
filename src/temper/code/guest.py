"""The process that programs are forked from (`python -I -S guest.py`), and what runs in the fork.

Never imported by temper: it loads its neighbours by their path, and of what is asked of a program it knows nothing but
the descriptors that it is sent.

It holds no thread, reads no program and no input itself (both are behind descriptors that only the child reads), ends
with the process that started it, and ends what it started when it does.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import time
import types
from dataclasses import dataclass

MODULES = """
abc argparse array ast asyncio atexit base64 bisect calendar cmath collections collections.abc contextlib copy
datetime decimal dis enum fractions functools hashlib heapq inspect io itertools json linecache math numbers
operator queue random re statistics string struct textwrap threading traceback typing unicodedata uuid zlib
"""
for _name in MODULES.split():
    try:
        __import__(_name)
    except ImportError:
        continue

PATIENCE = 3  # times its seconds on the clock that a program has at most, where the machine let it wait
THREADS = 256  # that a program may have; looked at every so many seconds
LOOK = 0.05


def neighbour(name: str) -> types.ModuleType:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"temper_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


confine = neighbour("confine")
for _name in ("values", "raised", "nodes", "remote", "suites", "speak", "scripts"):
    neighbour(_name)
inside = neighbour("child")
inside.as_people_know_it()


@dataclass
class Child:
    number: int  # what the asker calls it
    pid: int
    watch: int  # a pidfd
    ready: int
    wall: float
    began: float
    deadline: float
    late: bool = False


def standard_library() -> list[str]:
    """What an interpreter reads to import its own modules; what people installed beside them is left out."""
    folder = os.path.dirname(os.__file__)
    inside = [
        os.path.join(folder, name) for name in os.listdir(folder) if name not in ("site-packages", "dist-packages")
    ]
    libraries = (
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/etc/ld.so.cache",
        "/usr/share/zoneinfo",
        "/etc/localtime",
    )
    return [*inside, *libraries, "/dev/null", "/dev/zero", "/dev/urandom", *_own_libraries()]


def _own_libraries() -> list[str]:
    """The folders of shared objects that this interpreter itself was loaded from."""
    if not os.path.exists("/proc/self/maps"):
        return []
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line and line.count("/") > 1}
    return [file for file in files if file.startswith("/")]


def other_user(reads: list[str]) -> int | None:
    """65534 if root can become it and it still reads the standard library; None: stay, without capabilities."""
    if os.geteuid() != 0:
        return None
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            for path in (os.__file__, json.__file__, *reads[:1]):
                with open(path, "rb") if os.path.isfile(path) else open(os.devnull) as stream:
                    stream.read(1)
                os.stat(path)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return 65534 if os.waitpid(child, 0)[1] == 0 else None


def kept_waiting(pid: int) -> float:
    """Seconds in which a process was ready to run and no core was free; 0 where the kernel does not count them."""
    try:
        with open(f"/proc/{pid}/schedstat") as told:
            return int(told.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def threads_of(pid: int) -> int:
    """How many threads a process has; 0 where nobody says."""
    try:
        with open(f"/proc/{pid}/stat") as told:
            return int(told.read().rpartition(")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return 0


def fork_when_there_is_room() -> int:
    """A fork; where the machine has no room for a process just now (a program's threads took it), it is awaited."""
    for _ in range(40):
        try:
            return os.fork()
        except BlockingIOError:
            time.sleep(LOOK)
    return os.fork()


class Zygote:
    def __init__(self, line: socket.socket, parent: int, config: dict):
        self.line, self.parent, self.tier = line, parent, config["tier"]
        self.base = [*standard_library(), *config["reads"]]
        self.rules = confine.make_ruleset(self.base) if self.tier == "landlock" else os.open("/dev/null", os.O_RDONLY)
        self.user = other_user(config["reads"]) if self.tier != "none" else None
        self.host = os.pidfd_open(config["host"])  # readable when it ends
        self.children: dict[int, Child] = {}

    def serve(self) -> None:
        gc.collect()
        gc.freeze()
        hello = {"hello": os.getpid(), "user": self.user, "abi": confine.landlock_abi()}
        self.line.send(json.dumps(hello).encode())
        while os.getppid() == self.parent:
            poll = select.poll()
            poll.register(self.line.fileno(), select.POLLIN)
            poll.register(self.host, select.POLLIN)
            for child in self.children.values():
                poll.register(child.watch, select.POLLIN)
            longest = LOOK if self.children else 0.25
            wait = min([longest, *(child.deadline - time.monotonic() for child in self.children.values())])
            happened = {number for number, _ in poll.poll(max(0, int(wait * 1000) + 1))}
            if self.host in happened or (self.line.fileno() in happened and not self.heed()):
                break
            for child in list(self.children.values()):
                if child.watch in happened:
                    self.reap(child)
                elif time.monotonic() >= child.deadline and not child.late:
                    self.end_or_wait(child)
                elif not happened and threads_of(child.pid) > THREADS:  # they are the kernel's memory, not its own
                    self.kill(child)
        for child in list(self.children.values()):
            self.kill(child)
            self.reap(child)

    def end_or_wait(self, child: Child) -> None:
        """At its deadline: what it was kept from running, on a busy machine, is given to it once more."""
        child.deadline = child.began + min(PATIENCE * child.wall, child.wall + kept_waiting(child.pid))
        if time.monotonic() >= child.deadline:
            child.late = True
            self.kill(child)

    def heed(self) -> bool:
        """Does what is asked next; False where nobody asks any more."""
        message, descriptors, _, _ = socket.recv_fds(self.line, 1 << 16, 8)
        if not message:
            return False
        header = json.loads(message)
        if "kill" in header:
            for child in self.children.values():
                if child.number == header["kill"]:
                    self.kill(child)
            return True
        self.start(header, dict(zip(header["fds"], descriptors, strict=True)))
        for number in descriptors:
            os.close(number)
        return True

    def start(self, header: dict, given: dict[str, int]) -> None:
        ready, told = os.pipe()
        parent = os.getpid()
        rules = self.rules_for(header)
        pid = fork_when_there_is_room()
        if pid == 0:
            inside.begin(header, given, rules, told, self.user, parent, self.tier)  # does not return
        os.close(told)
        if rules != self.rules:
            os.close(rules)
        watch = os.pidfd_open(pid)
        wall, now = header["wall"], time.monotonic()
        self.children[pid] = Child(header["start"], pid, watch, ready, wall, now, now + wall)

    def rules_for(self, header: dict) -> int:
        runs, writes, reads = header.get("runs", []), header.get("writes", []), header.get("reads", [])
        if self.tier != "landlock" or not (runs or writes):
            return self.rules
        return confine.make_ruleset([*self.base, *reads], runs, writes)

    @staticmethod
    def kill(child: Child) -> None:
        for kill in (os.killpg, os.kill):
            try:
                kill(child.pid, signal.SIGKILL)
            except OSError:
                continue

    def reap(self, child: Child) -> None:
        _, status, usage = os.wait4(child.pid, 0)
        self.kill_group(child.pid)
        os.set_blocking(child.ready, False)
        try:
            told = os.read(child.ready, 1000).decode("utf-8", "replace")
        except BlockingIOError:
            told = ""
        os.close(child.ready)
        os.close(child.watch)
        del self.children[child.pid]
        done = {"done": child.number, "status": os.waitstatus_to_exitcode(status), "late": child.late}
        done |= {"cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024, "ready": told}
        try:
            self.line.send(json.dumps(done).encode())
        except OSError:
            return

    @staticmethod
    def kill_group(group: int) -> None:
        """Ends what a compiler left behind; this process is the one that inherits it."""
        try:
            os.killpg(group, signal.SIGKILL)
            while True:
                os.waitpid(-group, 0)
        except OSError:
            return


def _low(number: int) -> int:
    """The descriptor with a number that every child closes, whatever number the host had for it."""
    if number != inside.LINE:
        os.dup2(number, inside.LINE, inheritable=False)
        os.close(number)
    return inside.LINE


def know(name: str, folder: str) -> None:
    """Imports a package from a folder that programs import nothing else from."""
    sys.path.append(folder)
    try:
        __import__(name)
    except Exception:
        sys.modules.pop(name, None)  # programs are told that there is none
    finally:
        sys.path.remove(folder)


def main() -> None:
    line = socket.socket(fileno=_low(int(sys.argv[1])))
    config, parent = json.loads(sys.argv[2]), os.getppid()
    sys.argv = ["solution.py"]
    for folder in config["path"]:
        sys.path.append(folder)
    for name in config["imports"]:
        __import__(name)
    for name, file in config["known"].items():
        know(name, os.path.dirname(os.path.dirname(file)))
    try:
        confine.prctl(36, 1)  # what a compiler started and left comes here
        zygote = Zygote(line, parent, config)
    except OSError as problem:
        line.send(json.dumps({"refused": f"{problem}"}).encode())
        sys.exit(8)
    zygote.serve()


if __name__ == "__main__":
    main()
