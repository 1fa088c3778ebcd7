"""A trained model to a Hugging Face directory that plain transformers loads: same logits, and generation that stops."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.errors import ArtifactError
from temper.masking import mask
from temper.modelfiles import read_json_if_there
from temper.text.chat import ChatFormat
from temper.text.tokenizer import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HISTORY = "training.json"  # how a model came to be: one entry a stage, oldest first
RANDOM_WEIGHTS = "random weights"  # what a new model was trained from


def save_model(model: PreTrainedModel, chat: ChatFormat, out: Path, card: Mapping[str, Any]) -> None:
    """Write `model` with the tokenizer and template of `chat` to the directory `out`.

    `card` says how it was made: {"stage": "cold_start", "trained_from": "@base", "how": ["2 epochs on …"]}; what the
    directory it was loaded from says of itself comes before. The same weights give the same bytes, weights keep their
    dtype, and the end token that was trained ends generation.
    """
    quiet_transformers()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    _write_config(model, chat, out)
    _write_tokenizer(chat, out)
    history = [*read_history(Path(model.name_or_path or out)), _entry(card)]
    _write_json(out / HISTORY, {"history": history})
    (out / "README.md").write_text(mask(_readme(model, chat, history)), encoding="utf-8")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The stages that made the model in `path`, oldest first; [] where it says nothing about itself."""
    try:
        history = read_json_if_there(path / HISTORY).get("history")
    except ArtifactError:
        return []
    return [_entry(entry) for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []


def _entry(card: Mapping[str, Any]) -> dict[str, Any]:
    how = card.get("how")
    lines = [how] if isinstance(how, str) else [str(line) for line in how] if isinstance(how, Sequence) else []
    entry = {"stage": str(card.get("stage", "")), "trained_from": str(card.get("trained_from", "")), "how": lines}
    return {**entry, "licence": str(card["licence"])} if card.get("licence") else entry


def licence_in(path: Path) -> str:
    """The licence that the model card of a directory names; "" where it names none.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "README.md").write_text("---\\nlicense: apache-2.0\\n---\\n# Mine")
    >>> licence_in(folder)
    'apache-2.0'
    """
    try:
        text = (path / "README.md").read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return ""
    head = re.match(r"\A---\s*\n(.*?)\n---", text, re.DOTALL)
    fields = dict(re.findall(r"^(license|license_name):[ \t]*[\"']?([\w.+-]+)", head[1], re.MULTILINE)) if head else {}
    named = fields.get("license", "")
    return fields.get("license_name", named) if named == "other" else "" if named == "unknown" else named


def _write_config(model: PreTrainedModel, chat: ChatFormat, out: Path) -> None:
    from transformers import GenerationConfig

    ends = list(chat.eos_ids) if len(chat.eos_ids) > 1 else chat.end_id
    bos = chat.tokenizer.id_of(chat.tokenizer.special.get("bos_token"))
    config = copy.deepcopy(model.config)
    config.eos_token_id, config.pad_token_id = ends, chat.pad_id
    config.save_pretrained(out)
    # Only the ends: sampling settings that belonged to the model before training say nothing about this one
    generation = GenerationConfig(eos_token_id=ends, pad_token_id=chat.pad_id, bos_token_id=bos)
    generation.save_pretrained(out)


def _write_tokenizer(chat: ChatFormat, out: Path) -> None:
    """The tokenizer's files as they were read, byte for byte, but for the template and tokens that were not named."""
    for name, content in chat.tokenizer.files.items():
        (out / name).write_bytes(content)
    settings = json.loads(chat.tokenizer.files.get("tokenizer_config.json", b"{}").decode("utf-8-sig"))
    settings.pop("chat_template", None)
    if chat.tokenizer.eos_id is None:
        settings["eos_token"] = chat.tokenizer.backend.id_to_token(chat.end_id)
    if chat.tokenizer.pad_id is None:
        settings["pad_token"] = chat.tokenizer.backend.id_to_token(chat.pad_id)
    _write_json(out / "tokenizer_config.json", settings)
    if chat.template is not None:
        (out / "chat_template.jinja").write_text(chat.template, encoding="utf-8")


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _readme(model: PreTrainedModel, chat: ChatFormat, history: Sequence[Mapping[str, Any]]) -> str:
    backend = chat.tokenizer.backend
    ends = ", ".join(f"`{backend.id_to_token(i)}`" for i in chat.eos_ids)
    stages = "\n".join(_stage_lines(entry) for entry in history)
    kind = type(model).__name__.partition("For")[2]
    tag, what, use = _USES.get(kind, _USES["CausalLM"])
    if chat.is_chat:
        opened = " The prompt ends with `<think>`: a reply starts inside its thinking." if chat.thinking_opened else ""
        talk = f"Ask it through its chat template (`chat_template.jinja`).{opened}"
        ask = 'prompt = tokenizer.apply_chat_template([{"role": "user", "content": "…"}], add_generation_prompt=True,\n'
        ask += "                                       tokenize=False)"
    else:
        talk = "It continues text; it has no chat template."
        ask = 'prompt = "…"'
    end = backend.id_to_token(chat.end_id)
    licence, terms = _terms(history)
    return f"""---
library_name: transformers
pipeline_tag: {tag}
license: {licence or "unknown"}
tags: [temper, reasoning]
---

# {history[-1]["stage"] or "model"}

{what} ({model.config.model_type}, {sum(p.numel() for p in model.parameters()):,} parameters,
{str(model.dtype).removeprefix("torch.")}), trained with temper.

## How it was made

{stages}

## How to use it

{talk} Generation stops at {ends}; padding is `{backend.id_to_token(chat.pad_id)}`.

```python
from transformers import AutoModelFor{kind}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelFor{kind}.from_pretrained(".")
{ask}
{use.format(end=end)}
```

## Licence

{terms}
"""


# By the head: the hub's tag, what it is, and how it is asked with `prompt` at hand.
_INPUTS = 'inputs = tokenizer({text}, add_special_tokens=False, return_tensors="pt")'
_USES = {
    "CausalLM": (
        "text-generation",
        "A causal language model",
        _INPUTS.replace("{text}", "prompt")
        + "\nprint(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))",
    ),
    "SequenceClassification": (
        "text-classification",
        "A reward model: one number for a reply to a prompt",
        _INPUTS.replace("{text}", 'prompt + "the reply" + "{end}"') + "\nprint(float(model(**inputs).logits[0, 0]))",
    ),
    "TokenClassification": (
        "token-classification",
        "A process reward model: the log-odds that a step is right, at the step's last token",
        _INPUTS.replace("{text}", 'prompt + "the reply" + "{end}"') + "\nprint(model(**inputs).logits[0, :, 0])",
    ),
}


def _terms(history: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(the licence, "" where none is known; what the card says of it)."""
    licensed = next((entry for entry in history if entry.get("licence")), None)
    if licensed is None:
        return "", "Not stated: the terms of the model it was trained from and of the data it was trained on apply."
    is_new = licensed is history[-1] and licensed["trained_from"] == RANDOM_WEIGHTS
    which = "This model" if is_new else "The model it was trained from"
    name = licensed["licence"]
    return name, f"{which} is under `{name}`; the terms of its training data apply as well."


def _stage_lines(entry: Mapping[str, Any]) -> str:
    start = f" from `{entry['trained_from']}`" if entry["trained_from"] else ""
    return "\n".join([f"1. **{entry['stage'] or 'stage'}**{start}", *(f"   - {line}" for line in entry["how"])])
