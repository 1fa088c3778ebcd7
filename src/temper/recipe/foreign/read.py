"""A config file of another tool as a flat list of settings: YAML, JSON, or the command in a shell script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Fault
from temper.recipe.document import MOST_BYTES, Items, Node, Scalar, Table, decode, plain, read_document, read_scalar

TOOLS = {"trl": "TRL or Open-R1", "verl": "verl", "openrlhf": "OpenRLHF"}
_MARKS = {
    "verl": "actor_rollout_ref algorithm trainer critic custom_reward_function",
    "openrlhf": "pretrain prompt_data actor_learning_rate critic_learning_rate remote_rm_url reward_pretrain "
    "n_samples_per_prompt rollout_batch_size micro_train_batch_size micro_rollout_batch_size init_kl_coef zero_stage "
    "generate_max_len prompt_max_len max_len input_key advantage_estimator save_path ckpt_path actor_num_nodes",
    "trl": "model_name_or_path dataset_name dataset_config dataset_mixture per_device_train_batch_size reward_funcs "
    "gradient_accumulation_steps num_train_epochs max_prompt_length max_completion_length num_generations output_dir "
    "logging_steps push_to_hub hub_model_id attn_implementation torch_dtype use_vllm bf16 learning_rate report_to "
    "save_strategy lr_scheduler_type max_seq_length max_length packing beta epsilon warmup_ratio log_level",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One key of a config, dotted where it is nested, and where it stands."""

    key: str
    value: Any
    where: str


def tool_of(keys: Iterable[str]) -> str | None:
    """Whose config has these keys; None where that cannot be told.

    >>> tool_of(["model_name_or_path", "dataset_name", "beta"]), tool_of(["actor_rollout_ref.model.path"])
    ('trl', 'verl')
    >>> tool_of(["seed"])
    """
    keys = list(keys)
    names = {key.partition(".")[0] for key in keys}
    if "stages" in names:
        return None
    if "actor_rollout_ref" in names or "model.partial_pretrain" in keys:
        return "verl"
    found = {tool: len(names & set(marks.split())) for tool, marks in _MARKS.items()}
    best = max(found, key=lambda tool: found[tool])
    return best if found[best] >= 2 else None


def read_settings(path: Path) -> tuple[str, list[Setting]]:
    """The tool and the settings of a file. Raises ConfigError: not readable, no settings, of no tool that is known."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise ConfigError(Fault(f"cannot read `{path}`: {error.strerror}", str(path))) from None
    if size > MOST_BYTES:
        raise ConfigError(Fault(f"`{path}` is too large for a config", str(path), f"it has {size:,} bytes"))
    text = decode(data, str(path))
    if path.suffix in (".yaml", ".yml", ".json"):
        settings = list(_of_document(read_document(text, str(path))))
    else:
        settings = list(_of_command(text, str(path)))
    if not settings:
        fix = "name a YAML or JSON file, or a shell script with the command in it"
        raise ConfigError(Fault(f"`{path}` has no settings", str(path), fix=fix))
    tool = tool_of(setting.key for setting in settings)
    if any(setting.key == "stages" or setting.key.startswith("stages.") for setting in settings):
        raise ConfigError(Fault(f"`{path}` is a recipe already", str(path), fix=f"`temper plan {path}`"))
    if tool is None:
        why = f"read are configs of {', '.join(TOOLS.values())}, known by their keys"
        raise ConfigError(Fault(f"`{path}` is no config of a tool that is known", str(path), why))
    return tool, settings


def _of_document(node: Node, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    if isinstance(node, Table) and (node.entries or not path):
        for key, entry in node.entries.items():
            yield from _of_document(entry.node, (*path, key))
    elif isinstance(node, (Scalar, Items, Table)):
        yield Setting(".".join(path), plain(node), str(node.place))


_ASSIGNED = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)$")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_HYDRA = re.compile(r"\+{0,2}([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


def _of_command(text: str, source: str) -> Iterator[Setting]:
    """The options of the commands in a script: `--key value`, `--key=value`, `key.key=value`."""
    known: dict[str, str] = {"HOME": "~", "PWD": "."}
    for number, line in _lines(text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigError(Fault(f"not a shell script: {error}", f"{source}:{number}")) from None
        match = _ASSIGNED.match(line)
        if match and len(words) <= 2:
            known[match[1]] = _expanded(words[-1].partition("=")[2], known)
            continue
        yield from _of_words([_expanded(word, known) for word in words], f"{source}:{number}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that `\\` continues joined, each with the number of its first."""
    start, parts = 1, []
    for number, line in enumerate(text.splitlines(), 1):
        if not parts:
            start = number
        if line.lstrip().startswith("#"):
            continue
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            yield start, " ".join(parts)
            parts = []
    if parts:
        yield start, " ".join(parts)


def _expanded(word: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda m: known.get(m[1] or m[3], m[2] if m[2] is not None else m[0]), word)


def _of_words(words: list[str], where: str) -> Iterator[Setting]:
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            values = [value] if equals else []
            while not equals and at < len(words) and not words[at].startswith("--") and not _HYDRA.fullmatch(words[at]):
                values.append(words[at])
                at += 1
            read = [_value(value) for value in values]
            yield Setting(key.replace("-", "_"), True if not read else read[0] if len(read) == 1 else read, where)
        elif (match := _HYDRA.fullmatch(word)) and "." in match[1]:
            yield Setting(match[1], _value(match[2]), where)


def _value(text: str) -> Any:
    """What a word of a command means: `[a,b]` is a list, `True` a boolean."""
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip().strip("'\"")) for part in text[1:-1].split(",") if part.strip()]
    try:
        return read_scalar(text)
    except ValueError:
        return text
