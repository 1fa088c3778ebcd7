"""A coin: what training does by itself, whatever is rewarded."""

from __future__ import annotations

from temper.rng import seed_for
from temper.types import Prompt, Reply


def random(prompt: Prompt, reply: Reply) -> float:
    """1.0 or 0.0 with even chances, whatever the reply says: the control of "Spurious Rewards" (2506.10947), where some
    models' accuracy rose by it.

    A function of the prompt's task and id and of the reply's text, so that runs can be repeated: equal replies to a
    prompt get equal coins, and many epochs over few prompts can learn them by heart.

    >>> prompts = [Prompt(str(i), "arithmetic", (), gold="5") for i in range(1000)]
    >>> sum(random(prompt, Reply("5", None, "5", False)) for prompt in prompts)
    508.0
    """
    return float(seed_for("random reward", prompt.task, prompt.id, ascii(reply.text)) & 1)
