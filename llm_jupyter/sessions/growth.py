"""An answer on its way to the disk: what has arrived is written down while more comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from llm_jupyter.errors import StoreError
from llm_jupyter.providers.base import ResponseBuilder
from llm_jupyter.store import Store, TurnRecord, TurnState
from llm_jupyter.types import LLMResponse

BEHIND = 0.15
"""Seconds that the disk is behind at most, and the writing itself: 0.25 s is what is promised."""


T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Do something that must not be left half done; whoever cancels it meanwhile has his way when it is over."""
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None or task.cancelled():
        return task.result()
    raise cancelled from task.exception()


class Growth:
    """Writes an answer down as it grows, one write at a time, from the event loop's thread and beside it."""

    def __init__(self, store: Store, turn: TurnRecord, builder: ResponseBuilder) -> None:
        self._store = store
        self._turn = turn
        self._number = len(turn.answers) + 1
        self._builder = builder
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._has_more = False

    def has_grown(self) -> None:
        """More of the answer has arrived."""
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(BEHIND, self._write)
        else:
            self._has_more = True

    async def end(self, response: LLMResponse, state: TurnState) -> None:
        """The answer is over; this is what stays of it."""
        await self.drop()
        turn = self._turn
        await asyncio.to_thread(self._store.answered, turn.session, turn.id, self._number, response, state)

    async def drop(self) -> None:
        """Write no more."""
        self._has_more = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _write(self) -> None:
        self._timer, self._has_more = None, False
        self._writing = asyncio.get_running_loop().create_task(self._written())

    async def _written(self) -> None:
        turn, text, thinking = self._turn, self._builder.text, self._builder.thinking
        with contextlib.suppress(StoreError):  # whoever writes the end down hears of it
            await asyncio.to_thread(self._store.grow, turn.session, turn.id, self._number, text, thinking)
        self._writing = None
        if self._has_more:
            self._has_more = False
            self.has_grown()
