"""Servers in trouble: `python -m tests.benchmarks.outage KIND` prints its address and behaves like that until it is ended."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

KINDS = ("refused", "500", "429", "hang", "death")

_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x"}]}'
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n%b\r\n"


def _reply(status: bytes, body: bytes, extra: bytes = b"") -> bytes:
    return _HEAD % (status, b"application/json", len(body), extra) + body


REPLIES = {
    "500": _reply(b"500 Internal Server Error", b'{"error":{"message":"boom"}}'),
    "429": _reply(b"429 Too Many Requests", b'{"error":{"message":"slow down"}}', b"Retry-After: 60\r\n"),
    "death": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
}


def _serve(connection: socket.socket, kind: str) -> None:
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (block := connection.recv(65536)):
                return
            request += block
        if request.startswith(b"GET"):  # the list of models is there: only answers fail
            connection.sendall(_reply(b"200 OK", _MODELS))
        elif kind == "hang":
            while connection.recv(65536):
                pass
        else:
            connection.sendall(REPLIES[kind])


def main() -> None:
    """Serve until the process is ended."""
    kind = sys.argv[1]
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, kind), daemon=True).start()


@contextlib.contextmanager
def in_trouble(kind: str) -> Iterator[str]:
    """The address of a server in that kind of trouble."""
    if kind == "refused":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
        return
    command = [sys.executable, "-m", "tests.benchmarks.outage", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
