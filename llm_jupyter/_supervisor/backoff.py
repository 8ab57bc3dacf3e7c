"""When a host that died is started again, and when it is given up."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
JITTER = 0.2
"""Seconds before the first restart, doubling to the longest, each ±20 %, so that many do not return at one moment."""

MOST_RESTARTS = 5
WINDOW = 60.0
"""So many restarts within so many seconds, as OTP's supervisors and systemd count them; the next death is the last."""


def _chance() -> float:
    """A random number from 0 to 1. (The `random` module takes longer to import than it is worth here.)"""
    return int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


class RestartPolicy:
    """Counts the deaths of one host. `first_delay` and `clock` are in seconds, `chance` gives 0 to 1."""

    def __init__(
        self,
        first_delay: float = FIRST_DELAY,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self._first = first_delay
        self._clock = clock
        self._chance = chance
        self._restarts: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._in_a_row = 0

    def died(self) -> float | None:
        """The host died: seconds to wait before it is started again, or `None` where it is given up."""
        now = self._clock()
        if self._restarts and now - self._restarts[-1] >= WINDOW:
            self._in_a_row = 0
        delay = min(LONGEST_DELAY, self._first * 2.0**self._in_a_row) * (1 + JITTER * (2 * self._chance() - 1))
        if len(self._restarts) == MOST_RESTARTS and now + delay - self._restarts[0] <= WINDOW:
            return None
        self._restarts.append(now + delay)
        self._in_a_row = min(self._in_a_row + 1, 32)
        return delay
