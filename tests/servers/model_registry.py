"""A model registry on loopback, for real pulls without a network: it hands out what an Ollama server has on disk.

    with ModelRegistry(server.folder / "models") as registry:
        async for progress in provider.pull_model(registry.name("smollm2:135m")): ...

It speaks as much of the registry protocol as Ollama uses: manifests, blobs with ranges, and the redirect to another
host without which Ollama refuses a blob.
"""

from __future__ import annotations

import http.server
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

BLOCK = 1 << 20


@dataclass
class ModelRegistry:
    """`delay` is in seconds after each MiB of a blob; after `breaks_after` bytes of one, its connection is cut, once."""

    models: Path
    delay: float = 0.0
    breaks_after: int | None = None
    starts: list[int] = field(default_factory=list)
    """At which byte each request for a blob began."""

    def name(self, model: str) -> str:
        """The model as a pull names it."""
        return f"http://127.0.0.1:{self.port}/library/{model}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._closed = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def find(self, path: str) -> Path | None:
        """The file that an address stands for."""
        if wanted := re.fullmatch(r"/v2/(\w+)/([\w.-]+)/manifests/([\w.-]+)", path):
            return next(iter(self.models.glob(f"manifests/*/{wanted[1]}/{wanted[2]}/{wanted[3]}")), None)
        if wanted := re.search(r"/(?:blobs|raw)/(sha256:[0-9a-f]{64})$", path):
            file = self.models / "blobs" / wanted[1].replace(":", "-")
            return file if file.is_file() else None
        return None

    def pause(self) -> bool:
        """Wait as long as one MiB shall take; false once the registry has closed."""
        return not (self._closed.wait(self.delay) if self.delay else self._closed.is_set())

    def takes_break(self, sent: int) -> bool:
        """Whether the connection shall be cut now; says so once."""
        if self.breaks_after is None or sent < self.breaks_after:
            return False
        self.breaks_after = None
        return True


def _handler(registry: ModelRegistry) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            file = registry.find(self.path)
            if file is None:
                text = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
                self._head(404, len(text))
                self.wfile.write(text)
            elif "/blobs/" in self.path:
                size = 0 if self.command == "GET" else file.stat().st_size
                place = f"http://localhost:{registry.port}/raw/{self.path.rpartition('/')[2]}"
                self._head(307, size, Location=place)
            else:
                self._send(file)

        def _head(self, status: int, size: int, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(size))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def _send(self, file: Path) -> None:
            size = file.stat().st_size
            first, last = 0, size - 1
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(wanted[1]), int(wanted[2] or last)
                self._head(206, last - first + 1, Content_Range=f"bytes {first}-{last}/{size}")
            else:
                self._head(200, size)
            if self.command == "HEAD":
                return
            is_blob = self.path.startswith("/raw/")
            if is_blob:
                registry.starts.append(first)
            self._copy(file, first, last - first + 1, is_blob)

        def _copy(self, file: Path, first: int, left: int, is_blob: bool) -> None:
            sent = 0
            with file.open("rb") as source:
                source.seek(first)
                while left > sent and (block := source.read(min(BLOCK, left - sent))):
                    try:
                        self.wfile.write(block)
                    except OSError:  # whoever asked has left
                        self.close_connection = True
                        return
                    sent += len(block)
                    if is_blob and (not registry.pause() or registry.takes_break(sent)):
                        self.close_connection = True
                        return

    return Handler
