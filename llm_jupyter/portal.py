"""The only door from synchronous code into asyncio.

Thread rules:
1. One daemon thread with one event loop, started on first use, alive until `close()`.
2. Providers, sessions and child processes live on that thread; whoever else wants them comes through here. (A child's
   parent-death signal fires when the *thread* that forked it ends, so that thread must last.)
3. A caller waits in slices of 0.1 s: an untimed wait on a future is not woken by every kind of interrupt.
4. Whatever breaks the wait (an interrupt above all) cancels the task, and the task is given time to close its socket.
5. The caller's context variables travel with the coroutine.
6. Never wait on the loop's own thread: that would wait for itself, and is refused. `start` waits for nothing and may be
   called there too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

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
        self._jobs: set[Job] = set()

    @property
    def started(self) -> bool:
        """Whether the thread runs."""
        return self._loop is not None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result or raise its error."""
        job = _Awaited(coroutine, self._jobs)
        try:
            self._submit_from_outside(job)
            while not job.is_over(WAIT_SLICE):
                pass
        finally:
            job.end()
        return job.result()

    def start(self, coroutine: Coroutine[Any, Any, object]) -> Job:
        """Let a coroutine run and return at once. An error that it ends with is logged."""
        job = Job(coroutine, self._jobs)
        try:
            self._submit(job)
        except BaseException:
            job.cancel()
            raise
        return job

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

        job = _Awaited(pump(), self._jobs, news)
        handed_on = 0
        try:
            self._submit_from_outside(job)
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
            job.end()

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

    def _submit_from_outside(self, job: _Awaited[Any]) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("the portal cannot be entered from its own thread: await the coroutine instead")
        self._submit(job)

    def _submit(self, job: Job) -> None:
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


class Job:
    """One coroutine on the loop, seen from any thread. `held` is what keeps it while it runs: a loop holds tasks weakly.

    It exists before it starts, so that an interrupt at any point finds something to cancel.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object], held: set[Job]) -> None:
        self._coroutine = coroutine
        self._held = held
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False

    @property
    def done(self) -> bool:
        """Whether it ended, or its loop was closed without waiting any longer."""
        return self._ended.is_set() or (self._loop is not None and self._loop.is_closed())

    def cancel(self) -> None:
        """Cancel the coroutine if it still runs, without waiting for it. Idempotent."""
        if self.done:
            return
        if self._loop is None:
            self._stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self._stop)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Queue the coroutine on the loop."""
        self._loop = loop
        # The callback runs in a copy of the caller's context, and the task copies that.
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        assert self._loop is not None
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finish)
        self._held.add(self)

    def _stop(self) -> None:
        if self._task is None:  # an interrupt fell before it was queued
            self._coroutine.close()
            self._ended.set()
        elif not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._held.discard(self)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        self._ended.set()

    def _failed(self, error: BaseException) -> None:
        logger.error("what ran in the background failed", exc_info=error)


class _Awaited(Job, Generic[T]):
    """A job whose end somebody waits for, and whoever waits for `news` hears of that end too."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], held: set[Job], news: threading.Event | None = None) -> None:
        super().__init__(coroutine, held)
        self._news = news

    def is_over(self, timeout: float = 0.0) -> bool:
        """Whether it is done within that time."""
        return self._ended.wait(timeout) or self.done

    def result(self) -> T:
        """The result of a job that is over, or its error raised."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise concurrent.futures.CancelledError
        result: T = self._task.result()
        return result

    def end(self) -> None:
        """Cancel the coroutine if it still runs, and wait until it has closed what it opened."""
        self.cancel()
        if not self.done:
            self._ended.wait(CANCEL_GRACE)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        super()._finish(task)
        if self._news is not None:
            self._news.set()

    def _failed(self, error: BaseException) -> None:
        """Whoever waits is told; where nobody does any more, it is nobody's."""
