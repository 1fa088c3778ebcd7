"""Budget forcing (s1, 2501.19393, section 3.1): the same thoughts, cut after so many tokens or made to go on.

A thought that is longer than its budget ends there: `</think>` is written in its place, and the model draws the answer.
A thought that is to be extended does not end where it would: a word such as `Wait,` is written in the place of
`</think>`, and the model goes on from there. What a model gives at each length says what thinking is worth to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from temper.distributed.ranks import ranks
from temper.rng import seed_for
from temper.rollout.engine import Engine, Request, Sampling
from temper.rollout.scoring import Decoder
from temper.text.reply import CLOSE_THINK, OPEN_THINK
from temper.types import Completion, Group, Prompt, ReplyForm

Ids = tuple[int, ...]
CLOSINGS: Mapping[ReplyForm, str] = {"tags": "</think><answer>", "think": "</think>\n\n"}  # what a cut thought is given


class Writer(Decoder, Protocol):
    """What forcing needs of a chat format (`text/chat.py`)."""

    def ids_on(self, text: str) -> Ids: ...


@dataclass(frozen=True)
class Thought:
    """Where the thought of a completion lies: its first token, and how many there are; whether `</think>` follows."""

    start: int
    tokens: int
    closed: bool

    @property
    def end(self) -> int:
        return self.start + self.tokens


@dataclass(frozen=True)
class Forced:
    """The completions of all prompts after forcing, the samples of a prompt side by side, and which ones it changed."""

    completions: tuple[Completion, ...]
    changed: tuple[bool, ...]


@dataclass(frozen=True)
class Forcing:
    """Forces the thoughts of completions to `prompts`, `samples` to each, that were drawn with `sampling`: none gets
    longer than that allows. Draws are named by (`key`, prompt, sample)."""

    engine: Engine
    chat: Writer
    sampling: Sampling
    key: Sequence[int | str]
    groups: Sequence[Group]

    def cut(self, budget: int) -> Forced:
        """No thought longer than `budget` tokens; the others are as they were."""
        completions = [rollout.completion for group in self.groups for rollout in group.rollouts]
        closing = self.chat.ids_on(CLOSINGS[self.groups[0].prompt.reply])
        begun = {}
        for i, completion in enumerate(completions):
            thought = find_thought(self.chat, completion)
            if thought.tokens > budget:
                begun[i] = completion.token_ids[: thought.start + budget], closing
        return self._go_on(completions, begun, f"cut at {budget}")

    def extend(self, completions: Sequence[Completion], word: str, time: int) -> Forced:
        """Every thought that is closed goes on, from `word` in the place of `</think>`, for the `time`-th time: the
        completions are as the time before left them."""
        begun = {}
        for i, completion in enumerate(completions):
            thought = find_thought(self.chat, completion)
            if thought.closed:
                begun[i] = self._joined(completion.token_ids[: thought.end], word)
        return self._go_on(completions, begun, f"extended {time}")

    def _joined(self, head: Ids, word: str) -> tuple[Ids, Ids]:
        """What stays of `head`, and the rest with `word` after it: the last token is written anew together with the
        word, since a full stop and the space after it can be one token, which is what the model knows."""
        last = self.chat.decode(head[-1:])
        written = self.chat.ids_on(last + word)
        if last and self.chat.decode(written) == last + word:
            return head[:-1], written
        return head, self.chat.ids_on(word)

    def _go_on(self, completions: Sequence[Completion], begun: Mapping[int, tuple[Ids, Ids]], how: str) -> Forced:
        """The completions that are begun anew (what stays of each, what is written after it) drawn to their ends."""
        asked = [(group, sample) for group in self.groups for sample in range(len(group.rollouts))]

        def request(i: int) -> Request:
            (group, sample), drawn = asked[i], begun[i][0] + begun[i][1]
            left = max(0, self.sampling.max_tokens - len(drawn))
            return Request(group.prompt_ids, seed_for(*self.key, group.prompt.id, sample, how), drawn, left)

        def draw() -> list[Completion]:
            mine = ranks().share(list(begun))
            drawn = self.engine.generate([request(i) for i in mine], self.sampling) if mine else []
            return [whole(completions[i], *begun[i], tail) for i, tail in zip(mine, drawn, strict=True)]

        made = dict(zip(begun, ranks().together(draw), strict=True))
        return Forced(
            tuple(made.get(i, completion) for i, completion in enumerate(completions)),
            tuple(i in made for i in range(len(completions))),
        )


def whole(before: Completion, head: Ids, written: Ids, tail: Completion) -> Completion:
    """What stays of a completion, what was written after it, and what was drawn then; a written token was certain."""
    logprobs = before.sampler_logprobs[: len(head)] + (0.0,) * len(written) + tail.sampler_logprobs
    return replace(tail, token_ids=head + written + tail.token_ids, sampler_logprobs=logprobs)


def find_thought(chat: Decoder, completion: Completion) -> Thought:
    """The thought: what follows a leading `<think>`, or all from the start, up to the first `</think>` or the end."""
    ids = completion.token_ids
    text = chat.decode(ids)
    start, close = 0, text.find(CLOSE_THINK)
    if not chat.thinking_opened and text.lstrip().startswith(OPEN_THINK):
        start = _tokens_within(chat, ids, text.index(OPEN_THINK) + len(OPEN_THINK))
    end = len(ids) - (completion.finish_reason == "stop") if close < 0 else _tokens_within(chat, ids, close)
    return Thought(start, max(0, end - start), close >= 0)


def _tokens_within(chat: Decoder, ids: Sequence[int], characters: int) -> int:
    """How many of the first tokens have no more than so many characters."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(chat.decode(ids[:middle])) <= characters else (low, middle - 1)
    return low


def readable(prompts: Sequence[Prompt], budget: int) -> list[Prompt]:
    """The prompts with the form in which replies are read after a cut at `budget`: `tags` asks for a thought, so where
    nothing is left of it, what follows `</think>` is the answer, its tags taken off."""
    return [replace(prompt, reply="think") if budget == 0 else prompt for prompt in prompts]
