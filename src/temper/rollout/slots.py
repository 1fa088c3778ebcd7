"""The native sampler where launching costs more than computing (CUDA): a fixed number of slots, one graph a token.

The host looks every few steps: slots whose row has ended are refilled from the queue; when that is empty, the rows left
move together and a smaller graph goes on. `SlotEngine._fly` reads: admit, settle, close up, take some steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards
from temper.models.spare import without_spare
from temper.rollout.buffers import ALIVE, Buffers, Heads, Layout, SlotAttention, bucket, fitting
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.flight import Pending, plan_rows
from temper.rollout.graphs import Graphs
from temper.rollout.memory import is_out_of_memory
from temper.rollout.prefill import chunks, common_prefix, prefill
from temper.types import Completion

POLL = 16  # steps between two looks of the host, unless every token must be told of
REFILL = 8  # rows are taken in once this share of the slots is free: a prefill costs as much as several steps

Prompt = tuple[int, ...]


class SlotEngine:
    """Implements `Engine`, with at most `slots` rows in flight; with fewer where the device's memory asks for it."""

    def __init__(
        self,
        model: Any,
        slots: int = 1024,
        context: int | None = None,
        version: Callable[[], int] = lambda: 0,
        poll: int = POLL,
    ):
        """`version` says how many updates the weights have seen; the host looks every `poll` steps."""
        self.model, self.slots, self.version, self.poll = model, slots, version, poll
        self.context = context or getattr(model.config, "max_position_embeddings", None) or 1 << 30
        self.graphs = Graphs(model)
        self.release()

    def release(self) -> None:
        """Give back the memory that is kept from one call to the next."""
        self._buffers: Buffers | None = None
        self._made_for: Layout | None = None
        self.graphs.forget()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        was_training = self.model.training
        self.model.eval()
        tally = Tally(sampling, watch, self.version(), finished)
        rows = plan_rows(requests, sampling, self.context)
        wanted = bucket(max(1, len(rows)), self.slots)
        with in_place(scoring_forwards(self.model)):
            slots = with_halving(lambda slots: self._fly(tally.without(rows), slots, tally), wanted, self.release)
        if slots < wanted:
            self.slots = slots
        self.model.train(was_training)
        nothing = Completion((), (), "length", tally.version)
        return [tally.done.get(number, nothing) for number in range(len(requests))]

    def _fly(self, rows: Sequence[Pending], slots: int, tally: Tally) -> None:
        """All of `rows`, at most `slots` at a time."""
        if not rows:
            return
        cut = common_prefix(list({row.tokens for row in rows}))
        buffers = self._room_for(Layout.of(rows, cut, slots))
        buffers.reset(cut)
        flight = Flight(self.model, buffers, rows, min(slots, buffers.layout.slots), tally)
        drawn_alike = replace(tally.sampling, max_tokens=0, stop_rule=None)
        while flight.queue or flight.seats:
            flight.admit()
            left = flight.settle()
            flight.close_up()
            step = partial(decode_step, self.model, buffers, flight.bucket, tally.sampling, flight.stop_ids)
            self.graphs.run((flight.bucket, cut > 0, drawn_alike), step, min(left, 1 if tally.hears else self.poll))

    def _room_for(self, wanted: Layout) -> Buffers:
        """Those of the last call if they will do; or else new ones, if possible for calls like the last one, too."""
        if self._buffers is None or self._made_for is None or not self._made_for.covers(wanted):
            both = wanted.joined(self._made_for or wanted)
            self.release()
            heads, dtype = self._cached
            token = dtype.itemsize * sum(count * (key + value) for count, key, value in heads)
            vocabulary, free = self.model.config.get_text_config().vocab_size, free_bytes(self.model.device)
            fit = partial(fitting, token=token, vocabulary=vocabulary, free=free)
            self._made_for = both if fit(both) == both else wanted
            self._buffers = Buffers(fit(self._made_for), heads, dtype, self.model.device)
        return self._buffers

    @cached_property
    def _cached(self) -> tuple[Heads, torch.dtype]:
        """What the model's layers keep of a token."""
        runs = prefill(self.model, [(0,)]).runs
        return [(keys.shape[1], keys.shape[-1], values.shape[-1]) for keys, values in runs], runs[0][0].dtype


class Tally:
    """What a call has brought so far, and who hears of it."""

    def __init__(self, sampling: Sampling, watch: Watch | None, version: int, finished: Finished | None = None):
        self.sampling, self.watch, self.version, self.finished = sampling, watch, version, finished
        self.hears = watch is not None or sampling.stop_rule is not None
        self.done: dict[int, Completion] = {}
        self._told: dict[int, int] = {}

    def without(self, rows: Sequence[Pending]) -> list[Pending]:
        return [row for row in rows if row.number not in self.done]

    def ends(self, row: Pending, alive: bool, tokens: list[int], logprobs: list[float]) -> bool:
        """Told of what has been drawn for a row; whether it ends there."""
        if self.watch is not None:
            told = self._told.get(row.number, 0)  # more than there are now, if memory ran out since
            for token in tokens[told:]:
                self.watch(row.number, token)
            self._told[row.number] = max(told, len(tokens))
        rule = self.sampling.stop_rule
        ruled = rule is not None and rule.ends(row.begun + tokens)
        if alive and not ruled:
            return False
        reason = "stop" if ruled or tokens[-1] in self.sampling.stop_ids else "length"
        self.done[row.number] = completion = Completion(tuple(tokens), tuple(logprobs), reason, self.version)
        if self.finished is not None:
            self.finished(row.number, completion)
        return True


