"""What is wrong with a model directory, found from its files alone: no torch, no transformers, bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.environment import machine_memory
from temper.errors import ArtifactError, Exit, Fault
from temper.modelfiles import MAX_TOKENIZER, read_json, read_json_if_there
from temper.models.safetensors import StoredTensor, non_finite, read_headers, stray_file, weight_files
from temper.text.templates import own_template, template_fault, vet
from temper.text.tokenizer import check_tokenizer_files, remote_code_fault

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SHOWN = 3  # tensors named one by one; the others are counted
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def require_model_dir(path: Path, values: bool = True) -> None:
    """Raise ArtifactError with everything that `check_model_dir` finds."""
    if faults := check_model_dir(path, values):
        raise ArtifactError(faults)


def check_model_dir(path: Path, values: bool = True) -> list[Fault]:
    """Every fault of a Hugging Face model directory that its files show; nothing in it is executed or unpickled.

    `values`: also read all weights once, a piece at a time, and name the tensors that hold NaN or infinity.

    >>> check_model_dir(Path("/no/such/model"))[0].what
    'the model directory does not exist'
    """
    path = Path(path)
    try:
        if not path.is_dir():
            what = "is a file, not a directory" if path.exists() else "does not exist"
            return _of_artifact([Fault(f"the model directory {what}", where=str(path))])
        faults = _check_config(path) + _check_weights(path, values) + _check_tokenizer(path)
    except (OSError, ValueError) as problem:  # no permission, a name with a NUL
        faults = [Fault("the model directory cannot be read", where=str(path), why=str(problem))]
    return _of_artifact(faults)


def _of_artifact(faults: list[Fault]) -> list[Fault]:
    """The faults with the exit code of their family, each once."""
    return list(dict.fromkeys(ArtifactError(faults).faults))


def _check_config(path: Path) -> list[Fault]:
    file = path / "config.json"
    if (path / "adapter_config.json").exists():
        return [_adapter_fault(path)]
    try:
        config = read_json(file)
    except ArtifactError as error:
        return list(error.faults)
    faults: list[Fault] = []
    try:
        read_json_if_there(path / "generation_config.json")
    except ArtifactError as error:
        faults += error.faults
    if "auto_map" in config:
        faults.append(remote_code_fault(file))
    if not isinstance(config.get("model_type"), str):
        faults.append(Fault("config.json has no `model_type`", where=str(file), why="the architecture is not known"))
    if config.get("quantization_config") is not None:
        why = "quantised weights cannot be trained here"
        fix = "use the model's full-precision weights (bfloat16, float16 or float32)"
        faults.append(Fault("config.json has a `quantization_config`", where=str(file), why=why, fix=fix))
    return faults


def _adapter_fault(path: Path) -> Fault:
    try:
        adapter = read_json(path / "adapter_config.json")
        base = f"`{adapter.get('base_model_name_or_path')}`"
        base += f" (revision {adapter['revision']})" if adapter.get("revision") else ""
    except ArtifactError:
        base = "another model"
    return Fault(
        "the directory holds an adapter, not a model",
        where=f"{path / 'adapter_config.json'}",
        why=f"its weights only mean something on top of its base, {base}",
        fix="merge it into its base first (peft: `merge_and_unload()`, then `save_pretrained`) and name that directory",
    )


def _check_weights(path: Path, values: bool) -> list[Fault]:
    if (path / "adapter_config.json").exists():
        return []
    try:
        files = weight_files(path)
        if len(files) == 1 and not files[0].exists() and not files[0].is_symlink():
            return [_no_weights(path)]
        if stray := stray_file(path):
            return [stray]
        tensors = read_headers(path)
    except ArtifactError as error:
        return list(error.faults)
    if too_large := _memory_fault(path, tensors):
        return [too_large]
    faults = _check_size(path, tensors)
    if values and (broken := list(non_finite(tensors))):
        rest = len(broken) - _SHOWN
        names = ", ".join(f"`{name}`" for name in broken[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
        faults.append(Fault(f"NaN or infinity in the weights: {names}", where=str(tensors[broken[0]].file)))
    return faults


def _memory_fault(path: Path, tensors: Mapping[str, StoredTensor]) -> Fault | None:
    total = sum(tensor.end - tensor.begin for tensor in tensors.values())
    memory = machine_memory()
    if total <= memory:
        return None
    what = f"the weights have {total / 2**30:,.1f} GB, this machine's memory {memory / 2**30:,.1f} GB"
    return Fault(what, where=str(path), fix="a smaller model, or a larger machine", code=Exit.RESOURCES)


def _no_weights(path: Path) -> Fault:
    pickled = sorted(file.name for pattern in PICKLED for file in path.glob(pattern))
    if pickled:
        return Fault(
            f"the weights are pickled (`{pickled[0]}`)",
            where=str(path),
            why="loading a pickle runs whatever code it contains",
            fix="convert them to safetensors where you trust them: AutoModelForCausalLM.from_pretrained(…)"
            ".save_pretrained(…)",
        )
    gguf = next(iter(sorted(path.glob("*.gguf"))), None)
    why = f"`{gguf.name}` is quantised for inference and cannot be trained" if gguf else ""
    return Fault("the weights are missing: there is no `model.safetensors`", where=str(path), why=why)


def _check_size(path: Path, tensors: Mapping[str, StoredTensor]) -> list[Fault]:
    """Counts in config.json that the files cannot hold: found before an architecture of that size is even described."""
    try:
        config = _text_settings(read_json_if_there(path / "config.json"))
    except ArtifactError:
        return []
    faults = []
    for name in _LAYER_COUNTS:
        count = config.get(name)
        if isinstance(count, int) and count > len(tensors):
            what = f"config.json asks for {count:,} layers, the weights have {len(tensors):,} tensors"
            faults.append(Fault(what, where=str(path / "config.json")))
    return faults


def _text_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _check_tokenizer(path: Path) -> list[Fault]:
    faults = check_tokenizer_files(path)
    try:
        template = own_template(path)
    except ArtifactError as error:
        return faults + [fault for fault in error.faults if fault not in faults]
    if faults:
        return faults
    special = _special_tokens(path)
    if template is not None and (refused := vet(template, special)):
        faults.append(template_fault(refused, str(path)))
    try:
        rows = _text_settings(read_json_if_there(path / "config.json")).get("vocab_size")
    except ArtifactError:
        return faults
    if isinstance(rows, int) and (path / "tokenizer.json").exists():
        faults += _check_vocabulary(path, rows)
    return faults


def _special_tokens(path: Path) -> dict[str, str]:
    settings = read_json_if_there(path / "tokenizer_config.json", MAX_TOKENIZER)
    found = {}
    for name, value in settings.items():
        token = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(token, str):
            found[name] = token
    return found


def _check_vocabulary(path: Path, rows: int) -> list[Fault]:
    """Token ids beyond the embedding. The one exception: tokens for images and sounds, which text never contains."""
    settings = read_json_if_there(path / "tokenizer_config.json", MAX_TOKENIZER)
    media = {token for name, token in _special_tokens(path).items() if name.startswith(("image", "audio", "video"))}
    extra = settings.get("extra_special_tokens")
    media |= {str(token) for token in extra.values()} if isinstance(extra, dict) else set()
    ids = token_ids(path)
    beyond = sorted((i, token) for token, i in ids.items() if i >= rows and token not in media)
    if not beyond:
        return []
    last, token = beyond[-1]
    what = f"the tokenizer has token ids up to {last:,} (`{token}`), the embedding only {rows:,} rows"
    fix = "use the tokenizer that belongs to these weights, or enlarge the embedding (`resize_token_embeddings`)"
    return [Fault(what, where=str(path / "tokenizer.json"), fix=fix)]


def token_ids(path: Path) -> dict[str, int]:
    """The ids of all tokens in the directory's tokenizer.json; nothing where there is none. Raises ArtifactError."""
    if not (path / "tokenizer.json").exists():
        return {}
    tokenizer = read_json(path / "tokenizer.json", MAX_TOKENIZER)
    model = tokenizer.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    ids: dict[str, int] = {}
    if isinstance(words, dict):
        ids.update((word, i) for word, i in words.items() if isinstance(i, int))
    elif isinstance(words, list):  # Unigram: the position is the id
        ids.update((str(entry[0]) if isinstance(entry, list) and entry else "", i) for i, entry in enumerate(words))
    for token in tokenizer.get("added_tokens") or []:
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            ids[str(token.get("content"))] = token["id"]
    return ids
