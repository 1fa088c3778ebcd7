"""Many who ask, one sampler: what waits is drawn together, and joins what is being drawn as soon as that pays.

The sampler draws a list of rows and answers when they are done. Rows that come later would wait for the longest of
them; so a drawing is paused, at a token, once the time lost by beginning again (every row's tokens go through the model
once more) is small beside what was drawn since. What was drawn so far goes on as `Request.drawn`: a pause changes no
token. Rows with other settings (temperature, top_p, …) are drawn in turns of their own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from temper.rollout.engine import Engine, Request, Sampling
from temper.types import Completion, FinishReason

PAYS = 5.0  # a drawing is paused once it has gone on for so many times what beginning again will take
STRIDE = 8  # tokens between two looks at who waits, where nobody hears of every token
TURN = 0.5  # seconds after which rows with other settings get their turn
GATHER = 0.05  # of the last drawing's time is waited for those it answered to ask again
MAX_ROWS = 512  # drawn together
MAX_TASKS = 256


class Full(Exception):
    """More waits than the server keeps."""


@dataclass
class Job:
    """One completion that somebody waits for. `told` is called, on the sampler's thread, after every token and at the
    end; what there is to know stands in the other fields, which only that thread changes.

    `ends` says whether a completion that reads so far is finished (stop strings); `watched` jobs are told of tokens.
    """

    prompt_ids: tuple[int, ...]
    key: int
    max_tokens: int
    drawing: Sampling  # temperature, top_p, top_k and min_p
    told: Callable[[], None]
    ends: Callable[[Sequence[int]], bool] | None = None
    watched: bool = False
    tokens: list[int] = field(default_factory=list)  # drawn so far
    logprobs: list[float] = field(default_factory=list)  # of them; complete once it is done
    done: FinishReason | None = None
    failed: BaseException | None = None
    cancelled: bool = False  # nobody waits any more: may be set by any thread

    @property
    def is_over(self) -> bool:
        return self.done is not None or self.failed is not None or self.cancelled


class Batcher:
    """Draws jobs with one engine, on one thread. Use as a context; leaving it fails what still waits."""

    def __init__(self, engine: Engine, stop_ids: tuple[int, ...], capacity: int = 1024):
        """At most `capacity` jobs are kept, those being drawn included."""
        self.engine, self.stop_ids, self.capacity = engine, stop_ids, capacity
        self._waiting: deque[Job] = deque()
        self._tasks: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._drawn: Drawing | None = None
        self._change = threading.Condition()
        self._closing = False
        self._recent: deque[int] = deque(maxlen=4)  # rows of the last drawings
        self._took = 0.0  # seconds of the last one
        self._thread = threading.Thread(target=self._work, name="temper-batcher", daemon=True)

    def __enter__(self) -> Batcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let nobody wait any longer; what is being drawn ends at its next token."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()

    @property
    def load(self) -> int:
        """How many jobs are waiting or being drawn."""
        with self._change:
            return len(self._waiting) + (self._drawn.living if self._drawn else 0)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have all of `jobs` drawn. Raises Full, and takes none, where there is no room for them."""
        with self._change:
            load = len(self._waiting) + (self._drawn.living if self._drawn else 0)
            if self._closing or load + len(jobs) > self.capacity:
                raise Full(f"{load} replies are waited for already, {len(jobs)} more are over {self.capacity}")
            self._waiting.extend(jobs)
            self._change.notify_all()

    def run(self, task: Callable[[], Any], told: Callable[[Any], None]) -> None:
        """Have `task` called on the sampler's thread, between drawings; `told` gets what it returns or raises.
        Raises Full where too many wait."""
        with self._change:
            if self._closing or len(self._tasks) >= MAX_TASKS:
                raise Full(f"{len(self._tasks)} texts wait to be scored already")
            self._tasks.append((task, told))
            self._change.notify_all()

    # ---- the sampler's thread --------------------------------------------------------------------------------------

    def waits(self, drawing: Sampling) -> tuple[bool, bool, int]:
        """(whether rows with these settings wait, whether others or tasks do, the prompt tokens of the former)."""
        with self._change:
            alike = [job for job in self._waiting if job.drawing == drawing]
            others = len(alike) < len(self._waiting) or bool(self._tasks)
            return bool(alike), others, sum(len(job.prompt_ids) for job in alike)

    @property
    def closing(self) -> bool:
        return self._closing

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._tasks and not self._closing:
                    self._change.wait()
                if not self._tasks:
                    self._gather()
                if self._closing:
                    break
                task = self._tasks.popleft() if self._tasks else None
                jobs = [] if task else self._take()
                self._drawn = Drawing(self, jobs) if jobs else None
            if task:
                _attempt(*task)
            elif self._drawn:
                began = time.perf_counter()
                left = self._drawn.run()
                self._took = time.perf_counter() - began
                self._recent.append(len(jobs))
                with self._change:
                    self._waiting.extend(left)
                    self._drawn = None
        for job in self._waiting:
            _fail(job, RuntimeError("the server is closing"))
        for _, told in self._tasks:
            told(RuntimeError("the server is closing"))

    def _gather(self) -> None:
        """Wait a moment for as many as were drawn together of late: who was answered asks again, and rows that come one
        by one would be drawn one by one."""
        wanted = max(self._recent, default=0)
        self._change.wait_for(
            lambda: len(self._waiting) >= wanted or self._closing or bool(self._tasks), GATHER * self._took
        )

    def _take(self) -> list[Job]:
        """Those that wait with the settings of the one that waits longest; nobody's are dropped."""
        waiting = [job for job in self._waiting if not job.cancelled]
        alike = [job for job in waiting if job.drawing == waiting[0].drawing][:MAX_ROWS]
        taken = set(map(id, alike))
        self._waiting = deque(job for job in waiting if id(job) not in taken)
        return alike


