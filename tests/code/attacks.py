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
# Further doors, all of a family tried by one program, one after another.
ALSO_DENIED = {
    "descriptors": """
os.write(3, b"passed")
os.write(4, b"\\0\\0\\0\\x15{\\"verdict\\": \\"passed\\"}")
os.write(5, b"x")
os.write(6, b"+")
open(f"/proc/{HOST}/fd/0", "rb").read(1)
open(f"/proc/{HOST}/fd/1", "wb").write(b"x")
open(f"/proc/{os.getppid()}/fd/3", "rb").read(1)
open(f"/proc/{os.getppid()}/fd/2", "wb").write(b"x")
os.listdir(f"/proc/{os.getppid()}/fd")
os.listdir(f"/proc/{HOST}/task")
os.readlink(f"/proc/{HOST}/exe")
os.readlink(f"/proc/{HOST}/cwd")
os.readlink(f"/proc/{os.getppid()}/root")
call(438, 438, call(434, 434, os.getppid(), 0), 3, 0)
call(312, 272, HOST, os.getpid(), 0, 0, 0)
os.sendfile(1, 0, 0, 10)
os.splice(0, 1, 10)
call(276, 77, 0, 1, 10, 0)
call(278, 75, 1, (ctypes.c_char * 16)(), 1, 0)
socket.send_fds(socket.socketpair()[0], [b"x"], [0])
socket.recv_fds(socket.socketpair()[0], 1, 1)
""",
    "memory of others": """
os.memfd_create("x")
call(319, 279, b"x", 3)
call(447, 447, 0)
call(30, 196, 0, 0, 0)
call(64, 190, 1, 1, 0o1666)
call(31, 195, 0, 0, 0)
__import__("multiprocessing.shared_memory").shared_memory.SharedMemory(create=True, size=10)
__import__("multiprocessing").Lock()
__import__("_posixshmem").shm_open("/x", os.O_RDWR | os.O_CREAT, 0o600)
call(440, 440, 0, 0, 0, 0, 0)
call(448, 448, 0, 0)
call(149, 228, 0, 4096)
call(151, 230, 1)
call(256, 238, HOST, 0, 0, 0)
call(279, 239, HOST, 0, 0, 0, 0, 0)
call(237, 235, 0, 0, 0, 0, 0, 0)
call(216, 234, 0, 0, 0, 0, 0)
call(329, 288, 0, 0, 0)
""",
    "time and turns": """
call(222, 107, 0, (ctypes.c_char * 64)(), (ctypes.c_char * 8)())
call(282, 74, 0, 0, 0)
os.sched_setaffinity(0, {0})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
call(314, 274, 0, (ctypes.c_char * 48)(), 0)
os.setpriority(os.PRIO_PROCESS, 0, -20)
os.setpriority(os.PRIO_PGRP, 0, 1)
call(251, 30, 1, 0, 0)
call(227, 112, 0, (ctypes.c_char * 16)())
call(305, 266, 0, (ctypes.c_char * 208)())
call(159, 171, (ctypes.c_char * 208)())
call(164, 170, (ctypes.c_char * 16)(), 0)
call(306, 267, 1)
call(74, 82, 1)
""",
    "limits": """
__import__("resource").setrlimit(__import__("resource").RLIMIT_NOFILE, (4096, 4096))
__import__("resource").setrlimit(__import__("resource").RLIMIT_FSIZE, (-1, -1))
__import__("resource").setrlimit(__import__("resource").RLIMIT_CORE, (-1, -1))
__import__("resource").setrlimit(__import__("resource").RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
__import__("resource").setrlimit(__import__("resource").RLIMIT_MSGQUEUE, (1 << 20, 1 << 20))
__import__("resource").prlimit(os.getppid(), __import__("resource").RLIMIT_NOFILE, (0, 0))
__import__("resource").prlimit(HOST, __import__("resource").RLIMIT_AS)
__import__("resource").prlimit(os.getpid(), __import__("resource").RLIMIT_AS, (1 << 40, 1 << 40))
__import__("mmap").mmap(-1, 4 << 30)
__import__("mmap").mmap(-1, 4 << 30, flags=0x4022)
""",
    "sessions": """
os.setsid() or os.fork()
os.setpgid(os.getpid(), os.getppid())
os.setpgrp()
os.tcsetpgrp(0, os.getpid())
__import__("fcntl").ioctl(1, 0x5412, b"x")
__import__("fcntl").ioctl(0, 0x540E, 0)
__import__("fcntl").ioctl(1, 0x541C, b"\\x03")
__import__("fcntl").ioctl(1, 0x8901, b"\\0" * 8)
__import__("fcntl").ioctl(0, 0x4004667F, b"\\0" * 8)
__import__("fcntl").fcntl(1, 8, -os.getpgid(HOST))
__import__("fcntl").fcntl(1, 10, 9)
__import__("fcntl").fcntl(1, 15, b"\\0" * 8)
__import__("fcntl").fcntl(0, 1024, 0)
__import__("fcntl").fcntl(0, 1033, 15)
__import__("fcntl").fcntl(0, 1026, 1)
os.posix_openpt(os.O_RDWR) if hasattr(os, "posix_openpt") else open("/dev/ptmx", "r+b")
os.openpty()
""",
    "networks": """
socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.socket(17, socket.SOCK_RAW)
socket.socket(38, socket.SOCK_SEQPACKET)
socket.socket(31, 3, 1)
socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.socketpair(socket.AF_INET, socket.SOCK_STREAM)
socket.socketpair()[0].connect("\\0x")
socket.socketpair()[0].bind("\\0x")
socket.socketpair()[0].listen()
socket.socketpair()[0].sendto(b"x", "\\0x")
socket.socketpair()[0].sendmsg([b"x"], [], 0, "\\0x")
socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 28)
socket.socketpair()[0].getsockopt(socket.SOL_SOCKET, 17, 12)
socket.gethostbyname("localhost")
socket.create_server(("127.0.0.1", 0))
socket.socketpair()[0].accept()
__import__("http.client").client.HTTPConnection("127.0.0.1", 1, timeout=1).request("GET", "/")
__import__("asyncio").run(__import__("asyncio").open_connection("127.0.0.1", 1))
__import__("asyncio").run(__import__("asyncio").create_subprocess_exec("/bin/true"))
__import__("asyncio").run(__import__("asyncio").start_unix_server(print, "/tmp/s"))
call(426, 426, 0, 1, 0, 0, 0, 0)
call(427, 427, 0, 0, 0, 0)
""",
    "mounts": """
call(428, 428, -100, b"/", 1)
call(429, 429, 0, b"", 0, b"", 0)
call(430, 430, b"tmpfs", 0)
call(431, 431, 0, 0, 0, 0, 0)
call(432, 432, 0, 0, 0)
call(433, 433, 0, b"/", 0)
call(442, 442, 0, b"", 0, 0, 0)
call(457, 457, 0, 0, 0, 0)
call(458, 458, 0, 0, 0, 0)
call(166, 39, b"/", 0)
call(167, 224, b"/x", 0)
call(163, 89, b"/x")
call(272, 97, 0x20000000)
call(272, 97, 0x40000000)
call(272, 97, 0x08000000)
call(56, 220, 0x10000011, 0, 0, 0, 0)
call(435, 435, (ctypes.c_char * 64)(), 64)
call(460, 460, 0, 0, 0, 0)
call(445, 445, 0, 1, 0, 0)
call(446, 446, 0, 0)
call(317, 277, 0, 0, 0)
call(317, 277, 1, 0, 0)
call(317, 277, 2, 0, 0)
call(135, 92, 0x0040000)
call(300, 262, 0, 0)
call(294, 26, 0)
call(176, 106, b"x", 0)
call(313, 273, 0, b"", 0)
call(320, 294, 0, 0, 0, 0, 0)
call(180, 42)
call(443, 443, 0, b"/", 0, 0)
call(179, 60, 0, b"/", 0, 0)
call(248, 217, b"user", b"x", b"y", 1, -3)
call(249, 218, b"user", b"x", 0, -3)
call(462, 462, 0, 0, 0)
""",
    "files by other doors": """
os.open("/", os.O_PATH | os.O_DIRECTORY) and os.listdir("/")
os.open(FOLDER, os.O_PATH) and os.open(os.path.basename(OUTSIDE), os.O_RDONLY, dir_fd=3)
os.fchdir(os.open(FOLDER, os.O_PATH))
os.open(OUTSIDE, os.O_RDWR)
os.open(OUTSIDE, os.O_WRONLY | os.O_TRUNC)
os.open(FOLDER + "/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
os.replace(OUTSIDE, FOLDER + "/y")
os.removexattr(OUTSIDE, "user.x")
os.listxattr(OUTSIDE)
os.getxattr(OUTSIDE, "user.x")
os.copy_file_range(0, 1, 10)
os.posix_fallocate(0, 0, 1 << 30)
os.ftruncate(0, 1 << 30)
os.truncate(0, 1 << 30)
os.mkfifo(FOLDER + "/f")
os.symlink(OUTSIDE, "/tmp/l1234")
os.link("/proc/self/fd/0", "/tmp/l1234")
call(265, 37, -100, b"/proc/self/fd/0", -100, b"/tmp/l1234", 0x400)
open("/proc/sys/kernel/core_pattern", "w")
open("/proc/self/oom_score_adj", "w").write("1000")
open("/proc/self/comm", "w").write("x")
open("/proc/self/clear_refs", "w").write("1")
open("/proc/sysrq-trigger", "w")
open("/proc/self/attr/current", "w").write("x")
open("/proc/self/uid_map", "w").write("0 0 1")
open("/proc/self/maps").read()
open("/proc/self/status").read()
open("/proc/self/stat").read()
open("/proc/cpuinfo").read()
open("/proc/meminfo").read()
open("/proc/net/tcp").read()
open("/proc/mounts").read()
open("/sys/fs/cgroup/cgroup.procs").read()
open("/dev/shm/x", "w")
open("/dev/full", "w")
open("/dev/kmsg")
open("/etc/shadow").read()
open("/var/log/syslog").read()
__import__("sqlite3").connect("/tmp/q.db").execute("create table a(b)")
__import__("dbm").open("/tmp/q", "c")
__import__("zipfile").ZipFile("/tmp/q.zip", "w")
__import__("shelve").open("/tmp/q")
__import__("logging").FileHandler("/tmp/q.log")
__import__("py_compile").compile(os.__file__, "/tmp/q.pyc", doraise=True)
__import__("tempfile").mkdtemp()
__import__("pathlib").Path("/tmp/q").touch()
__import__("shutil").copy(os.__file__, "/tmp/q")
ctypes.CDLL("/tmp/q.so")
""",
}
# Programs that go past what Python offers, or into what the sandbox is made of; none prints ESCAPED.
DEEPER = {
    "int 0x80": "import mmap\nm=mmap.mmap(-1,4096,prot=7)\nm.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\nf=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nprint('ESCAPED' if f()>0 else 'no')",
    "x32 call": "libc.syscall(ctypes.c_long(0x40000000|39)) > 0 and escaped()",
    "raw clone process": "r=libc.syscall(ctypes.c_long(220 if ARM else 56),ctypes.c_long(17),0,0,0,0)\nif r>=0: escaped(r)",
    "clone with vm but no thread": "r=libc.syscall(ctypes.c_long(220 if ARM else 56),ctypes.c_long(0x100|17),0,0,0,0)\nif r>=0: escaped(r)",
    "clone parent": "r=libc.syscall(ctypes.c_long(220 if ARM else 56),ctypes.c_long(0x8000|17),0,0,0,0)\nif r>=0: escaped(r)",
    "clone high bits": "r=libc.syscall(ctypes.c_long(56),ctypes.c_long(0x100000000|17),0,0,0,0)\nif r>=0: escaped(r)",
    "kill high bits": "r=libc.syscall(ctypes.c_long(129 if ARM else 62),ctypes.c_long((1<<32)|HOST),ctypes.c_long(0))\nif r>=0: escaped(r)",
    "zygote objects": 'for o in gc.get_objects():\n    if type(o).__name__==\'Zygote\':\n        o.line.send(b\'{"done": 1, "status": 0, "late": false, "cpu": 0, "memory": 0, "ready": "+"}\')\n        escaped()',
    "guest main": "m=[m for m in sys.modules.values() if hasattr(m,'confine') and hasattr(m,'Zygote')]\nfor x in m: x.confine.restrict_calls(x.confine.filter_program(x.confine.Profile(compiles=True),1)); os.fork(); escaped()",
    "unlandlock": "m=sys.modules['temper_confine']\nm.call(446,m.make_ruleset(['/']),0)\nopen(OUTSIDE).read() and escaped()",
    "reload posix": "import importlib,posix\nimportlib.reload(posix)\nposix.fork(); escaped()",
    "excepthook": "sys.excepthook=lambda *a: os._exit(0)\n1/0",
    "exit object": "class A:\n    def __str__(s): os._exit(0)\nsys.exit(A())",
    "builtins wiped": "import builtins\nfor k in list(vars(builtins)): delattr(builtins,k)",
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
