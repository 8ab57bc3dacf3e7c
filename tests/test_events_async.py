"""Subscriptions of an `async def`: each in a task on the loop where it subscribed."""

import asyncio
import gc
import logging
import threading
import weakref

import pytest

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events import Event, EventBus, ModelPulled, SessionCreated


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


class Heard:
    """An asynchronous callback that writes down what it hears."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[int] = asyncio.Queue()
        self.threads: set[threading.Thread] = set()

    async def __call__(self, event: Event) -> None:
        self.threads.add(threading.current_thread())
        await self.events.put(event.sequence)

    async def hear(self, event: Event) -> None:
        await self(event)

    async def next(self, count: int) -> list[int]:
        async with asyncio.timeout(10):
            return [await self.events.get() for _ in range(count)]


async def test_an_async_callback_is_awaited_on_the_loop_in_order_whoever_publishes() -> None:
    bus, heard = EventBus(), Heard()
    with bus.subscribe(heard.hear):
        bus.publish(session("here"))
        await asyncio.to_thread(lambda: [bus.publish(session(number)) for number in range(99)])
        assert await heard.next(100) == list(range(1, 101))
    assert heard.threads == {threading.current_thread()}


async def test_an_object_with_an_async_call_is_awaited_too() -> None:
    bus, heard = EventBus(), Heard()
    with bus.subscribe(heard, SessionCreated):
        bus.publish(ModelPulled(provider="p", model="m"))
        bus.publish(session("a"))
        assert await heard.next(1) == [2]


async def test_the_next_event_waits_until_the_one_before_is_dealt_with() -> None:
    bus, gate, steps = EventBus(), asyncio.Event(), list[str]()

    async def slow(event: SessionCreated) -> None:
        steps.append(f"{event.session} begins")
        await gate.wait()
        steps.append(f"{event.session} ends")
        if event.session == "b":
            over.set()

    over = asyncio.Event()
    with bus.subscribe(slow, SessionCreated):
        bus.publish(session("a"))
        bus.publish(session("b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert steps == ["a begins"]
        gate.set()
        await asyncio.wait_for(over.wait(), 10)
    assert steps == ["a begins", "a ends", "b begins", "b ends"]


async def test_a_hanging_async_callback_delays_nobody_and_is_cancelled_when_it_is_closed() -> None:
    bus, heard, hangs, cancelled = EventBus(), Heard(), asyncio.Event(), asyncio.Event()

    async def hanging(event: Event) -> None:
        hangs.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with bus.subscribe(heard):
        with bus.subscribe(hanging):
            bus.publish(session("a"))
            await asyncio.wait_for(hangs.wait(), 10)
            bus.publish(session("b"))
            assert await heard.next(2) == [1, 2]
            assert not cancelled.is_set()
        await asyncio.wait_for(cancelled.wait(), 10)


async def test_replay_comes_first() -> None:
    bus, heard = EventBus(), Heard()
    bus.publish(session("a"))
    with bus.subscribe(heard, replay=True):
        bus.publish(session("b"))
        assert await heard.next(2) == [1, 2]


@pytest.mark.parametrize("failure", [RuntimeError("my own fault"), asyncio.CancelledError("my own doing")])
async def test_an_async_callback_that_raises_is_logged_and_goes_on(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bus, tried = EventBus(), Heard()

    async def broken(event: Event) -> None:
        await tried(event)
        raise failure

    with caplog.at_level(logging.WARNING), bus.subscribe(broken):
        bus.publish(session("a"))
        bus.publish(ModelPulled(provider="p", model="m"))
        assert await tried.next(2) == [1, 2]
    assert len(caplog.records) == 1  # it is said once
    assert f"broken failed on SessionCreated with {type(failure).__name__}" in caplog.records[0].getMessage()
    assert str(failure) in caplog.text


async def test_a_closed_subscription_calls_no_more_even_for_what_waits() -> None:
    bus, heard, later = EventBus(), Heard(), Heard()
    with bus.subscribe(heard) as subscription, bus.subscribe(later):
        bus.publish(session("a"))
        subscription.close()
        subscription.close()
        bus.publish(session("b"))
        assert await later.next(2) == [1, 2]
        assert heard.events.empty()


async def test_an_async_callback_may_close_its_own_subscription_and_goes_on_to_its_end() -> None:
    bus, ended = EventBus(), Heard()

    async def once(event: Event) -> None:
        subscription.close()
        await asyncio.sleep(0)
        await ended(event)

    subscription = bus.subscribe(once)
    with bus.subscribe(ended.hear):
        bus.publish(session("a"))
        bus.publish(session("b"))
        assert sorted(await ended.next(3)) == [1, 1, 2]
        await asyncio.sleep(0)
        assert ended.events.empty()


async def test_another_thread_may_close_it() -> None:
    bus, cancelled, hangs = EventBus(), asyncio.Event(), asyncio.Event()

    async def hanging(event: Event) -> None:
        hangs.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    subscription = bus.subscribe(hanging)
    bus.publish(session("a"))
    await asyncio.wait_for(hangs.wait(), 10)
    await asyncio.to_thread(subscription.close)
    await asyncio.wait_for(cancelled.wait(), 10)


def test_where_no_loop_runs_an_async_callback_is_refused_in_words() -> None:
    bus = EventBus()

    async def callback(event: Event) -> None:
        raise AssertionError

    with pytest.raises(InvalidInputError, match="callback is an async def, and no event loop runs here") as caught:
        bus.subscribe(callback)
    assert caught.value.next_step == "Subscribe inside a coroutine, or pass a plain function."
    bus.publish(session("a"))


def test_a_loop_that_ends_takes_its_subscriptions_with_it() -> None:
    bus = EventBus()

    async def run() -> weakref.ref[Heard]:
        heard = Heard()
        bus.subscribe(heard)
        bus.publish(session("a"))
        assert await heard.next(1) == [1]
        return weakref.ref(heard)

    trace = asyncio.run(run())
    bus.publish(session("b"))
    gc.collect()
    assert trace() is None


def test_closing_after_the_loop_is_closed_is_fine() -> None:
    bus, heard = EventBus(), Heard()
    loop = asyncio.new_event_loop()

    async def run() -> object:
        return bus.subscribe(heard)

    subscription = loop.run_until_complete(run())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    bus.publish(session("a"))
    subscription.close()  # type: ignore[attr-defined]
    assert heard.events.empty()


async def test_a_subscription_ends_with_its_bus_after_what_came() -> None:
    bus, heard = EventBus(), Heard()
    tasks = asyncio.all_tasks()
    bus.subscribe(heard)
    (task,) = asyncio.all_tasks() - tasks
    bus.publish(session("a"))
    del bus
    gc.collect()
    await asyncio.wait_for(task, 10)
    assert await heard.next(1) == [1]
