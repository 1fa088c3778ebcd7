"""Conversations to token ids with a mask, and sampled ids back to text: the one place where templates are applied.

What is trained is what will be sampled: the prompt's tokens (the template up to where the assistant speaks), then the
reply's own tokens, then the end token. The template's rendering of the reply itself is never trained, because
templates change it (they trim it, drop its thinking, or put an empty thinking before it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

from temper.errors import ArtifactError, ConfigError, DataError, Fault
from temper.text.detect import Detected, detect
from temper.text.template import TemplateRefused, render
from temper.text.templates import TEMPLATES, find_template, missing_template_fault, template_fault, vet
from temper.text.tokenizer import THINK, Ids, Tokenizer, load_tokenizer
from temper.types import Example, Message

__all__ = ["TEMPLATES", "ChatFormat"]

# Around the letters of a control token in somebody's message, from before the template is applied until it is encoded
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_SHOWN = 3  # faults shown one by one; the others are counted

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class _Piece:
    """A stretch of a conversation that is encoded in one go; `text` None is the end token."""

    text: str | None
    continues: bool = True
    trained: bool = False


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer and a chat template, with what they settle about ends and openings."""

    tokenizer: Tokenizer
    template: str | None
    detected: Detected

    @classmethod
    def load(cls, path: Path, chat_template: str | None = None) -> ChatFormat:
        """The chat format of a model directory, with its own template or `chat_template` (a name of TEMPLATES, a file,
        or the template itself; "none" for no template).

        Raises ArtifactError for a tokenizer or template of the directory that cannot be used, ConfigError for
        a `chat_template` that cannot.
        """
        path = Path(path)
        tokenizer = load_tokenizer(path)
        template = find_template(path, chat_template)
        if template is not None and (refused := vet(template, tokenizer.special)):
            error = ArtifactError if chat_template is None and not refused.misfit else ConfigError
            raise error(template_fault(refused, str(path if chat_template is None else chat_template)))
        return cls(tokenizer, template, detect(path, tokenizer, template))

    @property
    def is_chat(self) -> bool:
        """Whether there is a template: without one only plain text can be encoded (`tokenizer.encode`)."""
        return self.template is not None

    @property
    def end_id(self) -> int:
        """The token that is trained to end a reply."""
        return self.detected.end_id

    @property
    def eos_ids(self) -> Ids:
        """All tokens that end a reply when sampled; the trained one first."""
        return self.detected.eos_ids

    @property
    def pad_id(self) -> int:
        return self.detected.pad_id

    @property
    def context_length(self) -> int | None:
        """The tokens that the model has positions for, where it says so."""
        return self.detected.context_length

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What is worth knowing and stops nothing, for the log of a stage that uses this format."""
        return self.detected.warnings

    @property
    def thinking_opened(self) -> bool:
        """Whether the prompt itself ends with `<think>`, so that a sampled reply starts inside the thinking."""
        return bool(self.detected.opening)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """A conversation as the template writes it, up to where the assistant speaks. Raises DataError where the
        template refuses it."""
        return self._opened(messages).replace(_OPEN, "").replace(_CLOSE, "")

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """The ids of a conversation up to where the assistant speaks.

        Raises DataError: the template refuses it, nothing to answer, longer than the model's context.
        """
        return self.prompts_ids([messages])[0]

    def prompts_ids(self, conversations: Sequence[Sequence[Message]], room: int = 0) -> list[Ids]:
        """`prompt_ids` of many, thousands a second. `room`: tokens that must be left in the context for the reply.

        Raises DataError with a fault for the conversations that cannot be used.
        """
        rows = _each([self._spoken(messages) for messages in conversations], self._prompt_pieces)
        prompts = [tuple(chain.from_iterable(ids)) for ids in self._encode(rows)]
        self._check_lengths([len(prompt) for prompt in prompts], room)
        return prompts

    def conversation_example(self, messages: Sequence[Message]) -> Example:
        """One training row: every assistant token is a target, each turn's end token included, and nothing else.

        Raises DataError; also where the template rewrites earlier turns (Qwen 3 and R1 drop their thinking), so that
        no single row shows every turn as it will be sampled: `conversation_examples` makes one row a turn then.
        """
        examples = self.conversation_examples([messages])
        if len(examples) > 1:
            raise DataError(
                Fault(
                    "the chat template rewrites earlier assistant turns, so this conversation is not one example",
                    why="a turn would be trained in a context that is never sampled",
                    fix="one conversation an assistant turn, or a template that keeps earlier turns as they are",
                )
            )
        return examples[0]

    def conversation_examples(self, conversations: Sequence[Sequence[Message]]) -> list[Example]:
        """Training rows of many conversations, in order: one each where the template keeps earlier turns as they are,
        else one for each assistant turn, in exactly the context in which it will be sampled.

        Raises DataError with a fault for the conversations that cannot be used.
        """
        spoken = [self._spoken(messages) for messages in conversations]
        rows = list(chain.from_iterable(_each(spoken, self._conversation_rows)))
        examples = [
            Example(
                token_ids=tuple(chain.from_iterable(ids)),
                mask=tuple(piece.trained for piece, numbers in zip(row, ids, strict=True) for _ in numbers),
            )
            for row, ids in zip(rows, self._encode(rows), strict=True)
        ]
        self._check_lengths([len(example.token_ids) for example in examples], 0)
        return examples

    def replies_ids(
        self, conversations: Sequence[Sequence[Message]], replies: Sequence[Sequence[str]]
    ) -> list[tuple[Ids, list[Ids]]]:
        """The ids of each prompt, and of the pieces of a reply to it, each piece encoded by itself: where a piece ends,
        a token ends. Where the prompt opens the thinking, a reply that does not start there gets an empty one.

        Raises DataError with a fault for the rows that cannot be used.
        """
        written = [[*pieces[:-1], self.without_end(pieces[-1])] for pieces in replies]
        spoken = [self._spoken(messages) for messages in conversations]
        rows = _each(list(zip(spoken, written, strict=True)), lambda row: self._reply_pieces(*row))
        lengths, made = [], []
        for row, ids in zip(rows, self._encode(rows), strict=True):
            first = next(i for i, piece in enumerate(row) if piece.trained)
            made.append((tuple(chain.from_iterable(ids[:first])), ids[first:]))
            lengths.append(sum(map(len, ids)))
        self._check_lengths(lengths, 1)
        return made

    def ids_on(self, text: str) -> Ids:
        """The ids of a text that goes on a reply; tags and control tokens in it are the tokens themselves."""
        return self.tokenizer.encode_on([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a sampled reply, end and padding tokens dropped. Where the prompt opened the thinking the text
        starts inside it: `parse_reply(text, chat.thinking_opened)`."""
        dropped = {*self.eos_ids, self.pad_id}
        return self.tokenizer.decode_on([i for i in ids if i not in dropped]).removeprefix(self.detected.lead)

    def without_end(self, reply: str) -> str:
        """A written reply without the letters of an end token at its end, as notebooks of other trainers have them:
        they mean the token, which follows every reply anyway. Elsewhere they stay letters."""
        left = reply.rstrip()
        while end := next((text for text in self._end_texts if left.endswith(text)), None):
            reply = left.removesuffix(end)
            left = reply.rstrip()
        return reply

    def ends_written(self, conversations: Iterable[Sequence[Message]]) -> str | None:
        """What is to be told of replies that hold the letters of an end token; None where none does."""
        ended = inside = 0
        for message in chain.from_iterable(conversations):
            if message.role == "assistant":
                reply = self.without_end(message.content)
                ended += reply != message.content
                inside += any(text in reply for text in self._end_texts)
        told = []
        if ended:
            told.append(f"{ended:,} replies end with the letters of an end token, which are taken for the token itself")
        if inside:
            told.append(f"{inside:,} replies hold them further in, where they stay letters")
        return "; ".join(told) + f" ({', '.join(self._end_texts)})" if told else None

    # ---- conversations as pieces ----------------------------------------------------------------------------------

    def _prompt_pieces(self, messages: Sequence[Message]) -> list[_Piece]:
        """The prompt, cut around those earlier turns of the assistant that stand in it exactly as they were sampled:
        they are encoded as they were sampled, so that a longer conversation starts with the ids of a shorter one."""
        if not messages or messages[-1].role == "assistant":
            raise DataError(Fault("the assistant has nothing to answer", fix="put a `user` turn before its turn"))
        text = self._opened(messages)
        pieces: list[_Piece] = []
        position = 0
        for turn, message in enumerate(messages):
            if message.role != "assistant" or turn == 0:
                continue
            before, reply = self._opened(messages[:turn]), self._reply(message.content, strict=False)
            if reply is None or len(before) < position or not text.startswith(before + reply + self.end_text):
                continue
            pieces += [_Piece(text[position : len(before)], position > 0), _Piece(reply, trained=True)]
            pieces.append(_Piece(None, trained=True))
            position = len(before + reply + self.end_text)
        return [*pieces, _Piece(text[position:], position > 0)]

    def _reply_pieces(self, messages: Sequence[Message], pieces: Sequence[str]) -> list[_Piece]:
        start, *more = pieces
        if self.thinking_opened and not start.lstrip().startswith(THINK[0]):
            start = f"{THINK[0]}{THINK[1]}{start}"
        context = [replace(piece, trained=False) for piece in self._prompt_pieces(messages)]
        reply = [self._reply(start), *map(self._marked, more)]
        return [*context, *(_Piece(text, trained=True) for text in reply)]

    def _conversation_rows(self, messages: Sequence[Message]) -> list[list[_Piece]]:
        turns = [turn for turn, message in enumerate(messages) if message.role == "assistant"]
        if not turns:
            raise DataError(Fault("a conversation without an assistant turn", why="nothing in it can be learned"))
        rows = []
        for turn in reversed(turns):
            context = self._prompt_pieces(messages[:turn])
            spoken = [_Piece(self._reply(messages[turn].content), trained=True), _Piece(None, trained=True)]
            if turn == turns[-1] and sum(piece.text is None for piece in context) == len(turns) - 1:
                return [[*context, *spoken]]
            rows.append([*(replace(piece, trained=False) for piece in context), *spoken])
        return rows[::-1]

    def _opened(self, messages: Sequence[Message]) -> str:
        if self.template is None:
            raise ConfigError(missing_template_fault(""))
        turns = [{"role": message.role, "content": self._marked(message.content)} for message in messages]
        try:
            return render(self.template, turns, True, self.tokenizer.special) + self.detected.header
        except TemplateRefused as refusal:
            fix = "leave out `system_prompt`" if messages[0].role == "system" else ""
            raise DataError(Fault("the chat template refuses this conversation", why=str(refusal), fix=fix)) from None

    def _reply(self, content: str, strict: bool = True) -> str | None:
        """A reply as it follows the prompt, without what that already said of it (not `strict`: None where it does not
        start so)."""
        text, opening = self.detected.lead + self._marked(content), self.detected.opening
        if text.startswith(opening):
            return text[len(opening) :]
        if (stripped := text.lstrip()).startswith(opening.strip()):
            return stripped[len(opening.strip()) :]
        if not strict:
            return None
        raise DataError(
            Fault(
                f"a reply that does not start with `{opening.strip()}`",
                why=f"this chat template ends the prompt with `{opening.strip()}`: the reply would be read as thinking",
                fix="start it with its thinking (`<think></think>` for none), or set another `chat_template`",
            )
        )

    # ---- control tokens in messages: letters, never control --------------------------------------------------------

    @cached_property
    def _control(self) -> frozenset[str]:
        """Tokens that only the template may write: all special ones, and those it contains (DeepSeek's turns)."""
        special, template = self.tokenizer.special_texts, self.template or ""
        return frozenset(
            token
            for token in self.tokenizer.added
            if (token in special or token in template) and token.strip() and token not in THINK
        )

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        tokens = sorted(self._control, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    def _spoken(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with replies as they were meant (`without_end`)."""
        return [replace(m, content=self.without_end(m.content)) if m.role == "assistant" else m for m in messages]

    @cached_property
    def _end_texts(self) -> tuple[str, ...]:
        texts = (self.tokenizer.backend.id_to_token(i) for i in self.eos_ids)
        return tuple(text for text in texts if text and text.strip())

    @cached_property
    def end_text(self) -> str:
        """The end token as it is written."""
        return self.tokenizer.backend.id_to_token(self.end_id) or ""

    def _marked(self, content: str) -> str:
        if _OPEN in content or _CLOSE in content:
            raise DataError(Fault("a message contains the private character U+F0000 or U+F0001", fix="take it out"))
        return self._control_pattern.sub(lambda found: _OPEN + found.group() + _CLOSE, content)

    def _encode(self, rows: Sequence[Sequence[_Piece]]) -> list[list[Ids]]:
        """The ids of each piece. All that is alike is encoded once, and in two calls that use every core."""
        first: dict[str, Ids] = {}
        on: dict[str, Ids] = {}
        for piece in chain.from_iterable(rows):
            if piece.text is not None:
                (on if piece.continues else first)[piece.text] = ()
        for known, encode in ((first, self.tokenizer.encode_many), (on, self.tokenizer.encode_on)):
            clean = [text for text in known if _OPEN not in text]
            known.update(zip(clean, encode(clean), strict=True))
        for known, continues in ((first, False), (on, True)):
            known.update({text: self._encode_marked(text, continues) for text in known if _OPEN in text})
        end = (self.end_id,)
        return [[end if p.text is None else (on if p.continues else first)[p.text] for p in row] for row in rows]

    def _encode_marked(self, text: str, continues: bool) -> Ids:
        """The ids of a text with marked letters: between true control tokens, a section that has some is encoded with
        every control token as letters, any other as always."""
        pieces = re.split(f"({_OPEN}.*?{_CLOSE}|{self._control_pattern.pattern})", text, flags=re.DOTALL)
        ids: list[int] = []
        section, marked = "", False
        for piece in [*pieces, None]:
            if piece is None or piece in self._control:
                if marked:
                    ids += self.tokenizer.encode_plain(section, self._control)
                elif section:
                    started = continues or bool(ids)
                    ids += self.tokenizer.encode_on([section])[0] if started else self.tokenizer.encode(section)
                ids += [] if piece is None else [self.tokenizer.added[piece]]
                section, marked = "", False
            else:
                marked = marked or piece.startswith(_OPEN)
                section += piece.replace(_OPEN, "").replace(_CLOSE, "")
        return tuple(ids)

    def _check_lengths(self, lengths: Sequence[int], room: int) -> None:
        limit = self.context_length
        too_long = [(i, length) for i, length in enumerate(lengths) if limit is not None and length + room > limit]
        if not too_long:
            return
        reply = f" and {room:,} for the reply" if room else ""
        faults = [
            Fault(f"{length:,} tokens{reply} do not fit the model's context of {limit:,}", where=_row(i, lengths))
            for i, length in too_long
        ]
        raise DataError(_first(faults))


def _each(rows: Sequence[R], convert: Callable[[R], T]) -> list[T]:
    """`convert` of each; the faults of all are raised together."""
    converted, faults = [], []
    for i, row in enumerate(rows):
        try:
            converted.append(convert(row))
        except DataError as error:
            faults += [replace(fault, where=_row(i, rows)) for fault in error.faults]
    if faults:
        raise DataError(_first(faults))
    return converted


def _row(i: int, rows: Sequence[object]) -> str:
    return f"row {i + 1}" if len(rows) > 1 else ""


def _first(faults: Sequence[Fault]) -> list[Fault]:
    rest = len(faults) - _SHOWN
    return [*faults[:_SHOWN], *([Fault(f"… and {rest:,} more rows")] if rest > 0 else [])]
