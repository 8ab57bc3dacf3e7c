"""Subscriptions: callbacks on a thread of their own."""

import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from llm_jupyter.events import Event, EventBus, HealthChecked, ModelPulled, RequestFirstToken, SessionCreated
from llm_jupyter.events.feed import CAPACITY

WAIT = 10
"""Seconds after which a test gives up."""


def session(name: object) -> SessionCreated:
    return SessionCreated(session=str(name))


class Heard(SimpleQueue[Event]):
    """A callback that writes down what it hears, and where."""

    def __call__(self, event: Event) -> None:
        self.thread = threading.current_thread()
        self.put(event)

    def next(self, count: int) -> list[int]:
        """The numbers of the next events, waited for."""
        return [self.get(timeout=WAIT).sequence for _ in range(count)]


class Held:
    """A callback that says when it was called, and hangs until it is let go."""

    def __init__(self) -> None:
        self.called, self.let_go = threading.Event(), threading.Event()
        self.heard: list[int] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event.sequence)
        self.thread = threading.current_thread()
        self.called.set()
        self.let_go.wait()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.let_go.set()


def test_a_callback_is_called_in_order_on_one_daemon_thread_of_its_own() -> None:
    bus, one, other = EventBus(), Heard(), Heard()
    with bus.subscribe(one), bus.subscribe(other):
        for number in range(100):
            bus.publish(session(number))
        assert one.next(100) == other.next(100) == list(range(1, 101))
        assert len({one.thread, other.thread, threading.current_thread()}) == 3
        assert one.thread.daemon
        assert "Heard" in one.thread.name


def test_a_subscription_takes_a_thread_with_its_first_event_only() -> None:
    bus, heard, before = EventBus(), Heard(), set(threading.enumerate())
    with bus.subscribe(heard, SessionCreated):
        bus.publish(ModelPulled(provider="p", model="m"))
        assert set(threading.enumerate()) <= before
        bus.publish(session("a"))
        assert heard.next(1) == [2]
        assert heard.thread not in before


def test_a_subscriber_hears_only_the_kinds_it_asked_for() -> None:
    bus, some, everything = EventBus(), Heard(), Heard()
    with bus.subscribe(some, SessionCreated, ModelPulled), bus.subscribe(everything, Event):
        bus.publish(session("a"))
        bus.publish(RequestFirstToken(request="r", seconds=0.1))
        bus.publish(ModelPulled(provider="p", model="m"))
        assert everything.next(3) == [1, 2, 3]
        assert some.next(2) == [1, 3]


def test_replay_hands_on_what_went_before_and_then_what_comes() -> None:
    bus, late, plain = EventBus(), Heard(), Heard()
    for name in "ab":
        bus.publish(session(name))
        bus.publish(HealthChecked(provider="p", healthy=True))
    with bus.subscribe(late, SessionCreated, replay=True), bus.subscribe(plain):
        assert late.next(2) == [1, 3]
        bus.publish(session("c"))
        assert late.next(1) == plain.next(1) == [5]


