# ruff: noqa: E501 - programs stand as they are
"""Programs that try what they must not be able to do, by family. One that gets through prints ESCAPED.

`OUTSIDE` is a file of the host with a secret, `HOST` the pid of the process that grades, `SECRET` what the file holds.
"""

from __future__ import annotations

HEAD = """
import ctypes, gc, os, signal, socket, sys, threading, time
OUTSIDE, HOST = {outside!r}, {host}
FOLDER = os.path.dirname(OUTSIDE)
libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
def call(x86, arm, *rest):
    rest = [ctypes.c_long(v) if isinstance(v, int) else v for v in rest]
    got = libc.syscall(ctypes.c_long(arm if ARM else x86), *rest)
    if got < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return got
def escaped(*what):
    print("ESCAPED", *what, flush=True)
"""

# Each line is one attack: a statement that raises where it is denied; the next thing that runs tells of an escape.
DENIED = {
    "look": """
open(OUTSIDE).read()
os.open(OUTSIDE, os.O_RDONLY)
os.listdir(FOLDER)
os.scandir("/").__next__()
open("/etc/passwd").read()
open("/etc/hostname").read()
open(f"/proc/{HOST}/environ", "rb").read()
open(f"/proc/{HOST}/cmdline", "rb").read()
open(f"/proc/{HOST}/mem", "rb").read(1)
open(f"/proc/{os.getppid()}/maps").read()
open(f"/proc/{os.getppid()}/cmdline", "rb").read()
open("/proc/self/mem", "r+b").read(1)
open("/proc/self/environ").read()
os.listdir("/proc/self/fd")
os.listdir(os.path.expanduser("~root"))
open("/dev/mem", "rb")
open("/sys/kernel/notes", "rb").read()
""",
    "fork": """
os.fork()
os.posix_spawn("/bin/true", ["true"], {})
__import__("subprocess").run(["/bin/true"])
os.system("true") and os.kill(HOST, 0)
call(56, 220, 17, 0, 0, 0, 0)
call(435, 435, (ctypes.c_char * 88)(), 88)
call(57, 1079, 0)
call(58, 1071, 0)
__import__("multiprocessing").Process(target=print).start()
os.forkpty()
__import__("pty").fork()
""",
    "detach": """
os.setsid()
os.setpgid(0, 0)
call(157, 167, 1, 0, 0, 0, 0)
call(157, 167, 36, 1, 0, 0, 0)
open("/tmp/next-test", "w").write("x")
open("/dev/shm/next-test", "w").write("x")
open("/var/tmp/next-test", "w").write("x")
os.mkdir("/tmp/next-folder")
os.memfd_create("kept") and os.execv("/proc/self/fd/3", ["x"])
call(29, 194, 1, 4096, 0o1666)
call(68, 186, 77, 0o1666)
call(240, 180, b"/kept", 0o102, 0o666, 0)
os.mkfifo("/tmp/next-fifo")
""",
    "signals": """
os.kill(HOST, 0)
os.kill(os.getppid(), signal.SIGSTOP)
os.kill(-1, 0)
os.killpg(os.getpgid(HOST), 0)
call(234, 131, HOST, HOST, 0)
call(200, 130, HOST, 0)
call(129, 138, HOST, 0, (ctypes.c_char * 128)())
call(297, 240, HOST, HOST, 0, (ctypes.c_char * 128)())
call(424, 424, call(434, 434, HOST, 0), 0, 0, 0)
os.pidfd_open(os.getppid())
__import__("fcntl").fcntl(0, 8, HOST)
os.setpriority(os.PRIO_PROCESS, HOST, 19)
os.sched_setaffinity(HOST, {0})
__import__("resource").prlimit(HOST, __import__("resource").RLIMIT_CPU, (1, 1))
""",
    "sockets": """
socket.socket().connect(("127.0.0.1", 22))
socket.socket(socket.AF_INET6)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 53))
socket.socket(socket.AF_UNIX).connect("\\0abstract")
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
socket.socket(16, socket.SOCK_RAW)
socket.create_connection(("169.254.169.254", 80), 1)
socket.getaddrinfo("example.com", 80)
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
__import__("urllib.request").request.urlopen("http://127.0.0.1:1", timeout=1)
socket.socket(40, socket.SOCK_STREAM)
call(425, 425, 4, (ctypes.c_char * 120)())
""",
    "write": """
open(OUTSIDE, "w")
open(OUTSIDE, "a").write("x")
open(OUTSIDE + ".new", "w").write("x")
os.unlink(OUTSIDE)
os.rename(OUTSIDE, OUTSIDE + ".moved")
os.truncate(OUTSIDE, 0)
os.chmod(OUTSIDE, 0o777)
os.chown(OUTSIDE, 0, 0)
os.utime(OUTSIDE, (0, 0))
os.setxattr(OUTSIDE, "user.x", b"1")
os.symlink("/etc/passwd", FOLDER + "/link")
os.link(OUTSIDE, FOLDER + "/hard")
open(os.__file__, "a")
open(os.path.join(os.path.dirname(os.__file__), "sitecustomize.py"), "w")
open(os.path.join(os.path.dirname(os.__file__), "__pycache__", "os.pyc"), "wb")
open("conftest.py", "w").write("x")
os.mkdir(FOLDER + "/sub")
os.mknod(FOLDER + "/node")
__import__("tempfile").TemporaryFile()
""",
    "kernel": """
call(165, 40, b"none", b"/tmp", b"tmpfs", 0, 0)
call(272, 97, 0x10000000)
call(272, 97, 0x10020000)
call(308, 268, 0, 0)
call(161, 51, b"/")
call(155, 41, b"/", b"/")
call(321, 280, 0, 0, 0)
call(425, 425, 1, (ctypes.c_char * 120)())
call(323, 282, 0)
call(250, 219, 0, -3, 0)
call(298, 241, (ctypes.c_char * 128)(), 0, -1, -1, 0)
call(101, 117, 16, HOST, 0, 0)
call(101, 117, 0, 0, 0, 0)
call(310, 270, HOST, (ctypes.c_char * 16)(), 1, (ctypes.c_char * 16)(), 1, 0)
call(311, 271, HOST, (ctypes.c_char * 16)(), 1, (ctypes.c_char * 16)(), 1, 0)
call(438, 438, 0, 0, 0)
call(304, 265, 0, b"", 0)
call(175, 105, 0, 0, b"")
call(246, 104, 0, 0, 0, 0)
call(169, 142, 0xfee1dead, 672274793, 0, 0)
call(103, 116, 3, 0, 0)
call(319, 279, b"x", 0) and os.execve("/proc/self/fd/3", ["x"], {})
call(322, 281, 0, b"", 0, 0, 0x1000)
call(59, 221, b"/bin/sh", 0, 0)
""",
    "privileges": """
os.setuid(12345)
os.setgid(12345)
os.setgroups([12345])
os.setresuid(1, 1, 1)
call(126, 91, (ctypes.c_char * 8)(), (ctypes.c_char * 24)())
call(157, 167, 24, 0, 0, 0, 0)
call(157, 167, 4, 1, 0, 0, 0)
call(157, 167, 22, 1, 0, 0, 0)
call(444, 444, 0, 0, 1)
os.chroot("/")
os.nice(-5)
__import__("resource").setrlimit(__import__("resource").RLIMIT_AS, (-1, -1))
__import__("resource").setrlimit(__import__("resource").RLIMIT_CPU, (1000, 1000))
os.sethostname("x") if hasattr(os, "sethostname") else __import__("socket").sethostname("x")
time.clock_settime(time.CLOCK_REALTIME, 0)
""",
    "paths": """
os.readlink("/proc/self/root") and open("/proc/self/root" + OUTSIDE).read()
open("/proc/self/cwd/" + OUTSIDE.lstrip("/")).read()
open("/proc/thread-self/root" + OUTSIDE).read()
open("/usr/lib/../../" + OUTSIDE).read()
open("//" + OUTSIDE + "/").read()
open("/" + "a/" * 1000000)
open("/tmp/a\\nb", "w")
os.open(OUTSIDE, os.O_PATH) and open("/proc/self/fd/3").read()
os.chdir(FOLDER) or open(os.path.basename(OUTSIDE)).read()
open(b"/tmp/\\xff\\xfe", "w")
os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
call(303, 264, -100, OUTSIDE.encode(), (ctypes.c_char * 128)(), (ctypes.c_int * 1)(), 0)
call(437, 437, -100, OUTSIDE.encode(), (ctypes.c_char * 24)(), 24)
""",
}
# Programs that use what they have without end: each must be ended, with a verdict of its own, and cost nobody else.
GREEDY = {
    "closes its output and sleeps": ("print(1)\nsys.stdout.close(); os.close(1); time.sleep(60)", {"timeout"}),
    "sleeps": ("time.sleep(60)", {"timeout"}),
    "spins": ("while True: pass", {"timeout"}),
    "ignores signals": (
        "for n in range(1, 64):\n try: signal.signal(n, signal.SIG_IGN)\n except Exception: pass\nwhile True: pass",
        {"timeout"},
    ),
    "catches everything": (
        "while True:\n try:\n  while True: pass\n except BaseException: pass",
        {"timeout"},
    ),
    "regular expression": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", {"timeout"}),
    "power": ("x = 3 ** (3 ** 20); str(x)", {"timeout", "memory"}),
    "floods": ("while True: sys.stdout.write('x' * 1000000)", {"output_limit"}),
    "floods errors": ("while True: sys.stderr.write('x' * 1000000)", {"timeout"}),
    "floods a raw descriptor": ("while True: os.write(1, b'x' * 100000)", {"output_limit"}),
    "allocates at once": ("x = bytearray(64 << 30)", {"memory"}),
    "allocates slowly": ("x = []\nwhile True: x.append(bytearray(1 << 20))", {"memory", "timeout"}),
    "allocates from threads": (
        "def f():\n x = []\n while True: x.append(bytearray(1 << 20))\n"
        "ts = [threading.Thread(target=f) for _ in range(50)]\n[t.start() for t in ts]\n[t.join() for t in ts]\n"
        "raise MemoryError",
        {"memory", "timeout", "runtime_error"},
    ),
    "threads without end": (
        "def f(): time.sleep(60)\nwhile True: threading.Thread(target=f, daemon=True).start()",
        {"memory", "runtime_error", "timeout"},
    ),
    "maps memory": ("import mmap; mmap.mmap(-1, 8 << 30)", {"memory", "runtime_error"}),
    "descriptors": ("while True: os.dup(0)", {"runtime_error"}),
    "pipes": ("while True: os.pipe()", {"runtime_error"}),
    "recursion": ("sys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()", {"memory", "runtime_error", "timeout"}),
    "recursion in C": (
        "sys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6): x = [x]\nrepr(x)",
        {"runtime_error", "memory", "timeout"},
    ),
    "waits for a thread": ("t = threading.Thread(target=lambda: time.sleep(60)); t.start()", {"timeout"}),
    "an exit that hangs": ("import atexit; atexit.register(lambda: time.sleep(60))", {"timeout"}),
    "a segmentation fault": ("ctypes.string_at(8)", {"runtime_error"}),
    "a signal to itself": ("os.kill(os.getpid(), signal.SIGKILL)", {"runtime_error"}),
    "an alarm": ("signal.alarm(1)\nwhile True: pass", {"runtime_error", "timeout"}),
    "reads without end": ("while True: sys.stdin.read()", {"timeout"}),
}
# Programs that claim to pass without being right: (what is asked, the program).
CHEATS = {
    "stops before the assert": "import os\nos._exit(0)",
    "leaves with status 0": "import sys\nsys.exit(0)",
    "leaves inside the call": "import sys\ndef f(x):\n    sys.exit(0)",
    "os._exit inside the call": "import os\ndef f(x):\n    os._exit(0)",
    "equal to everything": "class E:\n    def __eq__(s, o): return True\n    __ne__ = lambda s, o: False\ndef f(x): return E()",
    "an int equal to everything": "class E(int):\n    def __eq__(s, o): return True\ndef f(x): return E(0)",
    "a str equal to everything": "class E(str):\n    def __eq__(s, o): return True\ndef f(x): return E('')",
    "a list equal to everything": "class E(list):\n    def __eq__(s, o): return True\ndef f(x): return E()",
    "a dict equal to everything": "class E(dict):\n    def __eq__(s, o): return True\ndef f(x): return E()",
    "another abs": "import builtins\nbuiltins.abs = lambda x: 0\nabs = builtins.abs\ndef f(x): return 0",
    "another len": "def len(x): return 3\ndef all(x): return True\ndef f(x): return 0",
    "another check": "def check(candidate): pass\ndef f(x): return 0",
    "swallows asserts": "import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): return 0",
    "looks into frames": (
        "import re, sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in [*frame.f_locals.values(), *frame.f_globals.values()]:\n"
        "            m = re.search('4' + '71[0-9]', str(v))\n            if m: return int(m.group())\n"
        "        frame = frame.f_back"
    ),
    "looks through gc": (
        "import gc, re\ndef f(x):\n    for o in gc.get_objects():\n        m = re.search('4' + '71[0-9]', str(o)[:100000])\n"
        "        if m: return int(m.group())"
    ),
    "looks through modules": (
        "import sys\nwanted = int('47' + '11')\ndef f(x):\n    for m in list(sys.modules.values()):\n"
        "        for k, v in list(vars(m).items()):\n            if k != 'wanted' and v == wanted: return v"
    ),
    "looks through memory": (
        "import ctypes, re\nwanted = b'47' + b'11'\ndef f(x):\n    for line in open('/proc/self/maps'):\n"
        "        a, b = (int(n, 16) for n in line.split()[0].split('-'))\n"
        "        if wanted in ctypes.string_at(a, b - a): return int(wanted)"
    ),
    "reads the line": "import os\ndef f(x):\n    return os.read(3, 100)",
    "writes to the line": "import os\ndef f(x):\n    os.write(3, b'\\0\\0\\0\\2{}')\n    return 0",
    "writes a report": 'import os\ndef f(x):\n    os.write(4, b\'\\0\\0\\0\\x15{"verdict": "passed"}\')\n    return 0',
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(x): return 0",
    "raises an assertion": "def f(x): raise AssertionError('passed')",
    "replaces json": "import json\njson.loads = lambda *a, **k: {'verdict': 'passed'}\ndef f(x): return 0",
    "an object with every method": (
        "class A:\n    def __getattr__(s, n): return s\n    def __call__(s, *a, **k): return s\n"
        "    def __eq__(s, o): return True\n    def __bool__(s): return True\nf = A()"
    ),
    "floods the line": "def f(x): return 'x' * (1 << 25)",
    "nests its answer": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a",
    "NaN": "def f(x): return float('nan')",
    "prints the verdict": "def f(x):\n    print('passed')\n    return None",
    "a callable for a value": "def f(x): return lambda: 4711 - 1",
    "a bomb in repr": "class A:\n    def __repr__(s): raise SystemExit(0)\ndef f(x): return A()",
    "ends in a thread": "import threading, os\nthreading.Timer(0, os._exit, (0,)).start()\ndef f(x):\n    import time; time.sleep(5)",
}
