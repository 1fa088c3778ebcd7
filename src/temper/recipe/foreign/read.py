"""A config file of another tool as a flat list of settings: YAML, JSON, or the command in a shell script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Fault
from temper.recipe.document import MOST_BYTES, Items, Node, Scalar, Table, decode, plain, read_document, read_scalar
from temper.recipe.foreign.shell import Word, read_commands
from temper.recipe.foreign.tables import KEYS

TOOLS = {"trl": "TRL or Open-R1", "verl": "verl", "openrlhf": "OpenRLHF"}
_MARKS = {
    "verl": "actor_rollout_ref algorithm trainer critic custom_reward_function optim engine data.train_files "
    "model.path",
    "openrlhf": "ds ckpt rollout algo vllm adam train data.prompt_dataset data.dataset actor.model_name_or_path "
    "model.model_name_or_path pretrain prompt_data actor_learning_rate critic_learning_rate remote_rm_url "
    "reward_pretrain n_samples_per_prompt rollout_batch_size micro_train_batch_size micro_rollout_batch_size "
    "init_kl_coef zero_stage "
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
    names |= set(keys)
    found = {tool: len(names & set(marks.split())) for tool, marks in _MARKS.items()}
    best = max(found, key=lambda tool: found[tool])
    return best if found[best] >= 2 else None


def read_settings(path: Path) -> tuple[str, list[Setting]]:
    """The tool and the settings of a file, in order; of a key that stands there twice the last counts.

    Raises ConfigError: not readable, no settings, of no tool that is known.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise ConfigError(Fault(f"cannot read `{path}`: {error.strerror}", str(path))) from None
    if size > MOST_BYTES:
        raise ConfigError(Fault(f"`{path}` is too large for a config", str(path), f"it has {size:,} bytes"))
    text = decode(data, str(path))
    if path.suffix in (".yaml", ".yml", ".json"):
        again: list[tuple[str, Node]] = []
        document = read_document(text, str(path), repeated=again)
        settings = [Setting(key, plain(node), str(node.place)) for key, node in again] + list(_of_document(document))
    else:
        settings = _of_script(text, str(path))
        settings = _with_config(settings, path)
    if not settings:
        fix = "name a YAML or JSON file, or a shell script with the command in it"
        raise ConfigError(Fault(f"`{path}` has no settings", str(path), fix=fix))
    tool = tool_of(setting.key for setting in settings)
    scripts = [str(setting.value) for setting in settings if "\n" in str(setting.value)]
    if tool is None and scripts:  # a job of a launcher, with the command in it
        settings = _of_script("\n".join(scripts), str(path))
        tool = tool_of(setting.key for setting in settings)
    if any(setting.key == "stages" or setting.key.startswith("stages.") for setting in settings):
        raise ConfigError(Fault(f"`{path}` is a recipe already", str(path), fix=f"`temper plan {path}`"))
    if tool is None and (named := _config(settings)):
        fix = f"`temper import-config {named}`, or the script from the folder where that file is found"
        raise ConfigError(Fault(f"`{path}` reads its settings from another file", str(path), fix=fix))
    if tool is None:
        why = f"read are configs of {', '.join(TOOLS.values())}, known by their keys"
        raise ConfigError(Fault(f"`{path}` is no config of a tool that is known", str(path), why))
    return tool, settings


def _config(settings: Sequence[Setting]) -> str:
    """The file that a command reads its settings from; "" where it names none."""
    named = [setting.value for setting in settings if setting.key == "config" and isinstance(setting.value, str)]
    return named[-1] if named and named[-1].endswith((".yaml", ".yml", ".json")) else ""


def _with_config(settings: list[Setting], script: Path) -> list[Setting]:
    """The settings of the file that a command names with `--config`, if it is here, and then the command's own."""
    named = _config(settings)
    found = [folder / named for folder in (Path(), *script.resolve().parents) if named and (folder / named).is_file()]
    return [*read_settings(found[0])[1], *(one for one in settings if one.key != "config")] if found else settings


def _of_document(node: Node, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    if isinstance(node, Table) and (node.entries or not path):
        for key, entry in node.entries.items():
            yield from _of_document(entry.node, (*path, key))
    elif isinstance(node, (Scalar, Items, Table)):
        yield Setting(".".join(path), plain(node), str(node.place))


_HYDRA = re.compile(r"\+{0,2}([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


def _of_script(text: str, source: str) -> list[Setting]:
    """The options of a script's command: `--key value`, `--key=value`, `key.key=value`. Of several commands that
    train, the one that says most."""
    best: tuple[int, list[Setting]] = (0, [])
    everything: list[Setting] = []
    for command in read_commands(text, source):
        settings = list(_of_words(command, source))
        everything += settings
        tool = tool_of(setting.key for setting in settings)
        known = sum(setting.key in KEYS[tool] for setting in settings) if tool else 0
        if known and known >= best[0]:
            best = (known, settings)
    return best[1] or everything


def _of_words(words: Sequence[Word], source: str) -> Iterator[Setting]:
    at = 0
    while at < len(words):
        word, where = words[at].text, f"{source}:{words[at].line}"
        at += 1
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            values = [value] if equals else []
            while not equals and at < len(words) and not _ends_values(words[at].text, values):
                values.append(words[at].text)
                at += 1
            read = [_value(value) for value in values]
            yield Setting(key.replace("-", "_"), True if not read else read[0] if len(read) == 1 else read, where)
        elif (match := _HYDRA.fullmatch(word)) and match[1].lower() == match[1]:
            yield Setting(match[1], _value(match[2]), where)


def _ends_values(word: str, values: Sequence[str]) -> bool:
    """Whether a word is no more value of the option before it."""
    return bool(word.startswith("--") or _HYDRA.fullmatch(word) or re.match("-[A-Za-z]", word)
                or (values and word.endswith(".py")))  # fmt: skip


def _value(text: str) -> Any:
    """What a word of a command means: `[a,b]` is a list, `True` a boolean."""
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip().strip("'\"")) for part in text[1:-1].split(",") if part.strip()]
    try:
        return read_scalar(text)
    except ValueError:
        return text
