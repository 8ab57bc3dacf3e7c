"""What happened, as values on one bus.

Publishing never fails and never waits: a subscriber that raises is logged and the others still hear of it. The bus keeps
the last events in a ring, so that whoever comes late can look back.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from llm_jupyter.events.kinds import Event

logger = logging.getLogger(__name__)


EventT = TypeVar("EventT", bound=Event)
Subscriber = Callable[[Event], None]


class Subscription:
    """A subscription; `close()` ends it, as does leaving it as a context manager."""

    def __init__(self, bus: EventBus, kinds: tuple[type[Event], ...], callback: Subscriber) -> None:
        self._bus = bus
        self._kinds = kinds
        self._callback = callback

    def close(self) -> None:
        """End the subscription. Closing twice is fine."""
        self._bus._remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _deliver(self, event: Event) -> None:
        if self._kinds and not isinstance(event, self._kinds):
            return
        try:
            self._callback(event)
        except Exception:  # isolation is the promise: one bad subscriber must not cost the others their event
            logger.exception("a subscriber failed on %s", type(event).__name__)


class EventBus:
    """Hands events to subscribers, in the thread that publishes, in order of subscription."""

    def __init__(self, *, history: int = 1000, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sequence = itertools.count(1)
        self._ring: deque[Event] = deque(maxlen=history)
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()

    def publish(self, event: EventT) -> EventT:
        """Stamp the event, remember it, tell the subscribers, and return it as stamped."""
        with self._lock:
            stamped = msgspec.structs.replace(event, timestamp=self._clock(), sequence=next(self._sequence))
            self._ring.append(stamped)
            subscriptions = self._subscriptions
        for subscription in subscriptions:
            subscription._deliver(stamped)
        return stamped

    def subscribe(self, callback: Subscriber, *kinds: type[Event], replay: bool = False) -> Subscription:
        """Call `callback` with each event, or with those of `kinds`; `replay` hands on what the ring holds first."""
        subscription = Subscription(self, kinds, callback)
        with self._lock:
            past = tuple(self._ring) if replay else ()
            self._subscriptions = (*self._subscriptions, subscription)
        for event in past:
            subscription._deliver(event)
        return subscription

    def history(self, *kinds: type[EventT]) -> list[EventT]:
        """The remembered events, oldest first, of these kinds or of all."""
        with self._lock:
            events: Iterable[Event] = tuple(self._ring)
        return [event for event in events if not kinds or isinstance(event, kinds)]  # type: ignore[misc]  # narrowed by kinds

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
