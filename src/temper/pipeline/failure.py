"""Why a stage ended early, in words: a full disk, a directory that went away, memory, a loss that is no number."""

from __future__ import annotations

import re

from temper.errors import Exit, Fault, ResourceError, TemperError, system_error
from temper.record.rundir import Lock, resource_fault

_DISK = re.compile(r"no space left|disk quota", re.IGNORECASE)
_FORBIDDEN = re.compile(r"read-only file system|permission denied", re.IGNORECASE)
_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc", re.IGNORECASE)


def as_temper_error(error: Exception, stage: str, lock: Lock, step: int | None) -> TemperError | None:
    """The error a user can act on, for what a stage raised; None if it is a bug. `step` is its last checkpoint."""
    root = lock.path.parent
    safe = f"the last safe step of `{stage}` is {step}" if step else f"`{stage}` had no checkpoint yet"
    if not lock.is_ours():
        why = f"it was deleted or replaced while `{stage}` ran; nothing of the run is left there"
        return ResourceError(Fault("the run directory is gone", str(root), why, "run the same command to start again"))
    if isinstance(error, TemperError):
        if error.code != Exit.RESOURCES:
            return error
        faults = [Fault(f.what, f.where, "; ".join(filter(None, (f.why, safe))), f.fix) for f in error.faults]
        return ResourceError(faults)
    text = str(error)
    if isinstance(error, FloatingPointError):
        fix = "lower the learning rate, or look at the metrics for where it began"
        return TemperError(Fault(f"stage `{stage}` stopped: {text}", str(root), safe, fix), Exit.GUARD)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        fix = "lower `micro_batch_tokens` or the batch, then run the same command again"
        return ResourceError(Fault(f"stage `{stage}` ran out of memory", "", safe, fix))
    if (found := system_error(error)) is not None:
        return ResourceError(resource_fault(root, found, safe))
    if _DISK.search(text):  # libraries with errors of their own around the system's
        return ResourceError(Fault("the disk is full", str(root), safe, "free some space, then run the same command"))
    if _FORBIDDEN.search(text):
        fix = "make it writable, then run the same command"
        return ResourceError(Fault(f"cannot write to the run directory: {text}", str(root), safe, fix))
    return None
