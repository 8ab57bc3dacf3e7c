"""HTTP to a model server: one client, its limits, and the place where foreign errors become ours.

aiohttp, for two things that decide the cost of a token: its parser is C and hands over whatever has arrived as one block,
and its transport can be told to leave the socket unread for a moment (see `Pace`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from llm_jupyter.errors import (
    ConfigurationError,
    HungUpError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    RequestError,
    ResponseLimitError,
    UnreachableError,
)
from llm_jupyter.providers._errors import UNDECODABLE, error_from_reply, excerpt, one_line
from llm_jupyter.providers._stream import FOREIGN, Decoder, no_first_token, not_a_stream
from llm_jupyter.providers._stream import RETRY as RETRY
from llm_jupyter.providers._stream import MessageStream as MessageStream
from llm_jupyter.providers._stream import StreamLimits as StreamLimits
from llm_jupyter.providers.base import Pace

T = TypeVar("T")

REACH_OR_SWITCH = "Is the network there? Another model answers after %llm models and %llm use MODEL."
START_OR_SWITCH = "Start that server, or choose another model: %llm models, then %llm use MODEL."

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a whole JSON reply."""

HEADER_LIMIT = 64 * 1024
"""Bytes of one header line."""

REQUEST_TIMEOUT = 10.0
"""Seconds for a reply that needs no model: lists, properties, health."""

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection stands."""


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine by its own name or number."""
    try:
        host = (urlsplit(url).hostname or "").lower().removesuffix(".")
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified  # where a server listens everywhere, it is reached here


