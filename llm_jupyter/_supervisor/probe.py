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
    request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.settimeout(TIMEOUT)
            connection.sendall(request.encode())
            while len(answer) < 65536 and (piece := connection.recv(65536)):
                answer += piece
                if field is None and b"\r\n" in answer:
                    break
    except TimeoutError:
        if not answer:
            return SILENT
    except OSError:
        return SILENT
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        return NOT_YET if head.startswith(b"HTTP/") else SILENT
    return READY_NOW if field is None or _has(body, field) else NOT_YET


def _has(body: bytes, field: str) -> bool:
    try:
        value = json.loads(body)
    except ValueError:
        return False
    return isinstance(value, dict) and field in value
