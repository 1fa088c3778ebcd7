"""temper's side: the step of `temper.stages.grpo`, from prompt texts to the update, on the library's own pieces.

Left out is what needs a recipe around it: choosing prompts, writing metrics. Rewards are given, as they are to TRL.

Usage: python temper_step.py SPEC.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch
from child import Job, connect, cuda_peak
from draws import Draws, draw_step, text_of
from random_model import digest, tokenizer_of
from workloads import Workload

import temper
from temper.models.load import load_model
from temper.rng import seed_for
from temper.rollout.engine import Engine, Request, Sampling
from temper.rollout.open import open_engine
from temper.rollout.statistics import rollout_metrics
from temper.stages.credit import outcome_advantages, total_rewards
from temper.stages.grpo import Config, mini_batches, update
from temper.stages.models import open_learner, open_reference
from temper.text.reply import parse_reply
from temper.text.tokenizer import Tokenizer, load_tokenizer
from temper.train.policy import PolicyLoss
from temper.types import Completion, Group, Prompt, Rollout


def make_engine(model: Any, version: Callable[[], int] = lambda: 0) -> AbstractContextManager[Engine]:
    """The sampler as the stage makes it."""
    return open_engine(model, version)


def configure(work: Workload, steps: int) -> Config:
    """The stage's config for a workload; what is not named here is the stage's default."""
    values: dict[str, Any] = {
        "model": "random",
        "tasks": ["random"],
        "learning_rate": 1e-6,
        "adam_beta2": 0.999,
        "max_steps": steps,
        "num_generations": max(2, work.group),
        "prompts_per_step": work.prompts,
        "max_completion_length": work.new_tokens,
        "kl_penalty": work.kl,
        "device": work.device,
        "dtype": work.dtype,
        "compile": work.compile,
    }
    if work.micro_batch_tokens is not None:
        values["micro_batch_tokens"] = work.micro_batch_tokens
    return Config(**values)


def requests_of(draws: Draws, prompts: Sequence[tuple[int, ...]], work: Workload, step: int) -> list[Request]:
    """One request a completion, of exactly the length it is to have."""
    return [
        Request(ids, seed_for(work.seed, step, number, sample), max_tokens=length)
        for number, (ids, lengths) in enumerate(zip(prompts, draws.lengths, strict=True))
        for sample, length in enumerate(lengths)
    ]


def sample(engine: Engine, requests: Sequence[Request], work: Workload) -> list[Completion]:
    """The completions, at temperature 1, without an end token."""
    return engine.generate(requests, Sampling(work.new_tokens))


def check_lengths(completions: Sequence[Completion], draws: Draws) -> None:
    """Raise ValueError unless every completion has the length that was asked for."""
    wanted = [length for lengths in draws.lengths for length in lengths]
    found = [len(completion.token_ids) for completion in completions]
    if found != wanted:
        raise ValueError(f"temper drew {sum(found)} tokens where {sum(wanted)} were asked for")


def groups_of(
    draws: Draws, prompts: Sequence[tuple[int, ...]], completions: Sequence[Completion], tokenizer: Tokenizer
) -> list[Group]:
    """Completions with their parsed text and the rewards given to them."""
    left = iter(completions)
    groups = []
    for number, (ids, rewards) in enumerate(zip(prompts, draws.rewards, strict=True)):
        prompt = Prompt(f"random:{number}", "random", (), gold="")
        rollouts = []
        for reward in rewards:
            completion = next(left)
            reply = parse_reply(tokenizer.decode_on(completion.token_ids))
            rollouts.append(Rollout(prompt, completion, reply, {"random": reward}, reward))
        groups.append(Group(prompt, ids, tuple(rollouts)))
    return groups


def run_samples(job: Job) -> None:
    """Generation alone."""
    policy = load_model(job.model, job.work.dtype, job.work.device)  # type: ignore[arg-type]
    with make_engine(policy) as engine:
        for number in job.numbers:
            draws = draw_step(job.work, number)
            job.begin_step(number)
            with job.sampling():
                completions = sample(engine, requests_of(draws, draws.prompts, job.work, number), job.work)
            job.end_step(number, draws.tokens)
            check_lengths(completions, draws)


def run_steps(job: Job) -> None:
    """Whole steps."""
    work = job.work
    config = configure(work, len(job.numbers))
    tokenizer = load_tokenizer(tokenizer_of(job.model))
    log = SimpleNamespace(warn=lambda text: print(text, file=sys.stderr))
    context: Any = SimpleNamespace(name="bench", seed=work.seed, log=log)  # what a learner is told of its stage
    learner = open_learner(job.model, config, config.max_steps, context)
    reference = open_reference(job.model, learner.model, config) if config.has_kl else None
    loss = PolicyLoss(config, config.temperature)
    with make_engine(learner.model, lambda: learner.step) as engine:
        for number in job.numbers:
            draws = draw_step(work, number)
            texts = [text_of(prompt) for prompt in draws.prompts]
            job.begin_step(number)
            with job.sampling():
                prompts = tokenizer.encode_many(texts)
                completions = sample(engine, requests_of(draws, prompts, work, number), work)
            groups = groups_of(draws, prompts, completions, tokenizer)
            totals = total_rewards(config, groups, [])
            advantages = outcome_advantages(config, totals, groups)
            update(config, learner, loss, reference, mini_batches(config, groups, advantages, ()))
            rollout_metrics(groups, advantages)
            job.end_step(number, draws.tokens)
            check_lengths(completions, draws)


def main() -> None:
    job = connect()
    if job.sample_only:
        run_samples(job)
    else:
        run_steps(job)
    versions = {"temper": temper.__version__, "torch": torch.__version__}
    job.result(versions=versions, sha256=digest(job.model), peak_memory_bytes=cuda_peak(job.work), settings={})


if __name__ == "__main__":
    main()
