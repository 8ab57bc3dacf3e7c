"""What a provider of your own needs to talk HTTP: `HttpProvider`, and below it the client that the built-in kinds use.

With it come limits on time and size, one typed error for every fault, no redirects, no key at another origin, an answer
that broke off told from a whole one, and a socket that is closed when the reader leaves. `docs/writing-a-provider.md`
writes a whole provider with it.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import msgspec

from llm_jupyter.errors import LLMError, MalformedResponseError, ModelNotFoundError, StreamTruncatedError
from llm_jupyter.providers._errors import UNDECODABLE, error_from_fields, error_object, excerpt
from llm_jupyter.providers._http import RETRY, HttpClient, MessageStream, StreamLimits, is_loopback, without_secrets
from llm_jupyter.providers._wire import NDJSONDecoder, SSEDecoder
from llm_jupyter.providers.base import ChunkStream, LLMProvider, Pace
from llm_jupyter.types import Chunk, GenerationOptions, LLMModelInfo, ProviderState, Timing, Usage

T = TypeVar("T")


class HttpProvider(LLMProvider):
    """A provider whose server is at `base_url`; what is left to write is the protocol.

    `usual_url` is where such a server is found when nobody says otherwise. `api_key` goes to that server only, as a bearer
    token. `first_token_timeout` and `idle_timeout` are in seconds. Requests go through `http`, answers through `answer`.
    """

    usual_url: ClassVar[str] = "http://127.0.0.1:8080"

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        first_token_timeout: float = 300.0,
        idle_timeout: float = 60.0,
    ) -> None:
        super().__init__(name)
        self.http = HttpClient(base_url or self.usual_url, name=name, api_key=api_key, gate=lambda: self.gate())
        self._limits = StreamLimits(first_token_timeout, idle_timeout)

    @property
    def is_local(self) -> bool:
        return is_loopback(self.http.base_url)

    @property
    def url(self) -> str | None:
        return without_secrets(self.http.base_url)

    async def disconnect(self) -> None:
        await self.http.close()
        self._enter(ProviderState.DISCONNECTED)

    async def get_model_info(self, model: str) -> LLMModelInfo:
        """What the list of models tells of it; to be replaced where the server tells more when asked for one."""
        listed = {info.id: info for info in await self.get_available_models()}
        if model not in listed:
            nearest = difflib.get_close_matches(model, listed, 3)
            raise ModelNotFoundError(
                f"there is no model {model!r}",
                where=self.where,
                next_step="%llm models lists what is there.",
                nearest=nearest,
            )
        return listed[model]

    def answer(
        self,
        path: str,
        body: Callable[[], Awaitable[Mapping[str, Any]]],
        read: Callable[[bytes], Chunk],
        options: GenerationOptions,
        *,
        content_type: str = "text/event-stream",
    ) -> ChunkStream:
        """Post a request whose reply streams: server-sent events, or lines of JSON with another `content_type`.

        `body` is awaited once the stream is read; `read` makes a chunk of each message, and the chunk with a finish reason
        is the last one. Before it the stream may not end (`StreamTruncatedError`). Times are filled in.
        """
        pace = Pace()
        limits = StreamLimits(options.timeout or self._limits.first_token, self._limits.idle)

        async def open_stream() -> MessageStream:
            decoder = SSEDecoder() if content_type == "text/event-stream" else NDJSONDecoder()
            return await self.http.open_stream(
                path, await body(), decoder, content_type=content_type, limits=limits, pace=pace
            )

        return ChunkStream(self._batches(open_stream, read), pace)

    async def _batches(
        self, open_stream: Callable[[], Awaitable[MessageStream]], read: Callable[[bytes], Chunk]
    ) -> AsyncGenerator[list[Chunk], None]:
        stream: MessageStream | None = None
        times = _Times()
        self.in_flight += 1
        try:
            stream = await open_stream()
            while messages := await stream.read():
                chunks, failure = _read_all(messages, read)
                times.note(chunks)
                if times.first is not None:
                    stream.first_token_seen()
                if chunks and chunks[-1].finish_reason is not None:
                    yield [*chunks[:-1], times.completed(chunks[-1])]
                    return
                if chunks:
                    yield chunks
                if failure is not None:
                    raise failure
            raise StreamTruncatedError("the answer broke off before its end", where=self.where, next_step=RETRY)
        finally:
            self.in_flight -= 1
            if stream is not None:
                stream.close()


class _Times:
    """When an answer's first token came, and what follows from that."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.first: float | None = None

    def note(self, chunks: Sequence[Chunk]) -> None:
        if self.first is None and any(chunk.text or chunk.thinking or chunk.tool_calls for chunk in chunks):
            self.first = time.perf_counter() - self._started

    def completed(self, last: Chunk) -> Chunk:
        """The last chunk, with its times where `read` gave none."""
        total = time.perf_counter() - self._started
        usage = last.usage or Usage()
        speed = usage.completion_tokens / total if usage.completion_tokens else None
        timing = last.timing or Timing(first_token=self.first, total=total, tokens_per_second=speed)
        return msgspec.structs.replace(last, usage=usage, timing=timing)


def _read_all(messages: Sequence[bytes], read: Callable[[bytes], Chunk]) -> tuple[list[Chunk], LLMError | None]:
    """The chunks up to the last one of the answer, or up to an error: what came before it is handed on first."""
    chunks: list[Chunk] = []
    for message in messages:
        try:
            chunks.append(read(message))
        except LLMError as error:
            return chunks, error
        if chunks[-1].finish_reason is not None:
            break
    return chunks, None


def decoded(message: bytes, kind: type[T], where: str) -> T:
    """One message of a stream as a value of that type. Raises `MalformedResponseError`, with how the message begins."""
    try:
        return msgspec.json.decode(message, type=kind)
    except UNDECODABLE as error:
        what = f"the stream holds what the protocol does not know: {error}: {excerpt(message)}"
        raise MalformedResponseError(what, where=where) from None


def stream_error(error: Any, where: str) -> LLMError:
    """The error that an `error` field in mid-stream means, whatever its shape."""
    fields, text = error_object(error)
    return error_from_fields(200, fields, text, where)
