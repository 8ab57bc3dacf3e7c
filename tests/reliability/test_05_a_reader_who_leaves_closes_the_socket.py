"""Whoever stops reading, however: the socket is closed within 50 ms, and the server sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from kernels import Kernel
from servers.paced import ModelServer, endless
from servers.scripted import End, Gate, Pause, Script, ScriptedServer, head
from servers.spoken import OPENAI, Spoken, both, hearing

from llm_jupyter.errors import FirstTokenTimeoutError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.providers.base import ChunkStream, LLMProvider
from llm_jupyter.settings import load_settings

CLOSING_LIMIT = 0.05
"""Seconds within which the server must see that the reader has left."""


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


async def is_interrupted(stream: ChunkStream) -> None:
    async def read() -> None:
        async with stream:
            async for _ in stream:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await read()


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


async def quickest(spoken: Spoken, script: Script, leave: Callable[[LLMProvider], Awaitable[None]]) -> float:
    """Seconds until the server notices that the reader has left: the best of three, as a busy machine adds to them."""
    taken = []
    for _ in range(3):
        async with hearing(spoken, script, first_token=0.3) as (provider, server):
            await leave(provider)
            left = time.monotonic()
            question = next(visit for visit in server.visits if visit.request.path == spoken.path)
            taken.append(await question.until_left() - left)
            assert provider.in_flight == 0
    return min(taken)


def held(spoken: Spoken) -> Script:
    return spoken.script(spoken.piece("Hel"), spoken.piece("lo"), End.HOLD)


@both
@pytest.mark.parametrize(
    "leave",
    [
        leaves_the_context, closes, raises, is_interrupted, is_cancelled, runs_out_of_time, rests_between_reads
    ],
    ids=lambda leave: leave.__name__,
)  # fmt: skip
async def test_a_reader_who_leaves_closes_the_socket_and_the_server_sees_it(
    spoken: Spoken, leave: Callable[[ChunkStream], Awaitable[None]]
) -> None:
    streams: list[ChunkStream] = []  # somebody else may hold them: that they are forgotten is not what closes them

    async def begin(provider: LLMProvider) -> None:
        streams.append(provider.stream_chat_completion("hi", model="m"))
        await leave(streams[-1])

    assert await quickest(spoken, held(spoken), begin) < CLOSING_LIMIT
    assert len(streams) == 3


@both
async def test_a_reader_who_leaves_before_the_reply_begins_closes_the_socket_too(spoken: Spoken) -> None:
    gate = Gate()

    async def begin(provider: LLMProvider) -> None:
        gate.reached.clear()
        task = asyncio.create_task(provider.generate_chat_completion("hi", model="m"))
        await asyncio.to_thread(gate.reached.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await quickest(spoken, [gate], begin) < CLOSING_LIMIT


@both
@pytest.mark.parametrize("waiting", ["stream", "error", "JSON"])
async def test_the_first_token_limit_closes_the_socket(spoken: Spoken, waiting: str) -> None:
    scripts: dict[str, Script] = {
        "stream": spoken.script(End.HOLD), "error": [head(500), b"{", End.HOLD], "JSON": [head(), b"{", End.HOLD]
    }  # fmt: skip

    async def begin(provider: LLMProvider) -> None:
        with pytest.raises(FirstTokenTimeoutError):
            await provider.generate_chat_completion("hi", model="m")

    assert await quickest(spoken, scripts[waiting], begin) < CLOSING_LIMIT


@both
async def test_an_answer_that_is_an_error_closes_the_socket_though_the_server_holds_it_open(spoken: Spoken) -> None:
    async def begin(provider: LLMProvider) -> None:
        with pytest.raises(LLMError):
            await provider.generate_chat_completion("hi", model="m")

    script = spoken.script(spoken.piece("Hel"), spoken.message(b"nonsense"), End.HOLD)
    assert await quickest(spoken, script, begin) < CLOSING_LIMIT


@both
async def test_an_answer_that_is_complete_closes_the_socket_though_the_server_holds_it_open(spoken: Spoken) -> None:
    async def begin(provider: LLMProvider) -> None:
        assert (await provider.generate_chat_completion("hi", model="m")).text == "Hello"

    assert await quickest(spoken, spoken.script(spoken.answer("Hello"), End.HOLD), begin) < CLOSING_LIMIT


@both
async def test_disconnecting_ends_a_stream_that_is_being_read(spoken: Spoken) -> None:
    taken = []
    for _ in range(3):
        async with hearing(spoken, held(spoken)) as (provider, server):
            stream = provider.stream_chat_completion("hi", model="m")
            await anext(stream)
            await provider.disconnect()
            left = time.monotonic()
            question = next(visit for visit in server.visits if visit.request.path == spoken.path)
            taken.append(await question.until_left() - left)
            await stream.aclose()
    assert min(taken) < CLOSING_LIMIT


@both
async def test_disconnecting_does_not_leave_a_reader_waiting(spoken: Spoken) -> None:
    async with hearing(spoken, held(spoken), first_token=30, idle=30) as (provider, _):
        stream = provider.stream_chat_completion("hi", model="m")
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "lo"]
        reading = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # it waits for more now
        await provider.disconnect()
        done, _ = await asyncio.wait([reading], timeout=2)
        assert done == {reading}
        assert isinstance(reading.exception(), LLMError | StopAsyncIteration)
        await stream.aclose()


def test_a_program_that_leaves_its_loop_over_the_text_closes_the_socket(tmp_path: Path) -> None:
    taken = []
    for _ in range(3):
        with ModelServer() as server:
            server.next(endless("tick "))
            environment = {
                "LLM_JUPYTER_HOME": str(tmp_path),
                "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
                "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
            }
            with LLMFactory(load_settings(environment=environment), environment=environment) as llm:
                llm.use("local/m")
                texts = llm.stream("hi")
                next(texts)
                texts.close()  # type: ignore[attr-defined]  # what leaving a `for` does to a generator
                left = time.monotonic()
                taken.append(asked(server) - left)
    assert min(taken) < CLOSING_LIMIT


# -- with a kernel around it


def asked(server: ScriptedServer) -> float:
    """When the server noticed that the one who asked had left."""
    return next(visit for visit in server.visits if visit.request.path == OPENAI.path).wait_until_left(5)


def running(kernel: Kernel, server: ModelServer) -> None:
    """An answer without end, of which some is on the page."""
    server.forget()
    server.next(endless("tick "))
    ran = kernel.start("%chat hi")
    kernel.until(ran, lambda ran: any("tick" in text for _, text in ran.shown()))


@pytest.mark.parametrize("end", ["interrupt", "shut down"])
def test_an_answer_ends_at_the_server_when_its_cell_or_kernel_does(tmp_path: Path, end: str) -> None:
    """An interrupt waits for its slice of 0.1 s to be over, and a kernel for its own steps: the 50 ms count from there."""
    with ModelServer() as server:
        environment = {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": server.base_url,
        }
        with Kernel(tmp_path, environment) as kernel:
            kernel.load()
            running(kernel, server)
            began = time.monotonic()
            kernel.interrupt() if end == "interrupt" else kernel.shut_down()
            left = asked(server) - began
    assert left < (0.3 if end == "interrupt" else 3)


def test_a_stream_that_a_name_holds_after_a_bare_break_is_closed_with_the_provider() -> None:
    """The one way out that closes nothing by itself; the docstring of `ChunkStream` warns of it."""

    async def run() -> float:
        async with hearing(OPENAI, held(OPENAI)) as (provider, server):
            stream = provider.stream_chat_completion("hi", model="m")
            async for _ in stream:
                break
            assert server.visits[0].left_at is None
            await provider.disconnect()
            left = time.monotonic()
            noticed = await server.visits[0].until_left()
            await stream.aclose()
            return noticed - left

    assert min(asyncio.run(run()) for _ in range(3)) < CLOSING_LIMIT


# -- and a slow pace loses nothing


@both
async def test_a_slow_pace_loses_nothing_and_reads_in_batches(spoken: Spoken) -> None:
    texts = [f"{i} " for i in range(200)]
    script = spoken.script(*[step for text in texts for step in (spoken.piece(text), Pause(0.001))], *spoken.end)
    async with hearing(spoken, script) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        stream.pace.interval = 0.05
        batches = []
        while batch := await stream.read_batch():
            batches.append(batch)
    assert [chunk.text for batch in batches for chunk in batch] == [*texts, ""]
    assert len(batches) < 40
