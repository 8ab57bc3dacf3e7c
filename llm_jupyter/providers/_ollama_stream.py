"""Ollama's streams, line by line: an answer as chunks, a download as progress."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from llm_jupyter.errors import LLMError, MalformedResponseError, StreamTruncatedError
from llm_jupyter.providers._errors import UNDECODABLE, error_from_fields, error_object, excerpt
from llm_jupyter.providers._http import HttpClient, MessageStream, StreamLimits
from llm_jupyter.providers._ollama_pull import AGAIN, pull_error
from llm_jupyter.providers._ollama_wire import AnswerLine, AnswerToolCall, ProgressLine
from llm_jupyter.providers._stream import RETRY
from llm_jupyter.providers._wire import NDJSONDecoder
from llm_jupyter.providers.base import Pace
from llm_jupyter.types import Chunk, FinishReason, Timing, ToolCallDelta, Usage

NDJSON = "application/x-ndjson"
LOAD_TIMEOUT = 600.0
"""Seconds for reading a large model from a slow disk, and between two signs of life of a download."""

PATIENT = StreamLimits(LOAD_TIMEOUT, LOAD_TIMEOUT)
FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class LineReader:
    """Turns the lines of an answer into chunks, one for each.

    `started` is when the request was made, on `time.perf_counter`'s clock.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._first: float | None = None
        self._calls = 0
        self._texts: list[str] = []
        self.done = False
        self.prompt_tokens: int | None = None
        self.written_tokens: int | None = None

    @property
    def has_first_token(self) -> bool:
        """Whether anything of the answer itself has come."""
        return self._first is not None

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self._texts)

    def chunk(self, line: AnswerLine) -> Chunk:
        """The chunk that a line means."""
        message = line.message
        text = message.content if message else line.response
        thinking = message.thinking if message else line.thinking
        calls = self._tool_deltas(message.tool_calls) if message and message.tool_calls else ()
        self._texts.append(text)
        if self._first is None and (text or thinking or calls):
            self._first = time.perf_counter() - self._started
        if line.done:
            return self._last(line, text, thinking, calls)
        return Chunk(text, thinking, calls)

    def _tool_deltas(self, calls: list[AnswerToolCall]) -> tuple[ToolCallDelta, ...]:
        """Tool calls come whole; each gets the next number, since older servers give none."""
        result = []
        for call in calls:
            arguments = msgspec.json.encode(call.function.arguments).decode()
            result.append(ToolCallDelta(self._calls, call.id, call.function.name, arguments))
            self._calls += 1
        return tuple(result)

    def _last(self, line: AnswerLine, text: str, thinking: str, calls: tuple[ToolCallDelta, ...]) -> Chunk:
        self.done = True
        self.prompt_tokens, self.written_tokens = line.prompt_eval_count, line.eval_count
        reason = FINISH_REASONS.get(line.done_reason or "stop", FinishReason.OTHER)
        if self._calls and reason is FinishReason.STOP:
            reason = FinishReason.TOOL_CALLS
        generation = _seconds(line.eval_duration)
        rate = line.eval_count / generation if line.eval_count and generation else None
        total = time.perf_counter() - self._started
        return Chunk(
            text, thinking, calls, reason, Usage(line.prompt_eval_count, line.eval_count),
            Timing(self._first, total, _seconds(line.prompt_eval_duration), generation, rate), line.model,
        )  # fmt: skip


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


async def read_answer(stream: MessageStream, reader: LineReader, where: str) -> AsyncGenerator[list[Chunk], None]:
    """The chunks of an answer, as many at once as have arrived. Raises what the server says, and where it breaks off."""
    decode = msgspec.json.Decoder(AnswerLine).decode
    while messages := await stream.read():
        chunks: list[Chunk] = []
        failure: LLMError | None = None
        try:
            for message in messages:
                line = decode(message)
                if line.error is not None:
                    fields, text = error_object(line.error)
                    failure = error_from_fields(line.status or 200, fields, text, where)
                    break
                chunks.append(reader.chunk(line))
                if line.done:
                    break
        except UNDECODABLE as error:
            failure = _malformed(message, error, where)
        if chunks and (failure or reader.done):
            yield chunks
        if failure is not None:
            raise failure
        if reader.done:
            return
        if reader.has_first_token:
            stream.first_token_seen()
        yield chunks
    raise StreamTruncatedError("the answer broke off before its end", where=where, next_step=RETRY)


async def read_progress(client: HttpClient, path: str, body: dict[str, Any]) -> AsyncGenerator[ProgressLine, None]:
    """The lines of a download or of a creation, up to the one that says that it went well."""
    decode = msgspec.json.Decoder(ProgressLine).decode
    stream = await client.open_stream(
        path, {**body, "stream": True}, NDJSONDecoder(), content_type=NDJSON, limits=PATIENT, pace=Pace()
    )
    try:
        while messages := await stream.read():
            stream.first_token_seen()
            for message in messages:
                try:
                    line = decode(message)
                except UNDECODABLE as error:
                    raise _malformed(message, error, client.where) from None
                if line.error is not None:
                    raise pull_error(line.error, client.where)
                yield line
                if line.status == "success":
                    return
        raise StreamTruncatedError("the server stopped before it was done", where=client.where, next_step=AGAIN)
    finally:
        stream.close()


def _malformed(message: bytes, error: Exception, where: str) -> LLMError:
    return MalformedResponseError(
        f"the stream holds what the protocol does not know: {error}: {excerpt(message)}", where=where
    )
