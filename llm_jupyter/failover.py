"""From a question to whoever answers it: retries and failover, all of it before the first token.

Once a token has been handed on, nothing is sent again: the answer that broke off is an error with its text kept.

Only who is permitted is asked. Those are other servers of this machine that hold the same model, and the models that the
person listed as `fallback`. A local model never gives way to a remote one, a model named for this one question never to
another model, and the embedded model answers only where it is listed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from llm_jupyter.breaker import spread, tells_of_the_server
from llm_jupyter.choice import Choice
from llm_jupyter.connection import Connection
from llm_jupyter.context import ContextBuilder, Fitted
from llm_jupyter.errors import (
    ContextExceededError,
    FirstTokenTimeoutError,
    ForeignServerError,
    HostError,
    HungUpError,
    LLMConnectionError,
    LLMError,
    ModelLoadError,
    ModelLoadingError,
    ModelNotFoundError,
    ProviderError,
    RateLimitedError,
    ResourceError,
    ResponseError,
    ServerError,
    UnreachableError,
)
from llm_jupyter.events import (
    EventBus,
    ModelLoading,
    RequestFailedOver,
    RequestQueued,
    RequestRetried,
    RequestStarted,
)
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.question import Question, Tried
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.types import Chunk

GIVES_WAY = (
    LLMConnectionError, RateLimitedError, ServerError, ResponseError, ResourceError, ModelLoadError, ModelLoadingError,
    HostError, ForeignServerError,
)  # fmt: skip
"""Errors after which another candidate may answer; loading is one once it makes no more progress, and another user's server
where one's own was meant. A refused key, an
unknown model or a prompt that does not fit are told to the person instead: another's answer would hide them."""

RETRIED_STATUS = frozenset({502, 503, 504})
"""HTTP statuses that pass by themselves."""

FIRST_DELAY = 0.25
"""Seconds before the first retry; the second waits twice as long."""

LONGEST_RETRY_AFTER = 30.0
"""Seconds of a `Retry-After` that are waited out when nobody else may answer."""

SHORT_RETRY_AFTER = 1.0
"""Seconds of a `Retry-After` that are waited out although somebody else may answer."""

FITTINGS = 4
"""How often a conversation is sent, shorter each time, where only the server can tell that it is too long."""

LOADING_PAUSE = 0.5
"""Seconds between two questions whether a server has loaded its model."""


