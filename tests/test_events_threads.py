"""Many threads on one bus: nothing is lost, doubled or out of order, for whoever listens in whatever way."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from counts import times
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jupyter.events import Event, EventBus, Feed, HealthChecked, SessionCreated

SCRIPTS = st.lists(st.lists(st.booleans(), max_size=40), min_size=1, max_size=6)
"""For each thread, which events it publishes: frequent ones or others."""


@pytest.fixture(autouse=True, scope="module")
def _restless() -> Iterator[None]:
    """Let the threads of the interpreter take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Crowd:
    """Threads that publish, each a script, from the same moment on; and what each of them was handed back."""

    def __init__(self, bus: EventBus, scripts: list[list[bool]], beside: int = 0) -> None:
        self._bus = bus
        self._together = threading.Barrier(len(scripts) + beside)
        self._pool = ThreadPoolExecutor(len(scripts) + beside)
        self._publishing = [self._pool.submit(self._publish, script) for script in scripts]

    def _publish(self, script: list[bool]) -> list[Event]:
        self._together.wait(30)
        return [self._bus.publish(_event(frequent)) for frequent in script]

    def beside(self, job: Callable[[], Feed[Event]]) -> Callable[[], Feed[Event]]:
        """Do something in the midst of it."""

        def start() -> Feed[Event]:
            self._together.wait(30)
            return job()

        future = self._pool.submit(start)
        return lambda: future.result(30)

    def published(self) -> list[list[Event]]:
        """Wait for the end."""
        published = [future.result(30) for future in self._publishing]
        self._pool.shutdown()
        return published


def _event(frequent: bool) -> Event:
    return HealthChecked(provider="p", healthy=True) if frequent else SessionCreated(session="s")


def in_order(published: list[list[Event]]) -> list[Event]:
    """All events by their numbers, which must be 1, 2, 3, ... and rise in each thread."""
    events = sorted((event for each in published for event in each), key=lambda event: event.sequence)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert all(each == sorted(each, key=lambda event: event.sequence) for each in published)
    return events


@settings(max_examples=times(300))
@given(SCRIPTS)
def test_every_way_of_listening_hears_all_in_order(scripts: list[list[bool]]) -> None:
    bus, called, over = EventBus(), list[Event](), threading.Event()
    total = sum(map(len, scripts))

    def callback(event: Event) -> None:
        called.append(event)
        if len(called) == total:
            over.set()

    async def read(feed: Feed[Event]) -> list[Event]:
        return [await anext(feed) for _ in range(total)]

    quiet, looked_at, iterated = bus.listen(), bus.listen(), bus.listen()
    with bus.subscribe(callback), ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: asyncio.run(asyncio.wait_for(read(iterated), 30)))
        crowd, taken = Crowd(bus, scripts), list[Event]()
        while len(taken) < total and looked_at.wait(30):
            taken += looked_at.take()
        expected = in_order(crowd.published())
        assert not total or over.wait(30)
        assert taken == expected
        assert quiet.take() == expected
        assert called == expected
        assert reading.result(30) == expected
    assert bus.history() == expected


@settings(max_examples=times(300))
@given(SCRIPTS)
def test_who_comes_in_the_midst_hears_what_was_and_what_comes_without_gap_or_double(scripts: list[list[bool]]) -> None:
    bus = EventBus()
    crowd = Crowd(bus, scripts, beside=3)
    late = crowd.beside(lambda: bus.listen(replay=True))
    some = crowd.beside(lambda: bus.listen(SessionCreated, Event, replay=True))
    plain = crowd.beside(bus.listen)
    expected = in_order(crowd.published())
    assert late().take() == some().take() == expected
    rest = plain().take()
    assert rest == expected[len(expected) - len(rest) :]


@settings(max_examples=times(300))
@given(SCRIPTS, st.integers(1, 50))
def test_the_memory_holds_the_last_of_each_sort(scripts: list[list[bool]], history: int) -> None:
    bus = EventBus(history=history)
    events = in_order(Crowd(bus, scripts).published())
    kept = [
        event for kind in (SessionCreated, HealthChecked) for event in [e for e in events if type(e) is kind][-history:]
    ]
    assert bus.history() == sorted(kept, key=lambda event: event.sequence)


def test_listeners_that_come_and_go_meanwhile_cost_the_others_nothing(report: Callable[[str], None]) -> None:
    bus, threads, each, steps = EventBus(history=100), 4, times(5000), 0
    feed = bus.listen(capacity=threads * each)
    crowd = Crowd(bus, [[False] * each] * threads)
    while bus.history()[-1:] == [] or bus.history()[-1].sequence < threads * each:
        with bus.listen() as one, bus.subscribe(lambda event: None, replay=True):
            forgotten = bus.listen(replay=True, capacity=1)
            del forgotten
        numbers = [event.sequence for event in one.take()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        steps += 1
    assert feed.take() == in_order(crowd.published())
    report(f"events: {threads * each} published by {threads} threads while {steps} listeners came and went")
