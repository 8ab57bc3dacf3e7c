"""The door from synchronous code into asyncio, with a real thread, a real loop and real interrupts."""

import asyncio
import concurrent.futures
import contextvars
import gc
import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator

import pytest
from counts import times

from llm_jupyter.portal import Job, Portal

who = contextvars.ContextVar("who", default="nobody")


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


class Scripted:
    """A stream that brings the given batches; an event is waited for, an error raised, `None` means silence for ever."""

    def __init__(self, *script: list[int] | threading.Event | Exception | None) -> None:
        self.script = script
        self.closed = threading.Event()
        self.read = self._read()

    async def __aenter__(self) -> "Scripted":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # closing may take a turn of the loop
        self.closed.set()

    async def read_batch(self) -> list[int]:
        return await anext(self.read, [])

    async def _read(self):
        for step in self.script:
            if isinstance(step, threading.Event):
                await asyncio.to_thread(step.wait, 10)
            elif isinstance(step, Exception):
                raise step
            elif step is None:
                await asyncio.Event().wait()
            else:
                yield step


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [item for batch in batches for item in batch]


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def stop_own_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()


def test_a_result_comes_back(portal: Portal) -> None:
    assert portal.run(double(21)) == 42


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("slow"), concurrent.futures.TimeoutError("old")])
def test_an_error_comes_back_as_the_very_same_object(portal: Portal, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        portal.run(fail(error))
    assert caught.value is error


def test_a_coroutine_that_cancels_itself_is_reported_as_cancelled(portal: Portal) -> None:
    with pytest.raises(concurrent.futures.CancelledError):
        portal.run(fail(asyncio.CancelledError()))


def test_nothing_starts_before_the_first_use_and_one_thread_serves_all(portal: Portal) -> None:
    async def thread() -> threading.Thread:
        return threading.current_thread()

    assert not portal.started
    first, second = portal.run(thread()), portal.run(thread())
    assert portal.started
    assert first is second
    assert first is not threading.current_thread()
    assert first.daemon


def test_the_callers_context_variables_travel(portal: Portal) -> None:
    async def ask() -> str:
        await asyncio.sleep(0)
        return who.get()

    token = who.set("caller")
    try:
        assert portal.run(ask()) == "caller"
    finally:
        who.reset(token)
    assert portal.run(ask()) == "nobody"


def test_many_threads_each_get_their_own_answer(portal: Portal) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: portal.run(double(n)), range(200))) == [2 * n for n in range(200)]


def test_entering_from_the_loops_own_thread_is_refused(portal: Portal) -> None:
    async def reenter() -> None:
        portal.run(double(1))

    with pytest.raises(RuntimeError, match="own thread"):
        portal.run(reenter())
    assert portal.run(double(1)) == 2


def test_close_may_be_called_twice_and_the_next_use_starts_anew(portal: Portal) -> None:
    async def thread() -> threading.Thread:
        return threading.current_thread()

    portal.close()
    before = portal.run(thread())
    portal.close()
    portal.close()
    assert not before.is_alive()
    assert not portal.started
    assert portal.run(thread()) is not before


def test_a_loop_that_died_is_replaced(portal: Portal) -> None:
    with pytest.raises(concurrent.futures.CancelledError):
        portal.run(stop_own_loop())
    assert portal.run(double(4)) == 8


def test_closing_cancels_what_still_runs_and_frees_who_waits_for_it(portal: Portal) -> None:
    running, cleaned = threading.Event(), threading.Event()

    async def forever() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.run, forever())
        assert running.wait(5)
        portal.close()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(5)
    assert cleaned.is_set()


def test_batches_bring_every_item_in_order(portal: Portal) -> None:
    script = [list(range(n, n + n % 7 + 1)) for n in range(500)]
    assert flat(portal.batches(lambda: Scripted(*script), interval=0.001)) == [n for batch in script for n in batch]