class Route:
    """Finds who answers one question. `choice` is whoever was asked last, `tried` who failed before.

    `ready` is called when a model stands ready and the request is about to leave. Asked `alone`, nobody else may answer.
    """

    def __init__(
        self,
        manager: LLMProviderManager,
        events: EventBus,
        question: Question,
        context: ContextBuilder,
        *,
        retries: int = 2,
        ready: Callable[[], None] = lambda: None,
        alone: bool = False,
    ) -> None:
        self.choice: Choice | None = None
        self.tried: list[Tried] = []
        self.started = time.monotonic()
        """When the last request left, in seconds of the monotonic clock."""
        self._begun = time.time()
        self._manager = manager
        self._events = events
        self._question = question
        self._context = context
        self._fitted: Fitted | None = None
        self._retries = retries
        self._ready = ready
        self._alone = alone
        self._clock = manager.connections.clock
        self._random = manager.connections.random
        self._chosen: Choice | None = None
        self._sent_again: Counter[str] = Counter()
        self._turnstile = manager.turnstile
        self._has_passed = False
        self._stream: ChunkStream | None = None
        self._told = ""
        """The model that answers, as the reply names it."""

    async def open(self, choice: Choice, *, named: bool = False) -> list[Chunk]:
        """Ask until somebody answers; returns the first pieces of the answer.

        `named` says that the model was named for this question. Raises the error of `choice` if nobody answers.
        """
        if self._turnstile is not None:
            await self._turnstile.acquire()
            self._has_passed = True
        self._chosen = choice
        if not self._admits(choice):
            reason = choice.provider.status().reason or "it failed a moment ago"
            self.tried.append(Tried(choice, LLMConnectionError(reason, where=choice.provider.where), was_asked=False))
        elif (first := await self._asked(choice)) is not None:
            return first
        others = await self._others(choice, named=named)
        failed = self.tried[-1]
        if others and tells_of_the_server(failed.error):  # somebody else can answer meanwhile: one failure is enough
            self._connection(choice).breaker.trip()
        awake = [other for other in others if self._admits(other)]
        left_alone = [other for other in (choice, *others) if other not in awake and not self._was_asked(other)]
        for other in awake:
            is_last = other is awake[-1] and not left_alone
            if (first := await self._asked(other, is_last=is_last)) is not None:
                return first
            if not is_last and tells_of_the_server(self.tried[-1].error):
                self._connection(other).breaker.trip()
        alone = not others and not left_alone
        if alone and (first := await self._again(choice, self.tried.pop().error, is_last=True)) is not None:
            return first
        for other in left_alone:  # never is there no candidate at all
            if other is choice:
                self.tried = [tried for tried in self.tried if tried.choice is not choice]
            if (first := await self._asked(other, forced=True)) is not None:
                return first
        raise self._final_error(choice)

    async def read_batch(self) -> list[Chunk]:
        """The next pieces of the answer; an empty list once it is whole."""
        assert self._stream is not None
        assert self.choice is not None
        try:
            async with self._connection(self.choice).explained(self._begun):
                batch = self._checked(await self._stream.read_batch())
        except LLMError as error:
            self._connection(self.choice).failed(error)
            raise
        if not batch:
            await self._say_who_answered(self.choice)
        return batch

    async def aclose(self) -> None:
        """Close the socket, and let the next one in. Idempotent."""
        if self._has_passed and self._turnstile is not None:
            self._has_passed = False
            self._turnstile.release()
        if self._stream is not None:
            await self._stream.aclose()

    @property
    def answered_by(self) -> tuple[str, str, bool]:
        """Who answers: provider, model, and whether it is local."""
        choice = self.choice
        return (choice.provider.name, choice.model, choice.is_local) if choice is not None else ("", "", True)

    # -- asking one

    async def _asked(self, choice: Choice, *, is_last: bool = False, forced: bool = False) -> list[Chunk] | None:
        """The first pieces of its answer; `None` where it failed and another may answer."""
        if self.tried:
            self._announce(self.tried[-1], choice)
        try:
            return await self._ask(choice, forced=forced)
        except LLMError as error:
            return await self._again(choice, error, is_last=is_last)

    async def _again(self, choice: Choice, error: LLMError, *, is_last: bool) -> list[Chunk] | None:
        """Ask the same one again, a little later, as often as makes sense; `is_last` where nobody else may answer."""
        while (is_last or _is_short(error)) and (delay := self._delay(choice, error)) is not None:
            self._sent_again[choice.full_name] += 1
            self._events.publish(
                RequestRetried(
                    request=self._question.request, provider=choice.provider.name, model=choice.model,
                    attempt=self._sent_again[choice.full_name], delay=delay, reason=error.what,
                )
            )  # fmt: skip
            await self._clock.sleep(delay)
            try:
                return await self._ask(choice, forced=True)
            except LLMError as failure:
                error = failure
        if choice is self._chosen and not isinstance(error, GIVES_WAY):
            raise error
        self.tried.append(Tried(choice, error))
        return None

    def _delay(self, choice: Choice, error: LLMError) -> float | None:
        """Seconds to wait before the same one is asked again; `None` where that makes no sense."""
        attempt = self._sent_again[choice.full_name] + 1
        if attempt > self._retries:
            return None
        if isinstance(error, RateLimitedError):
            wait = FIRST_DELAY * 2**attempt if error.retry_after is None else error.retry_after
            return wait if 0 <= wait <= LONGEST_RETRY_AFTER else None
        passes = isinstance(error, UnreachableError | HungUpError)
        if passes or (isinstance(error, ServerError) and error.status in RETRIED_STATUS):
            return spread(FIRST_DELAY * 2 ** (attempt - 1), self._random)
        return None

    async def _ask(self, choice: Choice, *, forced: bool) -> list[Chunk]:
        """Ask one and wait for its first token; while it loads its model, that is waited for."""
        self.choice = choice
        connection = self._connection(choice)
        started = self._clock.monotonic()
        moved, mark = started, None
        while True:
            try:
                return await self._ask_once(choice, connection, forced=forced)
            except ModelLoadingError:
                now, seen = self._clock.monotonic(), await connection.loading_mark()
                if seen != mark:
                    moved, mark = now, seen
                if now - moved > self._limit(connection):
                    raise
                self._events.publish(
                    ModelLoading(provider=choice.provider.name, model=choice.model, elapsed=now - started)
                )
                await self._clock.sleep(LOADING_PAUSE)
                forced = True

    async def _ask_once(self, choice: Choice, connection: Connection, *, forced: bool) -> list[Chunk]:
        provider = connection.provider
        async with connection.attempt(forced=forced), connection.explained(self._begun):
            self.choice = await self._verified(choice, connection)
            self._keep_local(choice, self.choice)
            await provider.prepare(self.choice.model)
            fitted = await self._question.fitted(self.choice, self._manager.defaults, self._context)
            self._ready()
            request, model = self._question.request, self.choice.model
            if provider.slots is not None and provider.in_flight >= provider.slots:
                self._events.publish(RequestQueued(request=request, ahead=provider.in_flight + 1 - provider.slots))
            self._events.publish(RequestStarted(request=request, provider=provider.name, model=model))
            self.started = time.monotonic()
            first = await self._first_of(self.choice, fitted)
        provider.observed(None, answered=True)
        connection.watch()
        return first

    async def _verified(self, choice: Choice, connection: Connection) -> Choice:
        """The choice, once its server has said that it holds the model; a server that hangs fails as one does that answers."""
        limit = self._limit(connection)
        try:
            async with asyncio.timeout(limit):
                return await self._manager.verified(choice)
        except TimeoutError as error:
            if isinstance(error, LLMError):
                raise
            where = choice.provider.where
            raise FirstTokenTimeoutError(f"it did not tell of its models within {limit:g} s", where=where) from None

    async def _first_of(self, choice: Choice, fitted: Fitted) -> list[Chunk]:
        """The first pieces; a conversation that the server finds too long is sent again, with less of it."""
        for number in range(1, FITTINGS + 1):
            self._fitted = fitted
            self._stream = self._question.stream(choice, self._manager.defaults, fitted)
            try:
                return self._checked(await self._first_token(self._stream))
            except ContextExceededError as error:
                await self._stream.aclose()
                if number == FITTINGS or not self._context.refused(choice, fitted, error):
                    raise
            except BaseException:
                await self._stream.aclose()
                raise
            fitted = await self._question.fitted(choice, self._manager.defaults, self._context)
        raise AssertionError("the last one returned or raised")

    @staticmethod
    async def _first_token(stream: ChunkStream) -> list[Chunk]:
        """All up to the first chunk that says anything: what died before it can still be answered by another."""
        first: list[Chunk] = []
        while batch := await stream.read_batch():
            first += batch
            if any(chunk.text or chunk.thinking or chunk.tool_calls or chunk.finish_reason for chunk in batch):
                break
        return first

    def _checked(self, batch: list[Chunk]) -> list[Chunk]:
        """Pieces of an answer, unless the figures among them tell that its prompt was cut."""
        for chunk in batch:
            self._told = chunk.model or self._told
            if chunk.usage is not None and self.choice is not None and self._fitted is not None:
                self._context.check(self.choice, self._fitted, chunk.usage)
        return batch

    async def _say_who_answered(self, choice: Choice) -> None:
        """Put whoever answered in the place of the one that was asked, where that is another: the server holds others now."""
        told, self._told = self._told, ""
        if told and (other := await self._manager.who_answered(choice, told)) is not choice:
            self.tried.append(
                Tried(choice, ModelNotFoundError("it is not there any more", where=choice.provider.where))
            )
            self.choice = other

    def _limit(self, connection: Connection) -> float:
        """Seconds to the first token."""
        return self._question.options.timeout or connection.first_token_timeout

    # -- who else may answer

    async def _others(self, choice: Choice, *, named: bool) -> list[Choice]:
        """Who else may answer, in order: other holders of the same model, then what the person listed."""
        if self._alone:
            return []
        listed = [] if named else await self._manager.fallbacks()
        if not listed:
            await self._manager.look_around(choice)
        return self._manager.others(choice, listed, self._question.needed)

    def _keep_local(self, choice: Choice, verified: Choice) -> None:
        """Refuse somebody else who is remote after all, as only its server could tell."""
        assert self._chosen is not None
        if choice is not self._chosen and self._chosen.is_local and not verified.is_local:
            raise ProviderError("it is remote, and a local model never gives way to a remote one")

    def _final_error(self, choice: Choice) -> LLMError:
        """What the person is told when nobody answered: why the chosen model did not, and the command that switches.

        Asked alone, nobody else would do.
        """
        error = next(tried.error for tried in self.tried if tried.choice.full_name == choice.full_name)
        if choice.provider.name != EMBEDDED:
            switch = "" if self._alone else self._manager.last_resort
            is_down = isinstance(error, LLMConnectionError) and not isinstance(error, FirstTokenTimeoutError)
            own = self._connection(choice).start_hint if is_down and not error.is_explained else error.next_step
            error.next_step = f"{own.rstrip('.')}. {switch}" if own and switch else own or switch
            error.in_one_line = True
        return error

    def _was_asked(self, choice: Choice) -> bool:
        return any(tried.choice is choice and tried.was_asked for tried in self.tried)

    def _admits(self, choice: Choice) -> bool:
        return self._connection(choice).breaker.admits()

    def _announce(self, before: Tried, other: Choice) -> None:
        self._events.publish(
            RequestFailedOver(
                request=self._question.request, provider=before.choice.provider.name, model=before.choice.model,
                to_provider=other.provider.name, to_model=other.model, reason=before.error.what,
            )
        )  # fmt: skip

    def _connection(self, choice: Choice) -> Connection:
        return self._manager.connections.of(choice.provider)


def _is_short(error: LLMError) -> bool:
    return (
        isinstance(error, RateLimitedError) and error.retry_after is not None and error.retry_after <= SHORT_RETRY_AFTER
    )
