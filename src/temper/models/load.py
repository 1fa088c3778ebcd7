"""A Hugging Face model directory to a causal language model in memory, with every weight accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from temper.errors import ArtifactError, Exit, Fault
from temper.kernels.attention import NAME, register
from temper.kernels.packing import share_prefixes
from temper.modelfiles import read_json
from temper.models.causal import looks_ahead
from temper.models.checks import check_model_dir
from temper.models.safetensors import read_headers
from temper.models.spare import find_spare
from temper.text.tokenizer import one_line, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
HeadName = Literal["CausalLM", "SequenceClassification", "TokenClassification"]  # transformers' AutoModelFor…

_SHOWN = 3  # tensors named one by one; the others are counted


def load_model(
    path: Path,
    dtype: Dtype = "float32",
    device: str = "cpu",
    attention: str = NAME,
    warn: Callable[[str], None] | None = None,
) -> PreTrainedModel:
    """The model in `path`, in evaluation mode. `dtype` "auto" keeps the stored one.

    `attention` "temper" is called through temper's packed forward only; "sdpa" (or "eager") is for plain calls. A model
    that cannot be packed keeps its own attention (`supports_shared_prefix` tells), and `warn` is told so, and of rows
    of its head that are no token (`models/spare.py`). Raises ArtifactError: broken files, an architecture that
    transformers does not know as a causal language model, tensors missing or of another shape than config.json says,
    NaN or infinity, a model that looks at the tokens to come.
    """
    model, _ = read_model(Path(path), "CausalLM", dtype, attention)
    if (told := find_spare(model, Path(path))) and warn is not None:
        warn(told)
    if attention == NAME and not share_prefixes(model):
        _check_causal(model, Path(path))
        if warn is not None:
            warn(slow_way(model))
    return model.to(device).eval()  # type: ignore[arg-type]


def read_model(path: Path, head: HeadName, dtype: Dtype, attention: str = NAME) -> tuple[Any, bool]:
    """The model in `path` under `head`, checked, and whether its head is new: not in the files, drawn at random.

    Raises ArtifactError for what `load_model` does, and for a head that transformers has not for the architecture.
    """
    if faults := check_model_dir(path, values=False):
        raise ArtifactError(faults)
    quiet_transformers()
    register()
    import transformers

    auto = getattr(transformers, f"AutoModelFor{head}")
    config = _read_config(path, head)
    if head == "CausalLM" and any(name.endswith("Classification") for name in config.architectures or ()):
        what = f"`{config.architectures[0]}` scores text and cannot write any"
        raise ArtifactError(Fault(what, where=str(path), fix="name a language model; a reward model is a reward"))
    if head != "CausalLM":
        config.num_labels = 1
    blank = _blank_model(path, config, auto)
    _check_shapes(path, blank)
    try:
        loaded: Any = auto.from_pretrained(
            str(path),
            config=config,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            attn_implementation="eager" if attention == "eager" else None,  # None is the best it has
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as problem:  # the library raises many kinds; to the user they all mean: this directory is broken
        fault = Fault("the model does not load", where=str(path), why=one_line(problem))
        raise ArtifactError(fault) from problem
    model, info = loaded
    missing = sorted(info["missing_keys"])
    inside = [name for name in missing if head == "CausalLM" or name.startswith(f"{model.base_model_prefix}.")]
    if inside:
        raise ArtifactError(_named("tensors that config.json asks for are missing", path, inside))
    if surplus := _more_of_the_same(info["unexpected_keys"], blank):
        raise ArtifactError(_named("config.json asks for fewer layers than the weights have", path, surplus))
    check_finite(model, str(path))
    return model, bool(missing)


def architecture_faults(path: Path) -> list[Fault]:
    """What keeps a directory whose files are sound from being loaded as a causal language model: an architecture that
    is none, tensors missing or of another shape than config.json says. No weight is read."""
    try:
        blank = blank_model(path)
        _check_shapes(path, blank)
    except ArtifactError as error:
        return list(error.faults)
    stored = {_bare(name) for name in read_headers(path)}
    asked = [name for name, _ in blank.named_parameters()]
    absent = [name for name in asked if _bare(name) not in stored]
    if 2 * len(absent) > len(asked):  # older names of some tensors are no other architecture
        what = "the weights are those of another architecture than config.json names: it asks for"
        return [replace(_named(what, path, absent), code=Exit.ARTIFACT)]
    return []


def blank_model(path: Path) -> PreTrainedModel:
    """The language model in a directory without its weights, for its layers' names and shapes. Raises ArtifactError."""
    quiet_transformers()
    import transformers

    return _blank_model(path, _read_config(path, "CausalLM"), transformers.AutoModelForCausalLM)


def _bare(name: str) -> str:
    """A tensor's name without what an architecture calls the whole: `model.`, `transformer.`."""
    return re.sub(r"^(model|transformer|base_model|gpt_neox|backbone)\.", "", name)


