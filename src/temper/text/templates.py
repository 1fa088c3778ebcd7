"""Which chat template: one of ours by name, the user's file, the text itself, or the model directory's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.modelfiles import MAX_TOKENIZER, read_json_if_there, read_text
from temper.text.template import MAX_SOURCE, Refusal, TemplateRefused, compile_template, try_template

# R1-Zero's template (2501.12948, table 1), word for word. The space after `Assistant:` belongs to the reply: at the end
# of the prompt it would be a token of its own, which a base model has hardly seen before a word.
_R1 = (
    "{{ bos_token }}A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>."
    "{% for message in messages %}"
    "{% if message.role == 'user' %} User: {{ message.content }}. Assistant:"
    "{% elif message.role == 'assistant' %} {{ message.content }}{{ eos_token }}"
    "{% else %} {{ message.content }}{% endif %}{% endfor %}"
)
# The same request in one sentence, for models too small to read the whole (the recipe `tiny_zero`). No space before the
# reply: the tiny world's tokenizer joins a space to what stands before it.
R1_SHORT_PREAMBLE = (
    "The Assistant first thinks and then answers: <think> thinking here </think> <answer> answer here </answer>."
)
_R1_SHORT = (
    "{{ bos_token }}" + R1_SHORT_PREAMBLE + "{% for message in messages %}"
    "{% if message.role == 'user' %} User: {{ message.content }}. Assistant:"
    "{% elif message.role == 'assistant' %}{{ message.content }}{{ eos_token }}"
    "{% else %} {{ message.content }}{% endif %}{% endfor %}"
)
_PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\nAssistant:"
    "{% elif message.role == 'assistant' %} {{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
)
TEMPLATES: Mapping[str, str] = {"r1": _R1, "r1_short": _R1_SHORT, "plain": _PLAIN}
NO_TEMPLATE = "none"


def find_template(path: Path, chat_template: str | None) -> str | None:
    """The text of the template that `chat_template` means for the model in `path`; None for a model without one.

    >>> find_template(Path("anywhere"), "{{ messages[0].content }}")
    '{{ messages[0].content }}'

    Raises ConfigError where `chat_template` means nothing, ArtifactError where the directory's own cannot be read.
    """
    if chat_template is None:
        return own_template(path)
    if chat_template == NO_TEMPLATE:
        return None
    if chat_template in TEMPLATES:
        return TEMPLATES[chat_template]
    if "{{" in chat_template or "{%" in chat_template:
        return chat_template
    try:
        return read_text(Path(chat_template).expanduser(), MAX_SOURCE)
    except TemperError as error:
        raise ConfigError(
            Fault(
                f"no chat template `{chat_template}`",
                why=error.faults[0].what,
                fix=f"{', '.join(f'`{name}`' for name in TEMPLATES)}, a file, or the template itself",
            )
        ) from None


def own_template(path: Path) -> str | None:
    """The template that a model directory brings: `chat_template.jinja`, or the one in tokenizer_config.json."""
    file = path / "chat_template.jinja"
    if file.exists() or file.is_symlink():
        return read_text(file, MAX_SOURCE)
    template = read_json_if_there(path / "tokenizer_config.json", MAX_TOKENIZER).get("chat_template")
    if template is None:
        template = read_json_if_there(path / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several, each with a name
        named = {str(each.get("name")): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default", next(iter(named.values()), None))
    return template if isinstance(template, str) and template.strip() else None


def vet(template: str, special: Mapping[str, str]) -> Refusal | None:
    """What is wrong with a template, or None. One that is not ours is first tried in a process of its own."""
    if template in TEMPLATES.values():
        return None
    if refused := try_template(template, tuple(sorted(special.items()))):
        return refused
    try:
        compile_template(template)
    except TemplateRefused as refusal:
        return Refusal(str(refusal))
    return None


def template_fault(refused: Refusal, where: str) -> Fault:
    """The fault for what `vet` said."""
    return Fault(
        "the chat template cannot be right" if refused.misfit else "the chat template cannot be used",
        where=where,
        why=refused.why,
        code=Exit.CONFIG if refused.misfit else None,
        fix="mend the template, or set `chat_template` to `r1`, `r1_short`, `plain` or a file of your own",
    )


def missing_template_fault(where: str) -> Fault:
    """The fault for a model that is to talk and has no chat template."""
    return Fault(
        "the model has no chat template",
        where=where,
        why="without one there is no way to say where the question ends and the reply begins and ends",
        fix="set `chat_template` of a stage `import_model` to `r1` (R1-Zero's, for base models), `r1_short` (for tiny "
        "ones), `plain` or a file",
        code=Exit.CONFIG,
    )
