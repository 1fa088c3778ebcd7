"""What a config may say: the strict base of every config class, references between stages, and what a task is.

Reading recipes, and telling what is wrong with them, is in `recipe/recipe.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from temper.benchmarks import benchmark_keys
from temper.types import ReplyForm

ReferenceKind = Literal["model", "data", "task", "reward"]


class StrictModel(BaseModel):
    """Frozen, no unknown keys, nothing converted: an int is accepted for a float, and that is all.

    Booleans are not integers; nan and inf are refused unless a field allows them.

    >>> class Config(StrictModel):
    ...     learning_rate: float = 1e-4
    >>> Config(learning_rate=1).learning_rate
    1.0
    >>> Config(learning_rate=True)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ValidationError: Input should be a valid number
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Reference:
    """Marks a string of a config that names something else: a model, a data file, a task or a reward."""

    kind: ReferenceKind
    or_reward_model: bool = False  # of a model: one that scores replies will do too


# "@stage" is what that stage made, "@stage/file.jsonl" a file of it; else a path (from the recipe's folder, then from
# the current one) or, for a model, the name of a shipped one.
ModelRef = Annotated[str, Reference("model")]
AnyModelRef = Annotated[str, Reference("model", or_reward_model=True)]
DataRef = Annotated[str, Reference("data")]
# A key of the recipe's `tasks`.
TaskName = Annotated[str, Reference("task")]
# The name of a reward; "path/to/file.py:function"; "@stage" for the reward model that a stage made, or the path of its
# directory. What is named outside temper is part of the stage's fingerprint.
RewardName = Annotated[str, Reference("reward")]


def _holding(*fields: str) -> Callable[[str], str]:
    def check(template: str) -> str:
        missing = [field for field in fields if field not in template]
        if missing:
            raise ValueError(f"the template must hold {' and '.join(missing)}")
        return template

    return check


PromptTemplate = Annotated[str, AfterValidator(_holding("{question}"))]
ChoiceTemplate = Annotated[str, AfterValidator(_holding("{question}", "{options}"))]


class TaskConfig(StrictModel):
    """Prompts with gold answers, and how a reply to them is judged.

    >>> TaskConfig(train="train.jsonl", columns={"prompt": "question"}).answer
    'math'
    """

    train: DataRef | None = None
    test: DataRef | None = None
    gym: Annotated[str, Field(min_length=1)] | None = None  # in place of files: a set of reasoning-gym …
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 1000  # … of so many prompts; a tenth of another seed to test on
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    config: dict[str, Any] = {}  # the set's own settings
    answer: Literal["math", "text"] = "math"  # exact values, or normalised text
    language: str = "en"  # the language the thinking should be in
    system_prompt: str | None = None
    reply: ReplyForm = "tags"  # how a reply says its answer: <answer> tags, after `</think>`, or all of it (`plain`)
    columns: dict[str, str] = {}  # our name of a column, or a path with dots below one -> the file's
    unverifiable: Literal["error", "drop"] = "error"  # a row whose gold answer no reply could be held against
    prompt_template: PromptTemplate | None = None  # how an open question is put, such as "{question} Use a box."
    choice_template: ChoiceTemplate | None = None  # how a question is put with its options (data/choices.py)
    description: str = ""
    benchmark: str | None = None  # one of benchmarks.py, or `gsm8k=my.jsonl`: it sets the keys that are not written

    @model_validator(mode="after")
    def _files_or_gym(self) -> TaskConfig:
        if self.gym is not None and (self.train or self.test):
            raise ValueError("a task is of files (`train`, `test`) or of a set (`gym`), not of both")
        own = {name: field.default for name, field in type(self).model_fields.items() if name in ("size", "seed")}
        if self.gym is None and (self.config or any(getattr(self, name) != default for name, default in own.items())):
            raise ValueError("size, seed and config are those of a `gym` set, and the task names none")
        return self

    @model_validator(mode="before")
    @classmethod
    def _of_benchmark(cls, written: Any) -> Any:
        if not isinstance(written, dict) or not isinstance(written.get("benchmark"), str):
            return written
        return benchmark_keys(written["benchmark"]) | written
