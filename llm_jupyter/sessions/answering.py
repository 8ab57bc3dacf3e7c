"""An answer under way: asked, shown, and kept as it grows."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from llm_jupyter.choice import Choice
from llm_jupyter.errors import AnswerInterrupted, LLMError
from llm_jupyter.events import RequestFailed, RequestFinished, RequestFirstToken
from llm_jupyter.providers.base import DEFAULT_OPTIONS, ResponseBuilder
from llm_jupyter.sessions.cells import CellPlace
from llm_jupyter.sessions.growth import Growth, to_its_end
from llm_jupyter.sessions.states import SessionState
from llm_jupyter.store import Filled, TurnRecord, TurnState
from llm_jupyter.types import Chunk, FinishReason, GenerationOptions, LLMResponse, Message

if TYPE_CHECKING:
    from llm_jupyter.cache import Answerer, Asking
    from llm_jupyter.sessions.session import LLMSession

TOO_EARLY = "stopped before the first token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked, and how it stands to the conversation.

    `sees` says whether the question sees the conversation so far, `joins` whether it becomes a turn of it, `again` is the
    turn that is asked once more, `instead` the one that it replaces. Asked `alone`, nobody else may answer. `choice` is the model that was named for this question
    alone, `wanted` the name that was given. `template` is the prompt as it was typed, where values were `filled` in.
    """

    prompt: Message
    options: GenerationOptions = DEFAULT_OPTIONS
    system: str | None = None
    choice: Choice | None = None
    wanted: str | None = None
    place: CellPlace = field(default_factory=CellPlace)
    append: bool = False
    sees: bool = True
    joins: bool = True
    again: TurnRecord | None = None
    instead: TurnRecord | None = None
    completion: bool = False
    filled: tuple[Filled, ...] = ()
    template: str | None = None
    read_interval: float = 0.0
    alone: bool = False


