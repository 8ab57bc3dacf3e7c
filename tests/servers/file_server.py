"""A server on loopback with one model file, which it gives away as slowly as it is told to.

with FileServer("stories15m-q4_0.gguf", data) as server:
    server.pause = 0.0     # for whoever asks from now on
    server.model           # as a pull names it
    server.starts          # from which byte on each request wanted the file
"""

from __future__ import annotations

import hashlib
import re

from servers.scripted import Pause, Request, Script, ScriptedServer, Step, head

PIECE = 100_000


class FileServer(ScriptedServer):
    """It sends pieces of 100 kB with `pause` seconds after each, from the byte on that is asked for."""

    def __init__(self, name: str, data: bytes, pause: float = 0.1) -> None:
        self.name, self.data, self.pause = name, data, pause
        super().__init__(self._script)

    @property
    def model(self) -> str:
        """The file as a pull names it."""
        return f"{self.origin}/{self.name}#sha256={hashlib.sha256(self.data).hexdigest()}"

    @property
    def starts(self) -> list[int]:
        """From which byte on each request wanted the file."""
        return [_start(request) for request in self.requests]

    def _script(self, request: Request) -> Script:
        start, size = _start(request), len(self.data)
        length = ("Content-Length", str(size - start))
        part = ("Content-Range", f"bytes {start}-{size - 1}/{size}")
        steps: list[Step] = [head(206, headers=[length, part]) if start else head(headers=[length])]
        for at in range(start, size, PIECE):
            steps += [self.data[at : at + PIECE], Pause(self.pause)]
        return steps


def _start(request: Request) -> int:
    found = re.match(r"bytes=(\d+)-", request.headers.get("range", ""))
    return int(found[1]) if found else 0
