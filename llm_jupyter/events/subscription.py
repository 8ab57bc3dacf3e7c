"""Callbacks that are called with events, each on a thread or in a task of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events.feed import Feed
from llm_jupyter.events.kinds import Event

logger = logging.getLogger(__name__)

HeardT = TypeVar("HeardT", bound=Event)
Subscriber: TypeAlias = Callable[[HeardT], object]
"""What can subscribe to events of a kind: a function of one, or an `async def`. What it returns is not looked at."""


class Subscription:
    """A callback that is called with each event, one after the other; `close()` ends it, as does leaving its context.

    Made by `EventBus.subscribe()`. A call that has begun before `close()` goes on by itself, and nobody waits for it.
    """

    def __init__(self, feed: Feed[Any], callback: Subscriber[Any]) -> None:
        self._feed = feed
        self._callback = callback

    @property
    def missed(self) -> int:
        """How many events were dropped because the callback was too slow for them; always the oldest."""
        return self._feed.missed

    def close(self) -> None:
        """End the subscription: no further call begins. Never waits; closing twice is fine, in the callback too."""
        self._feed._end(discard=True)
        self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ThreadSubscription(Subscription):
    """Calls a plain function, on a daemon thread that starts with the first event."""

    def __init__(self, feed: Feed[Any], callback: Subscriber[Any]) -> None:
        super().__init__(feed, callback)
        feed._on_news = self._start

    def _start(self) -> None:
        # A daemon: a callback that hangs must not keep the interpreter from its end.
        thread = threading.Thread(
            target=_call_with_each,
            args=(self._feed, self._callback),
            name=f"llm_jupyter events to {_name(self._callback)}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread to give now; the next event asks again
            logger.warning("no thread for the subscriber %s: %s", _name(self._callback), error)
        else:
            self._feed._on_news = None


class TaskSubscription(Subscription):
    """Awaits an `async def` in a task on the loop that runs where it subscribes."""

    def __init__(self, feed: Feed[Any], callback: Subscriber[Any]) -> None:
        super().__init__(feed, callback)
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidInputError(
                f"{_name(callback)} is an async def, and no event loop runs here that could await it",
                next_step="Subscribe inside a coroutine, or pass a plain function.",
            ) from None
        self._task = self._loop.create_task(_await_with_each(feed, callback))
        self._task.add_done_callback(lambda _: Subscription.close(self))  # also where the loop ends it

    def close(self) -> None:
        """End the subscription; the call under way is cancelled, unless it is the one that closes."""
        super().close()
        if not self._task.done() and not self._is_inside():
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # the loop is closed, and the task will never run again
                logger.debug("the loop of %s ended before its subscription", _name(self._callback))

    def _is_inside(self) -> bool:
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:  # no loop runs on this thread
            return False


def subscription_of(feed: Feed[Any], callback: Subscriber[Any]) -> Subscription:
    """The subscription that suits the callback. Raises `InvalidInputError` for an `async def` where no loop runs."""
    call = getattr(callback, "__call__", None)  # noqa: B004  # the method of an object that can be called
    if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call):
        return TaskSubscription(feed, callback)
    return ThreadSubscription(feed, callback)


def _call_with_each(feed: Feed[Any], callback: Callable[[Any], object]) -> None:
    has_failed = False
    while (event := feed._next()) is not None:
        try:
            callback(event)
        except BaseException as error:  # whatever it is, on this thread it is the callback's own matter
            _log(callback, event, error, again=has_failed)
            has_failed = True


async def _await_with_each(feed: Feed[Any], callback: Callable[[Any], Any]) -> None:
    task, has_failed = asyncio.current_task(), False
    async for event in feed:
        try:
            await callback(event)
        except (Exception, asyncio.CancelledError) as error:
            if task is not None and task.cancelling():  # not the callback's doing: the task itself is to end
                raise
            _log(callback, event, error, again=has_failed)
            has_failed = True


def _log(callback: object, event: Event, error: BaseException, *, again: bool) -> None:
    """Say once what is wrong with a subscriber: whatever cell runs then would show it at every event."""
    logger.log(
        logging.DEBUG if again else logging.ERROR,
        "the subscriber %s failed on %s with %s",
        _name(callback),
        type(event).__name__,
        type(error).__name__,
        exc_info=error,
    )


def _name(callback: object) -> str:
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))
