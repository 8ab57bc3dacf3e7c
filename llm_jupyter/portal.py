"""The only door from synchronous code into asyncio.

Thread rules:
1. One daemon thread with one event loop, started on first use, alive until `close()`.
2. Providers, sessions and child processes live on that thread; whoever else wants them comes through here. (A child's
   parent-death signal fires when the *thread* that forked it ends, so that thread must last.)
3. A caller waits in slices of 0.1 s: an untimed wait on a future is not woken by every kind of interrupt.
4. Whatever breaks the wait (an interrupt above all) cancels the task, and the task is given time to close its socket.
5. The caller's context variables travel with the coroutine.
6. Never call in from the loop's own thread: that would wait for itself, and is refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

WAIT_SLICE = 0.1
"""Seconds between looks at whether an interrupt is waiting."""

CANCEL_GRACE = 2.0
"""Seconds that a cancelled task gets to close what it opened."""


class BatchStream(AbstractAsyncContextManager[Any], Protocol[T]):
    """A stream that can hand on all that has arrived at once; `[]` means that it is over."""

    async def read_batch(self) -> list[T]: ...


class Portal:
    """Runs coroutines on a loop of its own for callers that have none."""

    def __init__(self, name: str = "llm_jupyter portal") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether the thread runs."""
        return self._loop is not None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result or raise its error."""
        job = _Job(coroutine)
        try:
            self._submit(job)
            while not job.is_over(WAIT_SLICE):
                pass
        finally:
            job.cancel()
        return job.result()

    def batches(
        self, open_stream: Callable[[], BatchStream[T]], *, interval: float, first: int = 1
    ) -> Generator[list[T], None, None]:
        """What a stream brings, gathered: a list at most every `interval` seconds, empty where nothing came.

        The empty lists are a heartbeat, for a caller that shows how long it has been waiting. The first `first` items
        are handed on without delay. Leaving the iteration, by whatever way, closes the stream.
        """
        arrived: deque[T] = deque()
        news = threading.Event()

        async def pump() -> None:
            async with open_stream() as stream:
                while batch := await stream.read_batch():
                    arrived.extend(batch)
                    news.set()

        job = _Job(pump(), news)
        handed_on = 0
        try:
            self._submit(job)
            while True:
                if handed_on < first and not job.is_over():
                    news.wait(min(interval, WAIT_SLICE))
                else:
                    job.is_over(interval)  # wakes only for the end, so that pieces gather meanwhile
                news.clear()
                ended = job.is_over()
                batch = [arrived.popleft() for _ in range(len(arrived))]
                handed_on += len(batch)
                if batch or not ended:
                    yield batch
                if ended:
                    job.result()
                    return
        finally:
            job.cancel()

    def close(self) -> None:
        """Stop the loop and its thread. Idempotent; the next use starts a new one."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None:
                return
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(CANCEL_GRACE)

    def _submit(self, job: _Job[Any]) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("the portal cannot be entered from its own thread: await the coroutine instead")
        with self._lock:  # held until the job is queued, so that it stands before the stop of a `close()` meanwhile
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            job.start(self._loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            with self._lock:
                if self._loop is loop:  # it ended on its own: a task raised `SystemExit`, or stopped the loop
                    self._loop = self._thread = None
            if tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_GRACE))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


class _Job(Generic[T]):
    """One coroutine on the loop, seen from another thread.

    It exists before it starts, so that an interrupt at any point finds something to cancel. Whoever waits for `news` hears
    of its end too.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], news: threading.Event | None = None) -> None:
        self._coroutine = coroutine
        self._ended = threading.Event()
        self._news = news
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Queue the coroutine on the loop."""
        self._loop = loop
        # The callback runs in a copy of the caller's context, and the task copies that.
        loop.call_soon_threadsafe(self._begin)

    def is_over(self, timeout: float = 0.0) -> bool:
        """Whether it ended within that time, or its loop was closed without waiting any longer."""
        return self._ended.wait(timeout) or (self._loop is not None and self._loop.is_closed())

    def result(self) -> T:
        """The result of a job that is over, or its error raised."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise concurrent.futures.CancelledError
        return self._task.result()

    def cancel(self) -> None:
        """Cancel the coroutine if it still runs, and wait until it has closed what it opened."""
        if self.is_over():
            return
        if self._loop is None:
            self._coroutine.close()
            return
        self._loop.call_soon_threadsafe(self._stop)
        self._ended.wait(CANCEL_GRACE)

    def _begin(self) -> None:
        assert self._loop is not None
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # an interrupt fell between noting the loop and queueing on it
            self._coroutine.close()
            self._ended.set()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # looked at here, so that an abandoned job's error is not logged as forgotten
        self._ended.set()
        if self._news is not None:
            self._news.set()
