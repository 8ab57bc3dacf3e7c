"""Feeds: events that are taken when it suits."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events import (
    ConnectionStateChanged,
    Event,
    EventBus,
    Feed,
    HealthChecked,
    ModelPulled,
    ProviderLost,
    RequestFirstToken,
    SessionCreated,
)
from llm_jupyter.types import ProviderState


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


def checked(name: object) -> HealthChecked:
    return HealthChecked(provider=str(name), healthy=True)


async def read(feed: Feed[Event], count: int) -> list[int]:
    return [(await anext(feed)).sequence for _ in range(count)]


def test_a_feed_gives_what_came_since_the_last_look_and_never_waits() -> None:
    bus = EventBus()
    bus.publish(session("before"))
    feed = bus.listen()
    assert feed.take() == []
    published = [bus.publish(session("a")), bus.publish(checked("p")), bus.publish(session("b"))]
    assert feed.take() == published
    assert feed.take() == []
    assert [bus.publish(session("c"))] == feed.take()


def test_a_feed_hears_only_the_kinds_it_asked_for_and_what_descends_from_them() -> None:
    bus = EventBus()
    some, states, everything = (
        bus.listen(SessionCreated, ModelPulled),
        bus.listen(ConnectionStateChanged),
        bus.listen(Event),
    )
    published = [
        bus.publish(session("a")),
        bus.publish(RequestFirstToken(request="r", seconds=0.1)),
        bus.publish(ModelPulled(provider="p", model="m")),
        bus.publish(ProviderLost(provider="p", old=ProviderState.CONNECTED, new=ProviderState.FAILED)),
    ]
    assert some.take() == [published[0], published[2]]
    assert states.take() == [published[3]]
    assert everything.take() == published


def test_replay_gives_what_went_before_and_then_what_comes() -> None:
    bus = EventBus()
    for name in "ab":
        bus.publish(session(name))
        bus.publish(checked(name))
    late, plain = bus.listen(SessionCreated, replay=True), bus.listen()
    everything = bus.listen(replay=True)
    bus.publish(session("c"))
    assert [event.session for event in late.take()] == ["a", "b", "c"]
    assert [event.sequence for event in plain.take()] == [5]
    assert [event.sequence for event in everything.take()] == [1, 2, 3, 4, 5]


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 8), st.integers(0, 30))
def test_a_full_feed_drops_the_oldest_of_its_sort_and_counts_them(
    kinds: list[bool], capacity: int, looks_at: int
) -> None:
    bus = EventBus()
    feed = bus.listen(capacity=capacity)
    taken, missed = [], 0
    expected: dict[bool, list[Event]] = {True: [], False: []}

    def look() -> None:
        taken.append(feed.take())
        assert taken[-1] == sorted(expected[True] + expected[False], key=lambda event: event.sequence)
        expected[True].clear()
        expected[False].clear()

    for number, frequent in enumerate(kinds):
        if number == looks_at:
            look()
        kept = expected[frequent]
        kept.append(bus.publish(checked("p") if frequent else session("s")))
        missed += len(kept) > capacity
        del kept[:-capacity]
    look()
    assert feed.missed == missed == len(kinds) - sum(map(len, taken))


def test_measurements_push_no_change_of_state_out_of_a_feed() -> None:
    bus = EventBus()
    feed = bus.listen(capacity=3)
    lost = bus.publish(ProviderLost(provider="p", old=ProviderState.CONNECTED, new=ProviderState.FAILED))
    for _ in range(10):
        bus.publish(checked("p"))
    assert [event.sequence for event in feed.take()] == [lost.sequence, 9, 10, 11]
    assert feed.missed == 7


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_feed_that_could_hold_nothing_is_refused(capacity: int) -> None:
    with pytest.raises(InvalidInputError, match=f"cannot keep {capacity} events"):
        EventBus().listen(capacity=capacity)


def test_a_closed_feed_hears_no_more_gives_what_it_had_and_may_be_closed_again() -> None:
    bus = EventBus()
    with bus.listen() as feed:
        bus.publish(session("a"))
        assert not feed.closed
    feed.close()
    bus.publish(session("b"))
    assert feed.closed
    assert [event.sequence for event in feed.take()] == [1]
    assert feed.wait() is False


def test_waiting_ends_with_the_first_event_with_the_time_or_with_the_feed() -> None:
    bus = EventBus()
    feed = bus.listen()
    assert feed.wait(0.01) is False
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(feed.wait, 60)
        bus.publish(session("a"))
        assert waiting.result(10) is True
        feed.take()
        waiting = pool.submit(feed.wait, 60)
        feed.close()
        assert waiting.result(10) is False


def test_a_forgotten_feed_is_gone_at_once_and_the_others_hear_on() -> None:
    bus = EventBus()
    forgotten, kept = bus.listen(), bus.listen()
    trace = weakref.ref(forgotten)
    bus.publish(session("a"))
    del forgotten
    assert trace() is None
    bus.publish(session("b"))
    assert [event.sequence for event in kept.take()] == [1, 2]


def test_many_forgotten_feeds_leave_nothing_behind_in_the_bus() -> None:
    def references() -> int:
        gc.collect()
        return sum(type(thing) is weakref.ref for thing in gc.get_objects())

    bus = EventBus()
    bus.publish(session("a"))
    before = references()
    for _ in range(1000):
        bus.listen()
    bus.publish(session("b"))
    assert references() < before + 500


def test_a_feed_does_not_keep_its_bus_and_ends_with_it() -> None:
    bus = EventBus()
    feed, trace = bus.listen(), weakref.ref(bus)
    bus.publish(session("a"))
    with ThreadPoolExecutor(1) as pool:
        feed.take()
        waiting = pool.submit(feed.wait, 60)
        del bus
        gc.collect()
        assert waiting.result(10) is False
    assert trace() is None
    assert feed.closed
    feed.close()


async def test_a_reader_on_the_loop_gets_each_event_in_order_and_ends_with_the_feed() -> None:
    bus = EventBus()
    feed = bus.listen()
    bus.publish(session("a"))
    heard = []
    async for event in feed:
        heard.append(event.sequence)
        if event.sequence < 3:
            bus.publish(session("more"))
        else:
            bus.publish(session("left in it"))
            feed.close()
    assert heard == [1, 2, 3, 4]


async def test_a_reader_that_waits_is_woken_by_another_thread() -> None:
    bus = EventBus()
    feed = bus.listen()
    reading = asyncio.create_task(read(feed, 2))
    for _ in range(2):
        await asyncio.sleep(0)  # the reader waits now
        await asyncio.to_thread(bus.publish, session("a"))
    assert await asyncio.wait_for(reading, 10) == [1, 2]
    ending = asyncio.create_task(anext(feed, None))
    await asyncio.sleep(0)
    await asyncio.to_thread(feed.close)
    assert await asyncio.wait_for(ending, 10) is None


def test_readers_on_several_loops_each_get_all() -> None:
    bus, readers, each = EventBus(), 3, 200
    feeds = [bus.listen() for _ in range(readers)]
    with ThreadPoolExecutor(readers) as pool:
        reading = [
            pool.submit(lambda feed: asyncio.run(asyncio.wait_for(read(feed, each), 30)), feed) for feed in feeds
        ]
        for number in range(each):
            bus.publish(session(number))
        assert [one.result(30) for one in reading] == [list(range(1, each + 1))] * readers


async def test_a_reader_that_always_finds_something_lets_the_others_on_its_loop_have_their_turn() -> None:
    bus, turns = EventBus(), list[str]()
    feed = bus.listen()
    for number in range(1000):
        bus.publish(session(number))
    asyncio.get_running_loop().call_soon(turns.append, "other")
    heard = []
    async for event in feed:
        heard.append(event)
        if turns:
            break
    assert turns == ["other"]
    assert len(heard) < 1000


async def test_a_reader_that_is_cancelled_costs_no_event() -> None:
    bus = EventBus()
    feed = bus.listen()
    reading = asyncio.create_task(read(feed, 1))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    bus.publish(session("a"))
    assert await asyncio.wait_for(read(feed, 1), 10) == [1]


async def test_an_event_is_not_lost_on_a_reader_that_is_cancelled_as_it_comes() -> None:
    bus = EventBus()
    feed = bus.listen()
    reading = asyncio.create_task(read(feed, 1))
    await asyncio.sleep(0)
    bus.publish(session("a"))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert [event.sequence for event in feed.take()] == [1]


def test_a_reader_whose_loop_is_closed_costs_the_publisher_nothing() -> None:
    bus = EventBus()
    feed, loop = bus.listen(), asyncio.new_event_loop()
    reading = loop.create_task(read(feed, 1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    bus.publish(session("a"))
    assert not reading.done()
    assert [event.sequence for event in feed.take()] == [1]


def test_many_threads_take_from_one_feed_and_each_event_goes_to_one() -> None:
    bus, takers = EventBus(), 4
    feed, together = bus.listen(), threading.Barrier(takers + 1)

    def take() -> list[int]:
        together.wait(10)
        taken = []
        while feed.wait(60):
            taken += [event.sequence for event in feed.take()]
        return taken

    with ThreadPoolExecutor(takers) as pool:
        taking = [pool.submit(take) for _ in range(takers)]
        together.wait(10)
        for number in range(2000):
            bus.publish(session(number))
        feed.close()
        shares = [one.result(30) for one in taking]
    assert sorted(number for share in shares for number in share) == list(range(1, 2001))
    assert all(share == sorted(share) for share in shares)
