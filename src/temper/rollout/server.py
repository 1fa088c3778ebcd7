"""The sampler over HTTP: vLLM servers that hold the policy's weights. Token ids go out and come back, no text.

Each completion is a request of its own, with the seed that its key names; all completions of a prompt go to one server,
whose prefix cache then serves the group. Before anything is drawn, every server is brought to the policy's present
weights (`weights.py`), and every completion is checked against them.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from temper.distributed.ranks import ranks
from temper.errors import ConfigError, ResourceError
from temper.models.adapters import has_adapters
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.options import ServerConfig
from temper.rollout.weights import (
    Version,
    check_arrival,
    deliver,
    forget_versions,
    held_by,
    lost,
    sample_of,
    write_version,
)
from temper.rollout.wire import Server, Trouble, told
from temper.types import Completion

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds before a second try, doubled each time, and at most
CHECKED_UPDATES = 2  # whose weights are compared by checksum: the first two tell whether updates arrive at all
LOOK_UP = 0.2  # seconds after which the main thread looks whether it was asked to stop


class ServerEngine:
    """Implements `Engine` over `config.servers`.

    `source` is a directory that holds the weights of version 0, where there is one; later ones are written below
    `folder`. `agrees` is asked once whether a completion's log-probs are those of the model here (`agreement.py`).
    """

    def __init__(
        self,
        model: Any,
        config: ServerConfig,
        folder: Path,
        source: Path | None = None,
        version: Callable[[], int] = lambda: 0,
        key: str | None = None,
        agrees: Callable[[Request, Completion, Sampling, Server], None] | None = None,
    ):
        self.model, self.config, self.version = model, config, version
        self._folder, self._source, self._agrees = folder, source, agrees
        self._servers = [Server(url, key, config.timeout) for url in config.servers]
        self._held: list[Version | None] = [None] * len(self._servers)
        self._sums: Mapping[str, str] = {}
        self._sample = b""  # of the policy's weights that the servers hold
        self._updates, self._number = 0, -1  # how many were delivered, and which of the policy's the last one was
        self._name, self._context = config.model, 1 << 30
        self._own = secrets.token_hex(4)  # in the names of versions: the servers may have been another run's before
        self._stop, self._down = threading.Event(), set[int]()
        self._drawing: ServerDrawing | None = None

    def __enter__(self) -> ServerEngine:
        """Raises ConfigError for a server that serves no such model, ResourceError for one that is not reached."""
        for server in self._servers:
            self._meet(server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawing is not None:
            self._drawing.end()
        forget_versions(self._folder)

    def _meet(self, server: Server) -> None:
        try:
            said = server.get("/v1/models")
            served = {str(entry["id"]): entry for entry in said["data"]}
        except Trouble as trouble:
            fix = "see that it is up (`vllm serve …`) and can be reached from here"
            raise ResourceError(told(server, "a server cannot be asked", str(trouble), fix)) from None
        except (TypeError, LookupError):
            raise ConfigError(told(server, "this is no server of models", "/v1/models names none")) from None
        name = self._name or next(iter(served), "")
        if name not in served:
            why = f"it serves {', '.join(f'`{each}`' for each in served) or 'nothing'}"
            raise ConfigError(told(server, f"a server has no model `{name}`", why, "correct `engine.model`"))
        self._name = name
        limit = served[name].get("max_model_len")
        self._context = min(self._context, limit if isinstance(limit, int) else 1 << 30)

    # -- weights ------------------------------------------------------------------------------------------------------

    def _bring_weights(self) -> None:
        """Every server to the policy's present version; one that was down or started again is brought there, too. Of
        several ranks that share the servers the first does it: all have what was drawn before, or nobody had begun."""
        self._down.clear()
        if self.config.weights == "keep":
            return
        if ranks().size == 1:
            self._deliver()
            return
        [told] = ranks().together(lambda: [self._deliver()] if ranks().rank == 0 else [])
        self._held, self._down = list(told[0]), set(told[1])

    def _deliver(self) -> tuple[Sequence[Version | None], set[int]]:
        """What each server holds then, and which could not be reached. Raises TemperError."""
        version, number = self._present(), self.version()
        is_new, found, reached = number != self._number, [], []
        for i, server in enumerate(self._servers):
            try:
                held = held_by(server)
                if self._held[i] == version and held in (version.name, None):
                    continue
                found.append(deliver(server, version, self._held[i]))
                self._held[i] = version
                reached.append(server)
            except (Trouble, ResourceError) as problem:
                self._give_up_on(i, problem)
        if self._updates < CHECKED_UPDATES and is_new:
            sample = sample_of(self.model)
            check_arrival(reached, found, self._sums if sample != self._sample else {})
            self._sums = next((sums for sums in found if sums), self._sums)
            self._sample = sample
        if is_new:
            forget_versions(self._folder, but=version.name)
            self._number, self._updates = number, self._updates + 1
        return self._held, self._down

    def _give_up_on(self, i: int, problem: Exception) -> None:
        """Do without a server, as long as there is another."""
        self._held[i] = None
        self._down.add(i)
        if len(self._down) < len(self._servers):
            return
        if isinstance(problem, ResourceError):
            raise problem
        fix = "start it again, then run the same command again: it goes on from the last checkpoint"
        raise ResourceError(told(self._servers[i], "no server can be reached", str(problem), fix))

    def _present(self) -> Version:
        number = self.version()
        known = next((held for held in self._held if held is not None), None)
        if known is not None and number == self._number:
            return known
        name = f"temper-{self._own}-{number}"
        if self._source is not None and number == 0 and not has_adapters(self.model):
            return Version(name, self._source.resolve())
        return write_version(self.model, self._folder, name)

    # -- completions --------------------------------------------------------------------------------------------------

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        """As `Engine` says. Another server, another batch or another card may draw other tokens for the same key."""

        def told(number: int, completion: Completion) -> None:
            for token in completion.token_ids:
                if watch is not None:
                    watch(number, token)
            if finished is not None:
                finished(number, completion)

        return self.begin(requests, sampling, told).result()

    def begin(self, requests: Sequence[Request], sampling: Sampling, finished: Finished | None = None) -> ServerDrawing:
        """As `AheadEngine` says: the servers are brought to the weights of now before it returns."""
        self._stop.clear()
        self._bring_weights()
        homes = _homes(requests, [i for i in range(len(self._servers)) if i not in self._down])
        self._drawing = ServerDrawing(self, requests, sampling, homes, self.version(), finished)
        return self._drawing

    def hang_up(self) -> None:
        """End the calls under way."""
        self._stop.set()
        for server in self._servers:
            server.hang_up()

    def draw(self, request: Request, sampling: Sampling, home: int, number: int) -> Completion:
        """One completion with version `number` of the weights, from the server `home` where that answers."""
        wanted = sampling.max_tokens if request.max_tokens is None else request.max_tokens
        prompt = [*request.prompt_ids, *request.drawn]
        limit = min(wanted, self._context - len(prompt))
        if limit < 1:
            return Completion((), (), "length", number)
        body, pause = self._body(request, prompt, sampling, limit), FIRST_PAUSE
        for attempt in range(self.config.max_retries + 1):
            i = self._place(home, attempt)
            try:
                said = self._servers[i].post("/v1/completions", body)
                return replace(self._completion(said, sampling, limit, request.drawn, i), policy_version=number)
            except Trouble as trouble:
                problem = trouble
                if trouble.gone:
                    self._down.add(i)
                if not trouble.passing:
                    break
            if attempt < self.config.max_retries and self._stop.wait(pause):
                break
            pause = min(2 * pause, LONGEST_PAUSE)
        fix = "see what the server's log says, then run the same command again"
        raise ResourceError(told(self._servers[i], "a server did not answer a request", str(problem), fix))

    def _place(self, home: int, attempt: int) -> int:
        """The server of a try: the prompt's own first, then the next ones that are up."""
        order = [(home + step) % len(self._servers) for step in range(len(self._servers))]
        up = [i for i in order if i not in self._down] or order
        return up[attempt % len(up)] if home in self._down or attempt else home

    def _body(self, request: Request, prompt: list[int], sampling: Sampling, limit: int) -> dict[str, Any]:
        held = next((held for held in self._held if held is not None), None)
        strings = getattr(sampling.stop_rule, "strings", ())
        return {
            "model": held.name if held is not None and held.is_adapter else self._name,
            "prompt": prompt,
            "n": 1,
            "max_tokens": limit,
            "seed": request.key,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "logprobs": 0,
            "ignore_eos": True,  # the stage says what ends a completion
            "stop_token_ids": list(sampling.stop_ids),
            "stop": list(strings),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "add_special_tokens": False,
            "return_token_ids": True,
            "return_weight_versions": True,
        }

    def _completion(self, said: Any, sampling: Sampling, limit: int, drawn: Sequence[int], i: int) -> Completion:
        """What a server answered, if it can be true. Raises Trouble."""
        try:
            (choice,) = said["choices"]
            ids = tuple(choice["token_ids"])
            values = tuple(float(value) for value in choice["logprobs"]["token_logprobs"])
            reason, versions = choice["finish_reason"], choice.get("weight_versions") or []
            whole = all(isinstance(token, int) and token >= 0 for token in ids) and all(map(math.isfinite, values))
        except (TypeError, LookupError, ValueError, AttributeError):
            raise Trouble("the answer holds no completion: one choice with `token_ids` and `logprobs`") from None
        if not whole or len(ids) != len(values) or not 0 < len(ids) <= limit:
            raise Trouble(f"the answer has {len(ids)} tokens, {len(values)} log-probs, and at most {limit} were wanted")
        if reason not in ("stop", "length"):
            raise Trouble(f"the completion was ended by `{reason}`")
        name = self._held[i].name if self._held[i] is not None else None  # type: ignore[union-attr]
        if name is not None and (others := [said for said in map(_version_in, versions) if said not in (None, name)]):
            raise Trouble(f"the completion was drawn with the weights `{others[0]}`, not `{name}`")
        end = _end_of(ids, sampling, drawn)
        stopped, ids, values = end is not None, ids[:end], values[:end]
        if not stopped and len(ids) < limit:
            raise Trouble(f"the completion ends after {len(ids)} of {limit} tokens, and nothing in it ends one")
        return Completion(ids, values, "stop" if stopped else "length")

    def check_versions(self) -> None:
        """No server may have been started again while it drew. Raises TemperError."""
        for i, server in enumerate(self._servers):
            version = self._held[i]
            if version is None or i in self._down:
                continue
            try:
                held = held_by(server)
            except Trouble as trouble:
                self._give_up_on(i, trouble)
                continue
            if held is not None and held != version.name and not version.is_adapter:
                self._held[i] = None
                raise lost(server, held, version)

    def check_agreement(
        self, requests: Sequence[Request], completions: Sequence[Completion], sampling: Sampling, homes: Sequence[int]
    ) -> None:
        if self._agrees is None or sampling.temperature == 0:
            return
        number = next((i for i, completion in enumerate(completions) if completion.token_ids), None)
        if number is not None:
            self._agrees(requests[number], completions[number], sampling, self._servers[homes[number]])
            self._agrees = None