def test_no_item_is_lost_when_the_end_comes_close_behind_it(portal: Portal) -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads take turns wherever they can
    try:
        for _ in range(1500):
            assert flat(portal.batches(lambda: Scripted([1], [2], [3], [4]), interval=0.0)) == [1, 2, 3, 4]
    finally:
        sys.setswitchinterval(usual)


def test_the_first_item_comes_at_once_and_later_ones_are_gathered(portal: Portal) -> None:
    go = threading.Event()
    batches = portal.batches(lambda: Scripted([1], go, [2], [3], [4, 5]), interval=30)
    started = time.monotonic()
    first = next(batch for batch in batches if batch)
    assert first == [1]
    assert time.monotonic() - started < 5, "the first item waited for the interval"
    go.set()
    assert list(batches) == [[2, 3, 4, 5]]
    assert time.monotonic() - started < 5, "the end waited for the interval"


def test_as_many_first_items_as_asked_for_are_handed_on_at_once(portal: Portal) -> None:
    gates = [threading.Event() for _ in range(3)]
    script = [[0], gates[0], [1], gates[1], [2], gates[2], [3]]
    batches = (batch for batch in portal.batches(lambda: Scripted(*script), interval=30, first=3) if batch)
    for number, gate in enumerate(gates):
        assert next(batches) == [number]
        gate.set()
    assert flat(batches) == [3]


def test_silence_is_filled_with_empty_lists(portal: Portal) -> None:
    before, after = threading.Event(), threading.Event()
    batches = portal.batches(lambda: Scripted(before, [1], after, [2]), interval=0.01)
    assert [next(batches) for _ in range(3)] == [[], [], []]
    before.set()
    assert next(batch for batch in batches if batch) == [1]
    assert [next(batches) for _ in range(3)] == [[], [], []]
    after.set()
    assert flat(batches) == [2]


def test_an_error_of_the_stream_comes_after_its_items(portal: Portal) -> None:
    stream = Scripted([1], [2, 3], ValueError("cut"))
    got: list[int] = []
    with pytest.raises(ValueError, match="cut"):
        got.extend(item for batch in portal.batches(lambda: stream, interval=0.01) for item in batch)
    assert got == [1, 2, 3]
    assert stream.closed.is_set()


def test_a_stream_that_ends_at_once_brings_nothing(portal: Portal) -> None:
    assert flat(portal.batches(Scripted, interval=0.01)) == []


def test_leaving_early_closes_the_stream(portal: Portal) -> None:
    stream = Scripted([1], None)
    batches = portal.batches(lambda: stream, interval=0.01)
    for batch in batches:
        if batch:
            break
    assert not stream.closed.is_set()
    batches.close()
    assert stream.closed.is_set()


# -- what runs in the background


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def until_done(job: Job) -> None:
    while not job.done:  # noqa: ASYNC110 - a job is for callers that have no loop to wait on
        await asyncio.sleep(0)


def test_what_is_started_runs_in_the_background_with_the_callers_context(portal: Portal) -> None:
    go, said = threading.Event(), list[str]()

    async def speak() -> None:
        await asyncio.to_thread(go.wait, 10)
        said.append(who.get())

    token = who.set("caller")
    job = portal.start(speak())
    who.reset(token)
    assert not job.done
    go.set()
    portal.run(until_done(job))
    assert said == ["caller"]


def test_what_runs_in_the_background_may_start_more_of_it(portal: Portal) -> None:
    started: list[Job] = []

    async def begin() -> None:
        started.append(portal.start(asyncio.sleep(0)))
        assert not started[0].done, "it must not be waited for"
        started.append(portal.start(wait_for_ever()))

    portal.run(begin())
    portal.run(until_done(started[0]))
    started[1].cancel()
    portal.run(until_done(started[1]))


