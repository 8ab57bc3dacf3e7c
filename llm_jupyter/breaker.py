"""When to leave a server alone that has just failed.

Figures after Envoy's outlier detection and gRPC's back-off: one refused connection says all, slow failures need three to
be believed, and the pause doubles from one second to thirty, spread by a fifth so that many kernels do not knock at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from llm_jupyter.errors import (
    LLMConnectionError,
    LLMError,
    RateLimitedError,
    ResponseError,
    ServerError,
    UnreachableError,
)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds that an open breaker waits before it lets one request try."""

JITTER = 0.2
"""The share by which a pause is made longer or shorter."""

FAILURES, WINDOW = 3, 30.0
"""So many failures within so many seconds open it."""


def spread(seconds: float, random: Callable[[], float], share: float = JITTER) -> float:
    """The time, longer or shorter by at most that share; `random` gives numbers from 0 to 1."""
    return seconds * (1 + share * (2 * random() - 1))


class Breaker:
    """Closed, it lets everything pass; open, one request at a time once its pause is over, and that one decides."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._pause = 0.0
        self._until: float | None = None
        self._tries = 0
        self._trying = 0
        self.closed_by_a_look = False
        """Whether a look at the server is enough to close it: where it could not be reached, not where answers failed."""

    @property
    def is_open(self) -> bool:
        """Whether requests are held off, but for one that tries."""
        return self._until is not None

    @property
    def wait(self) -> float:
        """Seconds until the next request may try."""
        return max(0.0, self._until - self._clock()) if self._until is not None else 0.0

    def admits(self) -> bool:
        """Whether a request would pass now."""
        return self._until is None or (self.wait == 0.0 and not self._trying)

    def enter(self) -> int:
        """A request is on its way, and ends in one of the three calls below; the number of the one that tries, else 0."""
        if self._until is None or self._trying:
            return 0
        self._tries += 1
        self._trying = self._tries
        return self._trying

    def leave(self, tries: int = 0) -> bool:
        """It ended and showed nothing: it was cancelled, or was refused for what it asked.

        Returns whether it was the one that tries now: an older one, outrun by another's answer, decides nothing.
        """
        decides = tries != 0 and tries == self._trying
        if decides:
            self._trying = 0
        return decides

    def succeed(self) -> None:
        """It was answered."""
        self._failures.clear()
        self._until, self._pause, self._trying, self.closed_by_a_look = None, 0.0, 0, False

    def fail(self, error: LLMError, tries: int = 0, *, is_certain: bool = False) -> None:
        """It failed in a way that tells of the server; `is_certain` for a look at it, of which one is enough."""
        again = self.leave(tries) or (is_certain and self.is_open)
        if isinstance(error, RateLimitedError):
            told = error.retry_after or 0.0
            self.closed_by_a_look = False
            self._hold(told if 0 < told < math.inf else FIRST_PAUSE)
            return
        now = self._clock()
        self._failures.append(now)
        is_certain = is_certain or isinstance(error, UnreachableError)
        often = len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW
        if is_certain or often or again:
            self._pause = min(LONGEST_PAUSE, self._pause * (2 if again else 1) or FIRST_PAUSE)
            self.closed_by_a_look = is_certain
            self._hold(spread(self._pause, self._random))

    def trip(self) -> None:
        """Open it now if it is closed: whoever asked has somebody else to ask."""
        if self._until is None:
            self._pause = self._pause or FIRST_PAUSE
            self.closed_by_a_look = False
            self._hold(spread(self._pause, self._random))

    def _hold(self, seconds: float) -> None:
        self._until = max(self._until or 0.0, self._clock() + seconds)


def tells_of_the_server(error: LLMError) -> bool:
    """Whether an error counts against the server, and not against what was asked of it."""
    return isinstance(error, LLMConnectionError | ServerError | RateLimitedError | ResponseError)
