"""What a supervisor sleeps on: woken by whoever rings, by the death of a holder, or by the clock."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterable
from pathlib import Path

from llm_jupyter._supervisor.identity import ProcessIdentity

POLL = 0.25
"""Seconds between two looks where nothing tells of a holder's death; a host is to be gone 2 s after it."""

WATCHED = 1.0
"""Seconds between two looks where the system does (Linux, by pidfd); the looks are then for what nobody tells."""


class Alarm:
    """Waits on a pipe of its own, on one in the host's folder for other processes, and on the holders' process handles."""

    def __init__(self, pipe: Path) -> None:
        self._event = threading.Event()
        self._handles: dict[ProcessIdentity, int] = {}
        self._has_all = True
        self._own: tuple[int, int] | None = None
        self._pipe: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # not on Windows, nor on every file system
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            os.set_blocking(writing, False)
            self._own = reading, writing
            if not pipe.is_fifo():
                os.mkfifo(pipe, 0o600)
            self._pipe = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # for writing too: a lost writer is no end

    @property
    def interval(self) -> float:
        """Seconds until the next look is due."""
        return WATCHED if self._pipe is not None and self._handles and self._has_all else POLL

    def ring(self) -> None:
        """End the wait; from any thread, and from a signal handler."""
        self._event.set()
        if self._own is not None:
            with contextlib.suppress(OSError):
                os.write(self._own[1], b"\n")

    def watch(self, holders: Iterable[ProcessIdentity]) -> None:
        """Be woken when one of these processes ends, where the system tells."""
        wanted = set(holders)
        for holder in [known for known in self._handles if known not in wanted]:
            os.close(self._handles.pop(holder))
        self._has_all = True
        for holder in wanted - self._handles.keys():
            try:
                self._handles[holder] = os.pidfd_open(holder.pid)
            except (OSError, AttributeError):
                self._has_all = False

    def wait(self, seconds: float) -> None:
        """Sleep until something rings or ends, but no longer than that."""
        if self._own is None or self._pipe is None:
            self._event.wait(seconds)
        else:
            poll = select.poll()
            pipes = (self._own[0], self._pipe)
            for file in (*pipes, *self._handles.values()):
                poll.register(file, select.POLLIN)
            poll.poll(seconds * 1000)
            for file in pipes:
                with contextlib.suppress(OSError):
                    os.read(file, 4096)
        self._event.clear()