@pytest.mark.parametrize("failure", [RuntimeError("my own fault"), SystemExit(3), KeyboardInterrupt("typed by nobody")])
def test_a_subscriber_that_raises_is_logged_and_costs_nobody_anything(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bus, heard, tried = EventBus(), Heard(), Heard()

    def broken(event: Event) -> None:
        tried(event)
        raise failure

    bus.publish(session("a"))
    with caplog.at_level(logging.DEBUG), bus.subscribe(broken, replay=True), bus.subscribe(heard, replay=True):
        bus.publish(ModelPulled(provider="p", model="m"))
        bus.publish(session("b"))
        assert heard.next(3) == tried.next(3) == [1, 2, 3]
    tried.thread.join(WAIT)
    first, second, third = (record for record in caplog.records if "broken failed on" in record.getMessage())
    assert f"SessionCreated with {type(failure).__name__}" in first.getMessage()
    assert "ModelPulled" in second.getMessage()
    assert [one.levelname for one in (first, second, third)] == ["ERROR", "DEBUG", "DEBUG"]  # what a cell shows, once
    assert str(failure) in caplog.text


def test_closing_does_not_wait_for_a_callback_that_hangs_and_none_begins_after_it(held: Held) -> None:
    bus = EventBus()
    with bus.subscribe(held) as subscription:
        bus.publish(session("a"))
        assert held.called.wait(WAIT)
        bus.publish(session("b"))
    assert not held.let_go.is_set()
    subscription.close()
    bus.publish(session("c"))
    held.let_go.set()
    held.thread.join(WAIT)
    assert not held.thread.is_alive()
    assert held.heard == [1]


def test_a_subscriber_that_hung_for_long_hears_the_newest_and_how_many_it_missed(held: Held) -> None:
    bus, newest, over = EventBus(), CAPACITY + 3, threading.Event()

    def callback(event: Event) -> None:
        held(event)
        if event.sequence == newest:
            over.set()

    with bus.subscribe(callback) as subscription:
        bus.publish(session(1))
        assert held.called.wait(WAIT)
        for number in range(2, newest + 1):
            bus.publish(session(number))
        assert subscription.missed == 2
        held.let_go.set()
        assert over.wait(60)
    assert held.heard == [1, *range(4, newest + 1)]


def test_one_callback_subscribed_twice_is_two_subscriptions() -> None:
    bus, heard = EventBus(), Heard()
    first, second = bus.subscribe(heard), bus.subscribe(heard)
    bus.publish(session("a"))
    assert heard.next(2) == [1, 1]
    first.close()
    bus.publish(session("b"))
    bus.publish(session("c"))
    assert heard.next(2) == [2, 3]
    second.close()


def test_a_callback_may_subscribe_publish_and_close_its_own_subscription() -> None:
    bus, later, ended, heard = EventBus(), Heard(), Heard(), list[str]()

    def callback(event: SessionCreated) -> None:
        heard.append(event.session)
        bus.subscribe(later)
        bus.publish(session("nested"))
        subscription.close()
        subscription.close()
        ended(event)

    subscription = bus.subscribe(callback, SessionCreated)
    bus.publish(session("first"))
    assert ended.next(1) == [1]
    ended.thread.join(WAIT)
    assert not ended.thread.is_alive()
    bus.publish(session("last"))
    assert later.next(2) == [2, 3]
    assert heard == ["first"]


def test_a_closed_subscription_lets_go_of_its_callback_and_of_its_thread() -> None:
    bus, heard, unheard = EventBus(), Heard(), Heard()
    traces = [weakref.ref(heard), weakref.ref(unheard)]
    subscriptions = [bus.subscribe(heard), bus.subscribe(unheard, ModelPulled)]
    bus.publish(session("a"))
    assert heard.next(1) == [1]
    thread = heard.thread
    for subscription in subscriptions:
        subscription.close()
    thread.join(WAIT)
    assert not thread.is_alive()
    del subscription, subscriptions, heard, unheard, thread
    gc.collect()
    assert [trace() for trace in traces] == [None, None]


def test_a_subscription_nobody_holds_is_served_as_long_as_its_bus_lives_and_ends_with_it() -> None:
    bus, heard = EventBus(), Heard()
    bus.subscribe(heard)
    gc.collect()
    bus.publish(session("a"))
    bus.publish(session("b"))
    del bus
    gc.collect()
    assert heard.next(2) == [1, 2]
    heard.thread.join(WAIT)
    assert not heard.thread.is_alive()


HANGS = """
import threading
from llm_jupyter.events import EventBus, SessionCreated
bus, called = EventBus(), threading.Event()
def hang(event):
    called.set()
    threading.Event().wait()
bus.subscribe(hang)
bus.publish(SessionCreated(session="a"))
called.wait()
print("over")
"""


def test_a_callback_that_hangs_does_not_keep_the_interpreter_from_its_end() -> None:
    run = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout, run.stderr) == (0, "over\n", "")
