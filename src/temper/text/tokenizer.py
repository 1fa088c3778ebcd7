"""Text to token ids and back, exactly. Templates and masks are in `chat.py`.

Three encoders over one vocabulary: `encode` is the tokenizer as it is shipped; `encode_on` continues a text (no space
is put before the first word); `encode_plain` sees control tokens such as `<|im_end|>` as the letters they are made of.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.environment import remember_choice
from temper.errors import ArtifactError, Fault
from temper.modelfiles import MAX_TOKENIZER, file_fault, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

FILES = (  # all that a tokenizer directory may hold; what is trained carries the same files on, byte for byte
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
THINK = ("<think>", "</think>", "<answer>", "</answer>")  # a reply is made of these: never control tokens

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer directory in memory. `special` are its special tokens by role name, as templates ask for them."""

    backend: Backend
    special: Mapping[str, str]
    files: Mapping[str, bytes]

    def id_of(self, token: str | None) -> int | None:
        return None if token is None else self.backend.token_to_id(token)

    @property
    def eos_id(self) -> int | None:
        return self.id_of(self.special.get("eos_token"))

    @property
    def pad_id(self) -> int | None:
        return self.id_of(self.special.get("pad_token"))

    @cached_property
    def added(self) -> dict[str, int]:
        """Tokens that are found in a text before it is split into words, with their ids."""
        return {token.content: number for number, token in self.backend.get_added_tokens_decoder().items()}

    @cached_property
    def special_texts(self) -> frozenset[str]:
        tokens = self.backend.get_added_tokens_decoder().values()
        return frozenset(token.content for token in tokens if token.special)

    def encode(self, text: str) -> Ids:
        """The ids of a text that stands at the very start; nothing is added before or after it."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        return _encode(self.backend, texts)

    def encode_on(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of texts that continue another: `decode_on` gives back exactly the same text."""
        return _encode(self._continuing, texts)

    def decode_on(self, ids: Iterable[int]) -> str:
        """The text of ids that continue another text; control tokens are written out."""
        return self._continuing.decode(list(ids), skip_special_tokens=False)

    def encode_plain(self, text: str, control: frozenset[str]) -> Ids:
        """The ids of a text in which the tokens of `control` are letters like any others.

        Raises ArtifactError where this vocabulary cannot write one of them in letters.
        """
        # `<think>` may be declared special too, and stays what it is
        kept = sorted(self.special_texts - control, key=len, reverse=True)
        pieces = re.split("(" + "|".join(map(re.escape, kept)) + ")", text) if kept else [text]
        encoded = _encode(self._plain(control), pieces[::2])
        ids = list(encoded[0])
        for token, following in zip(pieces[1::2], encoded[1:], strict=True):
            ids += [self.added[token], *following]
        if written := {self.added[token] for token in control} & set(ids):
            token = self.backend.id_to_token(min(written))
            raise ArtifactError(
                Fault(
                    f"a message contains `{token}`, which this tokenizer can only read as a control token",
                    fix="take it out of the message",
                )
            )
        return tuple(ids)

    @cached_property
    def is_exact(self) -> bool:
        """Whether any text comes back as it went in (a tokenizer that lower-cases is not)."""
        return _comes_back(self._continuing)

    @cached_property
    def _continuing(self) -> Backend:
        if _comes_back(self.backend):
            return self.backend
        from tokenizers import Tokenizer as Backend

        continuing = Backend.from_str(json.dumps(_without_leading_space(json.loads(self.backend.to_str()))))
        return continuing if _comes_back(continuing) else self.backend

    @cached_property
    def _plain_backends(self) -> dict[frozenset[str], Backend]:
        return {}

    def _plain(self, control: frozenset[str]) -> Backend:
        if control not in self._plain_backends:
            from tokenizers import AddedToken
            from tokenizers import Tokenizer as Backend

            plain = Backend.from_str(self._continuing.to_str())
            # only tokens declared special can be read as letters; `<｜User｜>` of DeepSeek, for one, is not
            plain.add_special_tokens(
                [AddedToken(token, special=True, normalized=False) for token in sorted(control - self.special_texts)]
            )
            plain.encode_special_tokens = True
            self._plain_backends[control] = plain
        return self._plain_backends[control]


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a model directory, as plain `transformers` reads it. No code of the directory is run.

    Supported: `tokenizer.json`, or the older pair `vocab.json` + `merges.txt`.
    Raises ArtifactError: no such file, not JSON, remote code asked for, not readable by `transformers`.
    """
    if faults := check_tokenizer_files(path):
        raise ArtifactError(faults)
    quiet_transformers()
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        backend = loaded.backend_tokenizer
    except Exception as problem:  # the library raises many kinds on a broken directory; all mean the same to the user
        fault = Fault("the tokenizer does not load", where=str(path), why=one_line(problem))
        raise ArtifactError(fault) from problem
    backend.no_truncation()
    backend.no_padding()
    special = {name: str(token) for name, token in loaded.special_tokens_map.items() if isinstance(token, str)}
    files = {name: (path / name).read_bytes() for name in FILES if (path / name).is_file()}
    return Tokenizer(backend, special, files)


def check_tokenizer_files(path: Path) -> list[Fault]:
    """What keeps a tokenizer directory from being read, found without loading it."""
    faults: list[Fault] = []
    has = {name: (path / name).exists() or (path / name).is_symlink() for name in FILES}
    if not has["tokenizer.json"] and not (has["vocab.json"] and has["merges.txt"]):
        why, fix = "neither `tokenizer.json` nor the pair `vocab.json` + `merges.txt` is there", ""
        if has["tokenizer.model"]:
            why = "a sentencepiece file alone (`tokenizer.model`) is not supported"
            fix = "convert it where `sentencepiece` is installed: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        faults.append(Fault("the tokenizer is missing", where=str(path), why=why, fix=fix))
    for name in FILES:
        if not has[name]:
            continue
        if name.endswith(".json"):
            try:
                settings = read_json(path / name, MAX_TOKENIZER)
            except ArtifactError as error:
                faults += error.faults
                continue
            if "auto_map" in settings:
                faults.append(remote_code_fault(path / name))
        elif fault := file_fault(path / name, MAX_TOKENIZER):
            faults.append(fault)
    return faults


def remote_code_fault(file: Path) -> Fault:
    """The fault for a model directory that wants Python files of its own to be run."""
    return Fault(
        f"`{file.name}` asks for code of its own (`auto_map`)",
        where=str(file),
        why="temper never runs code that came with a model (`trust_remote_code` is off)",
        fix="if transformers knows this architecture by itself, remove the key `auto_map`",
    )


def write_tokenizer(path: Path, backend: Backend, eos_token: str, pad_token: str | None = None, **config: Any) -> None:
    """Write a tokenizer made with `tokenizers` as a directory that plain `transformers` reads.

    `config` goes into tokenizer_config.json (`bos_token="<s>"`, `model_max_length=512`). No bytes depend on the day.
    """
    path.mkdir(parents=True, exist_ok=True)
    backend.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": eos_token,
        "pad_token": pad_token or eos_token,
        **config,
    }
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (path / "tokenizer_config.json").write_text(text, encoding="utf-8")


def quiet_transformers() -> None:
    """Keep `transformers` off the network and off the screen. To be called before anything of it is imported."""
    remember_choice()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _encode(backend: Backend, texts: Sequence[str]) -> list[Ids]:
    encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [tuple(encoding.ids) for encoding in encodings]


def _comes_back(backend: Backend) -> bool:
    samples = ("a", " a", "\n A  b ")
    return all(backend.decode(ids, skip_special_tokens=False) == text for text, ids in _pairs(backend, samples))


def _pairs(backend: Backend, texts: Sequence[str]) -> list[tuple[str, list[int]]]:
    return [(text, backend.encode(text, add_special_tokens=False).ids) for text in texts]


def _without_leading_space(node: Any) -> Any:
    """A tokenizer.json whose words keep the space before them and get none that was not there."""
    if isinstance(node, list):
        return [_without_leading_space(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "Metaspace":
        return {**node, "prepend_scheme": "never"}
    if node.get("type") == "ByteLevel":
        return {**node, "add_prefix_space": False}
    return {key: _without_leading_space(value) if key != "model" else value for key, value in node.items()}


def one_line(problem: BaseException) -> str:
    """What an exception says, for a fault's `why`: one line, at most 300 characters."""
    text = re.sub(r"\s+", " ", f"{type(problem).__name__}: {problem}").strip()
    return text if len(text) <= 300 else text[:297] + "..."
