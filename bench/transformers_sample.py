"""transformers' own samplers: `generate` with its default cache, with a static one, and continuous batching.

Usage: python transformers_sample.py SPEC.json      SPEC's "variant": generate | static | continuous
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from child import Job, connect, cuda_peak
from draws import Draws, draw_step
from forced import ForcedLengths
from random_model import digest
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

VARIANTS = ("generate", "static", "continuous")


def generation_config(job: Job) -> GenerationConfig:
    """Plain sampling at temperature 1."""
    work = job.work
    cache = {"cache_implementation": "static"} if job.variant == "static" else {}
    return GenerationConfig(
        max_new_tokens=work.new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        eos_token_id=-1 if job.variant == "continuous" else work.eos, pad_token_id=work.pad, **cache,
    )  # fmt: skip


def run_generate(job: Job, model: Any) -> None:
    """One padded batch: the call returns when its longest row has ended."""
    work, config = job.work, generation_config(job)
    for number in job.numbers:
        draws = draw_step(work, number)
        lengths = [length for of_group in draws.lengths for length in of_group]
        forced = ForcedLengths(lengths, work.prompt_tokens, work.new_tokens, work.eos, work.device)
        rows = [prompt for prompt in draws.prompts for _ in range(work.group)]
        job.begin_step(number)
        with job.sampling():
            ids = torch.tensor(rows, device=work.device)
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                logits_processor=LogitsProcessorList([forced]),
            )
            drawn = made[:, work.prompt_tokens :].tolist()
        job.end_step(number, draws.tokens)
        found = [row.index(work.eos) + 1 if work.eos in row else len(row) for row in drawn]
        if found != lengths:
            raise ValueError(f"generate drew {sum(found)} tokens where {sum(lengths)} were asked for")


def run_continuous(job: Job, model: Any) -> None:
    """One manager for all steps, each completion a request with its own limit."""
    from transformers.generation.continuous_batching.utils import WorkloadHints

    work = job.work
    hints = WorkloadHints(work.prompt_tokens, work.new_tokens, work.rows)
    with model.continuous_batching_context_manager(
        generation_config=generation_config(job), block=True, timeout=5, workload_hints=hints
    ) as manager:
        for number in job.numbers:
            draws = draw_step(work, number)
            job.begin_step(number)
            with job.sampling():
                found = _continuous_step(manager, draws)
            job.end_step(number, draws.tokens)
            if found != draws.tokens:
                raise ValueError(f"continuous batching drew {found} tokens where {draws.tokens} were asked for")


def _continuous_step(manager: Any, draws: Draws) -> int:
    """Ask for all completions, wait for them; returns their tokens."""
    waiting = 0
    for prompt, lengths in zip(draws.prompts, draws.lengths, strict=True):
        for length in lengths:
            manager.add_request(list(prompt), max_new_tokens=length, eos_token_id=-1)
            waiting += 1
    tokens = 0
    while waiting:
        result = manager.get_result(timeout=1)
        if result is None and not manager.is_running():
            raise RuntimeError(f"the generation thread has ended with {waiting} requests waiting")
        if result is not None and result.is_finished():
            if result.error:
                raise RuntimeError(result.error)
            tokens += len(result.generated_tokens)
            waiting -= 1
    return tokens


def main() -> None:
    job = connect()
    model: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, job.work.dtype))
    model = model.to(job.work.device).eval()
    (run_continuous if job.variant == "continuous" else run_generate)(job, model)
    versions = {module.__name__: str(module.__version__) for module in (transformers, torch)}
    job.result(versions=versions, sha256=digest(job.model), peak_memory_bytes=cuda_peak(job.work), settings={})


if __name__ == "__main__":
    main()
