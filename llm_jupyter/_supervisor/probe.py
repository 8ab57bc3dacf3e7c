"""Whether a server on this machine is ready, asked without any library: the supervisor must start fast."""

from __future__ import annotations

import json
import socket

TIMEOUT = 0.3
"""Seconds for an answer from loopback; the supervisor does nothing else meanwhile."""

READY_NOW, NOT_YET, SILENT = "ready", "not yet", "silent"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether somebody listens on that port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
    except OSError:
        return False
    return True


def look(port: int, path: str, field: str | None = None) -> str:
    """Ask for a path: `READY_NOW` for status 200 (and that field in a JSON object), `NOT_YET` for another answer."""
    head, _, body = _answer(port, path, whole=field is not None).partition(b"\r\n\r\n")
    status = _status(head)
    if status != 200:
        return SILENT if status is None else NOT_YET
    return READY_NOW if field is None or _has(body, field) else NOT_YET


def status_at(port: int, path: str) -> int | None:
    """The HTTP status with which a path is answered; `None` where nothing speaks HTTP there."""
    return _status(_answer(port, path, whole=False))


def _answer(port: int, path: str, *, whole: bool) -> bytes:
    """What comes back, or its beginning; empty where nothing does."""
    request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.settimeout(TIMEOUT)
            connection.sendall(request.encode())
            while len(answer) < 65536 and (piece := connection.recv(65536)):
                answer += piece
                if not whole and b"\r\n" in answer:
                    break
    except TimeoutError:
        return answer
    except OSError:
        return b""
    return answer


def _status(head: bytes) -> int | None:
    words = head.split(maxsplit=2)
    if not head.startswith(b"HTTP/") or len(words) < 2 or not words[1].isdigit():
        return None
    return int(words[1])


def _has(body: bytes, field: str) -> bool:
    try:
        value = json.loads(body)
    except ValueError:
        return False
    return isinstance(value, dict) and field in value