@pytest.mark.parametrize("from_the_loop", [False, True])
def test_cancelling_does_not_wait_and_cancels_once_however_often_it_is_asked(
    portal: Portal, from_the_loop: bool
) -> None:
    running, release, interruptions = threading.Event(), threading.Event(), list[str]()

    async def slow_to_leave() -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.to_thread(release.wait, 10)
            except asyncio.CancelledError:
                interruptions.append("while it cleaned up")
                raise

    async def cancel(job: Job) -> None:
        job.cancel()

    job = portal.start(slow_to_leave())
    assert running.wait(5)
    for _ in range(3):
        portal.run(cancel(job)) if from_the_loop else job.cancel()
    assert not job.done
    release.set()
    portal.run(until_done(job))
    job.cancel()
    assert interruptions == []


def test_a_job_that_is_cancelled_before_it_has_begun_never_runs(portal: Portal) -> None:
    ran: list[str] = []

    async def speak() -> None:
        ran.append("it ran")

    async def start_and_cancel() -> Job:
        job = portal.start(speak())
        job.cancel()
        return job

    portal.run(until_done(portal.run(start_and_cancel())))
    assert ran == []


def test_an_error_in_the_background_is_logged_and_a_cancellation_is_not(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    broken, cancelled = portal.start(fail(ValueError("no such thing"))), portal.start(wait_for_ever())
    cancelled.cancel()
    portal.run(until_done(broken))
    portal.run(until_done(cancelled))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no such thing"


def test_closing_cancels_what_runs_in_the_background(portal: Portal) -> None:
    job = portal.start(wait_for_ever())
    portal.close()
    assert job.done
    job.cancel()
    assert not portal.started


@pytest.mark.stress
def test_jobs_are_kept_while_they_run_and_leave_nothing_behind(portal: Portal, report: Callable[[str], None]) -> None:
    count = times(1000)
    portal.run(double(1))
    threads = threading.active_count()
    kept = [weakref.ref(portal.start(wait_for_ever())) for _ in range(count)]
    gc.collect()
    running = [job for known in kept if (job := known()) is not None]
    assert len(running) == count
    while running:
        job = running.pop()
        job.cancel()
        portal.run(until_done(job))
    del job
    gc.collect()
    assert [known for known in kept if known() is not None] == []
    assert threading.active_count() == threads
    report(f"{count} jobs in the background left nothing behind")


INTERRUPTED = """
import asyncio, json, signal, sys, time
from llm_jupyter.portal import Portal

signal.signal(signal.SIGINT, signal.default_int_handler)
seen = []

async def wait_for_ever():
    try:
        print("ready", flush=True)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append("cancelled")
        await asyncio.sleep(0.02)
        seen.append("cleaned up")
        raise

class Stream:
    async def __aenter__(self):
        return self
    async def __aexit__(self, kind, *_):
        seen.append(kind.__name__)
    async def read_batch(self):
        await wait_for_ever()

portal = Portal()
try:
    if sys.argv[1] == "run":
        portal.run(wait_for_ever())
    else:
        list(portal.batches(Stream, interval=float(sys.argv[2])))
except KeyboardInterrupt:
    back = time.monotonic()
    seen_then = list(seen)
    print(json.dumps({"back": back, "seen": seen_then, "again": portal.run(asyncio.sleep(0, "works"))}))
"""


@pytest.mark.parametrize(
    ("way", "seen"),
    [
        (["run"], ["cancelled", "cleaned up"]),
        (["batches", "0.05"], ["cancelled", "cleaned up", "CancelledError"]),
        (["batches", "30"], ["cancelled", "cleaned up", "CancelledError"]),
    ],
)
def test_an_interrupt_returns_at_once_and_lets_the_coroutine_clean_up(way: list[str], seen: list[str]) -> None:
    command = [sys.executable, "-c", INTERRUPTED, *way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        report = json.loads(child.stdout.read())
    assert report["back"] - sent < 0.3
    assert report["seen"] == seen
    assert report["again"] == "works"
