"""What one listener has not taken yet."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakMethod

from llm_jupyter.events.kinds import Event

HeardT_co = TypeVar("HeardT_co", bound=Event, covariant=True)

CAPACITY = 10_000
"""Events that wait for a listener, frequent ones and others each: with 200 bytes apiece, 4 MB for one that hangs."""

TURN = 100
"""Events that an asynchronous reader is handed before the others on its loop get their turn."""

_sequence = attrgetter("sequence")


class Ring:
    """The last `size` frequent events and the last `size` others, so that measurements push no change of state out."""

    def __init__(self, size: int) -> None:
        self._rare: deque[Event] = deque(maxlen=size)
        self._frequent: deque[Event] = deque(maxlen=size)

    def append(self, event: Event) -> bool:
        """Add the newest. Returns whether the oldest of its sort had to go for it."""
        ring = self._frequent if event.is_frequent else self._rare
        overflows = len(ring) == ring.maxlen
        ring.append(event)
        return overflows

    def popleft(self) -> Event:
        """Take the oldest of all. Raises `IndexError` where there is none."""
        rare, frequent = self._rare, self._frequent
        if rare and frequent:
            return (rare if rare[0].sequence < frequent[0].sequence else frequent).popleft()
        return (rare or frequent).popleft()

    def in_order(self) -> list[Event]:
        """All of them, in order of `sequence`."""
        return list(heapq.merge(tuple(self._rare), tuple(self._frequent), key=_sequence))

    def __len__(self) -> int:
        return len(self._rare) + len(self._frequent)


class Feed(Generic[HeardT_co]):
    """Events as they come, in order of `sequence`, to be taken whenever it suits; from any thread, or by `async for`.

    Made by `EventBus.listen()`. What came before `close()` can still be taken after it. The bus holds a feed weakly, so
    that a forgotten one costs nothing.
    """

    def __init__(
        self, kinds: tuple[type[Event], ...], capacity: int, on_close: WeakMethod[Callable[..., None]]
    ) -> None:
        self._kinds = kinds
        self._capacity = capacity
        self._on_close = on_close
        self._on_news: Callable[[], None] | None = None
        self._queue = Ring(capacity)
        self._news = threading.Condition(threading.RLock())
        self._readers: list[asyncio.Future[None]] = []
        self._closed = False
        self._missed = 0
        self._handed_on = 0

    @property
    def missed(self) -> int:
        """How many events were dropped because nobody took them in time; always the oldest, so that the last stay."""
        return self._missed

    @property
    def closed(self) -> bool:
        """Whether no more will come."""
        return self._closed

    def take(self) -> list[HeardT_co]:
        """All that has come since the last look, oldest first. Never waits."""
        with self._news:
            taken, self._queue = self._queue, Ring(self._capacity)
        return taken.in_order()  # type: ignore[return-value]  # only its kinds are let in

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for something to take. Returns whether there is; at once when closed."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._queue, timeout)
            return bool(self._queue)

    def close(self) -> None:
        """No more comes, and whoever waits is woken. Closing twice is fine."""
        self._end()
        if on_close := self._on_close():
            on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def news(self) -> bool:
        """As `wait`, on an event loop and for as long as it takes."""
        while True:
            with self._news:
                if self._queue or self._closed:
                    return bool(self._queue)
                reader = asyncio.get_running_loop().create_future()
                self._readers.append(reader)
            try:
                await reader
            finally:
                self._dismiss(reader)

    async def __anext__(self) -> HeardT_co:
        self._handed_on += 1
        if self._handed_on % TURN == 0:
            await asyncio.sleep(0)
        while await self.news():
            with self._news:
                if self._queue:  # another reader may have been faster
                    return self._queue.popleft()  # type: ignore[return-value]  # only its kinds are let in
        raise StopAsyncIteration

    def _put(self, event: Event) -> None:
        """Take in an event; called by the bus, under its lock."""
        if self._kinds and not isinstance(event, self._kinds):
            return
        with self._news:
            if self._closed:
                return
            self._missed += self._queue.append(event)
            self._wake()
        if on_news := self._on_news:
            on_news()

    def _next(self) -> HeardT_co | None:
        """Wait for the next event, for as long as it takes; `None` when closed and empty."""
        with self._news:
            self.wait()
            return self._queue.popleft() if self._queue else None  # type: ignore[return-value]

    def _end(self, *, discard: bool = False) -> None:
        with self._news:
            self._closed = True
            self._on_news = None
            if discard:
                self._queue = Ring(self._capacity)
            self._wake()

    def _wake(self) -> None:
        self._news.notify_all()
        readers, self._readers = self._readers, []
        for reader in readers:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody reads there any more
                reader.get_loop().call_soon_threadsafe(_set, reader)

    def _dismiss(self, reader: asyncio.Future[None]) -> None:
        with self._news, contextlib.suppress(ValueError):  # it is gone where it was woken
            self._readers.remove(reader)


def _set(reader: asyncio.Future[Any]) -> None:
    if not reader.done():
        reader.set_result(None)
