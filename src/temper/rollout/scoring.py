"""Completions become replies with scores, while others are still being drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
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

    The scores are those of `Scorer.score_all`. To be used as a context: leaving it ends the thread.
    """

    def __init__(self, chat: Decoder, scorer: Scorer, prompts: Sequence[Prompt]):
        """`prompts` holds the prompt of each completion."""
        self.chat, self.scorer, self.prompts = chat, scorer, prompts
        self._early = [name for name, reward in scorer.rewards.items() if may_overlap(reward)]
        self._late = [name for name in scorer.rewards if name not in self._early]
        self._waiting: SimpleQueue[tuple[int, Completion]] = SimpleQueue()
        self._replies: dict[int, Reply] = {}
        self._outcomes: dict[int, dict[str, Outcome]] = {}
        self._pool = ThreadPoolExecutor(1, "temper-scoring")  # its thread starts with the first completion
        self._work: list[Future[None]] = []

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def finished(self, number: int, completion: Completion) -> None:
        """An engine's `Finished`: may be called on any thread."""
        self._waiting.put((number, completion))
        self._work.append(self._pool.submit(self._score_waiting))

    def results(self, completions: Sequence[Completion]) -> list[tuple[Reply, Score]]:
        """The reply and the score of each completion, those included that nobody told of. Raises what a reward raised
        if it is no failure of one reply."""
        for work in self._work:
            work.result()
        for number, completion in enumerate(completions):
            if number not in self._replies:
                self._waiting.put((number, completion))
        self._score_waiting()
        replies = [self._replies[number] for number in range(len(completions))]
        late = self.scorer.ask(self._late, list(zip(self.prompts, replies, strict=True)))
        scores = [self.scorer.weigh(self._outcomes[number] | outcome) for number, outcome in enumerate(late)]
        return list(zip(replies, scores, strict=True))

    def _score_waiting(self) -> None:
        came: dict[int, Reply] = {}
        try:
            while True:
                number, completion = self._waiting.get_nowait()
                text = self.chat.decode(completion.token_ids)
                came[number] = parse_reply(text, self.chat.thinking_opened, self.prompts[number].reply)
        except Empty:
            pass
        outcomes = self.scorer.ask(self._early, [(self.prompts[number], reply) for number, reply in came.items()])
        self._replies |= came
        self._outcomes |= zip(came, outcomes, strict=True)
