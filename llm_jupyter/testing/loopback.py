"""Small servers on loopback that stand between a provider and its server, or in its place.

A `Recorder` passes requests on and keeps the replies; a `Replay` gives them again, cut or sliced as one likes: whatever
the protocol, the provider sees its own server's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Exchange:
    """One request's path, and the whole reply to it."""

    path: str
    reply: bytes


class LoopbackServer(ABC):
    """Answers the one request of each connection with the bytes that a subclass gives, then closes."""

    def __init__(self) -> None:
        self.visits: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.left = asyncio.Event()
        """Set once a client has gone before its reply was complete."""

    @abstractmethod
    def pieces(self, request: bytes) -> AsyncIterator[bytes]:
        """The reply to a request, piece by piece."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            request = await _read_request(reader)
            self.visits.append(request)
            replying = asyncio.ensure_future(self._reply(request, writer))
            leaving = asyncio.ensure_future(reader.read(1))
            await asyncio.wait([replying, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not replying.done():
                self.left.set()
            for one in (replying, leaving):
                one.cancel()
            await asyncio.gather(replying, leaving, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server is closed: in both cases the connection ends here
        finally:
            writer.close()

    async def _reply(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        async for piece in self.pieces(request):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # so that the client reads before the next piece


class Recorder(LoopbackServer):
    """Passes requests on to another server and keeps each reply."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._target = urlsplit(base_url)
        self.exchanges: list[Exchange] = []

    async def pieces(self, request: bytes) -> AsyncIterator[bytes]:
        target = self._target
        secure = target.scheme == "https"
        port = target.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(target.hostname, port, ssl=secure or None)
        exchange = Exchange(path_of(request), b"")
        self.exchanges.append(exchange)
        try:
            writer.write(_addressed(request, target.netloc))
            while block := await reader.read(65536):
                exchange.reply += block
                yield block
        finally:
            writer.close()


@dataclass
class Cut:
    """What becomes of a reply: `size` bytes at a time, the end at `stop`; `holds` leaves the connection open there."""

    size: int = 1 << 16
    stop: int | None = None
    holds: bool = False


@dataclass
class Replay(LoopbackServer):
    """Gives recorded replies again, each path's in their order; the last one of the record is subject to `cut`."""

    exchanges: Sequence[Exchange]
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        super().__init__()
        self._taken: dict[str, int] = {}

    def restart(self, cut: Cut) -> None:
        """Begin again from the first reply, with another cut."""
        self.cut, self._taken = cut, {}

    async def pieces(self, request: bytes) -> AsyncIterator[bytes]:
        path = path_of(request)
        known = [exchange for exchange in self.exchanges if exchange.path == path]
        if not known:
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            return
        number = self._taken[path] = min(self._taken.get(path, -1) + 1, len(known) - 1)
        cut = self.cut if known[number] is self.exchanges[-1] else Cut()
        reply = known[number].reply[: cut.stop]
        for start in range(0, len(reply), cut.size):
            yield reply[start : start + cut.size]
        if cut.holds:
            await asyncio.Event().wait()


@dataclass
class Always(LoopbackServer):
    """Gives the same reply to everything."""

    reply: Callable[[bytes], bytes]

    def __post_init__(self) -> None:
        super().__init__()

    async def pieces(self, request: bytes) -> AsyncIterator[bytes]:
        yield self.reply(request)


def path_of(request: bytes) -> str:
    """The path of a request, with its query."""
    return request.split(b" ", 2)[1].decode("latin-1")


def reply_of(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole reply."""
    named = {"Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in named.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


def _addressed(request: bytes, host: str) -> bytes:
    """The request as if it had been sent to that host, over a connection of its own."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    kept = [line for line in fields if line.split(b":")[0].strip().lower() not in (b"host", b"connection")]
    return b"\r\n".join([first, b"Host: " + host.encode(), b"Connection: close", *kept, b"", b""]) + body


@contextlib.asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """An origin at which nobody listens."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    yield f"http://127.0.0.1:{port}"