class ServerDrawing:
    """Implements `Drawing`: as many calls under way as the servers are to have, a thread each."""

    def __init__(
        self, engine: ServerEngine, requests: Sequence[Request], sampling: Sampling, homes: Sequence[int], number: int,
        finished: Finished | None,
    ):  # fmt: skip
        """`homes`: the server of each request; `number`: the version of the weights."""
        self._engine, self._requests, self._sampling, self._homes = engine, requests, sampling, homes
        config = engine.config
        self._pool = ThreadPoolExecutor(config.concurrency * len(config.servers), "temper-server")

        def answer(place: int) -> Completion:
            completion = engine.draw(requests[place], sampling, homes[place], number)
            if completion.token_ids and finished is not None:
                finished(place, completion)
            return completion

        self._futures = [self._pool.submit(answer, place) for place in range(len(requests))]

    def result(self) -> list[Completion]:
        """Raises TemperError where servers did not answer, or not with the weights that they were given."""
        try:
            completions = _all_of(self._futures)
        except BaseException:
            self._engine.hang_up()
            raise
        finally:
            self._pool.shutdown(cancel_futures=True)
        self._engine.check_versions()
        self._engine.check_agreement(self._requests, completions, self._sampling, self._homes)
        return completions

    def end(self) -> None:
        """Give up what is under way; nothing where all of it has come."""
        self._engine.hang_up()
        self._pool.shutdown(cancel_futures=True)


def _homes(requests: Sequence[Request], up: Sequence[int]) -> list[int]:
    """The server of each request: prompts take turns, all samples of one stay together."""
    seen: dict[tuple[int, ...], int] = {}
    return [up[seen.setdefault(request.prompt_ids, len(seen)) % len(up)] for request in requests]


def _all_of(futures: Sequence[Future[Completion]]) -> list[Completion]:
    """The results in order; what one of them raised, as soon as it did."""
    left = set(futures)
    while left:
        done, left = wait(left, LOOK_UP, FIRST_EXCEPTION)
        for future in done:
            future.result()
    return [future.result() for future in futures]


def _end_of(ids: Sequence[int], sampling: Sampling, drawn: Sequence[int]) -> int | None:
    """How many of the tokens belong to the completion, for a server may stop later than the rule; None if none of them
    ends one."""
    so_far = list(drawn)
    for count, token in enumerate(ids, 1):
        so_far.append(token)
        if token in sampling.stop_ids or (sampling.stop_rule is not None and sampling.stop_rule.ends(so_far)):
            return count
    return None


def _version_in(span: Any) -> str | None:
    """The name in one span of `weight_versions`."""
    if isinstance(span, Mapping):
        span = span.get("version")
    return None if span is None else str(span)
