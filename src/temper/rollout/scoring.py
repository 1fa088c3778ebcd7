"""Completions become replies with scores, while others are still being drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Protocol

from temper.rewards.score import Outcome, Score, Scorer, may_overlap
from temper.text.reply import parse_reply
from temper.types import Completion, Prompt, Reply


class Decoder(Protocol):
    """What scoring needs of a chat format (`text/chat.py`)."""

    @property
    def thinking_opened(self) -> bool: ...
    def decode(self, ids: Iterable[int]) -> str: ...


class Scoring:
    """What has come (`finished`) is parsed on a thread of its own, which also asks the rewards that may be asked there
    (`may_overlap`), all replies that wait together; `results` asks the others on the caller's thread, all at once.

    Completions of one prompt that are equal, as most are of a policy that is sure, are read once, and those rewards
    asked once: they say the same of the same. The scores are those of `Scorer.score_all`. To be used as a context:
    leaving it ends the thread.
    """

    def __init__(self, chat: Decoder, scorer: Scorer, prompts: Sequence[Prompt]):
        """`prompts` holds the prompt of each completion."""
        self.chat, self.scorer, self.prompts = chat, scorer, prompts
        self._early = [name for name, reward in scorer.rewards.items() if may_overlap(reward)]
        self._late = [name for name in scorer.rewards if name not in self._early]
        self._waiting: SimpleQueue[tuple[int, Completion]] = SimpleQueue()
        self._numbers: dict[tuple[int, tuple[int, ...]], int] = {}  # of a prompt and its completion: the first to come
        self._firsts: dict[int, int] = {}  # of each completion: the number of the first that is equal
        self._replies: dict[int, Reply] = {}  # of those
        self._outcomes: dict[int, dict[str, Outcome]] = {}
        self._pool = ThreadPoolExecutor(1, "temper-scoring")  # its thread starts with the first completion
        self._work: list[Future[None]] = []
        self._lock, self._called = Lock(), False

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def finished(self, number: int, completion: Completion) -> None:
        """An engine's `Finished`: may be called on any thread."""
        self._waiting.put((number, completion))
        with self._lock:
            called, self._called = self._called, True
        if not called:
            self._work.append(self._pool.submit(self._answer_call))

    def results(self, completions: Sequence[Completion]) -> list[tuple[Reply, Score]]:
        """The reply and the score of each completion, those included that nobody told of. Raises what a reward raised
        if it is no failure of one reply."""
        for work in self._work:
            work.result()
        for number, completion in enumerate(completions):
            if number not in self._firsts:
                self._waiting.put((number, completion))
        self._score_waiting()
        firsts = [self._firsts[number] for number in range(len(completions))]
        replies = [self._replies[first] for first in firsts]
        return list(zip(replies, self._scores(firsts, replies), strict=True))

    def _scores(self, firsts: Sequence[int], replies: Sequence[Reply]) -> list[Score]:
        if not self._late:
            scores = {first: self.scorer.weigh(self._outcomes[first]) for first in dict.fromkeys(firsts)}
            return [scores[first] for first in firsts]
        late = self.scorer.ask(self._late, list(zip(self.prompts, replies, strict=True)))
        return [
            self.scorer.weigh(self._outcomes[first] | outcome) for first, outcome in zip(firsts, late, strict=True)
        ]

    def _answer_call(self) -> None:
        with self._lock:
            self._called = False  # from here on whoever comes calls again
        self._score_waiting()

    def _score_waiting(self) -> None:
        came: dict[int, Reply] = {}
        try:
            while True:
                number, completion = self._waiting.get_nowait()
                prompt = self.prompts[number]
                first = self._numbers.setdefault((id(prompt), completion.token_ids), number)
                self._firsts[number] = first
                if first == number:
                    text = self.chat.decode(completion.token_ids)
                    came[number] = parse_reply(text, self.chat.thinking_opened, prompt.reply)
        except Empty:
            pass
        outcomes = self.scorer.ask(self._early, [(self.prompts[number], reply) for number, reply in came.items()])
        self._replies |= came
        self._outcomes |= zip(came, outcomes, strict=True)
