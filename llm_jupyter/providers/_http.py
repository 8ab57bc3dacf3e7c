"""HTTP to a model server: one client, its limits, and the place where foreign errors become ours.

aiohttp, for two things that decide the cost of a token: its parser is C and hands over whatever has arrived as one block,
and its transport can be told to leave the socket unread for a moment (see `Pace`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from llm_jupyter.errors import (
    FirstTokenTimeoutError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    RequestError,
    ResponseLimitError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.providers._errors import error_from_reply, excerpt
from llm_jupyter.providers.base import Pace

T = TypeVar("T")

RETRY = "Ask again, or look at the server's own log."
START_OR_SWITCH = "Start that server, or choose another model: %llm models, then %llm use MODEL."

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a whole JSON reply."""

HEADER_LIMIT = 64 * 1024
"""Bytes of one header line."""

REQUEST_TIMEOUT = 10.0
"""Seconds for a reply that needs no model: lists, properties, health."""

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection stands."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Seconds to the first token, and without any complete line thereafter."""

    first_token: float = 300.0
    idle: float = 60.0


class Decoder(Protocol):
    """Blocks in, complete messages out."""

    def feed(self, block: bytes) -> list[bytes]: ...

    def finish(self) -> list[bytes]: ...


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine by its own name or number."""
    host = (urlsplit(url).hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_secrets(url: str) -> str:
    """The URL with neither credentials nor query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


