"""What happened, as values on one bus.

Publishing never fails and never waits: every listener has a queue of its own, so that one that raises, is slow or hangs
costs neither the publisher nor the others anything. The bus keeps the last events, so that whoever comes late can look
back; frequent ones (`Event.is_frequent`) apart, so that measurements push no change of state out.

Thread rules:
1. `publish` numbers an event and puts it into the queues under the bus's lock: everybody hears in order of `sequence`.
2. A lock is held for putting and taking only, never while foreign code runs. Bus before feed, never the other way.
3. The locks are reentrant: a signal handler or a finalizer may publish in the midst of anything on the same thread.
4. A thread or task that serves a feed knows the feed alone: a bus that nobody holds goes, and ends what served it.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import msgspec

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events.feed import CAPACITY, Feed, Ring
from llm_jupyter.events.kinds import Event
from llm_jupyter.events.subscription import Subscriber, Subscription, subscription_of

EventT = TypeVar("EventT", bound=Event)
A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)

HISTORY = 1000
"""Events that are remembered, frequent ones and others each: with 200 bytes apiece, less than a megabyte in all."""


class EventBus:
    """Numbers events, remembers the last ones, and hands each to whoever listens.

    `history` is how many are remembered, frequent ones and others each; `clock` gives seconds since the epoch.
    """

    def __init__(self, *, history: int = HISTORY, clock: Callable[[], float] = time.time) -> None:
        self._feeds: tuple[weakref.ref[Feed[Any]], ...] = ()
        self._clock = clock
        self._sequence = itertools.count(1)
        self._stamped: list[tuple[int, Event]] = []
        self._past = Ring(history)
        self._kept: dict[Feed[Any], Subscription] = {}
        self._lock = threading.RLock()
        self._busy = False

    def publish(self, event: EventT) -> EventT:
        """Stamp the event, remember it, put it into every listener's queue, and return it as stamped. Never waits."""
        with self._undisturbed():
            stamped = msgspec.structs.replace(event, timestamp=self._clock(), sequence=next(self._sequence))
            entry: tuple[int, Event] = (stamped.sequence, stamped)
            heapq.heappush(self._stamped, entry)
        return stamped

    @overload
    def listen(self, *, replay: bool = False, capacity: int = CAPACITY) -> Feed[Event]: ...
    @overload
    def listen(self, kind: type[A], /, *, replay: bool = False, capacity: int = CAPACITY) -> Feed[A]: ...
    @overload
    def listen(self, a: type[A], b: type[B], /, *, replay: bool = False, capacity: int = CAPACITY) -> Feed[A | B]: ...
    @overload
    def listen(
        self, a: type[A], b: type[B], c: type[C], /, *, replay: bool = False, capacity: int = CAPACITY
    ) -> Feed[A | B | C]: ...
    @overload
    def listen(self, *kinds: type[Event], replay: bool = False, capacity: int = CAPACITY) -> Feed[Event]: ...
    def listen(self, *kinds: type[Event], replay: bool = False, capacity: int = CAPACITY) -> Feed[Any]:
        """A feed of all events or of those of `kinds`, to be read whenever it suits; it needs no thread.

        `replay` puts what is remembered first, with no gap and nothing twice. The feed keeps `capacity` frequent
        events and as many others; beyond that the oldest go. It ends when it is closed or when nobody holds it.
        Raises `InvalidInputError` for a capacity below 1.
        """
        if capacity < 1:
            raise InvalidInputError(
                f"a feed cannot keep {capacity} events", next_step="Give listen() a capacity of 1 or more."
            )
        feed = self._feed(kinds, capacity)
        with self._undisturbed():
            self._attach(feed, replay)
        return feed

    @overload
    def subscribe(self, callback: Subscriber[Event], *, replay: bool = False) -> Subscription: ...
    @overload
    def subscribe(self, callback: Subscriber[A], kind: type[A], /, *, replay: bool = False) -> Subscription: ...
    @overload
    def subscribe(
        self, callback: Subscriber[A | B], a: type[A], b: type[B], /, *, replay: bool = False
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, callback: Subscriber[A | B | C], a: type[A], b: type[B], c: type[C], /, *, replay: bool = False
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        callback: Subscriber[Event],
        a: type[A],
        b: type[B],
        c: type[C],
        /,
        *more: type[Event],
        replay: bool = False,
    ) -> Subscription: ...
    def subscribe(self, callback: Subscriber[Any], *kinds: type[Event], replay: bool = False) -> Subscription:
        """Call `callback` with each event, or with those of `kinds`, one after the other.

        A plain function runs on a daemon thread of this subscription, started with the first event. An `async def` is
        awaited in a task on the loop that runs now. `replay` hands on what is remembered first. What a callback raises
        is logged. It ends when it is closed, or with the bus. Raises `InvalidInputError` for an `async def` where no
        loop runs.
        """
        feed = self._feed(kinds, CAPACITY)
        subscription = subscription_of(feed, callback)
        with self._undisturbed():
            self._kept[feed] = subscription
            self._attach(feed, replay)
        return subscription

    @overload
    def history(self) -> list[Event]: ...
    @overload
    def history(self, kind: type[A], /) -> list[A]: ...
    @overload
    def history(self, a: type[A], b: type[B], /) -> list[A | B]: ...
    @overload
    def history(self, *kinds: type[Event]) -> list[Event]: ...
    def history(self, *kinds: type[Event]) -> list[Any]:
        """The remembered events, oldest first, of these kinds or of all."""
        with self._lock:
            past = self._past.in_order()
        return [event for event in past if not kinds or isinstance(event, kinds)]

    def _feed(self, kinds: tuple[type[Event], ...], capacity: int) -> Feed[Any]:
        return Feed(kinds, capacity, weakref.WeakMethod(self._forget))

    def _attach(self, feed: Feed[Any], replay: bool) -> None:
        for event in self._past.in_order() if replay else ():
            feed._put(event)
        self._feeds = (*self._feeds, weakref.ref(feed))

    def _forget(self, feed: Feed[Any] | None = None) -> None:
        """Drop a feed, and all that nobody holds."""
        with self._lock:
            self._feeds = tuple(ref for ref in self._feeds if ref() not in (None, feed))
            if feed is not None:
                self._kept.pop(feed, None)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """What is published meanwhile is delivered afterwards, even what this thread itself publishes in a signal handler."""
        with self._lock:
            busy, self._busy = self._busy, True
            try:
                yield
            finally:
                self._busy = busy
                if not busy:
                    self._deliver()

    def _deliver(self) -> None:
        while self._stamped:
            self._busy = True
            try:
                while self._stamped:
                    self._hand_out(heapq.heappop(self._stamped)[1])
            finally:
                self._busy = False

    def _hand_out(self, event: Event) -> None:
        self._past.append(event)
        forgotten = False
        for ref in self._feeds:
            if feed := ref():
                feed._put(event)
            else:
                forgotten = True
        if forgotten:
            self._forget()

    def __del__(self) -> None:
        # At the interpreter's end a lock may be held by a thread that never runs again.
        if not sys.is_finalizing():
            for ref in self._feeds:
                if feed := ref():
                    feed._end()
