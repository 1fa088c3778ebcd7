"""The native sampler: decodes with the trainer's own parameters, in its own process.

Each distinct prompt is prefilled once for all its requests; finished rows leave the batch; a draw depends on its key
and position alone. `generate` reads: plan the waves, prefill, step until no row is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from temper.models.attention import Row, plan_attention
from temper.rollout.cache import Cache
from temper.rollout.draw import draw_tokens, uniform
from temper.rollout.engine import Request, Sampling
from temper.types import Completion


class NativeEngine:
    """Implements `Engine` for a transformers model loaded with temper's attention."""

    def __init__(self, model: Any, max_rows: int = 512, context: int | None = None):
        self.model = model
        self.max_rows = max_rows
        self.context = context or getattr(model.config, "max_position_embeddings", None) or 1 << 30

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        was_training = self.model.training
        self.model.eval()
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), requests[i].prompt_ids, i))
        done: dict[int, Completion] = {}
        for start in range(0, len(order), self.max_rows):
            wave = order[start : start + self.max_rows]
            done.update(zip(wave, self._decode([requests[i] for i in wave], sampling), strict=True))
        self.model.train(was_training)
        return [done[i] for i in range(len(requests))]

    def _decode(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """All of one wave, together."""
        room = self.context - max(len(request.prompt_ids) for request in requests)
        new_tokens = min(sampling.max_tokens, room)
        if new_tokens <= 0:
            return [Completion((), (), "length")] * len(requests)
        logits, cache = self._prefill(requests, new_tokens)
        stop = torch.tensor(sampling.stop_ids, dtype=torch.long)
        keys = torch.tensor([request.key for request in requests])
        row_of = torch.arange(len(requests))
        alive = torch.ones(len(requests), dtype=torch.bool)
        tokens_out = torch.zeros(len(requests), new_tokens, dtype=torch.long)
        logprobs_out = torch.zeros(len(requests), new_tokens)
        lengths = torch.zeros(len(requests), dtype=torch.long)
        stopped = torch.zeros(len(requests), dtype=torch.bool)
        for step in range(new_tokens):
            tokens, logprobs = draw_tokens(logits, uniform(keys, step), sampling)
            tokens_out[row_of, step], logprobs_out[row_of, step] = tokens, logprobs
            ended = torch.isin(tokens, stop)
            lengths[row_of[alive]] = step + 1
            stopped[row_of[alive & ended]] = True
            alive &= ~ended
            living = int(alive.sum())
            if living == 0 or step == new_tokens - 1:
                break
            if living <= 0.85 * len(alive):  # compacting copies the cache once: worth it for a good part of the rows
                kept = alive.nonzero().squeeze(-1)
                cache.keep(kept)
                keys, row_of, tokens, alive = keys[kept], row_of[kept], tokens[kept], alive[kept]
            logits = self._step(tokens, cache)
        return [
            Completion(
                tuple(tokens_out[i, :length].tolist()),
                tuple(logprobs_out[i, :length].tolist()),
                "stop" if stopped[i] else "length",
            )
            for i, length in enumerate(lengths.tolist())
        ]

    def _prefill(self, requests: Sequence[Request], new_tokens: int) -> tuple[Tensor, Cache]:
        """Logits [B, V] after every request's prompt, and the cache that decoding goes on from."""
        number: dict[tuple[int, ...], int] = {}
        owner = [number.setdefault(request.prompt_ids, len(number)) for request in requests]
        tokens = torch.tensor([token for prompt in number for token in prompt])
        positions = torch.tensor([i for prompt in number for i in range(len(prompt))])
        prompts, at = [], 0
        for prompt in number:
            prompts.append(range(at, at + len(prompt)))
            at += len(prompt)
        plan = plan_attention([Row(prompt, (prompt,)) for prompt in prompts], positions, keep=True)
        last = torch.tensor([prompt.stop - 1 for prompt in prompts])
        logits = self.model(
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_plan=plan,
            logits_to_keep=last,
            use_cache=False,
        ).logits[0]
        assert plan.kept is not None
        return logits[torch.tensor(owner)], Cache(plan.kept, prompts, owner, new_tokens)

    def _step(self, tokens_B: Tensor, cache: Cache) -> Tensor:
        """Logits [B, V] after one more token in every row."""
        logits = self.model(
            input_ids=tokens_B[:, None],
            position_ids=cache.positions_B[:, None],
            attention_plan=cache,
            use_cache=False,
        ).logits[:, 0]
        cache.advance()
        return logits
