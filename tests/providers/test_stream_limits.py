"""How long and how large a stream may get, and what happens when its reader leaves."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable

import pytest
from servers.asking import asking, failure
from servers.scripted import DONE, End, Gate, Pause, Script, Step, delta, finish, head, sse

from llm_jupyter.errors import (
    FirstTokenTimeoutError,
    MalformedResponseError,
    ResponseLimitError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider

HELLO = [delta("Hel"), delta("lo")]
CLOSING_LIMIT = 0.05
"""Seconds within which the server must see that the reader has left."""


# -- limits


async def test_a_line_without_end_is_given_up_at_the_limit() -> None:
    endless = b"data: " + b"x" * (1 << 20)
    error = await failure(sse(*HELLO, *[endless] * 40, End.HOLD))
    assert isinstance(error, ResponseLimitError)
    assert error.partial_text == "Hello"


async def test_ten_megabytes_in_one_delta_arrive_at_little_cost() -> None:
    script = sse(*_slices(delta("x" * 10**7), 1 << 16), finish(), DONE)
    async with asking(script) as (provider, _):
        started = time.thread_time()
        response = await provider.generate_chat_completion("hi", model="m")
        used = time.thread_time() - started
    assert len(response.text) == 10**7
    assert used < 0.3  # with the sockets; the decoder's own share is measured beside the decoder


def _slices(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize(
    "headers",
    [[("X-Long", "x" * 100_000)], [(f"X-{i}", "x" * 1000) for i in range(100_000)]],
    ids=["one long", "many"],
)
async def test_headers_without_end_are_refused(headers: list[tuple[str, str]]) -> None:
    start = head(200, "text/event-stream", headers=headers)
    error = await failure([start, b"".join(HELLO) + finish() + DONE])
    assert isinstance(error, MalformedResponseError)


async def test_a_compressed_reply_is_refused_and_never_unpacked() -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    for kind in ("text/event-stream", "application/json"):
        start = head(200, kind, headers=[("Content-Encoding", "gzip"), ("Content-Length", str(len(bomb)))])
        started = time.thread_time()
        error = await failure([start, bomb])
        assert isinstance(error, MalformedResponseError)
        assert "compressed" in error.what
        assert time.thread_time() - started < 0.1


SLOW: list[Step] = [step for byte in delta("x" * 300) for step in (bytes([byte]), Pause(0.01))]


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_server_that_goes_silent_after_the_first_token_ends_at_the_idle_limit(is_chunked: bool) -> None:
    started = time.monotonic()
    error = await failure(sse(*HELLO, End.HOLD, is_chunked=is_chunked), first_token=30, idle=0.2)
    assert isinstance(error, StreamStalledError)
    assert isinstance(error, TimeoutError)
    assert error.partial_text == "Hello"
    assert 0.2 <= time.monotonic() - started < 1.5


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_one_byte_at_a_time_does_not_hold_the_idle_limit_off(is_chunked: bool) -> None:
    started = time.monotonic()
    error = await failure(sse(*HELLO, *SLOW, is_chunked=is_chunked), idle=0.3)
    assert isinstance(error, StreamStalledError)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "waiting",
    [
        [End.HOLD],
        sse(End.HOLD),
        sse(End.HOLD, is_chunked=False),
        sse(delta(None, role="assistant"), End.HOLD),
        sse(*[b": still here\n\n", Pause(0.02)] * 150, *HELLO, finish(), DONE),
        sse(*SLOW),
        [head()[:1], Pause(0.1), head()[1:2], End.HOLD],
        [head(500), b"{", End.HOLD],
    ],
    ids=["no reply", "headers only", "no length", "a role", "comments", "slow bytes", "slow headers", "half an error"],
)
async def test_no_first_token_within_its_limit_is_an_error_of_its_own(waiting: Script) -> None:
    started = time.monotonic()
    error = await failure(waiting, first_token=0.3, idle=30)
    assert isinstance(error, FirstTokenTimeoutError)
    assert isinstance(error, TimeoutError)
    assert "0.3 s" in error.what
    assert 0.3 <= time.monotonic() - started < 2


async def test_signs_of_life_after_the_first_token_hold_the_idle_limit_off() -> None:
    script = sse(*HELLO, *[b": ping\n\n", Pause(0.05)] * 12, finish(), DONE)
    async with asking(script, idle=0.3) as (provider, _):
        assert (await provider.generate_chat_completion("hi", model="m")).text == "Hello"


async def test_a_reader_who_takes_his_time_is_no_stalled_server() -> None:
    gate = Gate()
    script = sse(*HELLO, gate, delta("!"), finish(), DONE)
    async with asking(script, idle=0.1) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        texts = [(await anext(stream)).text, (await anext(stream)).text]
        await asyncio.sleep(0.35)
        gate.open()
        texts += [chunk.text async for chunk in stream]
    assert texts == ["Hel", "lo", "!", ""]


async def test_broken_framing_ends_at_the_idle_limit_at_the_latest() -> None:
    gate = Gate()
    script = [*sse(*HELLO, gate, End.CLOSE)[:-1], b"zz\r\n", End.HOLD]
    async with asking(script, idle=0.2) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "lo"]
        gate.open()
        with pytest.raises((StreamStalledError, StreamTruncatedError)):
            await anext(stream)


# -- the reader leaves


async def leaves_the_context(stream: ChunkStream) -> None:
    async with stream:
        async for _ in stream:
            break


async def closes(stream: ChunkStream) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def raises(stream: ChunkStream) -> None:
    async def fail() -> None:
        async with stream:
            async for _ in stream:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def is_cancelled(stream: ChunkStream) -> None:
    has_begun = asyncio.Event()

    async def read() -> None:
        async with stream:
            async for _ in stream:
                has_begun.set()

    task = asyncio.create_task(read())
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def runs_out_of_time(stream: ChunkStream) -> None:
    await anext(stream)
    await anext(stream)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(stream)


async def rests_between_reads(stream: ChunkStream) -> None:
    stream.pace.interval = 30
    await is_cancelled(stream)


async def quickest(script: Script, leave: Callable[[OpenAICompatibleProvider], Awaitable[None]]) -> float:
    """Seconds until the server notices that the reader has left: the best of three, as a busy machine adds to them."""
    taken = []
    for _ in range(3):
        async with asking(script, first_token=0.3) as (provider, server):
            await leave(provider)
            left = time.monotonic()
            taken.append(await server.visits[0].until_left() - left)
    return min(taken)


@pytest.mark.parametrize(
    "leave",
    [leaves_the_context, closes, raises, is_cancelled, runs_out_of_time, rests_between_reads],
    ids=lambda leave: leave.__name__,
)
async def test_a_reader_who_leaves_closes_the_socket_and_the_server_sees_it(
    leave: Callable[[ChunkStream], Awaitable[None]],
) -> None:
    async def begin(provider: OpenAICompatibleProvider) -> None:
        await leave(provider.stream_chat_completion("hi", model="m"))

    assert await quickest(sse(*HELLO, End.HOLD), begin) < CLOSING_LIMIT


async def test_a_reader_who_leaves_before_the_reply_begins_closes_the_socket_too() -> None:
    gate = Gate()

    async def begin(provider: OpenAICompatibleProvider) -> None:
        gate.reached.clear()
        task = asyncio.create_task(provider.generate_chat_completion("hi", model="m"))
        await asyncio.to_thread(gate.reached.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await quickest([gate], begin) < CLOSING_LIMIT


@pytest.mark.parametrize(
    "script", [sse(End.HOLD), [head(500), b"{", End.HOLD], [head(), b"{", End.HOLD]], ids=["stream", "error", "JSON"]
)
async def test_the_first_token_limit_closes_the_socket(script: Script) -> None:
    async def begin(provider: OpenAICompatibleProvider) -> None:
        with pytest.raises(FirstTokenTimeoutError):
            await provider.generate_chat_completion("hi", model="m")

    assert await quickest(script, begin) < CLOSING_LIMIT


async def test_an_answer_that_is_complete_closes_the_socket_though_the_server_holds_it_open() -> None:
    async def begin(provider: OpenAICompatibleProvider) -> None:
        assert (await provider.generate_chat_completion("hi", model="m")).text == "Hello"

    assert await quickest(sse(*HELLO, finish(), DONE, End.HOLD), begin) < CLOSING_LIMIT


async def test_disconnecting_ends_a_stream_that_is_being_read() -> None:
    streams = []

    async def begin(provider: OpenAICompatibleProvider) -> None:
        streams.append(provider.stream_chat_completion("hi", model="m"))
        await anext(streams[-1])
        await provider.disconnect()

    assert await quickest(sse(*HELLO, End.HOLD), begin) < CLOSING_LIMIT
    for stream in streams:
        await stream.aclose()


async def test_a_slow_pace_loses_nothing_and_reads_in_batches() -> None:
    texts = [f"{i} " for i in range(200)]
    script = sse(*[step for text in texts for step in (delta(text), Pause(0.001))], finish(), DONE)
    async with asking(script) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        stream.pace.interval = 0.05
        batches = []
        while batch := await stream.read_batch():
            batches.append(batch)
    assert [chunk.text for batch in batches for chunk in batch] == [*texts, ""]
    assert len(batches) < 40
