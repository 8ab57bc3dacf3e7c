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

from llm_jupyter.types import ProviderState

logger = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The root: `timestamp` in seconds since the epoch and `sequence`, both stamped by the bus."""

    timestamp: float = 0.0
    sequence: int = 0


class FactoryOpened(Event, frozen=True, kw_only=True):
    """The services stand; nothing was contacted yet."""

    home: str


class FactoryClosed(Event, frozen=True, kw_only=True):
    """Everything that was opened is closed."""


class ProviderRegistered(Event, frozen=True, kw_only=True):
    """A provider's recipe is known under this name."""

    provider: str
    kind: str
    is_local: bool


class ConnectionStateChanged(Event, frozen=True, kw_only=True):
    """A provider's connection went from one state to another."""

    provider: str
    old: ProviderState
    new: ProviderState
    reason: str = ""


class ModelChosen(Event, frozen=True, kw_only=True):
    """This model answers from now on, for this reason."""

    provider: str
    model: str
    is_local: bool
    reason: str


class ModelPulling(Event, frozen=True, kw_only=True):
    """A download goes on; bytes so far and in all (`None`: not known yet)."""

    provider: str
    model: str
    status: str
    completed: int
    total: int | None
    folder: str = ""


class ModelPulled(Event, frozen=True, kw_only=True):
    """A model arrived whole."""

    provider: str
    model: str


class ModelDeleted(Event, frozen=True, kw_only=True):
    """A model was removed from its server."""

    provider: str
    model: str


class ModelLoading(Event, frozen=True, kw_only=True):
    """A model is being read into memory; `size` in bytes."""

    provider: str
    model: str
    size: int | None = None


class ModelLoaded(Event, frozen=True, kw_only=True):
    """A model is ready to answer, after so many seconds."""

    provider: str
    model: str
    seconds: float


class ModelUnloaded(Event, frozen=True, kw_only=True):
    """A model's memory is free again."""

    provider: str
    model: str


class HostStarted(Event, frozen=True, kw_only=True):
    """A model-server process runs."""

    host: str
    pid: int


class HostStopped(Event, frozen=True, kw_only=True):
    """A model-server process ended; `exit_code` is negative for a signal."""

    host: str
    pid: int
    exit_code: int | None
    expected: bool


class SessionCreated(Event, frozen=True, kw_only=True):
    """A conversation began."""

    session: str


class TurnReplaced(Event, frozen=True, kw_only=True):
    """A cell was run again: its turn gave way to a new one."""

    session: str
    turn: str


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request left for a provider."""

    request: str
    provider: str
    model: str


class RequestQueued(Event, frozen=True, kw_only=True):
    """The request waits for others on the same server; so many stand before it."""

    request: str
    ahead: int


class RequestFirstToken(Event, frozen=True, kw_only=True):
    """The first piece of the answer came, after so many seconds."""

    request: str
    seconds: float


class RequestFinished(Event, frozen=True, kw_only=True):
    """An answer is whole, or was interrupted (`finish_reason` says)."""

    request: str
    finish_reason: str
    seconds: float
    completion_tokens: int | None = None


class RequestFailed(Event, frozen=True, kw_only=True):
    """A request ended in an error."""

    request: str
    error: str
    message: str


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
