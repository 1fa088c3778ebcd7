"""Does a server answer with the model that is trained here? Its log-probs of a completion are held against our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from temper.errors import ConfigError
from temper.kernels.packed import AttentionPlan
from temper.kernels.runs import Row
from temper.models.load import supports_shared_prefix
from temper.rollout.engine import Request, Sampling
from temper.rollout.wire import Server, told
from temper.types import Completion

LOOKED_AT = 64  # tokens of the completion
TOLERANCE = 0.25  # nats, on average a token: narrow weights differ by hundredths, other models by far more


def agreement_with(model: Any, scaled: bool) -> Callable[[Request, Completion, Sampling, Server], None]:
    """A check for `ServerEngine`: raises ConfigError where a server's log-probs are not those of `model`, or are those
    before the temperature where they have to be `scaled` by it."""

    def check(request: Request, completion: Completion, sampling: Sampling, server: Server) -> None:
        theirs = torch.tensor(completion.sampler_logprobs[:LOOKED_AT])
        prompt = [*request.prompt_ids, *request.drawn]
        logits_TV = _logits(model, [*prompt, *completion.token_ids[: len(theirs)]])[len(prompt) - 1 : -1].float().cpu()
        drawn = torch.tensor(completion.token_ids[: len(theirs)])[:, None]

        def distance(temperature: float) -> float:
            ours = (logits_TV / temperature).log_softmax(-1).gather(-1, drawn)[:, 0]
            return (ours - theirs).abs().mean().item()

        processed, raw = distance(sampling.temperature), distance(1.0)
        if min(processed, raw) > TOLERANCE:
            why = f"its log-probs differ from ours by {min(processed, raw):.2f} nats a token"
            fix = "start it with the model that the stage starts from, and with its tokenizer"
            raise ConfigError(told(server, "a server does not answer with the stage's model", why, fix))
        if scaled and raw < processed / 2 and processed > TOLERANCE / 10:
            why = f"at temperature {sampling.temperature:g} they are {raw:.3f} nats from the unscaled ones, " + (
                f"{processed:.3f} from those that the policy samples with"
            )
            fix = "start it with --logprobs-mode processed_logprobs"
            raise ConfigError(told(server, "a server gives the log-probs before the temperature", why, fix))

    return check


@torch.no_grad()
def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    """[T, V]: what `model` says after each of the tokens."""
    was_training = model.training
    model.eval()
    try:
        row = torch.tensor([ids], device=model.device)
        if not supports_shared_prefix(model):
            return model(input_ids=row, use_cache=False).logits[0]
        positions = torch.arange(len(ids), device=model.device)
        plan = AttentionPlan([Row(range(len(ids)))], positions)
        return model(input_ids=row, position_ids=positions[None], attention_plan=plan, use_cache=False).logits[0]
    finally:
        model.train(was_training)
