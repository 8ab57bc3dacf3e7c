"""The event bus: order, stamps, isolation, memory."""

import inspect
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from llm_jupyter import events
from llm_jupyter.events import Event, EventBus, ModelPulled, RequestFirstToken, SessionCreated


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


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


def test_an_event_is_stamped_and_handed_back_and_the_original_stays_as_it_was() -> None:
    clock = itertools.count(100.0, 0.5)
    bus = EventBus(clock=lambda: next(clock))
    original = session("a")
    first, second = bus.publish(original), bus.publish(original)
    assert (first.sequence, first.timestamp) == (1, 100.0)
    assert (second.sequence, second.timestamp) == (2, 100.5)
    assert (original.sequence, original.timestamp) == (0, 0.0)
    assert first == msgspec.structs.replace(original, sequence=1, timestamp=100.0)


def test_subscribers_hear_in_the_order_of_their_subscription_and_in_the_thread_that_publishes() -> None:
    bus = EventBus()
    heard: list[tuple[str, str, int]] = []
    for who in "abc":
        bus.subscribe(
            lambda event, who=who: heard.append((who, threading.current_thread().name, event.sequence))  # type: ignore[misc]
        )
    with ThreadPoolExecutor(1, thread_name_prefix="publisher") as pool:
        pool.submit(bus.publish, session("x")).result()
    bus.publish(session("y"))
    here = threading.current_thread().name
    assert heard == [(who, "publisher_0", 1) for who in "abc"] + [(who, here, 2) for who in "abc"]


def test_a_subscriber_hears_only_the_kinds_it_asked_for() -> None:
    bus = EventBus()
    some: list[Event] = []
    everything: list[Event] = []
    bus.subscribe(some.append, SessionCreated, ModelPulled)
    bus.subscribe(everything.append, Event)
    published = [
        bus.publish(session("a")),
        bus.publish(RequestFirstToken(request="r", seconds=0.1)),
        bus.publish(ModelPulled(provider="p", model="m")),
    ]
    assert some == [published[0], published[2]]
    assert everything == published
    assert bus.history(RequestFirstToken) == [published[1]]
    assert bus.history() == published


def test_a_subscriber_that_raises_is_logged_and_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    before: list[Event] = []
    after: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("my own fault")

    bus.subscribe(before.append)
    bus.subscribe(broken)
    bus.subscribe(after.append)
    with caplog.at_level(logging.ERROR):
        published = [bus.publish(session("a")), bus.publish(session("b"))]
    assert before == after == published
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "SessionCreated" in caplog.text
    assert "my own fault" in caplog.text


def test_an_interrupt_in_a_subscriber_is_no_failure_of_its_and_goes_on() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    bus = EventBus()
    bus.subscribe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.publish(session("a"))


def test_replay_hands_on_what_went_before_and_then_what_comes() -> None:
    bus = EventBus()
    bus.publish(session("a"))
    bus.publish(ModelPulled(provider="p", model="m"))
    bus.publish(session("b"))
    late: list[Event] = []
    plain: list[Event] = []
    bus.subscribe(late.append, SessionCreated, replay=True)
    bus.subscribe(plain.append)
    bus.publish(session("c"))
    assert names(late) == ["a", "b", "c"]
    assert names(plain) == ["c"]


def test_a_subscriber_that_raises_during_replay_is_isolated_too(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    bus.publish(session("a"))
    bus.publish(session("b"))
    heard: list[int] = []

    def broken(event: Event) -> None:
        heard.append(event.sequence)
        raise RuntimeError("my own fault")

    bus.subscribe(broken, replay=True)
    assert heard == [1, 2]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_the_memory_keeps_the_last_events_only() -> None:
    bus = EventBus(history=3)
    for number in range(10):
        bus.publish(session(number))
    assert names(bus.history()) == ["7", "8", "9"]
    assert [event.sequence for event in bus.history()] == [8, 9, 10]


def test_a_closed_subscription_hears_no_more_and_may_be_closed_again() -> None:
    bus = EventBus()
    first: list[Event] = []
    second: list[Event] = []
    subscription = bus.subscribe(first.append)
    with bus.subscribe(second.append) as inner:
        bus.publish(session("a"))
        subscription.close()
        subscription.close()
        bus.publish(session("b"))
    inner.close()
    bus.publish(session("c"))
    assert names(first) == ["a"]
    assert names(second) == ["a", "b"]


def test_one_callback_subscribed_twice_is_two_subscriptions() -> None:
    bus = EventBus()
    heard: list[Event] = []
    first, _ = bus.subscribe(heard.append), bus.subscribe(heard.append)
    first.close()
    bus.publish(session("a"))
    assert names(heard) == ["a"]


def test_a_callback_may_subscribe_publish_and_close() -> None:
    bus = EventBus()
    later: list[Event] = []
    heard: list[str] = []

    def callback(event: Event) -> None:
        assert isinstance(event, SessionCreated)
        heard.append(event.session)
        if event.session == "first":
            bus.subscribe(later.append)
            bus.publish(session("nested"))
            subscription.close()

    subscription = bus.subscribe(callback)
    bus.publish(session("first"))
    bus.publish(session("last"))
    assert heard == ["first", "nested"]
    assert names(later) == ["nested", "last"]
    assert names(bus.history()) == ["first", "nested", "last"]


def test_many_threads_publish_and_no_event_is_lost_doubled_or_out_of_order() -> None:
    threads, each = 8, 500
    bus = EventBus(history=threads * each)
    heard: list[Event] = []
    bus.subscribe(heard.append)  # appending to a list is atomic
    together = threading.Barrier(threads)

    def publish(who: int) -> list[int]:
        together.wait(10)
        return [bus.publish(session(f"{who}:{number}")).sequence for number in range(each)]

    with ThreadPoolExecutor(threads) as pool:
        sequences = list(pool.map(publish, range(threads)))
    expected = {f"{who}:{number}" for who in range(threads) for number in range(each)}
    assert len(heard) == threads * each
    assert set(names(heard)) == expected
    assert set(names(bus.history())) == expected
    assert [event.sequence for event in bus.history()] == list(range(1, threads * each + 1))
    assert all(numbers == sorted(numbers) for numbers in sequences)
