"""`temper export RUN[:stage] DIR`: a trained model as a Hugging Face directory of its own."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from temper.errors import tell

DTYPES = ("float32", "bfloat16", "float16")
OF_MODELS = re.compile(  # what --force may replace
    r".*\.(safetensors|safetensors\.index\.json|bin|bin\.index\.json|jinja)|[a-z_]*config\.json|README\.md|LICENSE.*"
    r"|Modelfile|(tokenizer|vocab|special_tokens_map|added_tokens|chat_template|training|reward[a-z_]*)\.json|merges\.txt|.*\.model"
)
OURS = ("manifest.json",)  # what an artifact holds beyond a Hugging Face directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN[:stage]", help="a run's last model or that of one stage, or any model")
    parser.add_argument("directory", metavar="DIR", help="where to write it: a new or empty directory")
    parser.add_argument("--dtype", choices=DTYPES, default=None, help="convert the weights (default: as trained)")
    parser.add_argument("--force", action="store_true", help="replace a model directory that is already there")
    parser.add_argument("--push", metavar="ORG/NAME", help="then send it to this repository of the Hub, private unless "
                        "--public is given (pip install \"temper-rl[hub]\")")  # fmt: skip
    parser.add_argument("--public", action="store_true", help="with --push: a new repository is open to everybody")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Write beside the target, then rename: there is never half a model under its name."""
    from temper.errors import Fault, ResourceError
    from temper.runs import resolve_model

    check_push(args.push, args.public)
    source = resolve_model(args.model)
    target = Path(os.path.abspath(args.directory))
    check_target(target, source, args.force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            write_model(source, made, args.dtype)
            complete_card(source, made)
            put_in_place(made, target)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as problem:
        raise ResourceError(Fault("the model cannot be written", where=str(target), why=str(problem))) from problem
    address = None
    if args.push is not None:
        from temper.hub.push import push

        address = push(target, args.push, private=not args.public)
    if args.json:
        files = sorted(file.name for file in target.iterdir())
        pushed = {"pushed": address} if address else {}
        print(json.dumps({"model": str(source), "directory": str(target), "files": files, **pushed}))
    else:
        print(target)
        tell(f'load it: {auto_class(target)}.from_pretrained("{target}")')
        if address:
            tell(f"sent to {address}")
    return 0


def check_push(name: str | None, public: bool) -> None:
    """Raise TemperError for what could not be sent, before anything is written."""
    from temper.errors import ConfigError, Fault
    from temper.hub.push import check_name

    if public and name is None:
        raise ConfigError(Fault("--public is about --push", fix="say where to, with --push ORG/NAME"))
    if name is not None:
        check_name(name)


def complete_card(source: Path, made: Path) -> None:
    """Put into the model card what the model's run knows of it, and how Ollama would be told of its template."""
    from temper.errors import TemperError
    from temper.models.scalar import stored_scope
    from temper.report.card import complete
    from temper.text.chat import ChatFormat
    from temper.text.ollama import modelfile

    file = made / "README.md"
    if file.is_file():
        file.write_text(complete(file.read_text(encoding="utf-8"), source), encoding="utf-8")
    try:
        chat = ChatFormat.load(made) if stored_scope(made) is None else None
    except TemperError:
        return
    text = modelfile(chat) if chat is not None and chat.is_chat else None
    if text is not None:
        (made / "Modelfile").write_text(text, encoding="utf-8")


def check_target(target: Path, source: Path, force: bool) -> None:
    """Raise ConfigError where writing to `target` would destroy something."""
    from temper.errors import ConfigError, Fault

    if target.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(target.resolve()):
        raise ConfigError(Fault("the model would be exported into itself", where=str(target), fix="another directory"))
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(Fault("the target is a file", where=str(target), fix="name a directory"))
    if not any(target.iterdir()):
        return
    if not force:
        fix = "a new directory, or --force to replace the model in it"
        raise ConfigError(Fault("the target directory is not empty", where=str(target), fix=fix))
    if not (target / "config.json").is_file():
        why = "it holds no model (no config.json), so --force does not replace it"
        raise ConfigError(Fault("the target directory is not empty", where=str(target), why=why, fix="a new directory"))
    others = sorted(path.name for path in target.iterdir() if path.is_dir() or not OF_MODELS.fullmatch(path.name))
    if others or target.is_symlink():
        why = f"it holds {', '.join(others[:5])} beside a model" if others else "it is a link"
        why += ", so --force does not replace it"
        raise ConfigError(Fault("the target directory is not empty", where=str(target), why=why, fix="a new directory"))


def write_model(source: Path, made: Path, dtype: str | None) -> None:
    """Copy a model directory file by file, or convert its weights."""
    from temper.models.checks import require_model_dir

    require_model_dir(source)
    if dtype is None:
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in OURS:
                shutil.copyfile(file, made / file.name)
        return
    from temper.models.load import load_model
    from temper.models.reward_card import is_reward_model, read_card
    from temper.models.save import save_model
    from temper.models.scalar import load_scalar, stored_scope
    from temper.text.chat import ChatFormat

    if (scope := stored_scope(source)) is not None:
        model = load_scalar(source, scope, dtype=dtype)  # type: ignore[arg-type]
    else:
        model = load_model(source, dtype=dtype, attention="sdpa")  # type: ignore[arg-type]
    card = {"stage": "export", "trained_from": "", "how": [f"weights converted to {dtype}"]}
    save_model(model, ChatFormat.load(source), made, card)
    if is_reward_model(source):
        read_card(source).write(made)


def auto_class(directory: Path) -> str:
    """The class of transformers that loads what was written."""
    from temper.models.scalar import HEADS, stored_scope

    scope = stored_scope(directory)
    return f"AutoModelFor{'CausalLM' if scope is None else HEADS[scope]}"


def put_in_place(made: Path, target: Path) -> None:
    """Rename `made` to `target`; what was there is removed last."""
    made.chmod(0o777 & ~_umask())
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        target.replace(old)
    made.replace(target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