class HttpClient:
    """Requests to one server. The session is made on first use, on the loop that uses it."""

    def __init__(self, base_url: str, *, name: str, api_key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.where = f"{name} at {without_secrets(self.base_url)}"
        self._api_key = api_key
        self._loopback = is_loopback(base_url)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()

    async def json(
        self, method: str, path: str, reply: type[T], body: Any = None, *, timeout: float = REQUEST_TIMEOUT
    ) -> T:
        """One request with a JSON reply of the given type."""
        try:
            async with (
                asyncio.timeout(timeout),
                self._open().request(method, self._url(path), data=_encoded(body), allow_redirects=False) as response,
            ):
                raw = await _whole_body(response, self.where)
        except TimeoutError:
            raise LLMConnectionError(
                f"the server did not answer within {timeout:g} s", where=self.where, next_step=RETRY
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from None
        self._check(response, raw)
        try:
            return msgspec.json.decode(raw, type=reply)
        except msgspec.DecodeError as error:
            raise MalformedResponseError(
                f"the reply of {path} is not what was expected: {error}: {excerpt(raw)}", where=self.where
            ) from None

    async def open_stream(
        self, path: str, body: Any, decoder: Decoder, *, content_type: str, limits: StreamLimits, pace: Pace
    ) -> MessageStream:
        """Send a request whose reply streams; it is checked for status and type before this returns."""
        started = time.monotonic()
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(limits.first_token):
                response = await self._open().post(self._url(path), data=_encoded(body), allow_redirects=False)
                if response.status != 200 or not _has_type(response, content_type):
                    raw = await _whole_body(response, self.where)
                    self._check(response, raw)
                    raise _not_a_stream(response, raw, self.where)
        except TimeoutError:
            raise _no_first_token(limits, self.where) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from None
        except BaseException:
            if response is not None:
                response.close()
            raise
        return MessageStream(response, decoder, where=self.where, limits=limits, pace=pace, started=started)

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._loop = loop
            self._session = aiohttp.ClientSession(
                headers=headers,
                auto_decompress=False,
                # No connection is kept: a model server that closes an idle one at the wrong moment would cost the next
                # prompt, which must not be sent twice. On loopback a new one costs 0.3 ms.
                connector=aiohttp.TCPConnector(force_close=True),
                trust_env=not self._loopback,  # a proxy cannot reach this machine's loopback
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _url(self, path: str) -> str:
        """A path below the base URL, or below the server's root where it starts with `//`."""
        if path.startswith("//"):
            parts = urlsplit(self.base_url)
            return f"{parts.scheme}://{parts.netloc}{path[1:]}"
        return self.base_url + path

    def _check(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        if 300 <= response.status < 400:
            raise RequestError(
                f"the server redirects to {without_secrets(response.headers.get('Location', ''))}, which is not followed",
                where=self.where,
                status=response.status,
                next_step="Set base_url to the address that it redirects to.",
            )
        if response.status != 200:
            raise error_from_reply(response.status, raw, response.headers, self.where)
        if not raw.strip():
            raise MalformedResponseError("the server sent an empty reply with status 200", where=self.where)

    def _unreachable(self, error: Exception) -> LLMError:
        """Every error of aiohttp, of the socket and of TLS, before a reply has begun."""
        if isinstance(error, LLMError):
            return error
        if isinstance(error, aiohttp.InvalidURL):
            return LLMConnectionError(
                "the address is no valid URL", where=self.where, next_step="Set base_url to http://HOST:PORT/v1."
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return MalformedResponseError(f"what answers is no HTTP server: {error.message[:200]}", where=self.where)
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            return LLMConnectionError(f"the secure connection failed: {str(error)[:200]}", where=self.where)
        if isinstance(error, aiohttp.ClientConnectorError):
            return LLMConnectionError(
                f"nothing answers: {_plain(error.os_error)}", where=self.where, next_step=START_OR_SWITCH
            )
        if isinstance(
            error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | aiohttp.ClientPayloadError | OSError
        ):
            return LLMConnectionError("the server hung up before it answered", where=self.where, next_step=RETRY)
        return LLMConnectionError(f"the request failed: {str(error)[:200] or type(error).__name__}", where=self.where)


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
        self._expired = False
        self._loop = asyncio.get_running_loop()
        self._watchdog = self._loop.call_later(self._patience(), self._watch)

    def first_token_seen(self) -> None:
        """From now on the idle limit counts, and the reader's pace."""
        self._has_first_token = True

    async def read(self) -> list[bytes]:
        """The messages that have arrived, at least one; an empty list at the end."""
        while not self._ended:
            if self._has_first_token and self._pace.interval:
                await self._rest()
            block = await self._read_block()
            if block:
                messages = self._decoder.feed(block)
            else:
                self._ended = True
                messages = self._decoder.finish()
            if messages or b"\n" in block:
                self._progress = time.monotonic()
            if messages:
                return messages
        return []

    def close(self) -> None:
        """Close the socket, at once. Idempotent."""
        self._ended = True
        self._watchdog.cancel()
        self._response.close()

    async def _read_block(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not self._expired:
                raise StreamTruncatedError(
                    "the connection broke off in the middle of the answer", where=self._where, next_step=RETRY
                ) from error
        if not self._has_first_token:
            raise _no_first_token(self._limits, self._where)
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
        if left > 0:
            self._watchdog = self._loop.call_later(min(left, self._limits.idle), self._watch)
            return
        self._expired = True
        self._response.close()


def _encoded(body: Any) -> bytes | None:
    return None if body is None else msgspec.json.encode(body)


def _has_type(response: aiohttp.ClientResponse, expected: str) -> bool:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return False
    return response.headers.get("Content-Type", expected).partition(";")[0].strip().lower() == expected


async def _whole_body(response: aiohttp.ClientResponse, where: str) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        response.close()
        raise MalformedResponseError(f"the reply is compressed ({encoding[:20]}), which was not asked for", where=where)
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > BODY_LIMIT:
            response.close()
            raise ResponseLimitError(f"the reply is larger than {BODY_LIMIT // 2**20} MiB", where=where)
    return b"".join(pieces)


def _not_a_stream(response: aiohttp.ClientResponse, raw: bytes, where: str) -> LLMError:
    kind = response.headers.get("Content-Type", "unknown type")[:60]
    if raw.lstrip().startswith(b"{") and b'"error"' in raw:
        return error_from_reply(500, raw, response.headers, where)
    return MalformedResponseError(
        f"the server sent {kind} instead of a stream: {excerpt(raw)}",
        where=where,
        next_step="Is base_url right? It usually ends in /v1.",
    )


def _no_first_token(limits: StreamLimits, where: str) -> FirstTokenTimeoutError:
    return FirstTokenTimeoutError(
        f"no first token within {limits.first_token:g} s",
        where=where,
        next_step="A model that loads slowly may need --timeout with more seconds.",
    )


def _plain(error: OSError) -> str:
    """The system's words for an error, without Python's decoration."""
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return (error.strerror or str(error) or type(error).__name__)[:200]
