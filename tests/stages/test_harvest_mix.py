"""How much of the mix joins a harvest, which thoughts are in one language, how long epochs of GRPO are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from temper.stages import grpo
from temper.stages.sample import Config, drawn, mix_size, mixes_languages, reject
from temper.text.reply import parse_reply
from temper.types import Completion, Message, Prompt, Rollout


def config(**options: Any) -> Config:
    return Config(model="m", tasks=["t"], **options)


@pytest.mark.parametrize(("options", "size"), [({}, None), ({"mix_share": 0.25}, 200), ({"mix_count": 7}, 7)])
def test_the_mix_is_taken_whole_by_share_or_by_count(options: dict, size: int | None) -> None:
    assert mix_size(config(mix=["d"], **options), 600) == size


def test_what_is_drawn_is_a_function_of_the_key_and_in_order() -> None:
    rows = [{"n": n} for n in range(50)]
    some = drawn(rows, 10, (0, "harvest"))
    assert some == drawn(rows, 10, (0, "harvest")) != drawn(rows, 10, (1, "harvest"))
    assert [row["n"] for row in some] == sorted(row["n"] for row in some)
    assert drawn(rows, None, (0,)) == drawn(rows, 80, (0,)) == rows


@pytest.mark.parametrize("options", [{"mix_share": 0.5}, {"mix_count": 5}, {"mix": ["d"], "mix_share": 1.0},
                                     {"mix": ["d"], "mix_share": 0.5, "mix_count": 5}])  # fmt: skip
def test_sizes_that_mean_nothing_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        config(**options)


def test_thoughts_of_mixed_languages_are_left_out_unless_the_stage_keeps_them() -> None:
    prompt = Prompt("1", "t", (Message("user", "38+33-49"),), "22")
    reply = parse_reply("<think>First 38+33=71. Dann 71-49=22.</think><answer>22</answer>")
    mixed = Rollout(prompt, Completion((1,), (0.0,), "stop"), reply, {"accuracy": 1.0, "format": 1.0}, 2.0)
    assert reject(mixed, config()) == "mixed languages"
    assert reject(mixed, config(min_language_share=None)) is None
    assert reject(mixed, config(min_language_share=0.4)) is None
    assert not mixes_languages("First we add. Then it is 22.", "en", 0.9)
    assert not mixes_languages("x = 5", "en", 0.9)  # no word's language can be told
    assert mixes_languages("所以答案是", "en", 0.9)
    assert not mixes_languages("nuqneH", "tlh", 0.9)


def test_a_reward_that_does_not_apply_has_no_say_in_the_harvest() -> None:
    prompt = Prompt("1", "t", (Message("user", "Why?"),), None)
    reply = parse_reply("<think>First we look.</think><answer>So</answer>")
    rollout = Rollout(prompt, Completion((1,), (0.0,), "stop"), reply, {"format": 1.0}, 1.0, inapplicable=("accuracy",))
    assert reject(rollout, config()) is None


@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (2.5, 10), (0.1, 1)])
def test_epochs_are_as_many_prompts_as_all_tasks_have(epochs: float, steps: int) -> None:
    settings = grpo.Config(model="m", tasks=["a", "b"], num_train_epochs=epochs, prompts_per_step=8, num_generations=2)
    rollouts: Any = SimpleNamespace(prompts={"a": [None] * 20, "b": [None] * 12})
    assert grpo.epoch_steps(settings, rollouts) == steps


def test_steps_or_epochs_and_not_both() -> None:
    for options in ({}, {"max_steps": 3, "num_train_epochs": 1}):
        with pytest.raises(ValidationError, match="one of the two says how long"):
            grpo.Config(model="m", tasks=["t"], **options)
