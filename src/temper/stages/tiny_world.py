"""Write the tiny world's files: real JSON Lines that the other stages read through the same loader as a user's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from temper.config import StrictModel
from temper.data.tiny import files, functions, manners, search
from temper.data.tiny.web import web_texts
from temper.record.rollouts import write_rows
from temper.stages.context import StageContext

VERSION = 2
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Config(StrictModel):
    """How much of each file, and how noisy. A count of 0 leaves the file out."""

    arithmetic_train: Count = 0
    arithmetic_test: Count = 0
    arithmetic_hard_train: Count = 0  # chains with one operation more than any of the first two
    arithmetic_hard_test: Count = 0
    highest_level: Annotated[int, Field(ge=1, le=3)] = 3  # of the first two: operations of a chain
    general_train: Count = 0
    general_test: Count = 0
    cold_start: Count = 0
    slip: Share = 0.2  # how often a step of a worked solution, or a line of a program, is wrong
    mixed: Share = 0.6  # share of the cold start's worked solutions that change language between sentences
    general_share: Share = 0.3  # share of general tasks in the cold start
    rude: Share = 0.0  # share of the cold start's general replies that hold an insult
    careless: Share = 0.0  # and of those that are wrong
    general_conversations: Count = 0
    preferences: Count = 0  # pairs: a right answer and another
    judge_preferences: Count = 0  # pairs of other draws: the chosen reply is right and polite
    safety: Count = 0  # replies, every other one with an insult
    pretraining: Count = 0
    functions_train: Count = 0  # functions to be written in Python, with tests
    functions_test: Count = 0
    functions_cold_start: Count = 0
    functions_pretraining: Count = 0
    held_back: Count = 4  # tests of a function to be trained on that its question does not show; held-out ones have 4
    hard_coded: Share = 0.0  # share of the programs that people wrote which answer for the examples alone
    search_train: Count = 0  # which two of some numbers make a sum
    search_test: Count = 0
    search_cold_start: Count = 0
    slip_in_english: Share | None = None  # of searches' sums in English, then added in the head; null: as in German
    web: Count = 0
    tagged: Share = 0.5  # share of the chats in `web` that use the tags of R1-Zero's template


def run(config: Config, ctx: StageContext) -> None:
    seed, levels = ctx.seed, range(1, config.highest_level + 1)
    sources = {
        "arithmetic.train": (config.arithmetic_train, lambda n: files.arithmetic_prompts("train", n, seed, levels)),
        "arithmetic.test": (config.arithmetic_test, lambda n: files.arithmetic_prompts("test", n, seed, levels)),
        "arithmetic_hard.train": (
            config.arithmetic_hard_train,
            lambda n: files.hard_arithmetic_prompts(n, seed, config.highest_level + 1, "train"),
        ),
        "arithmetic_hard.test": (
            config.arithmetic_hard_test,
            lambda n: files.hard_arithmetic_prompts(n, seed, config.highest_level + 1),
        ),
        "general.train": (config.general_train, lambda n: files.general_prompts("train", n, seed)),
        "general.test": (config.general_test, lambda n: files.general_prompts("test", n, seed)),
        "cold_start": (
            config.cold_start,
            lambda n: files.cold_start(
                n, seed, config.slip, config.mixed, config.general_share, config.rude, config.careless
            ),
        ),
        "functions.train": (
            config.functions_train,
            lambda n: functions.function_prompts("train", n, seed, config.held_back),
        ),
        "functions.test": (config.functions_test, lambda n: functions.function_prompts("test", n, seed)),
        "functions_cold_start": (
            config.functions_cold_start,
            lambda n: functions.function_conversations(n, seed, config.slip, config.hard_coded),
        ),
        "functions_pretraining": (
            config.functions_pretraining,
            lambda n: functions.function_texts(n, seed, config.slip, config.hard_coded),
        ),
        "search.train": (config.search_train, lambda n: search.search_prompts("train", n, seed)),
        "search.test": (config.search_test, lambda n: search.search_prompts("test", n, seed)),
        "search_cold_start": (
            config.search_cold_start,
            lambda n: search.search_conversations(
                n, seed, search.Habits(slip=config.slip, slip_in_english=config.slip_in_english, mixed=config.mixed)
            ),
        ),
        "general_conversations": (config.general_conversations, lambda n: files.general_conversations(n, seed)),
        "web": (config.web, lambda n: web_texts(n, seed, config.slip, config.tagged)),
        "preferences": (config.preferences, lambda n: manners.preferences(n, seed)),
        "judge_preferences": (config.judge_preferences, lambda n: manners.judge_preferences(n, seed)),
        "safety": (config.safety, lambda n: manners.safety(n, seed)),
        "pretraining": (config.pretraining, lambda n: files.pretraining_texts(n, seed, config.slip)),
    }
    for name, (count, make) in sources.items():
        if count:
            write_rows(ctx.out / f"{name}.jsonl", make(count))
            ctx.log.info(f"{name}.jsonl: {count:,} rows")
