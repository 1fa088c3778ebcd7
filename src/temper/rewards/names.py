"""What rewards are called in Open-R1 and TRL, and which of ours they are: taken where they mean the same, refused with
the reason where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from temper.errors import Fault


@dataclass(frozen=True)
class Elsewhere:
    """A reward of another tool: `ours` means the same but for what `note` says; without `ours`, `note` says why none
    does and `fix` what comes nearest."""

    ours: str = ""
    note: str = ""
    fix: str = ""


_ACCURACY = Elsewhere("accuracy", "1 if the answer is the gold one, else 0; golds are verified before anything runs")
_FORMAT = Elsewhere("format", "the whole reply has the form that the task's `reply` names; line breaks are free")
_THINK = Elsewhere("format", "the form is the task's `reply`: `reply: think` is what TRL's asks for")
_COSINE = Elsewhere(
    "cosine_length",
    "wrong −1 (short) to −0.5 (long), as that function has it; Open-R1's recipes set 0 to −0.5 where nobody says. The "
    "length is in words, not characters or tokens, and from 1,000 on it is −1",
)
_REPETITION = Elsewhere("repetition_penalty", "3-grams, −1 at most")
_CODE = Elsewhere("code", "1 if all tests pass, else 0; Open-R1's `code` is `code_score: share`, the share of them")
_BINARY = Elsewhere("code", "1 if all tests pass, else 0")
_OVERLONG = Elsewhere(
    note="it counts tokens, so here it is an option of the stage and no reward by name",
    fix="`overlong_cache: TOKENS` beside `max_completion_length`",
)
_SHORT = Elsewhere(
    note="it compares the lengths within a group and pays right replies for being short; ours, `length`, pays any for "
    "being long",
    fix="`cosine_length`: short right replies earn more; or `length` with a negative weight",
)
_JUDGED = Elsewhere(note="its tests and its grader are a service of their own", fix="`code` runs tests that rows bring")
_CODE_FORMAT = Elsewhere(note="ours look at the form of the reply, not at its fences", fix="`format`")

ELSEWHERE: dict[str, Elsewhere] = {
    "accuracy_reward": _ACCURACY,
    "reasoning_accuracy_reward": _ACCURACY,
    "format_reward": _FORMAT,
    "think_format_reward": _THINK,
    "tag_count_reward": Elsewhere("tag_count", "¼ a tag; line breaks beside the tags are free"),
    "reasoning_steps_reward": Elsewhere("reasoning_steps", "steps of the thinking alone, 3 earn all"),
    "language_consistency_reward": Elsewhere("language_consistency", "the share of the thinking in the row's language"),
    "cosine": _COSINE,
    "cosine_scaled": _COSINE,
    "cosine_scaled_reward": _COSINE,
    "get_cosine_scaled_reward": _COSINE,
    "repetition_penalty_reward": _REPETITION,
    "get_repetition_penalty_reward": _REPETITION,
    "code_reward": _CODE,
    "binary_code": _BINARY,
    "binary_code_reward": _BINARY,
    "len": _SHORT,
    "len_reward": _SHORT,
    "length_reward": _SHORT,
    "soft_overlong_punishment": _OVERLONG,
    "soft_overlong_punishment_reward": _OVERLONG,
    "get_soft_overlong_punishment": _OVERLONG,
    "ioi_code": _JUDGED,
    "ioi_code_reward": _JUDGED,
    "cf_code": _JUDGED,
    "cf_code_reward": _JUDGED,
    "code_format": _CODE_FORMAT,
    "code_format_reward": _CODE_FORMAT,
    "get_code_format_reward": _CODE_FORMAT,
}


def elsewhere(name: str) -> Elsewhere | None:
    """The reward that another tool calls so; None for ours and for what nobody knows.

    >>> elsewhere("accuracy_reward").ours, elsewhere("trl.rewards.think_format_reward").ours, elsewhere("accuracy")
    ('accuracy', 'format', None)
    """
    if "/" in name or ".py" in name or ":" in name or len(name) > 100:  # a file, an address, a run
        return None
    return ELSEWHERE.get(name.strip().replace("-", "_").rpartition(".")[2].casefold())


def our_name(name: str) -> str:
    """The name of our reward that means the same; the name itself where there is none.

    >>> our_name("cosine_scaled_reward"), our_name("len_reward"), our_name("format")
    ('cosine_length', 'len_reward', 'format')
    """
    found = elsewhere(name)
    return found.ours or name if found else name


def our_names(names: Iterable[str], tell: Callable[[str], object]) -> list[str]:
    """The names with those of other tools replaced by ours; `tell` hears what each means here."""
    names = list(names)
    for name in dict.fromkeys(names):
        if our_name(name) != name:
            tell(what_it_means(name))
    return [our_name(name) for name in names]


def what_it_means(name: str) -> str:
    """What a name that is taken means here.

    >>> what_it_means("repetition_penalty_reward")
    'the reward `repetition_penalty_reward` is called `repetition_penalty` here: 3-grams, −1 at most'
    """
    found = elsewhere(name)
    return f"the reward `{name}` is called `{found.ours}` here: {found.note}" if found and found.ours else ""


def refusal(name: str) -> Fault | None:
    """Why a reward of another tool has no counterpart here."""
    found = elsewhere(name)
    if found is None or found.ours:
        return None
    return Fault(f"there is no reward `{name}` here", why=found.note, fix=f"nearest: {found.fix}")
