"""Questions to servers that a dashboard asks in the background, so that a silent server holds up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

PATIENCE = 1.5
"""Seconds that a new dashboard waits for its first round; it opens without what comes later."""


class Rounds:
    """One round of `ask` at a time, and one more where that was wished meanwhile. Used on one event loop."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._task: asyncio.Task[None] | None = None
        self._is_wished = False
        self._over = asyncio.Event()
        self._began = 0.0

    @property
    def idle_for(self) -> float:
        """Seconds since the last round began; 0 while one goes on."""
        return 0.0 if self._task is not None else time.monotonic() - self._began

    def wish(self) -> None:
        """Let a round begin now, or after the one that goes on."""
        self._is_wished = True
        self._over.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def over(self, within: float | None = None) -> None:
        """Wait until no round goes on, at most `within` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._over.wait()

    def cancel(self) -> None:
        """End the round that goes on, if one does."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._is_wished:
                self._is_wished, self._began = False, time.monotonic()
                await self._ask()
        except Exception:  # the next round may do better
            logger.exception("a dashboard could not ask the servers")
        finally:
            self._task = None
            self._over.set()
