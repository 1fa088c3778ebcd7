"""What is settled once for a whole process: no network, the recipe's number of threads, the same bits each time."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


# A thread that waits for the others of its team soon sleeps: one that spins takes the core from whoever has work. Not
# at once: waking it costs more than the short waits of a quiet machine (docs/results.md, "Waiting").
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
KEPT_BYTES = 256 << 20
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # as glibc's malloc.h numbers them
BLOCKS = 65_536  # that glibc takes from the system one by one at most, unless it is told otherwise
CHOSEN = "TEMPER_HUB_OFFLINE"  # what the user had set before we did; child processes see it too


def go_offline() -> None:
    """Keep the libraries from the network. Call it before transformers is imported. Names of the Hub are still fetched
    (`hub/cache.py`), unless the user has said otherwise."""
    remember_choice()
    os.environ.update(OFFLINE)


def wait_passively() -> None:
    """Let idle threads sleep, here and in child processes, unless the user has said how they wait. Call it before torch
    is imported."""
    if not PASSIVE.keys() & os.environ.keys():
        os.environ.update(PASSIVE)


def remember_choice() -> None:
    """Keep what the user says about the network, before it is written over."""
    os.environ.setdefault(CHOSEN, "1" if is_offline() else "0")


def is_offline() -> bool:
    """Whether the user keeps the Hub away: `HF_HUB_OFFLINE=1`."""
    chosen = os.environ.get(CHOSEN)
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    told = [chosen] if chosen is not None else [os.environ.get(name, "") for name in names]
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in told)


def machine_memory() -> int:
    """Bytes of main memory, the same in every run on this machine; 2 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 2 << 30


def settle_torch(threads: int) -> None:
    """Use `threads` threads and deterministic algorithms, if any stage uses torch at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        # Same switch as use_deterministic_algorithms, which imports the compiler first: as long as torch itself.
        torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")


def keep_freed_memory(forks: bool) -> None:
    """What is freed from now on stays with this process for what it allocates next, until `give_back_memory`; of one
    that `forks` others to train, which would copy it, up to `KEPT_BYTES`. Of a step that trains a small model a tenth
    is the system's work on pages that come and go, of an update of 0.5 B parameters a quarter."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        mallopt = ctypes.CDLL(None).mallopt
        if forks:
            mallopt(MMAP_MAX, BLOCKS)  # an earlier stage may have trained by threads
            mallopt(MMAP_THRESHOLD, 32 << 20)  # the largest block that does not go to the system at once: its highest
            mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        else:
            mallopt(MMAP_MAX, 0)  # however large a block is
            mallopt(TRIM_THRESHOLD, -1)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Within it Python does not look for cycles that nothing refers to, and later looks leave out what there is at its
    end, until `gc.unfreeze`: of what is imported and planned nearly nothing is a cycle, and it would be walked over a
    dozen times, a fifth of the time it takes."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def give_back_memory() -> None:
    """What a stage held and nothing refers to any more goes back to the system: the C library keeps it otherwise, and
    the stages after it would seem to need it, or would not fit. What is left, most of it modules, is left out of later
    looks for cycles until `gc.unfreeze`."""
    gc.collect()
    gc.freeze()
    if (spaces := sys.modules.get("temper.kernels.spaces")) is not None:
        spaces.forget()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def versions() -> dict[str, str]:
    """What a run's numbers may depend on."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in ("temper-rl", "torch", "transformers", "tokenizers", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
