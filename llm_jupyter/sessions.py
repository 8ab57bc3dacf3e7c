"""Conversations: what was said, in which order, and what the model is to see next.

A turn belongs to the cell that asked. When that cell runs again its turn is replaced, and the model sees what stands
before it. A turn that failed never reaches the model; one that was interrupted does, marked.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from llm_jupyter.choice import Choice
from llm_jupyter.errors import AnswerInterrupted, LLMError, SessionError
from llm_jupyter.events import (
    EventBus,
    RequestFailed,
    RequestFinished,
    RequestFirstToken,
    SessionCreated,
    TurnReplaced,
)
from llm_jupyter.failover import Route
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.providers.base import DEFAULT_OPTIONS, ResponseBuilder
from llm_jupyter.question import Question
from llm_jupyter.types import Chunk, FinishReason, GenerationOptions, Image, LLMResponse, Message

INTERRUPTED_MARK = "\n\n[This answer was interrupted here.]"


class TurnState(StrEnum):
    """How far a turn came."""

    PENDING = "pending"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CellPlace:
    """Where a question stands: the cell's id in the document, and the run of that cell it belongs to."""

    cell_id: str | None = None
    execution: str | None = None


@dataclass(slots=True, eq=False)
class Turn:
    """A question with its answers; the last answer counts, the earlier ones are kept."""

    prompt: Message
    cell_id: str | None = None
    system: str | None = None
    state: TurnState = TurnState.PENDING
    answers: list[LLMResponse] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def answer(self) -> LLMResponse | None:
        """The answer that counts."""
        return self.answers[-1] if self.answers else None

    def messages(self) -> list[Message]:
        """What the model sees of this turn: the last answer that says anything."""
        said = next((answer for answer in reversed(self.answers) if answer.text or answer.tool_calls), None)
        if said is None:
            return []
        answer = said.message
        if said.finish_reason is FinishReason.INTERRUPTED:
            answer = Message.assistant(said.text + INTERRUPTED_MARK)
        return [self.prompt, answer]


class Answering:
    """An answer under way: an async context manager that hands on chunks and records how it ended.

    Leaving it early marks the turn as interrupted; `response` then holds what had arrived.
    """

    def __init__(
        self, session: LLMSession, turn: Turn, context: Sequence[Message], choice: Choice | None, options: GenerationOptions,
        *, read_interval: float = 0.0, completion: bool = False, is_instructed: bool = False,
    ) -> None:  # fmt: skip
        self.turn = turn
        self._is_instructed = is_instructed
        self.request = uuid.uuid4().hex[:12]
        self.choice = choice
        self.response: LLMResponse | None = None
        self._session = session
        self._context = context
        self._options = options
        self._read_interval = read_interval
        self._completion = completion
        self._named = choice is not None
        self._route: Route | None = None
        self._ready: deque[Chunk] = deque()
        self._builder: ResponseBuilder | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._route is not None:
            await self._route.aclose()
        if self.response is None:
            self._end_early(error)

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
        """All chunks that have arrived, at least one; an empty list once the answer is complete."""
        if self._builder is None:
            batch = await self._open()
        else:
            assert self._route is not None
            batch = await self._route.read_batch()
        if batch:
            self._take(batch)
        else:
            self._finish()
        return batch

    async def _open(self) -> list[Chunk]:
        """Make everything ready (choose, connect, fetch, start, load), send the request, and wait for its first token."""
        session = self._session
        if self.choice is None:
            self.choice = await session.current_choice()
        question = Question(
            self.request, [*self._context, self.turn.prompt], self._options, self._completion, self._read_interval,
            self._is_instructed,
        )  # fmt: skip
        self._route = session.route(question)
        try:
            return await self._route.open(self.choice, named=self._named)
        finally:
            self.choice = self._route.choice or self.choice
            self._builder = ResponseBuilder(
                provider=self.choice.provider.name, model=self.choice.model, is_local=self.choice.is_local,
                tried=[str(tried) for tried in self._route.tried],
            )  # fmt: skip

    def _elapsed(self) -> float:
        assert self._route is not None
        return time.monotonic() - self._route.started

    def _take(self, batch: list[Chunk]) -> None:
        assert self._builder is not None
        if self._builder.is_empty:
            self._session.events.publish(RequestFirstToken(request=self.request, seconds=self._elapsed()))
        for chunk in batch:
            self._builder.add(chunk)

    def _finish(self, reason: FinishReason | None = None) -> None:
        if self.response is not None:
            return
        assert self._builder is not None
        self.response = self._session.last = self._builder.response(reason)
        self.turn.answers.append(self.response)
        self.turn.state = TurnState.INTERRUPTED if reason is FinishReason.INTERRUPTED else TurnState.COMPLETE
        self._session.events.publish(
            RequestFinished(
                request=self.request, finish_reason=self.response.finish_reason, seconds=self._elapsed(),
                completion_tokens=self.response.usage.completion_tokens,
            )
        )  # fmt: skip

    def _end_early(self, error: BaseException | None) -> None:
        failed = isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError)
        if not failed and self._builder is not None and not self._builder.is_empty:
            self._finish(FinishReason.INTERRUPTED)
            return
        if isinstance(error, LLMError) and self._builder is not None:
            error.partial_text = self._builder.text
        if not self.turn.answers:
            self.turn.state = TurnState.FAILED if failed else TurnState.INTERRUPTED
        name = type(error).__name__ if failed else AnswerInterrupted.__name__
        message = (
            error.what if isinstance(error, LLMError) else str(error) if failed else "stopped before the first token"
        )
        self._session.events.publish(RequestFailed(request=self.request, error=name, message=message))


