"""What a chat template settles without saying so: the end token, the assistant's heading, an opened `<think>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import ArtifactError, Fault
from temper.modelfiles import read_json_if_there
from temper.text.template import TemplateRefused, render
from temper.text.tokenizer import Tokenizer

_ASK, _REPLY = "Qxz7question", "Rxz7reply"  # words that no template contains


@dataclass(frozen=True)
class Detected:
    end_id: int
    eos_ids: tuple[int, ...]
    pad_id: int
    opening: str  # the start of the reply that the prompt writes itself (`<think>`), or ""
    lead: str  # the space that the template puts before a written reply and not at the end of the prompt, or ""
    header: str  # an assistant's heading that only a written reply has, or ""
    context_length: int | None
    warnings: tuple[Fault, ...]


def detect(path: Path, tokenizer: Tokenizer, template: str | None) -> Detected:
    """The ends and openings of a model directory under a template.

    The end token is the one that the template writes right after a reply, else the tokenizer's.
    Raises ArtifactError where there is none at all.
    """
    config = read_json_if_there(path / "config.json")
    written = None if template is None else _end_written(template, tokenizer)
    end_id = tokenizer.eos_id if written is None else written
    if end_id is None:
        why = "generation would never stop"
        fix = "set `eos_token` in tokenizer_config.json to one of its tokens"
        raise ArtifactError(Fault("the tokenizer names no end token", where=str(path), why=why, fix=fix))
    others = [tokenizer.eos_id, *_ids(read_json_if_there(path / "generation_config.json")), *_ids(config)]
    size = tokenizer.backend.get_vocab_size()
    eos_ids = tuple(dict.fromkeys(i for i in (end_id, *others) if i is not None and 0 <= i < size))
    pad_id = end_id if tokenizer.pad_id is None else tokenizer.pad_id
    opening, lead, header = ("", "", "") if template is None else _opening(template, tokenizer.special)
    return Detected(
        end_id=end_id,
        eos_ids=eos_ids,
        pad_id=pad_id,
        opening=opening,
        lead=lead,
        header=header,
        context_length=context_length(config),
        warnings=_warnings(str(path), tokenizer, template is not None and written is None, end_id, pad_id),
    )


def context_length(config: Mapping[str, Any]) -> int | None:
    """The positions that config.json declares, or None where it declares none."""
    text = config.get("text_config")
    settings = {**config, **(text if isinstance(text, dict) else {})}
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = settings.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _render(template: str, turns: Sequence[tuple[str, str]], opened: bool, special: Mapping[str, str]) -> str | None:
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        return render(template, messages, opened, special)
    except TemplateRefused:
        return None


def _end_written(template: str, tokenizer: Tokenizer) -> int | None:
    text = _render(template, [("user", _ASK), ("assistant", _REPLY)], False, tokenizer.special)
    if text is None or _REPLY not in text:
        return None
    after = text[text.rindex(_REPLY) + len(_REPLY) :].lstrip()
    # longest first: `<|end|>` is no end where the template writes `<|end|>_of_turn`
    for token in sorted(tokenizer.added, key=len, reverse=True):
        if token.strip() and after.startswith(token):
            return tokenizer.added[token]
    return None


def _opening(template: str, special: Mapping[str, str]) -> tuple[str, str, str]:
    """What stands between a prompt and the reply's own words: (opening, lead, header) of `Detected`."""
    asked = _render(template, [("user", _ASK)], True, special) or ""
    closed = _render(template, [("user", _ASK)], False, special)
    written = _render(template, [("user", _ASK), ("assistant", _REPLY)], False, special) or ""
    tail = asked[asked.rfind(_ASK) + len(_ASK) :]
    if tail.rstrip().endswith("<think>"):
        return tail[tail.rindex("<think>") :], "", ""
    if not written.startswith(asked) or _REPLY not in written:
        return "", "", ""
    between = written[len(asked) : written.index(_REPLY)]
    if between.isspace():
        return "", between, ""
    if asked == closed and "<think>" not in between:
        return "", "", between
    return "", "", ""


def _ids(config: Mapping[str, Any]) -> list[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool)]


def _warnings(where: str, tokenizer: Tokenizer, no_end: bool, end_id: int, pad_id: int) -> tuple[Fault, ...]:
    end = tokenizer.backend.id_to_token(end_id)
    found = []
    if pad_id == end_id:
        found.append(
            Fault(
                f"padding uses the end token `{end}`",
                where=where,
                why="masks are carried with the tokens, so the end token is trained all the same and generation stops",
            )
        )
    if no_end:
        found.append(
            Fault(
                "the chat template writes no token of the tokenizer right after a reply",
                where=where,
                why=f"`{end}` is trained after each reply instead, and ends generation",
            )
        )
    if not tokenizer.is_exact:
        found.append(
            Fault(
                "the tokenizer does not give back the text that went in",
                where=where,
                why="replies are compared after decoding, so white space or case may differ from the data",
            )
        )
    return tuple(found)
