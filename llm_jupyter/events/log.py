"""Events as lines of JSON in a file, for those who want to look at them later or with other tools."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from llm_jupyter.events.bus import EventBus
from llm_jupyter.events.kinds import Event

logger = logging.getLogger(__name__)

MAX_BYTES = 10_000_000
"""Bytes of a log before it gives way to a new one; one old one is kept, so that a log takes 20 MB at most."""

CLOSE_GRACE = 2.0
"""Seconds that `close()` gives to the lines not yet written: a disk that hangs is not waited for."""

LOCK_GRACE = 5.0
"""Seconds that another kernel gets to write its lines to the same file; it takes well under a millisecond."""


class JsonlLog:
    """Writes each event of a bus to `path`, as one line: `{"event": "ModelLoaded", "timestamp": ..., "sequence": ...}`.

    It writes on a thread of its own, and what the disk does costs the others nothing: where it cannot write, the log of
    Python says so once, the lines are dropped, and the next ones are tried again. Only the person may read the file.
    Beyond `max_bytes` it is renamed to `path` with `.old` at its end. Several kernels may write the same file.
    `replay` writes first what the bus remembers.
    """

    def __init__(
        self, bus: EventBus, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, replay: bool = False
    ) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._has_warned = False
        self._feed = bus.listen(replay=replay)
        self._thread = threading.Thread(target=self._serve, name="llm_jupyter event log", daemon=True)
        self._thread.start()

    @property
    def old_path(self) -> Path:
        """Where the lines before the current file's are."""
        return self.path.with_name(f"{self.path.name}.old")

    def close(self, timeout: float = CLOSE_GRACE) -> None:
        """Write what has come, for `timeout` seconds at most, and end. Closing twice is fine."""
        self._feed.close()
        self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        from filelock import FileLock  # here, as it takes 40 ms to import and most people write no log

        lock = FileLock(f"{self.path}.lock", timeout=LOCK_GRACE, mode=0o600)
        while self._feed.wait():
            try:
                self._write(self._lines(self._feed.take()), lock)
            except Exception as error:  # a log is never worth more than what it tells about
                self._warn(error)

    def _lines(self, events: list[Event]) -> list[bytes]:
        lines = []
        for event in events:
            try:
                lines.append(line_of(event))
            except Exception as error:  # an event of somebody else's, with something in it that has no text
                self._warn(error)
        return lines

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("events cannot be written to %s: %s: %s", self.path, type(error).__name__, error)

    def _write(self, waiting: list[bytes], lock: AbstractContextManager[object]) -> None:
        """Append the lines, in as few pieces as the size of the file allows."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with lock:
            while waiting:
                with open(self.path, "ab+", buffering=0, opener=_private) as file:
                    count = self._fitting(_prepared(file), waiting)
                    _append(file, b"".join(waiting[:count]))
                del waiting[:count]
                if waiting:
                    self.path.replace(self.old_path)

    def _fitting(self, size: int, lines: list[bytes]) -> int:
        """How many lines fit into a file of that size; an empty one takes one of any length."""
        count = 0
        for line in lines:
            if size and size + len(line) > self._max_bytes:
                break
            size += len(line)
            count += 1
        return count


def line_of(event: Event) -> bytes:
    """The event as a line of JSON: its class under `event`, then its fields."""
    named = {"event": type(event).__name__, **msgspec.structs.asdict(event)}
    try:
        return msgspec.json.encode(named, enc_hook=str) + b"\n"
    except ValueError:  # half of a surrogate pair, which UTF-8 cannot hold: a server sent it, or a path has it
        return json.dumps(named, default=str).encode() + b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _prepared(file: BinaryIO) -> int:
    """The size of a file that nobody else may read from now on, and that ends with the end of a line."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return 0
    if status.st_mode & 0o077 and hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), 0o600)
    if status.st_size and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
        _append(file, b"\n")  # a full disk or a killed kernel cut the last line short
        return status.st_size + 1
    return status.st_size


def _append(file: BinaryIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
