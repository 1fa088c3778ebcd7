r"""Public benchmarks by name: where their rows are, and how published figures ask, sample and read the answer.

The questions are put as DeepSeek-R1's own evaluation puts them (2501.12948 and its model card): no system prompt,
"Please reason step by step, and put your final answer within \boxed{}.", temperature 0.6, top-p 0.95, k samples a
question ("between 4 and 64, depending on the test set size"), the answer read from what follows `</think>`. Multiple
choice asks for the letter in a box too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ASK = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
CHOOSE = (
    "{question}\n\n{options}\n\nPlease reason step by step, and put the letter of the right option within \\boxed{}."
)
TEMPERATURE, TOP_P = 0.6, 0.95


@dataclass(frozen=True)
class Benchmark:
    """A test set of the Hub and how it is asked. `samples` is the k of published figures; `columns` and the rest are
    keys of a task."""

    source: str
    rows: int  # as published
    columns: Mapping[str, str]
    samples: int
    prompt_template: str = ASK
    choice_template: str | None = None
    reply: str = "think"

    def keys(self) -> dict[str, Any]:
        """The keys of a task that tests on it."""
        return {
            "test": self.source,
            "columns": dict(self.columns),
            "reply": self.reply,
            "prompt_template": self.prompt_template,
            "unverifiable": "drop",
            **({"choice_template": self.choice_template} if self.choice_template else {}),
        }


BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark(
        "hf://openai/gsm8k?name=main&split=test", 1319, {"prompt": "question", "answer": "answer"}, samples=4
    ),
    "math500": Benchmark(
        "hf://HuggingFaceH4/MATH-500?split=test", 500, {"prompt": "problem", "answer": "answer"}, samples=4
    ),
    "aime24": Benchmark(
        "hf://HuggingFaceH4/aime_2024?split=train", 30, {"prompt": "problem", "answer": "answer"}, samples=64
    ),
    "aime25": Benchmark("hf://math-ai/aime25?split=test", 30, {"prompt": "problem", "answer": "answer"}, samples=64),
    "amc23": Benchmark("hf://math-ai/amc23?split=test", 40, {"prompt": "question", "answer": "answer"}, samples=64),
    "olympiadbench": Benchmark(
        "hf://Hothan/OlympiadBench?name=OE_TO_maths_en_COMP&split=train", 674,
        {"prompt": "question", "answer": "final_answer"}, samples=4,
    ),
    "gpqa_diamond": Benchmark(
        "hf://Idavidrein/gpqa?name=gpqa_diamond&split=train", 198, {"prompt": "Question"}, samples=8,
        choice_template=CHOOSE,
    ),
    "minerva": Benchmark(
        "hf://math-ai/minervamath?split=test", 272, {"prompt": "question", "answer": "answer"}, samples=4
    ),
}  # fmt: skip


def benchmark_keys(name: str) -> dict[str, Any]:
    """The keys of a task named by its benchmark, or by the benchmark and a file of one's own: `gsm8k=my/test.jsonl`. A
    file of one's own may call its columns as it likes. Raises ValueError for a name that is none.

    >>> benchmark_keys("aime24")["test"], benchmark_keys("aime24=a.jsonl")["test"]
    ('hf://HuggingFaceH4/aime_2024?split=train', 'a.jsonl')
    """
    known, equals, path = name.partition("=")
    if known not in BENCHMARKS:
        raise ValueError(f"no benchmark `{known}`: there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[known].keys() | ({"test": path, "columns": {}} if equals else {})


def samples_of(task: str) -> int:
    """How many completions of each prompt a task is measured with where nobody says: a benchmark's own number, or 4.

    >>> samples_of("no benchmark")
    4
    """
    benchmark = BENCHMARKS.get(task.strip().partition("=")[0])
    return benchmark.samples if benchmark is not None else 4
