"""`temper doctor`: is this machine ready? Each line ok, warn or fail, and how to mend it."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from temper.environment import PASSIVE
from temper.errors import Exit, TemperError, escape

# Declared in pyproject.toml too; what a machine has installed may have changed since
REQUIRED = {
    "torch": "2.11", "transformers": "5.10", "tokenizers": "0.22", "safetensors": "0.5", "numpy": "1.26",
    "pydantic": "2.10", "pyyaml": "6.0", "rich": "13.7", "jinja2": "3.1",
}  # fmt: skip
OPTIONAL = {
    "parquet": ("pyarrow", "parquet files"),
    "hub": ("huggingface_hub", "models and data sets from the Hub"),
    "gym": ("reasoning-gym", "tasks of Reasoning Gym"),
    "lora": ("peft", "training low-rank adapters"),
    "math-verify": ("math-verify", "a second opinion on mathematics"),
    "8bit": ("bitsandbytes", "the optimiser's moments in 8 bits"),
    "tensorboard": ("tensorboard", "a tracker"),
    "wandb": ("wandb", "a tracker"),
    "trackio": ("trackio", "a tracker"),
    "ui": ("starlette", "the page of runs, and the endpoint of a model"),
}
GIGABYTE = 1e9
MEMORY_NEEDED = 3 * GIGABYTE  # the default recipe
DISK_NEEDED = 2 * GIGABYTE
SHAPE = "  shape"  # of a product of matrices


@dataclass(frozen=True)
class Check:
    """One line. `code` is the exit code if it fails."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""
    code: Exit = field(default=Exit.RESOURCES, repr=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rewards", default="accuracy,format", help="tried on the hacks; also my.py:function")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """0 unless a check fails, then the exit code of the first that does."""
    checks = list(examine([name.strip() for name in args.rewards.split(",") if name.strip()]))
    checks = checks if args.json else [check for check in checks if check.name != SHAPE]  # there may be hundreds
    counts = {state: sum(check.state == state for check in checks) for state in ("ok", "warn", "fail")}
    if args.json:
        rows = [{key: value for key, value in asdict(check).items() if key != "code"} for check in checks]
        print(json.dumps({"checks": rows, **counts}, ensure_ascii=False))
    else:
        print("\n".join(line for check in checks for line in render(check)))
        print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return next((int(check.code) for check in checks if check.state == "fail"), 0)


def render(check: Check) -> list[str]:
    """The lines of a check.

    >>> print("\\n".join(render(Check("memory", "warn", "1.2 GB", "close other programs"))))
    warn  memory         1.2 GB
                           fix: close other programs
    """
    lines = [f"{check.state:<5} {check.name:<14} {escape(check.detail)}"]
    return lines + ([f"{'':<23}fix: {escape(check.fix)}"] if check.fix else [])


def examine(rewards: list[str]) -> Iterator[Check]:
    """Every check, in order. One that breaks is a failed check, not the end of the examination."""
    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("system", check_system),
        ("packages", check_packages),
        ("machine", check_machine),
        ("devices", check_devices),
        ("ranks", check_ranks),
        ("sandbox", check_sandbox),
        ("optional parts", check_optional),
        ("terminal", check_terminal),
        ("shipped files", check_files),
        ("shipped models", check_shipped),
        ("rewards", lambda: check_rewards(rewards)),
    ]
    for name, part in parts:
        try:
            yield from part()
        except TemperError as error:
            for fault in error.faults:
                yield Check(name, "fail", fault.what, fault.fix or fault.why, error.code)
        except Exception as problem:  # a machine can be broken in ways nobody thought of: that is what is asked here
            yield Check(name, "fail", f"{type(problem).__name__}: {problem}", "please report this", Exit.BUG)


def check_system() -> Iterator[Check]:
    version = platform.python_version()
    known = sys.version_info >= (3, 11)
    yield Check("python", "ok" if known else "fail", version, "" if known else "Python 3.11 or newer", Exit.CONFIG)
    system = platform.system()
    name = f"{system} {platform.release()} {platform.machine()}"
    known = system in ("Linux", "Darwin")
    yield Check("system", "ok" if known else "fail", name, "" if known else "Linux or macOS", Exit.CONFIG)


def check_packages() -> Iterator[Check]:
    for package, least in REQUIRED.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Check(package, "fail", "not installed", f'pip install "{package}>={least}"', Exit.OPTIONAL_PART)
            continue
        enough = _numbers(found) >= _numbers(least)
        fix = "" if enough else f'pip install "{package}>={least}"'
        detail = found if enough else f"{found}, older than {least}"
        yield Check(package, "ok" if enough else "fail", detail, fix, Exit.OPTIONAL_PART)


def check_machine() -> Iterator[Check]:
    from temper.record.cost import memory_available, show_bytes

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    limited = limit.isdigit() and 0 < int(limit) < cores
    detail = f"{cores} usable" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    told = [f"{name}={os.environ[name]}" for name in PASSIVE if name in os.environ]
    detail += f"; threads wait by {', '.join(told)}" if told else ""
    fix = f"unset OMP_NUM_THREADS, or set it to {cores}" if limited else ""
    yield Check("cores", "warn" if limited or cores < 2 else "ok", detail, fix or _slow(cores))
    memory = memory_available()
    enough = memory is None or memory >= MEMORY_NEEDED
    fix = "" if enough else f"the default recipe needs {show_bytes(MEMORY_NEEDED)}: close other programs"
    yield Check("memory", "ok" if enough else "warn", f"{show_bytes(memory)} available", fix)
    free = shutil.disk_usage(Path.cwd()).free
    enough, writable = free >= DISK_NEEDED, os.access(Path.cwd(), os.W_OK)
    fix = "" if enough else f"the default recipe needs {show_bytes(DISK_NEEDED)}: free some, or use --out elsewhere"
    fix = fix if writable else "this directory cannot be written: change to another, or use --out"
    yield Check("disk", "ok" if enough and writable else "warn", f"{show_bytes(free)} free here", fix)


def _slow(cores: int) -> str:
    return "it works on one core, and takes twice as long" if cores < 2 else ""


def check_devices() -> Iterator[Check]:
    import torch

    kind = torch.backends.cpu.get_cpu_capability()
    slow = platform.machine() in ("x86_64", "AMD64") and kind in ("DEFAULT", "NO AVX")
    fix = "this processor has no AVX2: everything works, but slowly" if slow else ""
    yield Check("cpu", "warn" if slow else "ok", kind, fix)
    from temper.kernels.decode import available

    built = available()
    fix = "" if built else "install a C compiler (gcc or clang): sampling on the CPU is then faster"
    yield Check("compiler", "ok" if built else "warn", "the sampler's kernel is built" if built else "none", fix)
    yield from _check_products()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("gpu", "ok", ", ".join(names))
    elif torch.backends.mps.is_available():
        yield Check("gpu", "ok", "Apple GPU (mps), not used by the default recipe")
    else:
        yield Check("gpu", "ok", "none, and none is needed")


def _check_products() -> Iterator[Check]:
    """Which way matrices are multiplied, for the shapes that were measured here; at least for two of them."""
    import torch

    from temper.kernels import choice, product

    if not product.has_onednn():
        yield Check("products", "ok", "torch's own way: its oneDNN is not here")
        return
    for ins, outs in ((128, 384), (576, 1536)):
        product.serves(torch.empty(0, ins), torch.empty(outs, ins))
    found = {**choice.remembered(), **choice.table()}
    other = sum(entry["way"] == choice.ONEDNN for entry in found.values())
    detail = f"of {len(found)} shapes measured here, oneDNN is faster for {other}; --json has each"
    yield Check("products", "ok", detail)
    for shape, entry in found.items():
        tried = (way for way in (*choice.WAYS, choice.OWN) if f"{way}_ms" in entry)
        times = ", ".join(f"{way} {entry[f'{way}_ms']:.3g} ms" for way in tried)
        yield Check(SHAPE, "ok", f"{shape}: {entry['way']} ({times})")


def check_ranks() -> Iterator[Check]:
    """What several processes need to share a run: a way to talk, and a directory that all can read."""
    import torch
    import torch.distributed as dist

    from temper.distributed.ranks import given

    if not dist.is_available() or not dist.is_gloo_available():
        yield Check("ranks", "warn", "this PyTorch has no gloo: one process only", "another build of PyTorch")
        return
    ways = ["gloo"]
    if dist.is_nccl_available():
        from torch.cuda import nccl

        ways.append("nccl " + ".".join(map(str, nccl.version())))
    devices = torch.cuda.device_count()
    lacks = devices > 1 and len(ways) == 1
    told = given()
    here = f"rank {told[0]} of {told[1]}, {told[2]} here" if told else "no launcher: `temper run --ranks N` is one"
    fix = "devices talk by NCCL: install a build of PyTorch that has it" if lacks else ""
    yield Check("ranks", "warn" if lacks else "ok", f"{', '.join(ways)}; {here}", fix)
    yield check_directory(Path.cwd())


SHARED_SYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "cifs", "smb", "9p", "virtiofs", "weka")
BUCKETS = ("gcsfuse", "s3fs", "goofys", "mountpoint-s3", "rclone", "blobfuse")


def check_directory(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> Check:
    """Whether runs of several machines can lie in `folder`: all of them must see it, and files must be renamed and
    locked there."""
    kind = file_system(folder, mounts)
    name = "shared folder"
    if any(bucket in kind for bucket in BUCKETS):
        return Check(name, "warn", f"this one is a bucket ({kind})", "ranks need files that can be renamed and locked")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".temper-doctor-") as scratch:
            file = Path(scratch) / "a"
            file.touch()
            handle = os.open(file, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.rename(Path(scratch) / "b")
            finally:
                os.close(handle)
    except OSError as error:
        fix = "use --out elsewhere: runs need files that can be renamed and locked"
        return Check(name, "warn", f"this one ({kind or 'of an unknown kind'}): {error.strerror}", fix)
    if any(kind.startswith(known) for known in SHARED_SYSTEMS):
        return Check(name, "ok", f"this one is ({kind}): other machines may see it")
    return Check(name, "ok", f"this one is not ({kind or 'of an unknown kind'}): for ranks on this machine alone")


def file_system(folder: Path, mounts: Path) -> str:
    """The kind of file system that `folder` lies on; "" where the machine does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    places = [(fields[1].replace("\\040", " "), fields[2]) for line in lines if len(fields := line.split()) > 2]
    path = folder.resolve()
    over = [(len(place), kind) for place, kind in places if path.is_relative_to(place)]
    return max(over, default=(0, ""))[1]


def check_sandbox() -> Iterator[Check]:
    """What holds of the sandbox for programs that a model wrote: only the reward `code` needs it, so nothing fails."""
    from temper.code import Sandbox, SandboxError
    from temper.code.canaries import examine as try_protections
    from temper.code.cpp import compiler

    try:
        with Sandbox(workers=1) as sandbox:
            yield Check("sandbox", "ok", sandbox.tier)
            for protection in try_protections(sandbox):
                detail = f"programs cannot {protection.name}" if protection.on else f"programs could {protection.name}"
                state = "ok" if protection.on else "warn"
                yield Check("  protection", state, f"{'on ' if protection.on else 'off'} {detail} ({protection.needs})")
    except SandboxError as error:
        fault = error.faults[0]
        yield Check("sandbox", "warn", f"none here, so no reward `code`: {fault.why or fault.what}", fault.fix)
        return
    if shutil.which("bwrap") is not None:
        try:
            with Sandbox(workers=1, tier="bubblewrap") as sandbox:
                yield Check("  another tier", "ok", f"sandbox: bubblewrap ({sandbox.tier})")
        except SandboxError as error:
            why = error.faults[0].why or error.faults[0].what
            yield Check("  another tier", "ok", f"no `sandbox: bubblewrap`: {why}")
    try:
        yield Check("c++ programs", "ok", compiler())
    except SandboxError:
        yield Check("c++ programs", "ok", "no compiler: rows with tests for C++ programs are refused")


def check_optional() -> Iterator[Check]:
    for extra, (package, what) in OPTIONAL.items():
        try:
            yield Check(extra, "ok", f"{package} {metadata.version(package)} ({what})")
        except metadata.PackageNotFoundError:
            yield Check(extra, "warn", f"not installed ({what})", f'pip install "temper-rl[{extra}]"')


def check_terminal() -> Iterator[Check]:
    encoding = (sys.stderr.encoding or "ascii").lower()
    if "utf" not in encoding:
        yield Check("terminal", "warn", f"encoding {encoding}", "export LANG=C.UTF-8 (other characters are escaped)")
    elif sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        yield Check("terminal", "ok", "a live panel is shown")
    else:
        yield Check("terminal", "ok", "plain lines are shown (no terminal, or NO_COLOR is set)")


RECIPES = ("smoke", "tiny", "own_data")  # without these the first page of the documentation is untrue
C_SOURCES = (
    "decode.c", "layers.c", "step.c", "trunk.c", "attend.h", "draw.h", "exponential.h", "families.h", "layer.h",
    "look.h", "matrix.h", "pointwise.h", "products.h", "tiles.h", "trunk_back.h", "vectors.h", "weigh.h",
)  # fmt: skip


def check_files(package: Path | None = None) -> Iterator[Check]:
    """What ships beside the Python files: an installation that was built wrongly lacks some of it."""
    package = package or Path(__file__).parent.parent
    fix = "pip install --force-reinstall temper-rl"
    for name, folder, wanted in (
        ("recipes", "recipes", [f"{recipe}.yaml" for recipe in RECIPES]),
        ("C sources", "kernels", C_SOURCES),
    ):
        missing = [file for file in wanted if not (package / folder / file).is_file()]
        found = len(list((package / folder).glob("*.yaml" if name == "recipes" else "*.[ch]")))
        detail = f"{', '.join(missing)} missing from this installation" if missing else f"{found} files"
        yield Check(name, "fail" if missing else "ok", detail, fix if missing else "", Exit.ARTIFACT)


SHIPPED = {"tiny-base": "tiny_base", "tiny-code-base": "tiny_code_base"}  # the recipe that makes it


def check_shipped(folder: Path | None = None) -> Iterator[Check]:
    """The models that ship inside the package: as they left us, by their hashes."""
    from temper.artifacts import MANIFEST, InvalidArtifact, verify
    from temper.models.checks import check_model_dir

    folder = folder or Path(__file__).parent.parent / "assets"
    models = sorted(path.parent for path in folder.glob("*/config.json")) if folder.is_dir() else []
    there = {model.name for model in models}
    for name in [name for name in SHIPPED if name not in there]:
        fix = f"pip install --force-reinstall temper-rl, or make it: temper run {SHIPPED[name]}"
        yield Check(name, "fail", "missing from this installation", fix, Exit.ARTIFACT)
    for model in models:
        fix = "pip install --force-reinstall temper-rl"
        try:
            detail = f"{len(verify(model).files)} files as shipped" if (model / MANIFEST).exists() else "readable"
        except InvalidArtifact as problem:
            yield Check(model.name, "fail", str(problem), fix, Exit.ARTIFACT)
            continue
        faults = check_model_dir(model)
        broken = faults[0].what if faults else ""
        yield Check(model.name, "fail" if broken else "ok", broken or detail, fix if broken else "", Exit.ARTIFACT)


def check_rewards(names: list[str]) -> Iterator[Check]:
    from temper.commands.hacks import HACKS, run_hacks

    outcome = run_hacks(names)
    shown = " + ".join(names)
    if outcome.failing:
        fix = "a reward must return a finite number for any reply, also a broken one"
        yield Check("rewards", "warn", f"{', '.join(outcome.failing)} failed on some replies and counted as 0", fix)
    if outcome.honest <= 0:
        detail = f"{shown} gives {outcome.honest:g} to a right and well-formed reply"
        yield Check("rewards", "warn", detail, "reward what you want to see")
    elif outcome.rewarded:
        detail = f"{shown} rewards {len(outcome.rewarded)} of {len(HACKS)} hacks like an honest reply: "
        fix = "add `accuracy` and `format`, or make the reward tell these from an honest reply"
        yield Check("rewards", "warn", detail + "; ".join(outcome.rewarded), fix)
    else:
        yield Check("rewards", "ok", f"{shown} sees through all {len(HACKS)} hacks")


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> _numbers("2.13.0+cpu")
    (2, 13, 0)
    """
    found = []
    for part in version.split("+")[0].split("."):
        digits = "".join(c for c in part if c.isdigit()) if part[:1].isdigit() else ""
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)
