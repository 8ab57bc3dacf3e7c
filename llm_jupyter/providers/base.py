"""What every provider offers, and the stream that an answer arrives by."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import ClassVar, NoReturn, Self, TypeVar

import msgspec

from llm_jupyter.errors import InvalidInputError, LLMError, ModelLoadingError, UnsupportedOperationError
from llm_jupyter.events import Event
from llm_jupyter.providers._response import ResponseBuilder as ResponseBuilder
from llm_jupyter.providers._state import LOST, TRANSITIONS, ConnectionState, state_after
from llm_jupyter.types import (
    Chunk,
    GenerationOptions,
    LLMModelInfo,
    LLMProviderStatus,
    LLMResponse,
    Message,
    MessageLike,
    ProviderState,
    PullProgress,
    as_messages,
)

T = TypeVar("T")
DEFAULT_OPTIONS = GenerationOptions()
TELLING = 1.0
"""Seconds for a server to tell of a window or to count: a question does not wait for longer."""


class Pace:
    """How often the reader of a stream wants to be woken.

    0 means for every packet. At 0.05 the socket is left unread for 50 ms at a time once the first token is there: the
    pieces are the same, but a thousand tokens a second no longer cost a thousand wake-ups.
    """

    __slots__ = ("interval",)

    def __init__(self, interval: float = 0.0) -> None:
        self.interval = interval


class ChunkStream:
    """An answer on its way: an async iterator of `Chunk`s, one for each delta of the server.

    Use it as an async context manager: leaving the block closes the socket, and with it the server's work. (A bare
    `break` out of `async for` leaves the stream open for as long as a name holds it.) It is a pull interface and no
    callback, so that the reader's pace reaches the server and an error is raised where the answer is used.
    """

    def __init__(self, batches: AsyncGenerator[list[Chunk], None], pace: Pace | None = None) -> None:
        self._batches = batches
        self._ready: deque[Chunk] = deque()
        self.pace = pace or Pace()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while not self._ready:
            self._ready.extend(await self._batches.__anext__())
        return self._ready.popleft()

    async def read_batch(self) -> list[Chunk]:
        """All chunks that have arrived, at least one; an empty list once the stream is over."""
        if self._ready:
            batch = list(self._ready)
            self._ready.clear()
            return batch
        async for batch in self._batches:
            if batch:
                return batch
        return []

    async def aclose(self) -> None:
        """Close the socket. Closing twice is fine. While another task reads, cancel that task instead."""
        await self._batches.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Window(msgspec.Struct, frozen=True):
    """How many tokens a prompt and its answer can be together; `source` says in words who told it."""

    tokens: int
    source: str


def checked_messages(messages: Sequence[MessageLike] | str) -> list[Message]:
    """What was given, as messages. Raises `InvalidInputError`."""
    try:
        return as_messages(messages)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None


def parameter_count(size: str) -> int | None:
    """A number of weights as servers write it (`134.52M`, `7B`); `None` for anything else."""
    scale = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(size[-1:].upper())
    try:
        return round(float(size[:-1]) * scale) if scale else None
    except ValueError:
        return None


async def _if_told(answer: Awaitable[T]) -> T | None:
    """What a server tells in time, or nothing."""
    try:
        async with asyncio.timeout(TELLING):
            return await answer
    except (LLMError, TimeoutError):
        return None


def _after_probe(error: LLMError) -> ProviderState:
    """What a failed look at a server means; a server that loads has not failed."""
    return ProviderState.LOADING if isinstance(error, ModelLoadingError) else ProviderState.FAILED


class LLMProvider(ABC):
    """One model server, or the embedded model.

    `async with provider:` connects and disconnects. Every method raises only `LLMError`s. What a kind of server does
    not have raises `UnsupportedOperationError`, and nothing is sent.
    """

    kind: ClassVar[str]
    own_options: ClassVar[frozenset[str]] = frozenset()
    """Fields of a model's settings that only this kind of server knows; they travel in `GenerationOptions.extra`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._connection = ConnectionState(name)
        self._latency: float | None = None
        self._is_live: bool | None = None
        self.publish: Callable[[Event], object] = lambda event: None
        """Who hears of this provider's events; a manager puts its event bus here."""
        self.gate: Callable[[], None] = lambda: None
        """Called before each request to its server; raises why that may not be spoken to. A manager puts its own here."""
        self.slots: int | None = None
        """How many requests the server works on at once; `None` where that is not known."""
        self.in_flight = 0
        """How many requests of this provider are under way or queued at the server."""
        self.held: Sequence[LLMModelInfo] | None = None
        """The models that its server has told of last; `None` once it was gone since: what comes back may hold others."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether prompts stay on this machine."""

    def keeps(self, model: str) -> bool:
        """Whether a question to that model stays on this machine, as far as its name tells."""
        return self.is_local

    @property
    def url(self) -> str | None:
        """Where its server is, without secrets; `None` where it has none of its own."""
        return None

    @property
    def where(self) -> str:
        """The provider as errors name it: its name and its URL, never a secret."""
        return f"{self.name} at {self.url}" if self.url else self.name

    @property
    def state(self) -> ProviderState:
        """What the connection is doing, as far as is known."""
        return self._connection.state

    def advice(self, model: str) -> str:
        """A line that a person should read once before they judge this model; empty for most."""
        return ""

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    # -- the connection

    async def is_available(self) -> bool:
        """Whether the server answers as this kind of server does. Never raises, never loads a model."""
        try:
            await self.get_available_models()
        except LLMError:
            return False
        return True

    async def connect(self) -> None:
        """Make sure that the server answers. Raises `LLMConnectionError` and its kin where it does not."""
        if ProviderState.CONNECTING in TRANSITIONS[self.state]:
            self._enter(ProviderState.CONNECTING)
        try:
            await self.probe()
        except LLMError as error:
            self._enter(_after_probe(error), error.what)
            raise
        except BaseException:
            if self.state is ProviderState.CONNECTING:
                self._enter(ProviderState.DISCONNECTED)
            raise
        self._enter(ProviderState.CONNECTED)

    @abstractmethod
    async def disconnect(self) -> None:
        """Close every socket and stop what was started. Idempotent."""

    async def get_status(self) -> LLMProviderStatus:
        """The connection's state after a fresh look at the server, with the latency of that look in seconds."""
        try:
            await self.probe()
            self._enter(ProviderState.CONNECTED)
        except LLMError as error:
            self._enter(_after_probe(error), error.what)
        return self.status()

    async def probe(self) -> None:
        """Ask the server for something cheap that loads no model, and remember how long it took.

        The state stays as it is. Raises what the server's silence or its answer means.
        """
        started = time.perf_counter()
        await self._look()
        self.measured(time.perf_counter() - started)

    def measured(self, seconds: float) -> None:
        """A round trip to the server that needed no model took so long."""
        self._latency = seconds

    def status(self) -> LLMProviderStatus:
        """The connection's state as it is known, without asking the server."""
        return LLMProviderStatus(
            name=self.name,
            state=self.state,
            since=self._connection.since,
            is_local=self.is_local,
            reason=self._connection.reason,
            latency=self._latency,
            base_url=self.url,
            is_live=self._is_live,
        )

    def observed(self, error: LLMError | None, *, answered: bool = False) -> None:
        """Let the connection's state follow what a request has shown; `answered` says that a model answered it."""
        if answered:
            self._is_live = True
        if error is None:
            self._enter(ProviderState.CONNECTED)
            return
        state = state_after(error)
        if state is None:
            return
        self._is_live = False
        self._enter(state, error.what)

    def told(self, state: ProviderState) -> None:
        """Whoever runs its server has said how it is."""
        self._enter(state)

    async def prepare(self, model: str) -> None:  # noqa: B027 - no abstract method: most servers need nothing
        """Whatever must be done before a request for this model can be sent. Servers that others run need nothing."""

    # -- models

    @abstractmethod
    async def get_available_models(self) -> list[LLMModelInfo]:
        """The models that can be asked for now."""

    @abstractmethod
    async def get_model_info(self, model: str) -> LLMModelInfo:
        """All that the server tells of a model. Raises `ModelNotFoundError`."""

    def fetches(self, model: str) -> bool:
        """Whether `pull_model` makes sense of that name."""
        return False

    def pull_model(self, model: str) -> AsyncIterator[PullProgress]:
        """Fetch a model, telling how far it is. Stopping the iteration pauses it; asking again resumes it."""
        self._unsupported("fetch models")

    async def delete_model(self, model: str) -> None:
        """Remove a model from the server's disk."""
        self._unsupported("delete models")

    async def load_model(self, model: str) -> None:
        """Read a model into memory."""
        self._unsupported("load models on request")

    async def unload_model(self, model: str) -> None:
        """Free a model's memory."""
        self._unsupported("unload models on request")

    async def embed(self, texts: Sequence[str], *, model: str) -> list[list[float]]:
        """One vector for each text."""
        self._unsupported("embed texts")

    # -- the window

    async def context_window(self, model: str, options: GenerationOptions = DEFAULT_OPTIONS) -> Window | None:
        """The window in effect for a request with these options, in tokens; `None` if nobody tells.

        What a model declares counts only where nothing smaller can be in effect. Loads no model, takes a second at most,
        and never raises.
        """
        return await _if_told(self._find_window(model, options))

    async def count_tokens(
        self, messages: Sequence[Message], model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> int | None:
        """The length of a prompt by the server's own tokenizer and chat template, with the tools that `options` offer.

        `None` where the server has none or its model is not loaded. Takes a second at most, and never raises.
        """
        return await _if_told(self._count(messages, model, options))

    # -- answers

    @abstractmethod
    def stream_chat_completion(
        self, messages: Sequence[MessageLike] | str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        """Answer a conversation, piece by piece."""

    @abstractmethod
    def stream_completion(
        self, prompt: str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        """Continue raw text, piece by piece: no chat template, no roles."""

    async def generate_chat_completion(
        self, messages: Sequence[MessageLike] | str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> LLMResponse:
        """Answer a conversation, whole. It travels as a stream, so that its limits and its truncation are noticed."""
        return await self._collected(self.stream_chat_completion(messages, model=model, options=options), model)

    async def generate_completion(
        self, prompt: str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> LLMResponse:
        """Continue raw text, whole."""
        return await self._collected(self.stream_completion(prompt, model=model, options=options), model)

    # -- for subclasses

    async def _look(self) -> None:
        """Something cheap that only this kind of server answers as it does."""
        self.held = await self.get_available_models()

    async def _find_window(self, model: str, options: GenerationOptions) -> Window | None:
        """What stands behind `context_window`; it may raise `LLMError`s and be cancelled."""
        return None

    async def _count(self, messages: Sequence[Message], model: str, options: GenerationOptions) -> int | None:
        """What stands behind `count_tokens`; it may raise `LLMError`s and be cancelled."""
        return None

    def _enter(self, state: ProviderState, reason: str = "") -> None:
        if state in LOST:
            self.held = None
        if (event := self._connection.enter(state, reason)) is not None:
            self.publish(event)

    async def _collected(self, stream: ChunkStream, model: str) -> LLMResponse:
        builder = ResponseBuilder(provider=self.name, model=model, is_local=self.is_local)
        async with stream:
            try:
                async for chunk in stream:
                    builder.add(chunk)
            except LLMError as error:
                error.partial_text = builder.text
                raise
        return builder.response()

    def _unsupported(self, what: str) -> NoReturn:
        raise UnsupportedOperationError(f"{self.name} ({self.kind}) cannot {what}", where=self.where)
