"""The vocabulary of temper. Every value is complete when it is made and never changes: each step makes a new type.

Prompt --sample--> Completion --parse--> Reply --score--> Rollout; the rollouts of one prompt are a Group.
Conversations and groups become Examples; Examples become gradients (see `train/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from temper.aside import Columns

AnswerType = Literal["math", "text"]
FinishReason = Literal["stop", "length"]
# How a reply says what its answer is: `<think>…</think><answer>…</answer>`; all that follows the one `</think>`; all
ReplyForm = Literal["tags", "think", "plain"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: `Message("user", "What is 2+2?")`."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """A question, with its right answer where it has one.

    >>> question = (Message("user", "Make 24 of 3, 8 and 1."),)
    >>> prompt = Prompt(id="countdown:7", task="countdown", messages=question, gold="24", row={"nums": [3, 8, 1]})
    >>> prompt.gold, prompt.row["nums"]
    ('24', [3, 8, 1])
    """

    id: str  # unique in its task and stable: random draws are keyed by it
    task: str
    messages: tuple[Message, ...]
    # the verified final form of the right answer, found at load; its text as it stands where no reward holds replies
    # against it, None for an open prompt
    gold: str | None
    answer_type: AnswerType = "math"  # how `accuracy` compares: exact values, or normalised text
    language: str = "en"  # the language the thinking should be in
    # the row it was read from, every column as plain JSON values, for rewards that ask for more than the gold answer
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    reply: ReplyForm = "tags"  # the form in which its replies are read
    # how many of its file's rows could be verified, where not all ("410 of 500 rows"): shown beside every score
    coverage: str = field(default="", compare=False, repr=False)
    place: str = field(default="", compare=False, repr=False)  # where it stands: file and line

    def __post_init__(self) -> None:
        object.__setattr__(self, "row", self.row if isinstance(self.row, Columns) else Columns(self.row))

    @property
    def text(self) -> str:
        """The last user turn; empty where there is none."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True)
class Completion:
    """What the engine drew for one prompt: token ids and the log-prob of each at the temperature it was drawn with.

    `finish_reason` is "stop" if the last token is an end token or completes a stop string, else "length".
    `policy_version` counts the updates that the weights had seen.
    """

    token_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_version: int = 0


@dataclass(frozen=True)
class Reply:
    """A completion's text, parsed once (`text/reply.py`): `thinking` and `answer` are None where the form is broken.

    `well_formed` holds when the text is of its form and nothing else: for `tags`, exactly `<think>…</think>` then
    `<answer>…</answer>`, both with content, with nothing but white space around them.
    """

    text: str
    thinking: str | None
    answer: str | None
    well_formed: bool
    form: ReplyForm = "tags"

    @property
    def reasoning(self) -> str | None:
        """Where the work stands that leads to the answer: the thinking; of a plain reply, all of it."""
        return self.text if self.form == "plain" else self.thinking


@dataclass(frozen=True)
class Step:
    """A part of a reply that is judged by itself (`text/steps.py`): characters `start` to `end` of `Reply.text`.

    The steps of a reply follow each other without a gap and cover its text; `is_answer` marks the one, always the last,
    that holds the final answer.
    """

    start: int
    end: int
    is_answer: bool = False

    def text_of(self, reply: Reply) -> str:
        return reply.text[self.start : self.end]


@dataclass(frozen=True)
class Rollout:
    """A scored completion: each reward by name beside the weighted total."""

    prompt: Prompt
    completion: Completion
    reply: Reply
    rewards: Mapping[str, float]
    total: float
    grader_failures: tuple[str, ...] = ()  # names of rewards that failed and were counted as 0
    inapplicable: tuple[str, ...] = ()  # names of rewards that said None: they are no part of the total


@dataclass(frozen=True)
class Group:
    """All rollouts of one prompt."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

    def example(self, rollout: Rollout) -> Example:
        """The prompt and one of its completions as a training row, the completion's tokens its targets."""
        ids = rollout.completion.token_ids
        return Example(self.prompt_ids + ids, (False,) * len(self.prompt_ids) + (True,) * len(ids))


@dataclass(frozen=True)
class Example:
    """One training row. `mask[i]` says that token i is a target (the end token included): carried, never derived.

    Rows whose tokens before their first target are equal can share that prefix in one forward pass.
    """

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]

    @cached_property
    def prefix_length(self) -> int:
        """Tokens before the first target."""
        return self.mask.index(True) if True in self.mask else len(self.mask)

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        return self.token_ids[: self.prefix_length]

    @cached_property
    def target_runs(self) -> tuple[tuple[int, int], ...]:
        """The first token of each run of targets, and how many they are.

        >>> Example((7, 8, 9, 7, 8), (False, True, True, False, True)).target_runs
        ((1, 2), (4, 1))
        """
        left = len(self.mask) - self.prefix_length
        if self.mask.count(True) == left:
            return ((self.prefix_length, left),) if left else ()
        places = [list(run) for is_target, run in groupby(range(len(self.mask)), self.mask.__getitem__) if is_target]
        return tuple((run[0], len(run)) for run in places)


@dataclass(frozen=True)
class PolicyExample(Example):
    """An `Example` with what policy gradients need: advantages and log-probs one a target token, in order; what each
    of its tokens weighs in the step's sum (`algorithms/aggregation.py`); and its KL coefficient in the loss."""

    advantages: tuple[float, ...]
    sampler_logprobs: tuple[float, ...]
    weight: float
    kl_penalty: float = 0.0
    copies: int = 1  # completions that it stands for
