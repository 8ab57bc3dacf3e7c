"""Any server that speaks OpenAI's protocol: llama.cpp's server, vLLM, OpenAI itself and many more.

Source of the protocol: OpenAI's API reference for `/v1/chat/completions`, `/v1/completions`, `/v1/models` and
`/v1/embeddings`; llama.cpp's `/props` for the window that a model is loaded with.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

import msgspec

from llm_jupyter.errors import (
    LLMError,
    MalformedResponseError,
    ModelNotFoundError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.providers._errors import UNDECODABLE, error_from_fields, error_object, excerpt
from llm_jupyter.providers._http import RETRY, HttpClient, MessageStream, StreamLimits, is_loopback, without_secrets
from llm_jupyter.providers._openai_wire import (
    CompletionEvent,
    ModelEntry,
    ModelList,
    Props,
    StreamReader,
    chat_body,
    completion_body,
    model_info,
)
from llm_jupyter.providers._state import LOST
from llm_jupyter.providers._window_routes import WindowRoutes
from llm_jupyter.providers._wire import SSEDecoder
from llm_jupyter.providers.base import DEFAULT_OPTIONS, ChunkStream, LLMProvider, Pace, Window, checked_messages
from llm_jupyter.types import Chunk, GenerationOptions, LLMModelInfo, Message, MessageLike, ProviderState

SSE = "text/event-stream"


class EmbeddingItem(msgspec.Struct):
    """One vector of `/v1/embeddings`."""

    index: int
    embedding: list[float]


class EmbeddingReply(msgspec.Struct):
    """What `/v1/embeddings` answers."""

    data: list[EmbeddingItem]


class OpenAICompatibleProvider(LLMProvider):
    """A server with an OpenAI-compatible API under `base_url` (which usually ends in `/v1`).

    `api_key` is sent to that server only. `first_token_timeout` and `idle_timeout` are in seconds.
    """

    kind: ClassVar[str] = "openai-compatible"

    def __init__(
        self,
        name: str = "openai-compatible",
        base_url: str = "http://127.0.0.1:8080/v1",
        api_key: str | None = None,
        *,
        first_token_timeout: float = 300.0,
        idle_timeout: float = 60.0,
    ) -> None:
        super().__init__(name)
        self._limits = StreamLimits(first_token_timeout, idle_timeout)
        self._client: HttpClient | None = HttpClient(base_url, name=name, api_key=api_key, gate=lambda: self.gate())
        self._base_url = base_url
        self._window_routes = WindowRoutes(is_local=self.is_local)

    @property
    def is_local(self) -> bool:
        return is_loopback(self._base_url)

    @property
    def url(self) -> str | None:
        return without_secrets(self._base_url)

    async def disconnect(self) -> None:
        if self._client is not None:
            await self._client.close()
        self._enter(ProviderState.DISCONNECTED)

    async def get_available_models(self) -> list[LLMModelInfo]:
        client = await self._ready()
        listed = await client.json("GET", "/models", ModelList)
        return [model_info(entry, self.name, self.is_local) for entry in listed.data]

    async def get_model_info(self, model: str) -> LLMModelInfo:
        client = await self._ready()
        listed = await client.json("GET", "/models", ModelList)
        entry = listed.entry(model)
        if entry is None:
            raise ModelNotFoundError(
                f"there is no model {model!r}", where=self.where, next_step="%llm models lists what is there."
            )
        return model_info(entry, self.name, self.is_local, await self._props(client, entry))

    async def embed(self, texts: Sequence[str], *, model: str) -> list[list[float]]:
        client = await self._ready(model)
        body = {"model": model, "input": list(texts)}
        reply = await client.json("POST", "/embeddings", EmbeddingReply, body, timeout=self._limits.first_token)
        return [item.embedding for item in sorted(reply.data, key=lambda item: item.index)]

    def stream_chat_completion(
        self, messages: Sequence[MessageLike] | str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return self._stream("/chat/completions", chat_body(checked_messages(messages), model, options), options)

    def stream_completion(
        self, prompt: str, *, model: str, options: GenerationOptions = DEFAULT_OPTIONS
    ) -> ChunkStream:
        return self._stream("/completions", completion_body(prompt, model, options), options)

    # -- for subclasses

    async def _ready(self, model: str | None = None) -> HttpClient:
        """The client, once the server can take a request for this model."""
        assert self._client is not None
        return self._client

    def _reachable(self, model: str) -> HttpClient | None:
        """The client, where nothing has to be started or loaded for it."""
        return self._client

    async def _find_window(self, model: str, options: GenerationOptions) -> Window | None:
        client = self._reachable(model)
        return None if client is None else await self._window_routes.window(client, model)

    async def _count(self, messages: Sequence[Message], model: str, options: GenerationOptions) -> int | None:
        client = self._reachable(model)
        if client is None or any(message.images for message in messages):
            return None  # a template leaves a mark where a picture will be
        return await self._window_routes.count(client, chat_body(messages, model, options))

    def _enter(self, state: ProviderState, reason: str = "") -> None:
        if state in LOST:
            self._window_routes.forget()
        super()._enter(state, reason)

    def _stream(self, path: str, body: dict[str, Any], options: GenerationOptions) -> ChunkStream:
        pace = Pace()
        return ChunkStream(self._batches(path, body, options, pace), pace)

    async def _batches(
        self, path: str, body: dict[str, Any], options: GenerationOptions, pace: Pace
    ) -> AsyncGenerator[list[Chunk], None]:
        stream: MessageStream | None = None
        self.in_flight += 1
        try:
            client = await self._ready(body["model"])
            reader = StreamReader(time.perf_counter())  # loading a model is not the request's time
            limits = StreamLimits(options.timeout or self._limits.first_token, self._limits.idle)
            stream = await client.open_stream(path, body, SSEDecoder(), content_type=SSE, limits=limits, pace=pace)
            async for chunks in self._read(stream, reader, str(body["model"])):
                yield chunks
        finally:
            self.in_flight -= 1
            if stream is not None:
                stream.close()

    async def _read(self, stream: MessageStream, reader: StreamReader, model: str) -> AsyncGenerator[list[Chunk], None]:
        """Decode until the server says that the answer is complete; the last chunk carries what closes it."""
        decode = msgspec.json.Decoder(CompletionEvent).decode
        while messages := await self._next(stream, reader):
            chunks: list[Chunk] = []
            for message in messages:
                if message == b"[DONE]":
                    chunks.extend(reader.last())
                    yield chunks
                    return
                try:
                    event = decode(message)
                except UNDECODABLE as error:
                    if chunks:
                        yield chunks
                    raise MalformedResponseError(
                        f"the stream holds what the protocol does not know: {error}: {excerpt(message)}",
                        where=self.where,
                    ) from None
                if event.error is not None:
                    if chunks:
                        yield chunks
                    fields, text = error_object(event.error)
                    raise self._stream_error(fields, text)
                if not reader.has_first_token and event.model:
                    self._check_model(model, event.model)
                chunk = reader.chunk(event)
                if chunk is not None:
                    chunks.append(chunk)
            if chunks:
                if reader.has_first_token:
                    stream.first_token_seen()
                yield chunks
        if reader.finish_reason is None:
            raise StreamTruncatedError("the answer broke off before its end", where=self.where, next_step=RETRY)
        yield reader.last()

    async def _next(self, stream: MessageStream, reader: StreamReader) -> list[bytes]:
        """The next messages. What breaks after the finish reason costs nothing: the answer is whole."""
        try:
            return await stream.read()
        except (StreamTruncatedError, StreamStalledError):
            if reader.finish_reason is None:
                raise
            return []

    def _check_model(self, asked: str, answering: str) -> None:
        """Whether the model that answers may stand for the one that was asked; most servers use names of their own."""

    def _stream_error(self, fields: Any, text: str) -> LLMError:
        status = fields.get("code")
        return error_from_fields(
            status if isinstance(status, int) and 400 <= status < 600 else 200, fields, text, self.where
        )

    async def _props(self, client: HttpClient, entry: ModelEntry) -> Props | None:
        """What llama.cpp's server tells of the loaded model; other servers have no such address."""
        if entry.owned_by != "llamacpp":
            return None
        try:
            return await client.json("GET", "//props", Props)
        except LLMError:
            return None  # switched off by whoever started the server
