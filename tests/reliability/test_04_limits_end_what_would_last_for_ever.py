"""A line, headers, silence, a slow drip, a compressed bomb: each ends at its limit, and costs little until then."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from servers.recorded import sse as decoded_sse
from servers.scripted import End, Gate, Pause, Script, Step, head
from servers.spoken import OLLAMA, OPENAI, Spoken, both, failing, hearing

from llm_jupyter.errors import (
    FirstTokenTimeoutError,
    MalformedResponseError,
    ResponseLimitError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.providers._http import HEADER_LIMIT, StreamLimits
from llm_jupyter.providers._wire import LINE_LIMIT, LineDecoder, SSEDecoder
from llm_jupyter.providers.base import ChunkStream
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import GenerationOptions


def hello(spoken: Spoken) -> list[Step]:
    return [spoken.piece("Hel"), spoken.piece("lo")]


def slowly(spoken: Spoken, seconds: float = 0.01) -> list[Step]:
    """One long piece, one byte at a time."""
    return [step for byte in spoken.piece("x" * 300) for step in (bytes([byte]), Pause(seconds))]


@asynccontextmanager
async def asking(spoken: Spoken, script: Script, *, idle: float) -> AsyncIterator[ChunkStream]:
    """An answer that is being read."""
    async with (
        hearing(spoken, script, idle=idle) as (provider, _),
        provider.stream_chat_completion("hi", model="m") as stream,
    ):
        yield stream


# -- the figures


@pytest.mark.parametrize("kind", [OpenAICompatibleProvider, OllamaProvider])
def test_a_first_token_may_take_five_minutes_and_silence_one(kind: type) -> None:
    defaults = {name: value.default for name, value in inspect.signature(kind).parameters.items()}
    assert (defaults["first_token_timeout"], defaults["idle_timeout"]) == (300.0, 60.0)
    assert StreamLimits() == StreamLimits(300.0, 60.0)


def test_a_line_of_sixteen_mebibytes_passes_and_one_byte_more_does_not() -> None:
    assert LINE_LIMIT == 16 * 1024 * 1024
    assert [len(line) for line in LineDecoder().feed(b"x" * LINE_LIMIT + b"\n")] == [LINE_LIMIT]
    with pytest.raises(ResponseLimitError, match="16 MiB"):
        LineDecoder().feed(b"x" * (LINE_LIMIT + 1))


@both
async def test_a_header_of_64_kibibytes_passes_and_a_larger_one_does_not(spoken: Spoken) -> None:
    assert HEADER_LIMIT == 64 * 1024
    for size, passes in ((HEADER_LIMIT - 100, True), (HEADER_LIMIT + 100, False)):
        start = head(200, spoken.content_type, headers=[("X-Long", "x" * size)])
        script = [start, spoken.answer("Hello"), End.CLOSE]
        if passes:
            async with hearing(spoken, script) as (provider, _):
                assert (await provider.generate_chat_completion("hi", model="m")).text == "Hello"
        else:
            assert isinstance(await failing(spoken, script), MalformedResponseError)


# -- size


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_a_line_beyond_the_limit_is_refused_whatever_the_slicing(size: int) -> None:
    block = b"x" * size
    decoder = LineDecoder(limit=10 * size)
    for _ in range(10):
        assert decoder.feed(block) == []
    with pytest.raises(ResponseLimitError):
        decoder.feed(block)
    with pytest.raises(ResponseLimitError):
        LineDecoder(limit=10 * size).feed(block * 11 + b"\n")


def test_an_event_of_many_lines_is_bound_by_the_same_limit() -> None:
    decoder = SSEDecoder(limit=1000)
    with pytest.raises(ResponseLimitError):
        decoder.feed(b"data: 0123456789\n" * 100)


@both
async def test_a_line_without_end_is_given_up_at_the_limit(spoken: Spoken) -> None:
    endless = b"data: " + b"x" * (1 << 20)
    error = await failing(spoken, spoken.script(*hello(spoken), *[endless] * 40, End.HOLD))
    assert isinstance(error, ResponseLimitError)
    assert error.partial_text == "Hello"


async def test_headers_without_end_are_refused() -> None:
    start = head(200, "text/event-stream", headers=[(f"X-{i}", "x" * 1000) for i in range(100_000)])
    assert isinstance(await failing(OPENAI, [start, OPENAI.answer("Hello")]), MalformedResponseError)


@both
async def test_a_compressed_reply_is_refused_and_never_unpacked(spoken: Spoken) -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    for kind in (spoken.content_type, "application/json"):
        start = head(200, kind, headers=[("Content-Encoding", "gzip"), ("Content-Length", str(len(bomb)))])
        started = time.thread_time()
        error = await failing(spoken, [start, bomb])
        assert isinstance(error, MalformedResponseError)
        assert "compressed" in error.what
        assert time.thread_time() - started < 0.1


@both
async def test_a_request_asks_for_plain_bytes(spoken: Spoken) -> None:
    async with hearing(spoken, spoken.script(spoken.answer("x"))) as (provider, server):
        await provider.generate_chat_completion("hi", model="m")
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


# -- what is long and yet allowed


def test_a_line_of_ten_megabytes_costs_less_than_a_tenth_of_a_second() -> None:
    line = b"data: " + json.dumps({"t": "x" * 10**7}).encode() + b"\n\n"
    blocks = [line[i : i + 4096] for i in range(0, len(line), 4096)]  # small ones: quadratic work would show
    started = time.process_time()
    messages = decoded_sse(blocks)
    used = time.process_time() - started
    assert [len(message) for message in messages] == [len(line) - 8]
    assert used < 0.1


@both
async def test_ten_megabytes_in_one_piece_arrive_at_little_cost(spoken: Spoken) -> None:
    data = spoken.piece("x" * 10**7)
    slices = [data[i : i + 65536] for i in range(0, len(data), 65536)]
    async with hearing(spoken, spoken.script(*slices, *spoken.end)) as (provider, _):
        started = time.thread_time()
        response = await provider.generate_chat_completion("hi", model="m")
        used = time.thread_time() - started
    assert len(response.text) == 10**7
    assert used < 0.3  # with the sockets; the decoder's own share is measured above


# -- silence


@both
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_server_that_goes_silent_after_the_first_token_ends_at_the_idle_limit(
    spoken: Spoken, is_chunked: bool
) -> None:
    started = time.monotonic()
    script = spoken.script(*hello(spoken), End.HOLD, is_chunked=is_chunked)
    error = await failing(spoken, script, first_token=30, idle=0.2)
    assert isinstance(error, StreamStalledError)
    assert isinstance(error, TimeoutError)
    assert error.partial_text == "Hello"
    assert 0.2 <= time.monotonic() - started < 1.5


@both
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_one_byte_at_a_time_does_not_hold_the_idle_limit_off(spoken: Spoken, is_chunked: bool) -> None:
    started = time.monotonic()
    script = spoken.script(*hello(spoken), *slowly(spoken), is_chunked=is_chunked)
    assert isinstance(await failing(spoken, script, idle=0.3), StreamStalledError)
    assert time.monotonic() - started < 2


WAITING: dict[str, Callable[[Spoken], Script]] = {
    "no reply": lambda _: [End.HOLD],
    "headers only": lambda spoken: spoken.script(End.HOLD),
    "no length": lambda spoken: spoken.script(End.HOLD, is_chunked=False),
    "an empty piece": lambda spoken: spoken.script(spoken.piece(""), End.HOLD),
    "empty lines": lambda spoken: spoken.script(*[b"\n", Pause(0.02)] * 150, spoken.answer("Hello")),
    "slow bytes": lambda spoken: spoken.script(*slowly(spoken)),
    "slow headers": lambda _: [head()[:1], Pause(0.1), head()[1:2], End.HOLD],
    "half an error": lambda _: [head(500), b"{", End.HOLD],
}


@both
@pytest.mark.parametrize("waiting", WAITING)
async def test_no_first_token_within_its_limit_is_an_error_of_its_own(spoken: Spoken, waiting: str) -> None:
    started = time.monotonic()
    error = await failing(spoken, WAITING[waiting](spoken), first_token=0.3, idle=30)
    assert isinstance(error, FirstTokenTimeoutError)
    assert isinstance(error, TimeoutError)
    assert "0.3 s" in error.what
    assert 0.3 <= time.monotonic() - started < 2


async def test_comments_are_no_first_token() -> None:
    script = OPENAI.script(*[b": still here\n\n", Pause(0.02)] * 150, OPENAI.answer("Hello"))
    assert isinstance(await failing(OPENAI, script, first_token=0.3, idle=30), FirstTokenTimeoutError)


@both
async def test_the_limit_of_the_first_token_can_be_set_for_one_question(spoken: Spoken) -> None:
    async with hearing(spoken, [End.HOLD], first_token=30) as (provider, _):
        started = time.monotonic()
        with pytest.raises(FirstTokenTimeoutError, match=r"0\.1 s"):
            await provider.generate_chat_completion("hi", model="m", options=GenerationOptions(timeout=0.1))
        assert time.monotonic() - started < 1.5


# -- and nobody is ended who is only slow


async def test_signs_of_life_after_the_first_token_hold_the_idle_limit_off() -> None:
    script = OPENAI.script(*hello(OPENAI), *[b": ping\n\n", Pause(0.05)] * 12, *OPENAI.end)
    async with hearing(OPENAI, script, idle=0.3) as (provider, _):
        assert (await provider.generate_chat_completion("hi", model="m")).text == "Hello"


@both
async def test_a_reader_who_takes_his_time_is_no_stalled_server(spoken: Spoken) -> None:
    gate = Gate()
    script = spoken.script(*hello(spoken), gate, spoken.piece("!"), *spoken.end)
    async with asking(spoken, script, idle=0.1) as stream:
        texts = [(await anext(stream)).text, (await anext(stream)).text]
        await asyncio.sleep(0.35)  # what is tested is that time passes
        gate.open()
        texts += [chunk.text async for chunk in stream]
    assert texts == ["Hel", "lo", "!", ""]


@both
async def test_broken_framing_ends_at_the_idle_limit_at_the_latest(spoken: Spoken) -> None:
    gate = Gate()
    script = [*spoken.script(*hello(spoken), gate, End.CLOSE)[:-1], b"zz\r\n", End.HOLD]
    async with asking(spoken, script, idle=0.2) as stream:
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "lo"]
        gate.open()
        with pytest.raises((StreamStalledError, StreamTruncatedError)):
            await anext(stream)


async def test_lists_and_properties_are_not_waited_for_longer_than_ten_seconds() -> None:
    from llm_jupyter.providers._http import BODY_LIMIT, REQUEST_TIMEOUT

    assert (REQUEST_TIMEOUT, BODY_LIMIT) == (10.0, 64 * 1024 * 1024)
    async with hearing(OLLAMA, [End.HOLD]) as (provider, _):
        assert isinstance(provider, OllamaProvider)
        with pytest.raises(ConnectionError, match=r"0\.1 s"):
            await provider._client.send("GET", "/nothing", timeout=0.1)
