"""A chat template as Ollama writes them: Go's templates, for a system prompt and one question."""

from __future__ import annotations

from temper.errors import DataError
from temper.text.chat import ChatFormat
from temper.types import Message

SYSTEM, QUESTION = "SYSTEM\u2063TEXT", "QUESTION\u2063TEXT"  # no template has the character in it


def modelfile(chat: ChatFormat, source: str = ".") -> str | None:
    """The Modelfile of a model in `source`; None where its template cannot be said so: one that changes what is asked,
    or whose letters mean something to Go."""
    template = go_template(chat)
    if template is None:
        return None
    ends = [chat.tokenizer.backend.id_to_token(i) for i in chat.eos_ids]
    stops = "".join(f'PARAMETER stop "{end}"\n' for end in ends if end and '"' not in end)
    return f'FROM {source}\nTEMPLATE """{template}"""\n{stops}'


def go_template(chat: ChatFormat) -> str | None:
    """What the template writes around a system prompt and a question."""
    alone = _written(chat, (Message("user", QUESTION),))
    both = _written(chat, (Message("system", SYSTEM), Message("user", QUESTION)))
    if alone is None:
        return None
    if both is None:  # it takes no system prompt
        return alone.replace(QUESTION, "{{ .Prompt }}")
    head, _, tail = both.partition(SYSTEM)
    start, _, end = alone.partition(QUESTION)
    middle, _, after = tail.partition(QUESTION)
    if after != end or QUESTION in head:
        return None
    asked = "{{ .Prompt }}" + end
    if middle.endswith(start):  # the system prompt stands before an ordinary question
        of_system = head + "{{ .System }}" + middle.removesuffix(start)
        return "{{ if .System }}" + of_system + "{{ end }}" + start + asked
    return "{{ if .System }}" + head + "{{ .System }}" + middle + "{{ else }}" + start + "{{ end }}" + asked


def _written(chat: ChatFormat, messages: tuple[Message, ...]) -> str | None:
    try:
        text = chat.prompt_text(messages)
    except DataError:
        return None
    once = all(text.count(message.content) == 1 for message in messages)
    return text if once and "{{" not in text and '"""' not in text else None