def without_secrets(url: str) -> str:
    """The URL with neither credentials nor query; of what is no URL nothing is shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, f":{parts.port}" if parts.port else ""
    except ValueError:
        host = None
    if not host:
        return "an invalid URL"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"


class Here(AbstractResolver):
    """Every name is this machine: only loopback names come here, and no name server need know of them."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        numbers = (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))
        return [
            ResolveResult(hostname=host, host=number, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for number, kind in numbers
        ]

    async def close(self) -> None:
        pass


class HttpClient:
    """Requests to one server. Each loop that uses it has a session of its own, made on first use.

    `gate` is called before each request, and raises the `LLMError` that forbids it.
    """

    def __init__(
        self, base_url: str, *, name: str, api_key: str | None = None, gate: Callable[[], None] = lambda: None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.where = f"{name} at {without_secrets(self.base_url)}"
        self._api_key = api_key
        self._gate = gate
        self._loopback = is_loopback(base_url)
        self._start_or_switch = START_OR_SWITCH if self._loopback else REACH_OR_SWITCH
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._streams: weakref.WeakSet[MessageStream] = weakref.WeakSet()

    async def close(self) -> None:
        """Close every connection, those of running answers too. Idempotent."""
        sessions, self._sessions = self._sessions, {}
        for stream in list(self._streams):
            stream.close()  # closing the session alone would leave its reader waiting
        session = sessions.pop(asyncio.get_running_loop(), None)
        for other in sessions.values():
            other.detach()  # only its own loop may close it; it keeps no connection
        if session is not None:
            await session.close()

    async def json(
        self, method: str, path: str, reply: type[T], body: Any = None, *, timeout: float = REQUEST_TIMEOUT
    ) -> T:
        """One request with a JSON reply of the given type."""
        raw = await self.send(method, path, body, timeout=timeout)
        if not raw.strip():
            raise MalformedResponseError("the server sent an empty reply with status 200", where=self.where)
        try:
            return msgspec.json.decode(raw, type=reply)
        except UNDECODABLE as error:
            raise MalformedResponseError(
                f"the reply of {path} is not what was expected: {error}: {excerpt(raw)}", where=self.where
            ) from None

    async def send(self, method: str, path: str, body: Any = None, *, timeout: float = REQUEST_TIMEOUT) -> bytes:
        """One request; the reply's body, which may be empty."""
        try:
            async with (
                asyncio.timeout(timeout),
                self._open().request(method, self._url(path), data=_encoded(body), allow_redirects=False) as response,
            ):
                raw = await _whole_body(response, self.where)
        except FOREIGN as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise LLMConnectionError(
                    f"the server did not answer within {timeout:g} s", where=self.where, next_step=RETRY
                ) from None
            raise self._unreachable(error) from None
        self._check(response, raw)
        return raw

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
                    raise not_a_stream(response, raw, self.where)
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise no_first_token(limits, self.where) from None
            if isinstance(error, FOREIGN):
                raise self._unreachable(error) from None
            raise
        stream = MessageStream(response, decoder, where=self.where, limits=limits, pace=pace, started=started)
        self._streams.add(stream)
        return stream

    def _open(self) -> aiohttp.ClientSession:
        self._gate()
        if self._api_key and "@" in urlsplit(self.base_url).netloc:
            raise ConfigurationError(
                "its address holds a password, and it has a key too: a request carries one of them",
                where=self.where,
                next_step="Take the password out of its base_url, or the key out of its settings.",
            )
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            for gone in [one for one in list(self._sessions) if one.is_closed()]:
                self._sessions.pop(gone).detach()
            headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._sessions[loop] = aiohttp.ClientSession(
                headers=headers,
                auto_decompress=False,
                # No connection is kept: a model server that closes an idle one at the wrong moment would cost the next
                # prompt, which must not be sent twice. On loopback a new one costs 0.3 ms.
                connector=aiohttp.TCPConnector(force_close=True, resolver=Here() if self._loopback else None),
                trust_env=not self._loopback,  # a proxy cannot reach this machine's loopback
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[loop]

    def _url(self, path: str) -> str:
        """A path below the base URL, or below the server's root where it starts with `//`."""
        if path.startswith("//"):
            parts = urlsplit(self.base_url)
            return f"{parts.scheme}://{parts.netloc}{path[1:]}"
        return self.base_url + path

    def _check(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        if 300 <= response.status < 400:
            target = response.headers.get("Location", "")
            if target.startswith("/") and not target.startswith("//"):
                target = f"{response.url.origin()}{target}"
            raise RequestError(
                f"the server redirects to {without_secrets(target)[:100]}, which is not followed",
                where=self.where,
                status=response.status,
                next_step="Set base_url to the address that it redirects to.",
            )
        if response.status != 200:
            raise error_from_reply(response.status, raw, response.headers, self.where)

    def _unreachable(self, error: Exception) -> LLMError:
        """Every error of aiohttp, of the socket and of TLS, before a reply has begun."""
        if isinstance(error, LLMError):
            return error
        if isinstance(error, aiohttp.InvalidURL):
            return LLMConnectionError(
                "the address is no valid URL", where=self.where, next_step="Set base_url to http://HOST:PORT/v1."
            )
        if isinstance(error, aiohttp.ServerTimeoutError):
            return UnreachableError(
                f"no connection within {CONNECT_TIMEOUT:g} s", where=self.where, next_step=self._start_or_switch
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return MalformedResponseError(
                f"what answers does not speak HTTP: {one_line(error.message)}", where=self.where
            )
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            return LLMConnectionError(f"the secure connection failed: {one_line(str(error))}", where=self.where)
        if isinstance(error, aiohttp.ClientConnectorError):
            return UnreachableError(
                f"nothing answers: {_plain(error.os_error)}", where=self.where, next_step=self._start_or_switch
            )
        if isinstance(
            error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | aiohttp.ClientPayloadError | OSError
        ):
            return HungUpError("the server hung up before it answered", where=self.where, next_step=RETRY)
        return LLMConnectionError(
            f"the request failed: {one_line(str(error)) or type(error).__name__}", where=self.where
        )


def _encoded(body: Any) -> bytes | None:
    """A body as JSON in UTF-8, with a question mark for half a character: a file's name, or a text that was cut, may hold
    one, and UTF-8 has none.
    """
    try:
        return None if body is None else msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(body), ensure_ascii=False).encode(errors="replace")


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


def _plain(error: OSError) -> str:
    """The system's words for an error, without Python's decoration."""
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return one_line(error.strerror or str(error) or type(error).__name__)