def slow_way(model: Any) -> str:
    """What to warn of where a model does not fit temper's attention."""
    return f"`{model.config.model_type}` does not fit temper's attention: it is sampled and trained the slow way"


def supports_shared_prefix(model: Any) -> bool:
    """Whether the model was loaded for temper's packed forward (a prompt computed once for its whole group)."""
    return model.config._attn_implementation == NAME


def _check_causal(model: Any, path: Path) -> None:
    fix = "a model whose every token depends on the tokens before it alone"
    try:
        ahead = looks_ahead(model)
    except Exception as problem:  # whatever an architecture asks for besides tokens, it is asked for in vain
        what = f"`{model.config.model_type}` does not go on from a text alone"
        raise ArtifactError(Fault(what, where=str(path), why=one_line(problem), fix=fix)) from problem
    if ahead:
        why = "what it says of a token depends on the tokens that follow"
        raise ArtifactError(Fault(f"`{model.config.model_type}` cannot be sampled", where=str(path), why=why, fix=fix))


def check_finite(model: torch.nn.Module, where: str) -> None:
    """Raise ArtifactError naming the tensors of `model` that hold NaN or infinity."""
    broken = [name for name, tensor in model.state_dict().items() if not _is_finite(tensor)]
    if broken:
        raise ArtifactError(_named("NaN or infinity in the weights", Path(where), broken))


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor.detach())  # one pass and no copy; NaN spreads to both
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _read_config(path: Path, head: HeadName) -> Any:
    from transformers import AutoConfig, __version__
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = read_json(path / "config.json").get("model_type")
    if kind not in CONFIG_MAPPING:
        what = f"transformers {__version__} does not know the architecture `{kind}`"
        fix = "if it is a new one, install a newer transformers"
        raise ArtifactError(Fault(what, where=f"{path / 'config.json'}", fix=fix))
    try:
        config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        known = type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
        headed = type(config) in getattr(modeling_auto, f"MODEL_FOR_{_MAPPINGS[head]}_MAPPING")
    except Exception as problem:
        raise _no_model(path, problem) from problem
    if not known:
        why = "only models that predict the next token can be sampled and trained here"
        what = f"`{config.model_type}` is not a causal language model of transformers"
        raise ArtifactError(Fault(what, where=f"{path / 'config.json'}", why=why))
    if not headed:
        what = f"transformers has no `{head}` head for `{config.model_type}`"
        raise ArtifactError(Fault(what, where=f"{path / 'config.json'}", fix="another architecture"))
    return config


_MAPPINGS: dict[HeadName, str] = {
    "CausalLM": "CAUSAL_LM",
    "SequenceClassification": "SEQUENCE_CLASSIFICATION",
    "TokenClassification": "TOKEN_CLASSIFICATION",
}


def _no_model(path: Path, problem: Exception) -> ArtifactError:
    """What transformers could not make a model of. What the machine lacks, such as a temporary directory, is raised as
    it is: the model is not at fault."""
    if isinstance(problem, OSError) and problem.errno is not None and problem.filename is None:
        raise problem
    what, why = "config.json does not describe a model", f"transformers says {one_line(problem)}"
    return ArtifactError(Fault(what, where=f"{path / 'config.json'}", why=why))


def _blank_model(path: Path, config: Any, auto: Any) -> PreTrainedModel:
    """The architecture without storage: what config.json asks for costs nothing until the files are seen to hold it."""
    try:
        with torch.device("meta"):
            return auto.from_config(config, attn_implementation="eager")
    except Exception as problem:
        raise _no_model(path, problem) from problem


def _check_shapes(path: Path, blank: PreTrainedModel) -> None:
    stored = read_headers(path)
    expected = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
    wrong = [
        f"`{name}` ({list(stored[name].shape)} in the file, {list(shape)} by config.json)"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    if wrong:
        raise ArtifactError(_named("tensors of another shape than config.json says", path, wrong))
    # Where a checkpoint names its tensors in an older way, the names cannot be compared but the sizes can: a config
    # must not make us allocate what the files do not hold.
    needed = sum(parameter.numel() for parameter in blank.parameters())
    held = sum(tensor.count for tensor in stored.values())
    if needed > 2 * held:
        absent = [name for name in expected if name not in stored]
        raise ArtifactError(_named("tensors that config.json asks for are missing", path, absent))


def _more_of_the_same(names: set[str], blank: PreTrainedModel) -> list[str]:
    """Stored tensors named as those of a layer, of layers that the architecture does not have: a model cut short."""
    layers = {re.sub(r"\d+", "0", name) for name, _ in blank.named_parameters()}
    return sorted(name for name in names if re.sub(r"\d+", "0", name) in layers)


def _named(what: str, path: Path, names: Iterable[str]) -> Fault:
    shown = [name if name.startswith("`") else f"`{name}`" for name in names]
    more = f" and {len(shown) - _SHOWN:,} more" if len(shown) > _SHOWN else ""
    return Fault(f"{what}: {', '.join(shown[:_SHOWN])}{more}", where=str(path))
