"""What happened to a host, as lines that every kernel reads for itself, and the log of what the host wrote."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG_SIZE = 1 << 20
"""Bytes of a log before it is put aside; one such piece is kept."""

TAIL_LINES = 20

LATELY = 1 << 16
"""Bytes of a journal in which its last end is looked for."""


class JournalWriter:
    """Appends happenings. What cannot be written now, on a full disk, is written as soon as it can."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending = b""
        self.seq = 0

    def append(self, kind: str, **values: Any) -> int:
        """Note one happening and return its number."""
        self.seq += 1
        self._pending += json.dumps({"seq": self.seq, "at": time.time(), "kind": kind, **values}).encode() + b"\n"
        self.flush()
        return self.seq

    def flush(self) -> None:
        if not self._pending:
            return
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._pending = self._pending[os.write(file, self._pending) :]
            finally:
                os.close(file)


class JournalReader:
    """Reads the happenings of one run, each once, beginning after a number."""

    def __init__(self, path: Path, after: int) -> None:
        self._path = path
        self._after = after
        self._file: int | None = None
        self._rest = b""

    def read(self) -> Iterator[dict[str, Any]]:
        """Those that came since the last call. A line that is no happening is passed over."""
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY)
            while piece := os.read(self._file, 65536):
                self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            try:
                happening = json.loads(line)
                number = happening["seq"]
            except (ValueError, TypeError, LookupError):
                continue
            if isinstance(number, int) and number > self._after:
                self._after = number
                yield happening

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@dataclass(frozen=True, slots=True)
class End:
    """Why a host was put down or, where that was not `expected`, died; `at` is in seconds since the epoch.

    `given_up`: it was not started again.
    """

    reason: str
    at: float
    expected: bool = True
    given_up: bool = False


def last_end(journal: Path) -> End | None:
    """The last end that a journal tells of; `None` where there is none."""
    with contextlib.suppress(OSError), journal.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LATELY))
        for line in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, TypeError, LookupError):
                happening = json.loads(line)
                if (kind := happening["kind"]) in ("ending", "stopped", "failed"):
                    expected = kind == "ending" or bool(happening.get("expected"))
                    return End(str(happening["reason"]), float(happening["at"]), expected, kind == "failed")
    return None


class HostLog:
    """What a host writes: on disk within limits, its last lines in memory, and without the secrets that it was given."""

    def __init__(self, path: Path, secrets: Sequence[str]) -> None:
        self._path = path
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= 6]
        self._lock = threading.Lock()
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._file: int | None = None
        self._size = LOG_SIZE

    def write(self, line: bytes) -> None:
        """Take one line in. A disk that refuses it costs the line, not the host."""
        for secret in self._secrets:
            line = line.replace(secret, b"***")
        with self._lock:
            self._tail.append(line.rstrip())
            with contextlib.suppress(OSError):
                if self._file is None or self._size >= LOG_SIZE:
                    self._turn_over()
                assert self._file is not None
                self._size += os.write(self._file, line)

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines."""
        with self._lock:
            kept = list(self._tail)
        return [line.decode("utf-8", "replace") for line in kept if line][-lines:]

    def _turn_over(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self._size = 0


def tail_of(path: Path, lines: int) -> list[str]:
    """The last lines of a log and of the piece that was put aside before it."""
    text = b""
    for part in (path.with_name(path.name + ".1"), path):
        with contextlib.suppress(OSError), part.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 400 * lines))
            text += file.read()
    return text.decode("utf-8", "replace").splitlines()[-lines:]
