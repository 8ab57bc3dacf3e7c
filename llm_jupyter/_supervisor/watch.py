"""What a host takes, once a second, and whether anybody uses it; only where a limit is set."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_jupyter._supervisor.child import HostProcess
from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.order import Order
from llm_jupyter._supervisor.tree import usage

INTERVAL = 1.0
"""Seconds between two measurements."""

NEW_CHILDREN = 5
"""Measurements between two searches for new children, which cost more."""

IDLE_SHARE = 0.02
"""Cores that a model server takes for waiting; beyond that it works."""


class Watch:
    """Measures one host. `clock` is in seconds, `wall` in seconds since the epoch."""

    def __init__(
        self,
        order: Order,
        folder: HostFolder,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._order = order
        self._folder = folder
        self._clock = clock
        self._wall = wall
        self._host: HostProcess | None = None
        self._processes: list[ProcessIdentity] = []
        self._looks = 0
        self._next = 0.0
        self._seconds = 0.0
        self._rss = 0
        self._is_over = False
        self._measured = self._busy = 0.0

    def begin(self, host: HostProcess) -> None:
        """The host is ready: measure it from now on."""
        self._host = host
        self._looks, self._is_over, self._seconds = 0, False, 0.0
        self._measured = self._busy = self._clock()
        self._next = self._measured

    def memory_exceeded(self) -> int | None:
        """The memory in bytes, once each time that it goes beyond the limit."""
        limit = self._order.memory_limit
        if limit is None or not self._measure():
            return None
        was_over, self._is_over = self._is_over, self._rss > limit
        return self._rss if self._is_over and not was_over else None

    def is_idle(self) -> bool:
        """Whether for `idle_unload` seconds nobody has used it and it has not worked."""
        limit = self._order.idle_unload
        if limit is None:
            return False
        if self._order.memory_limit is None:
            self._measure()
        return self._clock() - self._busy >= limit and self._wall() - self._folder.last_use() >= limit

    def _measure(self) -> bool:
        now = self._clock()
        if self._host is None or now < self._next:
            return False
        if self._looks % NEW_CHILDREN == 0:
            self._processes = self._host.tree()
        self._looks += 1
        self._rss, seconds, _ = usage(self._processes)
        if seconds - self._seconds > IDLE_SHARE * (now - self._measured):
            self._busy = now
        self._seconds, self._measured, self._next = seconds, now, now + INTERVAL
        return True
