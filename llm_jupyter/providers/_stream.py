"""A streaming reply as the complete messages in it, with the limits that keep a bad one from lasting for ever."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from llm_jupyter.errors import (
    FirstTokenTimeoutError,
    LLMError,
    MalformedResponseError,
    ResponseLimitError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.providers._errors import UNDECODABLE, error_from_reply, excerpt
from llm_jupyter.providers.base import Pace

RETRY = "Ask again, or look at the server's own log."
FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
"""What aiohttp and the sockets below it raise; `OSError` covers `TimeoutError`, `ValueError` a URL or header that is none."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Seconds to the first token, and without any complete line thereafter."""

    first_token: float = 300.0
    idle: float = 60.0


class Decoder(Protocol):
    """Blocks in, complete messages out."""

    def feed(self, block: bytes) -> list[bytes]: ...

    def finish(self) -> list[bytes]: ...


class MessageStream:
    """One streaming reply, as the complete messages in it."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        decoder: Decoder,
        *,
        where: str,
        limits: StreamLimits,
        pace: Pace,
        started: float,
    ) -> None:
        self._response = response
        self._decoder = decoder
        self._where = where
        self._pace = pace
        self._ended = False
        self._limits = limits
        self._has_first_token = False
        self._progress = started
        self._is_reading = False
        self._expired = False
        self._opening: bytes | None = b""  # what came before the first message
        self._loop = asyncio.get_running_loop()
        self._watchdog = self._loop.call_later(min(limits.first_token, limits.idle), self._watch)

    def first_token_seen(self) -> None:
        """From now on the idle limit counts, and the reader's pace."""
        self._has_first_token = True

    async def read(self) -> list[bytes]:
        """The messages that have arrived, at least one; an empty list at the end."""
        if self._has_first_token:
            self._progress = time.monotonic()  # the time that the reader took is not the server's
        self._is_reading = True
        try:
            while not self._ended:
                if self._has_first_token and self._pace.interval:
                    await self._rest()
                block = await self._read_block()
                if block:
                    messages = self._decoder.feed(block)
                    if not messages:
                        self._note(block)
                        continue
                    self._opening = None
                else:
                    messages = self._finished()
                if messages:
                    return messages
            return []
        except ResponseLimitError as error:
            error.where = self._where  # which a decoder does not know
            raise
        finally:
            self._is_reading = False

    def _note(self, block: bytes) -> None:
        """A block that completes no message: a line in it is a sign of life; and perhaps it is no stream at all."""
        if self._has_first_token and b"\n" in block:
            self._progress = time.monotonic()
        if self._opening is not None and len(self._opening) < 1000:
            self._opening += block[:1000]

    def _finished(self) -> list[bytes]:
        """What the end of the stream completes. Half a message there says that the rest was lost: it is left out."""
        self._ended = True
        rest = self._decoder.finish()
        whole = [message for message in rest if _is_complete(message)]
        beginning = (self._opening or b"").lstrip()[:1]
        if not whole and (beginning == b"<" or (not rest and beginning in (b"{", b"["))):
            raise not_a_stream(self._response, self._opening or b"", self._where)
        return whole

    def close(self) -> None:
        """Close the socket, at once. Idempotent."""
        self._ended = True
        self._watchdog.cancel()
        self._response.close()

    async def _read_block(self) -> bytes:
        try:
            return await self._response.content.readany()
        except FOREIGN as error:
            if not self._expired:
                raise StreamTruncatedError(
                    "the connection broke off in the middle of the answer", where=self._where, next_step=RETRY
                ) from error
        if not self._has_first_token:
            raise no_first_token(self._limits, self._where)
        raise StreamStalledError(
            f"the answer stopped: nothing complete arrived for {self._limits.idle:g} s",
            where=self._where,
            next_step=RETRY,
        )

    async def _rest(self) -> None:
        """Leave the socket unread for a moment: one wake-up then brings many tokens."""
        connection = self._response.connection
        if connection is None or (transport := connection.transport) is None:
            return  # all has been received
        transport.pause_reading()
        try:
            await asyncio.sleep(self._pace.interval)
        finally:
            if not transport.is_closing():
                transport.resume_reading()

    def _patience(self) -> float:
        return self._limits.idle if self._has_first_token else self._limits.first_token

    def _watch(self) -> None:
        """One timer for the whole stream, instead of one for each read."""
        left = self._progress + self._patience() - time.monotonic()
        if left > 0 or not self._is_reading:
            again = min(left, self._limits.idle) if left > 0 else self._limits.idle
            self._watchdog = self._loop.call_later(again, self._watch)
            return
        self._expired = True
        self._response.close()


def not_a_stream(response: aiohttp.ClientResponse, raw: bytes, where: str) -> LLMError:
    kind = response.headers.get("Content-Type", "of unknown type")[:60]
    if raw.lstrip().startswith(b"{") and b'"error"' in raw:
        return error_from_reply(500, raw, response.headers, where)
    return MalformedResponseError(
        f"the reply is no stream of events ({kind}): {excerpt(raw) or 'it is empty'}",
        where=where,
        next_step="Is base_url right? That of an OpenAI-compatible server usually ends in /v1.",
    )


def no_first_token(limits: StreamLimits, where: str) -> FirstTokenTimeoutError:
    return FirstTokenTimeoutError(
        f"no first token within {limits.first_token:g} s",
        where=where,
        next_step="A model that loads slowly may need --timeout with more seconds.",
    )


def _is_complete(message: bytes) -> bool:
    """Whether a message that only the end of the stream closed is whole: JSON, or the word that ends OpenAI's streams."""
    try:
        msgspec.json.decode(message)
    except UNDECODABLE:
        return message == b"[DONE]"
    return True
