"""How long RL takes on a card that is not here: products and reads by arithmetic, nothing else counted."""

from __future__ import annotations

from temper.planning.estimate import ROWS, step_tokens
from temper.planning.lengths import Tokens
from temper.planning.machines import SPEEDS, Elsewhere
from temper.planning.shapes import ModelSize
from temper.recipe.recipe import Stage

SHARE_OF_PEAK = 0.4  # of a card's products a second, in well-filled training


def least_seconds(stage: Stage, size: ModelSize | None, tokens: Tokens, there: Elsewhere, ranks: int) -> float | None:
    """Of a stage `grpo` counted in steps, with replies as long as assumed, on cards whose speed is known; else None.

    Training takes 6 products a weight and token, 8 with checkpointing, 2 more with a reference; sampling 2, and for
    each token of a wave all weights are read once (16-bit ones).
    """
    config, speed = vars(stage.config), SPEEDS.get(there.card or "")
    steps, shape = config.get("max_steps"), None if size is None else size.shape
    if stage.kind != "grpo" or speed is None or not steps or size is None or shape is None or shape.apart:
        return None
    products, bandwidth = speed
    of_update, longest_row = step_tokens(config, shape.max_position_embeddings, tokens)
    trained = of_update * config["num_mini_batches"] * config["num_iterations"]
    a_token = 6 + 2 * config["gradient_checkpointing"] + 2 * (config["kl_penalty"] != 0)
    rows = config["prompts_per_step"] * config["num_generations"]
    longest = tokens.reply.longest if tokens.reply else min(config["max_completion_length"], longest_row)
    waves = -(-rows // (ROWS * ranks))
    computed = SHARE_OF_PEAK * products * ranks
    reading = waves * longest * 2 * size.parameters / bandwidth
    drawing = max(reading, 2 * size.parameters * of_update * config["num_mini_batches"] / computed)
    return steps * (a_token * size.parameters * trained / computed + drawing)
