"""A model server that answers at a known pace: `python -m tests.benchmarks.server` in a process of its own.

The last message of a request says what to send: `NAME COUNT RATE`, as in `prose 2000 1000`; a rate of 0 is as fast as it
can. Every token is one event in one HTTP chunk, written on its own. `GET /sent` tells of the last answer.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from tests.benchmarks.texts import tokens

ROOT = Path(__file__).parents[2]


def sse(pieces: list[str]) -> Iterator[bytes]:
    """An answer as OpenAI-compatible servers stream it."""
    yield _event({"role": "assistant", "content": ""})
    for piece in pieces:
        yield _event({"content": piece})
    yield _event({}, "stop")
    yield b"data: [DONE]\n\n"


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-benchmark", "object": "chat.completion.chunk", "created": 1760000000, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def ndjson(pieces: list[str]) -> Iterator[bytes]:
    """An answer as Ollama streams it."""
    about = {"model": "m", "created_at": "2026-01-01T00:00:00.000000000Z"}
    for piece in ["", *pieces]:
        yield _line({**about, "message": {"role": "assistant", "content": piece}, "done": False})
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    yield _line({**about, **last, "eval_count": len(pieces)})


def _line(body: dict[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


FORMATS = {"/v1/chat/completions": (sse, "text/event-stream"), "/api/chat": (ndjson, "application/x-ndjson")}
REPLIES: dict[str, object] = {
    "/v1/models": {"object": "list", "data": [{"id": "m", "object": "model"}]},
    "/api/version": {"version": "0.9.3"},
    "/api/tags": {"models": [{"name": "m"}]},
    "/api/ps": {"models": [{"name": "m"}]},
    "/api/show": {"details": {}, "model_info": {"llama.context_length": 8192}, "capabilities": ["completion"]},
}
"""What is answered to requests that want no text."""


class Handler(BaseHTTPRequestHandler):
    """What an answer took is kept in the class, for `/sent`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    sent: ClassVar[dict[str, float]] = {}

    def do_GET(self) -> None:
        if self.path != "/sent" and self.path not in REPLIES:
            self.send_error(404)  # what other servers tell of themselves
            return
        self._reply(self.sent if self.path == "/sent" else REPLIES[self.path])

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in FORMATS:
            self._reply(REPLIES[self.path])
            return
        events, content_type = FORMATS[self.path]
        name, count, rate = request["messages"][-1]["content"].split()
        chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events(tokens(name, int(count)))]
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        began = self._send(chunks, float(rate))
        self.wfile.write(b"0\r\n\r\n")
        type(self).sent = {"first_token": began, "seconds": time.time() - began}

    def _reply(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, chunks: list[bytes], rate: float) -> float:
        """Write the chunks, each at its time; when the first token went, on the clock of the wall."""
        self.wfile.write(chunks[0])  # the role, which says nothing yet
        began, start = time.time(), time.perf_counter()
        for n, chunk in enumerate(chunks[1:]):
            if rate and (early := start + n / rate - time.perf_counter()) > 0:
                time.sleep(early)
            self.wfile.write(chunk)
        return began

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "tests.benchmarks.server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def sent(url: str) -> dict[str, float]:
    """When the first token of the last answer went, and how many seconds the whole took."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/sent") as reply:
        return dict(json.load(reply))


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        print(server.server_address[1], flush=True)
        server.serve_forever()
