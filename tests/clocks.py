"""Simulated time. Both kinds are a `llm_jupyter.clock.Clock`; what they give is in seconds."""

from __future__ import annotations

import asyncio


class JumpingClock:
    """Jumps when somebody sleeps, so that nobody waits; `slept` says how long each wanted to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(0.0, seconds)
        await asyncio.sleep(0)


class ManualClock:
    """Stands still until the test moves it on; whoever sleeps so long then goes on, the one due first before the others."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._slept = asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    @property
    def due(self) -> list[float]:
        """Seconds until each sleeper goes on, the next one first."""
        return sorted(moment - self.now for moment, sleeper in self._sleepers if not sleeper.done())

    async def sleep(self, seconds: float) -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, sleeper))
        self._slept.set()
        await sleeper

    async def until_asleep(self, sleepers: int = 1) -> None:
        """Let everybody run until so many sleep, or for 5 real seconds at most."""
        async with asyncio.timeout(5):
            while len(self.due) < sleepers:
                self._slept.clear()
                await self._slept.wait()

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds
        for moment, sleeper in sorted(self._sleepers, key=lambda entry: entry[0]):
            if moment <= self.now and not sleeper.done():
                sleeper.set_result(None)
        self._sleepers = [entry for entry in self._sleepers if not entry[1].done()]
