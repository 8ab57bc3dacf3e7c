"""Time, as something that can be handed in: programs use the system's, tests a simulated one."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What waits and measures asks of time; everything is in seconds."""

    def monotonic(self) -> float:
        """Seconds that only grow, from some beginning."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""


class SystemClock:
    """The time of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
"""It has no state, so one is enough."""