class LLMSession:
    """One conversation: its turns, its model, its options.

    `choice` is the model that answers (`None` until the first question), `options` hold for every question that says
    nothing else, `system` stands before the conversation. `last` is the answer that came last, in whatever turn and also
    to a question with no memory.
    """

    def __init__(
        self,
        manager: LLMProviderManager,
        events: EventBus,
        *,
        options: GenerationOptions = DEFAULT_OPTIONS,
        system: str | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.events = events
        self.options = options
        self.system = system
        self.choice: Choice | None = None
        self.turns: list[Turn] = []
        self.replaced: list[Turn] = []
        self.last: LLMResponse | None = None
        self._manager = manager
        self._executions: dict[str, str | None] = {}
        self._announced = False

    async def current_choice(self) -> Choice:
        """The session's model, chosen on first need and then kept."""
        if self.choice is None:
            self.choice = await self._manager.choose(trusting=True)
        return self.choice

    def route(self, question: Question) -> Route:
        """How a question of this conversation finds who answers it."""
        retries = self._manager.connections.retries
        return Route(self._manager, self.events, question, retries=retries, ready=self.announce)

    async def use(self, model: str) -> Choice:
        """Answer with that model from now on. Raises `ModelNotFoundError` and leaves things as they are."""
        self.choice = await self._manager.use(model)
        return self.choice

    def ask(
        self, prompt: str | Message, *, place: CellPlace | None = None, choice: Choice | None = None,
        options: GenerationOptions = DEFAULT_OPTIONS, system: str | None = None, images: Sequence[Image] = (),
        read_interval: float = 0.0,
    ) -> Answering:  # fmt: skip
        """Ask the next question of the conversation, or ask again where the same cell asked before.

        `choice` and `options` hold for this question alone. A `system` text holds from this turn on.
        """
        message = Message.user(prompt, images) if isinstance(prompt, str) else prompt
        turn = Turn(message, (place or CellPlace()).cell_id, system)
        position = self._position(place or CellPlace())
        self.turns.insert(position, turn)
        return self._answering(turn, position, choice, options, read_interval)

    def ask_once(
        self, prompt: str | Message, *, choice: Choice | None = None, options: GenerationOptions = DEFAULT_OPTIONS,
        system: str | None = None, read_interval: float = 0.0, completion: bool = False,
    ) -> Answering:  # fmt: skip
        """Ask one question with no memory: it sees nothing of the conversation and leaves nothing in it."""
        turn = Turn(Message.user(prompt) if isinstance(prompt, str) else prompt, system=system)
        text = system or self.system
        context = [Message.system(text)] if text else []
        return Answering(
            self, turn, context, choice, options.merged_over(self.options), read_interval=read_interval,
            completion=completion, is_instructed=bool(system),
        )  # fmt: skip

    def ask_again(
        self, *, choice: Choice | None = None, options: GenerationOptions = DEFAULT_OPTIONS, read_interval: float = 0.0
    ) -> Answering:
        """Ask the last question again; both answers are kept, the new one counts. Raises `SessionError` if there is none."""
        position = next((n for n in range(len(self.turns) - 1, -1, -1) if self.turns[n].answers), None)
        if position is None:
            raise SessionError("there is no turn to ask again", next_step="Ask something first: %chat your question")
        turn = self.turns[position]
        return self._answering(turn, position, choice, options, read_interval)

    async def chat(
        self, prompt: str, *, options: GenerationOptions = DEFAULT_OPTIONS, system: str | None = None
    ) -> LLMResponse:
        """Ask the next question and wait for the whole answer."""
        async with self.ask(prompt, options=options, system=system) as answering:
            while await answering.read_batch():
                pass
        assert answering.response is not None
        return answering.response

    def context(self, position: int | None = None, system: str | None = None) -> list[Message]:
        """What the model sees before the turn at `position` (by default: before the next one)."""
        before = self.turns[:position]
        text = self._given_system(position, system) or self.system
        messages = [Message.system(text)] if text else []
        for turn in before:
            messages.extend(turn.messages())
        return messages

    def _given_system(self, position: int | None, system: str | None) -> str | None:
        """The instructions that the person gave in this conversation before the turn at `position`, or with it."""
        return system or next((t.system for t in reversed(self.turns[:position]) if t.system is not None), None)

    def announce(self) -> None:
        """Say once that the conversation has begun."""
        if not self._announced:
            self._announced = True
            self.events.publish(SessionCreated(session=self.id))

    def _answering(
        self, turn: Turn, position: int, choice: Choice | None, options: GenerationOptions, interval: float
    ) -> Answering:
        return Answering(
            self, turn, self.context(position, turn.system), choice, options.merged_over(self.options),
            read_interval=interval, is_instructed=self._given_system(position, turn.system) is not None,
        )  # fmt: skip

    def _position(self, place: CellPlace) -> int:
        """Where the cell's next turn goes. A new run of a cell first takes its old turns out."""
        if place.cell_id is None:
            return len(self.turns)
        mine = [n for n, turn in enumerate(self.turns) if turn.cell_id == place.cell_id]
        if not mine:
            self._executions[place.cell_id] = place.execution
            return len(self.turns)
        if self._executions.get(place.cell_id) == place.execution:
            return mine[-1] + 1
        self._executions[place.cell_id] = place.execution
        for n in reversed(mine):
            old = self.turns.pop(n)
            self.replaced.append(old)
            self.events.publish(TurnReplaced(session=self.id, turn=old.id))
        return mine[0]


class LLMSessionManager:
    """The conversations of this kernel; `current` is the one that the notebook speaks with."""

    def __init__(
        self, manager: LLMProviderManager, events: EventBus, *, options: GenerationOptions = DEFAULT_OPTIONS,
        system: str | None = None,
    ) -> None:  # fmt: skip
        self._manager = manager
        self._events = events
        self._options = options
        self._system = system
        self.current = self.new()

    def new(self) -> LLMSession:
        """A fresh conversation, not yet the current one."""
        return LLMSession(self._manager, self._events, options=self._options, system=self._system)

    def reset(self) -> LLMSession:
        """Begin a fresh current conversation; its model stays."""
        fresh = self.new()
        fresh.choice = self.current.choice
        self.current = fresh
        return fresh