class Answering:
    """An async context manager that hands on chunks and records how the answer ended.

    Leaving it early, as `stop`, marks the turn as interrupted; `response` then holds what had arrived. `turn` is there once
    the question is written down, which is before it leaves.
    """

    def __init__(self, session: LLMSession, asked: Asked) -> None:
        self.session = session
        self.asked = asked
        self.request = uuid.uuid4().hex[:12]
        self.choice = asked.choice
        self.turn: TurnRecord | None = None
        self.response: LLMResponse | None = None
        self.notes: list[str] = []
        self._route: Asking | None = None
        self._ready: deque[Chunk] = deque()
        self._builder: ResponseBuilder | None = None
        self._growth: Growth | None = None
        self._reader: asyncio.Task[object] | None = None
        self._is_stopped = self._is_broken_off = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        try:
            if self._route is not None:
                await self._route.aclose()
        finally:
            if self.response is None:
                await to_its_end(self._end_early(error))

    @property
    def text(self) -> str:
        """The text that has arrived; like `thinking`, it may be looked at from any thread."""
        return self._builder.text if self._builder is not None else ""

    @property
    def thinking(self) -> str:
        """The thinking that has arrived."""
        return self._builder.thinking if self._builder is not None else ""

    def stop(self) -> None:
        """End the answer as an interrupt would, from any thread: what has arrived is kept. Does nothing once it is over."""
        self._is_stopped = True  # before the look for a reader, who says first that he reads and then looks at this
        if (reader := self._reader) is not None:
            with contextlib.suppress(RuntimeError):  # its loop has been closed meanwhile
                reader.get_loop().call_soon_threadsafe(self._break_off)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while not self._ready:
            batch = await self.read_batch()
            if not batch:
                raise StopAsyncIteration
            self._ready.extend(batch)
        return self._ready.popleft()

    async def read_batch(self) -> list[Chunk]:
        """All chunks that have arrived, at least one; an empty list once the answer is complete or was stopped.

        Raises `AnswerInterrupted` where it was stopped before its first token.
        """
        if self.response is not None:
            return []
        try:
            batch = await self._read()
        except AnswerInterrupted:
            if self._route is None or self._builder is None or self._builder.is_empty:
                raise
            await self._route.aclose()
            await to_its_end(self._finish(FinishReason.INTERRUPTED))
            return []
        if batch:
            self._take(batch)
        else:
            await to_its_end(self._finish())
        return batch

    async def _read(self) -> list[Chunk]:
        """The next pieces. Raises `AnswerInterrupted` once it is stopped; where the whole task is cancelled too, that counts."""
        reader = asyncio.current_task()
        assert reader is not None
        self._reader, cancellations = reader, reader.cancelling()
        try:
            if self._is_stopped:
                raise AnswerInterrupted(TOO_EARLY)
            if self._builder is None:
                return await self._open()
            assert self._route is not None
            return await self._route.read_batch()
        except asyncio.CancelledError:
            if not self._is_broken_off or reader.cancelling() > cancellations + 1:
                raise
            raise AnswerInterrupted(TOO_EARLY) from None
        finally:
            self._reader = None
            if self._is_broken_off:
                self._is_broken_off = False
                reader.uncancel()

    def _break_off(self) -> None:
        """End the read under way; called on its thread."""
        if self._reader is not None and not self._is_broken_off:
            self._is_broken_off = True
            self._reader.cancel()

    async def _open(self) -> list[Chunk]:
        """Write the question down, make everything ready (choose, connect, fetch, start, load), send it, and wait for its
        first token.
        """
        session, asked = self.session, self.asked
        session.services.expect_open()
        session.state = SessionState.WAITING
        if asked.joins:
            session.under_way.append(self)
        question = await to_its_end(session.question(self))
        self._route = await session.route(question, asked)
        try:
            return await self._route.open(
                self._choose, named=asked.choice is not None, wanted=asked.wanted or session.wanted_model
            )
        finally:
            self.choice = self._route.choice or self.choice
            if session.choice is not None:
                session.choice = session.services.providers.informed(session.choice)
            self._builder = self._new_builder(self._route)
            if self.turn is not None:
                self._growth = Growth(session.store, self.turn, self._builder)

    async def _choose(self) -> Choice:
        if self.choice is None:
            self.choice = await self.session.current_choice()
        return self.choice

    @property
    def answered_by(self) -> Answerer | None:
        """Who gives the answer, or gave it when it was kept; `None` before that is known."""
        return self._route.answered_by if self._route is not None else None

    def _new_builder(self, route: Asking) -> ResponseBuilder:
        provider, model, is_local = route.answered_by or ("", "", True)
        return ResponseBuilder(provider=provider, model=model, is_local=is_local)

    def _elapsed(self) -> float:
        return time.monotonic() - self._route.started if self._route is not None else 0.0

    def _take(self, batch: list[Chunk]) -> None:
        assert self._builder is not None
        if self._builder.is_empty:
            self.session.state = SessionState.STREAMING
            self.session.events.publish(RequestFirstToken(request=self.request, seconds=self._elapsed()))
        for chunk in batch:
            self._builder.add(chunk)
        if self._growth is not None:
            self._growth.has_grown()

    async def _finish(self, reason: FinishReason | None = None) -> None:
        assert self._builder is not None
        assert self._route is not None
        self._builder.tried = [str(one) for one in self._route.tried]
        response = self._builder.response(reason, from_cache=bool(self._route.source))
        self.session.last = response
        was_interrupted = reason is FinishReason.INTERRUPTED
        self.session.state = SessionState.INTERRUPTED if was_interrupted else SessionState.IDLE
        if self._growth is not None:
            await self._growth.end(response, TurnState.INTERRUPTED if was_interrupted else TurnState.COMPLETE)
        self.response = response
        self._leave()
        self.session.events.publish(
            RequestFinished(
                request=self.request, finish_reason=response.finish_reason, seconds=self._elapsed(),
                completion_tokens=response.usage.completion_tokens,
            )
        )  # fmt: skip

    def _leave(self) -> None:
        """Be under way no more."""
        with contextlib.suppress(ValueError):
            self.session.under_way.remove(self)

    async def _end_early(self, error: BaseException | None) -> None:
        failed = isinstance(error, Exception) and not isinstance(error, AnswerInterrupted)
        if not failed and self._builder is not None and not self._builder.is_empty:
            await self._finish(FinishReason.INTERRUPTED)
            return
        if isinstance(error, LLMError) and self._builder is not None:
            error.partial_text = self._builder.text
        self.session.state = SessionState.FAILED if failed else SessionState.INTERRUPTED
        if self._growth is not None:
            await self._growth.drop()
        if self.turn is not None and not self.turn.answers:
            state = TurnState.FAILED if failed else TurnState.INTERRUPTED
            await asyncio.to_thread(self.session.store.ended, self.turn.session, self.turn.id, state)
        name = type(error).__name__ if failed else AnswerInterrupted.__name__
        message = error.what if isinstance(error, LLMError) else str(error) if failed else TOO_EARLY
        self.session.events.publish(RequestFailed(request=self.request, error=name, message=message))
