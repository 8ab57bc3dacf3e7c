"""The event bus: stamps, order, memory; and what a listener costs those who publish."""

import inspect
import itertools
import threading
import time
from collections.abc import Callable

import msgspec
import pytest

from llm_jupyter import events
from llm_jupyter.events import (
    Event,
    EventBus,
    HealthChecked,
    HostMeasured,
    ModelPulled,
    RequestFirstToken,
    SessionCreated,
)

MANY = 10_000


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


def checked(name: object) -> HealthChecked:
    return HealthChecked(provider=str(name), healthy=True)


def names(heard: list[Event]) -> list[str]:
    return [event.session for event in heard if isinstance(event, SessionCreated)]


def test_every_kind_of_event_is_frozen_and_says_what_it_means() -> None:
    kinds = [kind for _, kind in inspect.getmembers(events, inspect.isclass) if issubclass(kind, Event)]
    assert len(kinds) > 15
    for kind in kinds:
        assert kind.__struct_config__.frozen, kind
        assert kind.__doc__, kind
        assert {"timestamp", "sequence"} <= set(kind.__struct_fields__)
    with pytest.raises(AttributeError):
        session("a").session = "b"  # type: ignore[misc]


def test_no_event_has_a_place_for_a_secret() -> None:
    kinds = [kind for _, kind in inspect.getmembers(events, inspect.isclass) if issubclass(kind, Event)]
    fields = {field for kind in kinds for field in kind.__struct_fields__}
    assert {"provider", "request", "url"} <= fields
    assert not fields & {"api_key", "key", "token", "password", "secret", "headers", "environment", "command", "prompt"}


def test_an_event_is_stamped_and_handed_back_and_the_original_stays_as_it_was() -> None:
    clock = itertools.count(100.0, 0.5)
    bus = EventBus(clock=lambda: next(clock))
    original = session("a")
    first, second = bus.publish(original), bus.publish(original)
    assert (first.sequence, first.timestamp) == (1, 100.0)
    assert (second.sequence, second.timestamp) == (2, 100.5)
    assert (original.sequence, original.timestamp) == (0, 0.0)
    assert first == msgspec.structs.replace(original, sequence=1, timestamp=100.0)


def test_the_memory_keeps_the_last_events_only() -> None:
    bus = EventBus(history=3)
    for number in range(10):
        bus.publish(session(number))
    assert names(bus.history()) == ["7", "8", "9"]
    assert [event.sequence for event in bus.history()] == [8, 9, 10]


def test_the_memory_of_these_kinds_holds_these_kinds_and_what_descends_from_them() -> None:
    bus = EventBus()
    published = [
        bus.publish(session("a")),
        bus.publish(ModelPulled(provider="p", model="m")),
        bus.publish(checked("p")),
    ]
    assert bus.history(ModelPulled) == [published[1]]
    assert bus.history(HealthChecked, SessionCreated) == [published[0], published[2]]
    assert bus.history(Event) == bus.history() == published
    assert bus.history(RequestFirstToken) == []


def test_measurements_push_no_change_of_state_out_of_the_memory_and_stand_in_their_place_in_it() -> None:
    bus = EventBus(history=3)
    for number in range(2):
        bus.publish(session(number))
        for _ in range(5):
            bus.publish(checked(number))
    assert [event.sequence for event in bus.history()] == [1, 7, 10, 11, 12]
    assert names(bus.history()) == ["0", "1"]
    assert [type(event) for event in bus.history()] == [SessionCreated] * 2 + [HealthChecked] * 3


def test_what_comes_by_the_second_says_so() -> None:
    assert HostMeasured.is_frequent
    assert HealthChecked.is_frequent
    assert not SessionCreated.is_frequent


class Nesting(SessionCreated, frozen=True, kw_only=True):
    """Publishes another event while the bus stamps it, as a signal handler or a finalizer may."""

    bus: EventBus

    def __post_init__(self) -> None:
        if self.sequence:
            self.bus.publish(session("inner"))


def test_what_is_published_in_the_midst_of_publishing_is_heard_in_order() -> None:
    bus = EventBus()
    feed = bus.listen()
    outer = bus.publish(Nesting(session="outer", bus=bus))
    last = bus.publish(session("last"))
    assert names(feed.take()) == names(bus.history()) == ["outer", "inner", "last"]
    assert [event.sequence for event in bus.history()] == [1, 2, 3]
    assert (outer.sequence, last.sequence) == (1, 3)


def test_an_interrupt_in_the_midst_of_publishing_leaves_the_bus_as_good_as_before() -> None:
    def clock() -> float:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return 1.0

    calls = itertools.count(1)
    bus = EventBus(clock=clock)
    feed = bus.listen()
    bus.publish(session("a"))
    with pytest.raises(KeyboardInterrupt):
        bus.publish(session("b"))
    bus.publish(session("c"))
    assert names(feed.take()) == ["a", "c"] == names(bus.history())


def test_a_hanging_subscriber_delays_neither_the_publisher_nor_the_others() -> None:
    bus, hangs, release = EventBus(), threading.Event(), threading.Event()
    heard: list[Event] = []
    whole = threading.Event()

    def hanging(event: Event) -> None:
        hangs.set()
        release.wait()

    def other(event: Event) -> None:
        heard.append(event)
        if len(heard) == MANY:
            whole.set()

    feed = bus.listen()
    try:
        with bus.subscribe(hanging) as stuck, bus.subscribe(other):
            bus.publish(session(0))
            assert hangs.wait(10)
            published = [bus.publish(session(number)) for number in range(1, MANY)]
            assert whole.wait(60)
            assert not release.is_set()
            assert heard[1:] == published
            assert feed.take()[1:] == published
            assert stuck.missed == 0
    finally:
        release.set()


def test_a_burst_of_ten_thousand_events_reaches_everybody_whole_and_takes_no_more_threads(
    report: Callable[[str], None],
) -> None:
    bus, before = EventBus(history=MANY), threading.active_count()
    feeds = [bus.listen() for _ in range(5)]
    started = time.perf_counter()
    for number in range(MANY):
        bus.publish(session(number))
    report(f"events: {MANY} published to 5 listeners in {1000 * (time.perf_counter() - started):.0f} ms")
    assert threading.active_count() <= before
    for feed in feeds:
        assert [event.sequence for event in feed.take()] == list(range(1, MANY + 1))
        assert feed.missed == 0
    assert len(bus.history()) == MANY
