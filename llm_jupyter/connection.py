"""One connection for each provider: its state, its health, and whether it is worth asking now.

Being there, being ready and being live are three things. A port that accepts says the first; a list of models in the
shape of this kind of server says the second, and is what a health check asks for, since it loads no model; only an
answered request says the third. So a health check closes a breaker that a refused connection opened, and never one that
failed requests did.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from llm_jupyter.breaker import Breaker, spread, tells_of_the_server
from llm_jupyter.clock import SYSTEM_CLOCK, Clock
from llm_jupyter.effort import Effort
from llm_jupyter.errors import (
    AuthenticationError,
    ForeignServerError,
    LLMConnectionError,
    LLMError,
    ModelLoadingError,
    RateLimitedError,
    UnreachableError,
)
from llm_jupyter.events import EventBus, HealthChecked
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.types import LLMProviderStatus, ProviderState

logger = logging.getLogger(__name__)

LONGEST_CHECK = 5.0
"""Seconds that a health check may take where no interval is set."""

CHECK_SHARE = 0.8
"""The share of the interval that a health check may take: a server that hangs is found within two intervals."""


@dataclass(frozen=True, slots=True)
class Watching:
    """How a connection is watched: `health_interval` in seconds between two looks, 0 for none.

    `first_token_timeout` in seconds is how long a server may load without progress where a question sets no limit;
    `retries` is how often a request is sent again before its first token, when nobody else may answer.
    """

    health_interval: float = 5.0
    first_token_timeout: float = 300.0
    retries: int = 2


class Hosts(Protocol):
    """Who starts servers of this machine."""

    def expected(self, provider: LLMProvider) -> ProviderState | None:
        """The state of a provider whose silence is no failure: its server is at rest, or starts; `None` for any other."""

    def next_step(self, provider: LLMProvider) -> str:
        """What starts its server by hand; empty where nothing does."""

    async def explain(self, provider: LLMProvider, error: LLMError, since: float) -> None:
        """Let an error tell why its server has ended since then (seconds since the epoch), if that is so."""


class NoHosts:
    """Whoever runs the servers, it is not us."""

    def expected(self, provider: LLMProvider) -> ProviderState | None:
        return None

    def next_step(self, provider: LLMProvider) -> str:
        return ""

    async def explain(self, provider: LLMProvider, error: LLMError, since: float) -> None:
        return None


class Connection:
    """What is between this process and one provider."""

    def __init__(
        self, provider: LLMProvider, events: EventBus, watching: Watching, clock: Clock, random: Callable[[], float],
        hosts: Hosts,
    ) -> None:  # fmt: skip
        self.provider = provider
        self.breaker = Breaker(clock.monotonic, random)
        self._events = events
        self._watching = watching
        self._clock = clock
        self._random = random
        self._hosts = hosts
        self._effort = Effort(provider.url) if provider.is_local and provider.url else None
        self._counted: Callable[[], LLMError | None] = lambda: None
        self._silence = ""
        self._checking: asyncio.Task[LLMProviderStatus] | None = None
        self._watch: asyncio.Task[None] | None = None

    def status(self) -> LLMProviderStatus:
        """What is known, without asking the server."""
        return self.provider.status()

    @contextlib.asynccontextmanager
    async def attempt(self, *, forced: bool = False) -> AsyncIterator[None]:
        """A request is made in this block; how it ends tells of the connection.

        Raises `LLMConnectionError` at once while the server is left alone, unless it is `forced`.
        """
        if not forced and not self.breaker.admits():
            raise self.left_alone()
        tries = self.breaker.enter()
        try:
            yield
        except LLMError as error:
            self.failed(error, tries)
            raise
        except BaseException:
            self.breaker.leave(tries)
            raise
        self.breaker.succeed()
        self.provider.observed(None)

    @contextlib.asynccontextmanager
    async def explained(self, since: float) -> AsyncIterator[None]:
        """An error in this block tells why the server has ended since then (seconds since the epoch), if that is so."""
        try:
            yield
        except LLMError as error:
            await self._hosts.explain(self.provider, error, since)
            raise

    def failed(self, error: LLMError, tries: int = 0) -> None:
        """A request ended so; `tries` is what the breaker called it when it began."""
        self._advise(error)
        if tells_of_the_server(error) or isinstance(error, ForeignServerError):
            self.watch()  # so that its return is noticed, even where it never was there
        if error is self._counted():  # a look on the way to the request has failed, and was told of
            self.breaker.leave(tries)
            return
        if not tells_of_the_server(error):
            self.breaker.leave(tries)
            self.provider.observed(error)
            return
        self.breaker.fail(error, tries)
        is_given_up = self.breaker.is_open and not isinstance(error, RateLimitedError)
        self.provider.observed(LLMConnectionError(error.what) if is_given_up else error)

    def left_alone(self) -> LLMConnectionError:
        """Why nothing is asked of it now."""
        reason = self.provider.status().reason or "it failed"
        return LLMConnectionError(
            f"{reason}; it is asked again in {math.ceil(self.breaker.wait)} s", where=self.provider.where,
            next_step=f"%llm connect {self.provider.name} tries at once; %llm use MODEL lets another answer.",
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def look(self, within: float | None = None) -> AsyncIterator[None]:
        """In this block the server is asked for something that needs no model, for so many seconds at most.

        Raises `LLMConnectionError` where it does not answer in that time.
        """
        started = time.perf_counter()
        try:
            async with asyncio.timeout(within):
                yield
        except LLMError as error:
            self._silence = ""
            self._looked(error)
            raise
        except TimeoutError:
            limit = f" within {within:g} s" if within is not None else ""
            silent = LLMConnectionError(f"it did not answer{limit}", where=self.provider.where)
            if not self.provider.in_flight:  # else it is busy, and the requests under way will tell
                self._silence = silent.what
                self._looked(silent)
                self.watch()
            raise silent from None
        self._silence = ""
        if self.provider.url is not None:
            self.provider.measured(time.perf_counter() - started)
        self._looked(None)

    @property
    def silence(self) -> LLMConnectionError | None:
        """Why a question that nobody waits for is not worth its time: the last one was not answered in time, and the watch
        will tell when the server is back, or the pause after that is not over.
        """
        is_watched = self._watch is not None and not self._watch.done()
        if self._silence and self.breaker.is_open and (is_watched or self.breaker.wait):
            return LLMConnectionError(self._silence, where=self.provider.where)
        return None

    @property
    def first_token_timeout(self) -> float:
        """Seconds to the first token where a question says nothing else."""
        return self._watching.first_token_timeout

    async def loading_mark(self) -> object:
        """Something that changes as long as the server makes progress with loading a model; `None` if nobody can tell."""
        return await asyncio.to_thread(self._effort.mark) if self._effort else None

    async def connect(self) -> LLMProviderStatus:
        """Ask the server now, whatever happened before, and watch it from now on. Raises as `LLMProvider.connect`."""
        try:
            await self.provider.connect()
        except LLMError as error:
            self._looked(error)
            raise
        finally:
            self.watch()
        self.breaker.succeed()
        return self.status()

    async def check(self, *, anew: bool = False) -> LLMProviderStatus:
        """A fresh look at the server. However many ask at once, there is one look; `anew`: one that begins after this."""
        if anew and self._checking is not None:
            await asyncio.wait([self._checking])
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._look())
        return await asyncio.shield(self._checking)

    def watch(self) -> None:
        """Look after the server from now on. A remote one is not watched: each look would be a word to the outside."""
        idle = self._watch is None or self._watch.done()
        if idle and self._watching.health_interval and self.provider.is_local:
            self._watch = asyncio.create_task(self._look_again_and_again())

    async def aclose(self) -> None:
        """Stop watching. Idempotent."""
        tasks = [task for task in (self._watch, self._checking) if task is not None]
        self._watch = self._checking = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_again_and_again(self) -> None:
        began = self._clock.monotonic()
        while True:
            # Never later than the interval after the last look began, so that a server that is back is found within one.
            due = began + spread(self._watching.health_interval * 0.9, self._random, 0.1)
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
            began = self._clock.monotonic()
            if self.provider.in_flight:
                continue  # the requests under way will tell
            try:
                await self.check()
            except Exception:  # a watch that ends silently would leave a stale state for ever
                logger.exception("looking after %s failed", self.provider.name)

    async def _look(self) -> LLMProviderStatus:
        limit = self._watching.health_interval * CHECK_SHARE or LONGEST_CHECK
        error: LLMError | None = None
        try:
            async with self.look(limit):
                await self.provider.probe()
        except LLMError as failure:
            error = failure
        status = self.provider.status()
        self._events.publish(
            HealthChecked(
                provider=status.name,
                healthy=error is None,
                latency=status.latency if error is None else None,
                reason=error.what if error is not None else "",
            )
        )
        return status

    def _looked(self, error: LLMError | None) -> None:
        """Let state and breaker follow what a look at the server has shown."""
        self._advise(error)
        if isinstance(error, ModelLoadingError | AuthenticationError):
            self.provider.observed(error)
        elif isinstance(error, LLMConnectionError) and (state := self._hosts.expected(self.provider)) is not None:
            self._counted = weakref.ref(error)
            if self.breaker.closed_by_a_look:
                self.breaker.succeed()
            self.provider.told(state)
        elif error is not None:
            if tells_of_the_server(error):
                self.breaker.fail(error, is_certain=True)
                self._counted = weakref.ref(error)
            self.provider.observed(LLMConnectionError(error.what))
        elif not self.breaker.is_open:
            self.provider.observed(None)  # failures that were counted stay so: a look is no answer
        elif self.breaker.closed_by_a_look:
            self.breaker.succeed()
            self.provider.observed(None)
        # Else it is there, but its answers failed: only an answer can show that they no longer do.

    @property
    def start_hint(self) -> str:
        """What a person types to start its server, as a next step; empty where nothing does."""
        return self._hosts.next_step(self.provider)

    def _advise(self, error: LLMError | None) -> None:
        if isinstance(error, UnreachableError) and not error.is_explained and (hint := self.start_hint):
            error.next_step = hint


class LLMConnectionManager:
    """The connections by provider."""

    def __init__(
        self,
        events: EventBus,
        watching: Watching | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
        hosts: Hosts | None = None,
    ) -> None:
        self._events = events
        self._watching = watching or Watching()
        self._hosts = hosts or NoHosts()
        self.clock = clock
        self.random = random
        self._connections: dict[str, Connection] = {}

    @property
    def retries(self) -> int:
        """How often a request is sent again before its first token, when nobody else may answer."""
        return self._watching.retries

    def of(self, provider: LLMProvider) -> Connection:
        """The connection of a provider, made on first use."""
        known = self._connections.get(provider.name)
        if known is None or known.provider is not provider:
            known = Connection(provider, self._events, self._watching, self.clock, self.random, self._hosts)
            self._connections[provider.name] = known
        return known

    def statuses(self) -> list[LLMProviderStatus]:
        """What is known of each, without asking anybody."""
        return [connection.status() for connection in self._connections.values()]

    async def aclose(self) -> None:
        """Stop watching all. Idempotent."""
        while self._connections:
            _, connection = self._connections.popitem()
            await connection.aclose()