def free_bytes(device: torch.device) -> float:
    """What can still be allocated on `device`; on a CPU, everything."""
    if device.type != "cuda":
        return math.inf
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def with_halving(attempt: Callable[[int], None], slots: int, release: Callable[[], None]) -> int:
    """Call `attempt` with `slots`, halved for as long as the device's memory runs out, and return what went through."""
    while True:
        try:
            attempt(slots)
            return slots
        except RuntimeError as error:
            if not is_out_of_memory(error) or slots <= 1:
                raise
        release()  # not in the handler, where the error still holds what the attempt had allocated
        slots = (slots + 1) // 2


def decode_step(model: Any, buffers: Buffers, slots: int, sampling: Sampling, stop_ids: Tensor) -> None:
    """One more token in each of the first `slots` slots; the host is asked nothing."""
    plan = SlotAttention(buffers, slots)
    logits = model(
        input_ids=plan.fed[:, None], position_ids=plan.positions[:, None], attention_plan=plan, use_cache=False
    ).logits[:, 0]
    buffers.draw(plan.slots, without_spare(model, logits), sampling, stop_ids)


class Flight:
    """The rows of one call: who waits, who is in which slot, whose prompt stands where."""

    def __init__(self, model: Any, buffers: Buffers, rows: Sequence[Pending], slots: int, tally: Tally):
        self.model, self.buffers, self.tally = model, buffers, tally
        self.slots, self.bucket = slots, bucket(len(rows), slots)
        self.queue = deque(rows)
        self.seats: dict[int, Pending] = {}
        self.places: dict[Prompt, int] = {}
        self.ahead: dict[Prompt, Tensor] = {}  # logits after the prompt whose rows are in part still in the queue
        self.stop_ids = torch.tensor(tally.sampling.stop_ids, dtype=torch.long, device=buffers.device)

    def admit(self) -> None:
        """Rows from the queue take the free slots, and draw their first token."""
        free = [slot for slot in range(self.slots) if slot not in self.seats]
        if not self.queue or (self.seats and len(free) * REFILL < self.slots):
            return
        new = {slot: self.queue.popleft() for slot in free[: len(self.queue)]}
        self.seats |= new
        logits = self._prefill(list(new.values()))
        state = [(row.key, row.drawn, len(row.tokens), row.limit, 0, 1) for row in new.values()]
        slots = torch.tensor(list(new), device=logits.device)
        self.buffers.state[:, slots] = torch.tensor(state, device=logits.device).T
        self.buffers.draw(slots, logits, self.tally.sampling, self.stop_ids)
        self._look()

    def _prefill(self, rows: Sequence[Pending]) -> Tensor:
        """Logits [n, V] after each row's prompt; the prompts that are new are computed."""
        seated = {row.tokens for row in self.seats.values()}
        self.places = {tokens: place for tokens, place in self.places.items() if tokens in seated}
        spare = iter(sorted(set(range(self.buffers.layout.runs)) - set(self.places.values())))
        logits, self.ahead = self.ahead, {}
        new = list(dict.fromkeys(row.tokens for row in rows if row.tokens not in logits))
        for chunk in chunks(list(map(len, new))) if new else ():
            prompts = new[chunk.start : chunk.stop]
            filled = prefill(self.model, prompts)
            self.places |= {tokens: next(spare) for tokens in prompts}
            self.buffers.lay(filled, [self.places[tokens] for tokens in prompts])
            logits |= zip(prompts, filled.logits_RV, strict=True)
        if self.queue and (tokens := self.queue[0].tokens) in logits:
            self.ahead[tokens] = logits[tokens].clone()
        return torch.stack([logits[row.tokens] for row in rows])

    def _look(self) -> None:
        groups: dict[Prompt, list[int]] = {}
        for slot, row in self.seats.items():
            groups.setdefault(row.tokens, []).append(slot)
        self.buffers.look([(self.places[it], len(it), slots) for it, slots in groups.items()])

    def settle(self) -> int:
        """Look at the slots: rows that have ended leave. Returns how many tokens one of the others may still get."""
        *_, lengths, alive = self.buffers.state.tolist()
        shown = [slot for slot in self.seats if self.tally.hears or not alive[slot]]
        longest = max((lengths[slot] for slot in shown), default=0)
        tokens, logprobs = (part[shown, :longest].tolist() for part in (self.buffers.tokens, self.buffers.logprobs))
        for slot, drawn, values in zip(shown, tokens, logprobs, strict=True):
            length = lengths[slot]
            if self.tally.ends(self.seats[slot], bool(alive[slot]), drawn[:length], values[:length]):
                del self.seats[slot]
                if alive[slot]:
                    self.buffers.state[ALIVE, slot] = 0
        return max((row.limit - lengths[slot] for slot, row in self.seats.items()), default=0)

    def close_up(self) -> None:
        """Where no row waits and a smaller bucket will do, the rows move into its slots."""
        small = bucket(max(1, len(self.seats)), self.slots)
        if self.queue or small >= self.bucket:
            return
        behind = [slot for slot in self.seats if slot >= small]
        holes = [slot for slot in range(small) if slot not in self.seats]
        moved = dict(zip(behind, holes, strict=False))
        if moved:
            self.buffers.move(list(moved), list(moved.values()))
            self.seats = {moved.get(slot, slot): row for slot, row in self.seats.items()}
        self.bucket = small
        self._look()
