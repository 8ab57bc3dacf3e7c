"""What happened on an event bus, for tests that look at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from llm_jupyter.events import Event, EventBus, EventT


class EventRecord(Sequence[Event]):
    """The events since the record began, oldest first: a list that grows."""

    def __init__(self, bus: EventBus, kinds: tuple[type[Event], ...]) -> None:
        self._feed = bus.listen(*kinds)
        self._heard: list[Event] = []

    def of(self, *kinds: type[EventT]) -> list[EventT]:
        """Those of certain kinds."""
        return [event for event in self._events() if isinstance(event, kinds)]

    @property
    def names(self) -> list[str]:
        """The kinds of the events, by name and in order: what most tests compare."""
        return [type(event).__name__ for event in self._events()]

    def __len__(self) -> int:
        return len(self._events())

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._events()[index]

    def __repr__(self) -> str:
        return f"EventRecord({self._events()!r})"

    def _events(self) -> list[Event]:
        self._heard += self._feed.take()
        return self._heard


def record_events(bus: EventBus, *kinds: type[Event]) -> EventRecord:
    """Remember what happens on a bus from now on: everything, or the events of `kinds`.

        events = record_events(llm.events, RequestStarted, RequestFailed)
        ...
        assert events.names == ["RequestStarted", "RequestFailed"]

    What is published is in it at once, whichever thread published it.
    """
    return EventRecord(bus, kinds)