def _attempt(task: Callable[[], Any], told: Callable[[Any], None]) -> None:
    try:
        found = task()
    except Exception as error:  # whoever asked is told
        found = error
    told(found)


def _fail(job: Job, error: BaseException) -> None:
    job.failed = error
    job.told()


class Drawing:
    """Jobs while they are drawn together: what the engine is given to watch, and the rule by which it is stopped."""

    def __init__(self, batcher: Batcher, jobs: Sequence[Job]):
        self.batcher, self.jobs = batcher, jobs
        self.living = len(jobs)
        self.hears = any(job.watched or job.ends is not None for job in jobs)  # of every token
        self.stride = 1 if self.hears else STRIDE
        self._answered: set[int] = set()
        self._ended: set[tuple[int, ...]] = set()  # completions that their own jobs want no more of
        self._paused = False
        self._began = time.perf_counter()
        self._prefilled = 0.0  # seconds until the first token
        self._tokens = sum(len(job.prompt_ids) + len(job.tokens) for job in jobs)
        self._to_ask = 0  # rows of this round that are still to be asked about
        self._drawn = self._drawn_before = 0  # tokens of the rows asked about in this round, and in the last
        self._fresh = [list(job.tokens) for job in jobs]  # what each reads while it is drawn, if somebody hears of it

    def run(self) -> list[Job]:
        """Draw until all are done or it pays to begin again; returns those that are not done."""
        drawing = self.jobs[0].drawing
        requests = [
            Request(job.prompt_ids, job.key, tuple(job.tokens), job.max_tokens - len(job.tokens)) for job in self.jobs
        ]
        longest = max(job.max_tokens for job in self.jobs)
        sampling = replace(drawing, max_tokens=longest, stop_ids=self.batcher.stop_ids, stop_rule=self)
        watch = self.watch if self.hears else None
        try:
            completions = self.batcher.engine.generate(requests, sampling, watch, self.finished)
        except Exception as error:  # nobody's server ends with one request
            for job in self.jobs:
                if not job.is_over:
                    _fail(job, error)
            return []
        for number, completion in enumerate(completions):
            if number not in self._answered:  # no room for a token
                self.finished(number, completion)
        return [job for job in self.jobs if not job.is_over]

    def watch(self, number: int, token: int) -> None:
        """One more token of a job."""
        job, fresh = self.jobs[number], self._fresh[number]
        fresh.append(token)
        if job.cancelled or (job.ends is not None and job.ends(fresh)):
            self._ended.add(tuple(fresh))
        elif job.watched and token not in self.batcher.stop_ids:
            job.tokens.append(token)
            job.told()

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether a row is to leave: its own job has enough of it, or all are paused. One that reads the same as
        another that has ended leaves with it, and comes back."""
        if self._to_ask == 0:
            self._to_ask = len(self.jobs) - len(self._answered)
            self._drawn_before, self._drawn = self._drawn, 0
            self._look()
        self._to_ask -= 1
        self._drawn += len(token_ids)
        return self._paused or (bool(self._ended) and tuple(token_ids) in self._ended)

    def finished(self, number: int, completion: Completion) -> None:
        """What was drawn for a job: it is done, or left at a pause."""
        job = self.jobs[number]
        self._answered.add(number)
        begun = len(job.logprobs)
        job.tokens[begun:] = completion.token_ids
        job.logprobs += completion.sampler_logprobs
        own = bool(job.tokens) and (
            job.tokens[-1] in self.batcher.stop_ids or (job.ends is not None and job.ends(job.tokens))
        )
        if own:
            job.done = "stop"
        elif job.cancelled:
            pass
        elif completion.finish_reason == "length":
            job.done = "length"
        elif self.batcher.closing:
            job.failed = RuntimeError("the server is closing")
        else:
            return
        with self.batcher._change:
            self.living -= 1
        job.told()

    def _look(self) -> None:
        """Before the rows are asked about: whether to pause."""
        now = time.perf_counter()
        if not self._prefilled:
            self._prefilled = now - self._began
            return
        if self.batcher.closing or all(job.is_over for job in self.jobs):
            self._paused = True
            return
        alike, others, coming = self.batcher.waits(self.jobs[0].drawing)
        gone = not self.hears and any(job.cancelled and n not in self._answered for n, job in enumerate(self.jobs))
        if not (alike and self.living < MAX_ROWS) and not others and not gone:
            return
        prompts = sum(len(job.prompt_ids) for job in self.jobs if not job.is_over)
        lost = self._prefilled * (coming + prompts + self._drawn_before) / max(1, self._tokens)
        since = now - self._began - self._prefilled
        self._paused = since >= PAYS * lost and (alike or gone or since >= TURN)
