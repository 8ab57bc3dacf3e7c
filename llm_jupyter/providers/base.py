"""What every provider offers, and the stream that an answer arrives by."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import ClassVar, NoReturn, Self

from llm_jupyter.errors import InvalidInputError, LLMConnectionError, LLMError, UnsupportedOperationError
from llm_jupyter.events import ConnectionStateChanged, Event
from llm_jupyter.types import (
    Chunk,
    FinishReason,
    GenerationOptions,
    LLMModelInfo,
    LLMProviderStatus,
    LLMResponse,
    Message,
    MessageLike,
    ProviderState,
    PullProgress,
    Timing,
    ToolCall,
    ToolCallDelta,
    Usage,
    as_messages,
)

DEFAULT_OPTIONS = GenerationOptions()


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


class ResponseBuilder:
    """Gathers chunks into an `LLMResponse`."""

    def __init__(self, *, provider: str, model: str, is_local: bool) -> None:
        self._provider = provider
        self._model = model
        self._is_local = is_local
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, ToolCallDelta] = {}
        self._finish: FinishReason | None = None
        self._usage = Usage()
        self._timing = Timing()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the answer has come yet."""
        return not (self._text or self._thinking or self._calls)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    def add(self, chunk: Chunk) -> None:
        """Take one chunk in."""
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.thinking:
            self._thinking.append(chunk.thinking)
        for delta in chunk.tool_calls:
            known = self._calls.get(delta.index, ToolCallDelta(delta.index))
            self._calls[delta.index] = ToolCallDelta(
                delta.index, known.id or delta.id, known.name or delta.name, known.arguments + delta.arguments
            )
        if chunk.finish_reason is not None:
            self._finish = chunk.finish_reason
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timing is not None:
            self._timing = chunk.timing
        if chunk.model:
            self._model = chunk.model

    def response(self, finish_reason: FinishReason | None = None) -> LLMResponse:
        """The answer as far as it came; `finish_reason` overrides what the server said."""
        return LLMResponse(
            text=self.text,
            thinking="".join(self._thinking),
            tool_calls=tuple(
                ToolCall(call.id or f"call_{index}", call.name, call.arguments)
                for index, call in sorted(self._calls.items())
            ),
            finish_reason=finish_reason or self._finish or FinishReason.OTHER,
            usage=self._usage,
            timing=self._timing,
            model=self._model,
            provider=self._provider,
            is_local=self._is_local,
        )


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


class LLMProvider(ABC):
    """One model server, or the embedded model.

    `async with provider:` connects and disconnects. Every method raises only `LLMError`s. What a kind of server does
    not have raises `UnsupportedOperationError`, and nothing is sent.
    """

    kind: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name
        self._state = ProviderState.DISCONNECTED
        self._since = time.time()
        self._reason = ""
        self._latency: float | None = None
        self.publish: Callable[[Event], object] = lambda event: None
        """Who hears of this provider's events; a manager puts its event bus here."""
        self.slots: int | None = None
        """How many requests the server works on at once; `None` where that is not known."""
        self.in_flight = 0
        """How many requests of this provider are under way or queued at the server."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether prompts stay on this machine."""

    @property
    def where(self) -> str:
        """The provider as errors name it: its name and its URL, never a secret."""
        return self.name

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
        self._enter(ProviderState.CONNECTING)
        try:
            await self._probe()
        except LLMError as error:
            self._enter(ProviderState.FAILED, error.what)
            raise
        self._enter(ProviderState.CONNECTED)

    @abstractmethod
    async def disconnect(self) -> None:
        """Close every socket and stop what was started. Idempotent."""

    async def get_status(self) -> LLMProviderStatus:
        """The connection's state after a fresh look at the server, with the latency of that look in seconds."""
        try:
            await self._probe()
            self._enter(ProviderState.CONNECTED)
        except LLMError as error:
            self._enter(ProviderState.FAILED, error.what)
        return self._status()

    def observed(self, error: LLMError | None) -> None:
        """Let the connection's state follow what a request has shown: an answer, or that nobody answers."""
        if error is None:
            self._enter(ProviderState.CONNECTED)
        elif isinstance(error, LLMConnectionError):
            self._enter(ProviderState.FAILED, error.what)

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

    async def _probe(self) -> None:
        """Ask the server for something cheap that loads no model, and remember how long it took."""
        started = time.perf_counter()
        await self.get_available_models()
        self._latency = time.perf_counter() - started

    def _enter(self, state: ProviderState, reason: str = "") -> None:
        old, self._reason = self._state, reason
        if state is not old:
            self._state, self._since = state, time.time()
            self.publish(ConnectionStateChanged(provider=self.name, old=old, new=state, reason=reason))

    def _status(self, base_url: str | None = None) -> LLMProviderStatus:
        return LLMProviderStatus(
            name=self.name,
            state=self._state,
            since=self._since,
            is_local=self.is_local,
            reason=self._reason,
            latency=self._latency,
            base_url=base_url,
        )

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
