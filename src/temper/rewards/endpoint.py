"""A chat endpoint that speaks OpenAI's protocol, asked with the standard library: time-outs, retries, a budget."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from temper.errors import ConfigError, Fault, ResourceError

PATIENCE = 16  # questions in a row that fail, each after its retries, before the endpoint counts as out of order
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before the first retry, doubled each time, and at most
MAX_ANSWER = 4 << 20  # bytes
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
HOPELESS = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405})  # the next question would fare no better


class NoAnswer(Exception):
    """Why one question got no answer."""


class _Passing(NoAnswer):
    """The same question may be answered later: after `pause` seconds, if the endpoint said so."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class Limits:
    """Seconds a request may take, how often one is repeated, how many are under way at once; requests and tokens (of
    question and answer) that this process may spend, None for any number."""

    timeout: float
    max_retries: int
    concurrency: int
    max_calls: int | None = None
    max_tokens: int | None = None


class Endpoint:
    """`url` is what stands before `path`. The key goes into the request's header and nowhere else. `who` is asked, in
    words."""

    def __init__(
        self, url: str, key: str | None, limits: Limits, path: str = "/chat/completions", who: str = "the judge"
    ):
        self.url = url if urlsplit(url).path.endswith(path) else url.rstrip("/") + path
        self.who = who
        self.limits = limits
        self.calls = self.tokens = 0  # spent so far
        self._key = key
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._failed_in_a_row = 0

    def ask_all(self, bodies: Sequence[Mapping[str, Any]]) -> Iterator[str | NoAnswer]:
        """The answer to each request, or why there is none, in order, as they come.

        Raises ResourceError where the budget is spent or `PATIENCE` questions in a row failed, ConfigError where the
        endpoint refuses the key or does not know the model or the path.
        """
        self._stop.clear()
        pool = ThreadPoolExecutor(min(self.limits.concurrency, len(bodies)) or 1, "temper-endpoint")
        try:
            yield from pool.map(self._ask, bodies)
        except BaseException:
            self._stop.set()  # ends the pauses of the others
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, body: Mapping[str, Any]) -> str | NoAnswer:
        data = json.dumps(body).encode()
        pause, problem = FIRST_PAUSE, NoAnswer("interrupted")
        for attempt in range(self.limits.max_retries + 1):
            if attempt:
                asked_for = problem.pause if isinstance(problem, _Passing) else None
                if self._stop.wait(min(LONGEST_PAUSE, pause if asked_for is None else asked_for)):
                    break
                pause *= 2
            self._spend()
            try:
                answer = self._post(data)
            except NoAnswer as error:
                problem = error
                if not isinstance(error, _Passing):
                    break
            else:
                with self._lock:
                    self._failed_in_a_row = 0
                return answer
        return self._failed(problem)

    def _failed(self, problem: NoAnswer) -> NoAnswer:
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row < PATIENCE:
                return NoAnswer(str(problem))
        what = f"{self.who} answered none of {PATIENCE} questions in a row"
        fix = "see that the endpoint is up, then run the same command again: it goes on where it stopped"
        raise ResourceError(Fault(what, self.url, str(problem), fix))

    def _spend(self) -> None:
        """Count one request. Raises ResourceError if there is no budget for it."""
        limits = self.limits
        with self._lock:
            over_calls = limits.max_calls is not None and self.calls >= limits.max_calls
            over_tokens = limits.max_tokens is not None and self.tokens >= limits.max_tokens
            if not over_calls and not over_tokens:
                self.calls += 1
                return
        key = "max_calls" if over_calls else "max_total_tokens"
        why = f"{self.calls} requests and {self.tokens} tokens were spent: `{key}`"
        fix = f"run the same command again: it goes on where it stopped, with a new budget; or raise `judge.{key}`"
        raise ResourceError(Fault("the judge's budget is spent", self.url, why, fix))

    def _post(self, data: bytes) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, data, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.limits.timeout) as response:
                raw = response.read(MAX_ANSWER)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except TimeoutError:
            raise _Passing(f"no answer within {self.limits.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                reason = f"no answer within {self.limits.timeout:g} s"
            raise _Passing(self._masked(f"{type(error).__name__}: {reason}")) from None
        return self._answer_in(raw, len(data))

    def _refused(self, error: urllib.error.HTTPError) -> NoAnswer:
        with error:
            try:
                said = error.read(2_000).decode("utf-8", "replace")
            except (OSError, http.client.HTTPException):
                said = ""
        reason = self._masked(f"HTTP {error.code} {error.reason}: {' '.join(said.split())[:300]}").removesuffix(": ")
        if error.code in HOPELESS:
            is_judge = self.who == "the judge"
            fix = "check the judge's `url`, `model` and `api_key_env`" if is_judge else "check its address"
            raise ConfigError(Fault(f"{self.who} refuses the request", self.url, reason, fix)) from None
        if error.code not in RETRIED:
            return NoAnswer(reason)
        after = error.headers.get("Retry-After", "")
        return _Passing(reason, float(after) if after.isascii() and after.isdigit() else None)

    def _answer_in(self, raw: bytes, sent: int) -> str:
        try:
            said = json.loads(raw)
            answer = said["choices"][0]["message"]["content"]
            if not isinstance(answer, str):
                raise TypeError
        except (ValueError, LookupError, TypeError):
            self._count(None, sent + len(raw))
            shown = self._masked(raw[:100].decode("utf-8", "replace"))
            raise NoAnswer(f"no `choices[0].message.content` in the answer {shown!r}") from None
        usage = said.get("usage")
        self._count(usage.get("total_tokens") if isinstance(usage, dict) else None, sent + len(answer))
        return answer

    def _count(self, tokens: object, characters: int) -> None:
        """Tokens as the endpoint counts them, a quarter of the characters where it does not."""
        known = isinstance(tokens, int) and tokens > 0
        with self._lock:
            self.tokens += tokens if known else -(-characters // 4)  # type: ignore[operator]

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host: it is an error instead."""

    def redirect_request(self, *_: Any) -> None:
        return None
