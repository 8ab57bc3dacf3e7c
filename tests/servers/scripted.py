"""A real HTTP server on loopback that sends exactly the bytes it is told to, in exactly those pieces.

    async with ScriptedServer(sse(delta("Hel"), Pause(0.1), delta("lo"), End.RESET)) as server:
        provider = OpenAICompatibleProvider("local", server.base_url)

A script is a sequence of steps for one connection: `bytes` are sent at once, `Pause` waits, a `Gate` waits until the
test opens it, and an `End` says how the connection ends (without one it closes cleanly after the last step). A server
takes one script for every request, several to be used in turn (the last one stays), or a function from the request to
its script. It runs in threads of its own, so that it neither waits for the test's event loop nor slows it down; `with`
and `async with` both work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

TICK = 0.005
"""Seconds between two looks at a closed gate."""


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds; a client that leaves ends the wait."""

    seconds: float


class Gate:
    """Wait until the test calls `open()`; `reached` is set once a connection stands before it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()


class End(Enum):
    """How a connection ends."""

    CLOSE = "a clean end, the same as no end"
    HALF_CLOSE = "say that nothing more will be sent, and listen until the client leaves"
    RESET = "TCP's RST instead of an end"
    HOLD = "send nothing more, and wait until the client leaves"


Step = bytes | Pause | Gate | End
Script = Sequence[Step]


@dataclass(frozen=True)
class Request:
    """What a client sent. Header names are in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Visit:
    """One connection: its request, and the moment (`time.monotonic`) at which the server noticed the client's leaving."""

    request: Request
    left_at: float | None = None
    _left: threading.Event = field(default_factory=threading.Event)

    def wait_until_left(self, timeout: float = 5.0) -> float:
        """The moment at which the client's leaving was noticed. Raises `TimeoutError`."""
        if not self._left.wait(timeout) or self.left_at is None:
            raise TimeoutError("the client is still connected")
        return self.left_at

    async def until_left(self, timeout: float = 5.0) -> float:
        """`wait_until_left` for tests that run on an event loop."""
        return await asyncio.to_thread(self.wait_until_left, timeout)

    def note_left(self) -> None:
        if self.left_at is None:
            self.left_at = time.monotonic()
            self._left.set()


class _ClientLeft(Exception):
    """The other side is gone: there is nothing left to do."""


class ScriptedServer:
    """Answers by script, records what it was asked, and notices when a client disconnects."""

    def __init__(self, *scripts: Script | Callable[[Request], Script]) -> None:
        self._scripts = scripts
        self.visits: list[Visit] = []
        self._lock = threading.Lock()
        self._closing = False
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def requests(self) -> list[Request]:
        return [visit.request for visit in self.visits]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End every connection and wait for the threads. Idempotent."""
        already, self._closing = self._closing, True
        if already:
            return
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()  # wakes `accept` on every system
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    # -- the server's threads

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        visit: Visit | None = None
        try:
            if (request := _read_request(connection)) is None:
                return
            with self._lock:
                visit = Visit(request)
                script = self._scripts[min(len(self.visits), len(self._scripts) - 1)]
                self.visits.append(visit)
            for step in script(request) if callable(script) else script:
                self._take(step, connection)
        except (_ClientLeft, OSError):
            if visit is not None and not self._closing:
                visit.note_left()
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _take(self, step: Step, connection: socket.socket) -> None:
        if isinstance(step, bytes):
            connection.sendall(step)
        elif isinstance(step, Pause):
            _watch(connection, step.seconds)
        elif isinstance(step, Gate):
            step.reached.set()
            while not (step.is_open or self._closing):
                _watch(connection, TICK)
        elif step is End.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        elif step in (End.HOLD, End.HALF_CLOSE):
            if step is End.HALF_CLOSE:
                connection.shutdown(socket.SHUT_WR)
            _watch(connection, None)


def _watch(connection: socket.socket, seconds: float | None) -> None:
    """Wait, and raise `_ClientLeft` as soon as the client has closed its side."""
    readable, _, _ = select.select([connection], [], [], seconds)
    if readable and not connection.recv(65536):
        raise _ClientLeft


def _read_request(connection: socket.socket) -> Request | None:
    """One whole request; `None` if the client left before it was complete."""
    with connection.makefile("rb") as stream:
        first = stream.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        headers: dict[str, str] = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", 0))
        body = stream.read(size)
        return Request(first[0], first[1], headers, body) if len(body) == size else None


# -- scripts in few words


def head(
    status: int = 200, content_type: str | None = "application/json", *, headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """A status line and headers; unless one of them says otherwise, the body lasts until the connection ends."""
    kind = [("Content-Type", content_type)] if content_type is not None else []
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in (*kind, *headers))]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def reply(
    body: Any,
    status: int = 200,
    content_type: str | None = "application/json",
    *,
    headers: Iterable[tuple[str, str]] = (),
) -> Script:
    """A whole reply: `bytes` and `str` as they are, anything else as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = text.encode() if isinstance(text, str) else text
    return [head(status, content_type, headers=[*headers, ("Content-Length", str(len(raw)))]) + raw]


def chunked(data: bytes) -> bytes:
    """Bytes as one piece of HTTP's chunked encoding; no bytes are the piece that ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def sse(*steps: Step, content_type: str | None = "text/event-stream", is_chunked: bool = True) -> Script:
    """A streamed reply: `bytes` become a piece of it each. A script without an `End` is ended as HTTP wants it."""
    coding = [("Transfer-Encoding", "chunked")] if is_chunked else []
    script: list[Step] = [head(200, content_type, headers=coding)]
    script += [chunked(step) if is_chunked and isinstance(step, bytes) else step for step in steps]
    if is_chunked and not any(isinstance(step, End) for step in steps):
        script.append(chunked(b""))
    return script


def event(data: Any) -> bytes:
    """One server-sent event; anything but `str` and `bytes` is sent as JSON."""
    if isinstance(data, str):
        data = data.encode()
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()) + b"\n\n"


DONE = event("[DONE]")


def delta(content: str | None = None, **fields: Any) -> bytes:
    """A chat delta, as servers stream it; `fields` are further fields of the delta."""
    said = fields if content is None else {"content": content, **fields}
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": None}], "model": "m"})


def finish(reason: str = "stop") -> bytes:
    """The event that gives the reason why an answer ended."""
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "model": "m"})


def answer(*texts: str) -> Script:
    """A whole good answer, one delta for each text."""
    return sse(*(delta(text) for text in texts), finish(), DONE)
