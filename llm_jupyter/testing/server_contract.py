"""What every provider that talks to a server over HTTP must do besides: at a server that is down, lies, or breaks off.

The cases listen to one real answer of the server and play it again, cut and sliced, so that they know nothing of the
protocol. They need `Subject.base_url`, a server without TLS trouble, and one model that answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest

from llm_jupyter.errors import (
    AuthenticationError,
    LLMConnectionError,
    LLMError,
    ModelNotFoundError,
    StreamTruncatedError,
)
from llm_jupyter.events import ConnectionStateChanged, Event
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.testing.contract import BRIEF, ProviderContract, Subject, covers, leave, well_said, whole
from llm_jupyter.testing.loopback import Always, Cut, Exchange, Recorder, Replay, nobody, reply_of
from llm_jupyter.types import Chunk, LLMResponse, ProviderState

WRONG_KEY = "sk-wrong-key"
PAGE = b"<html><body><h1>Please log in</h1></body></html>"
CUTS = 40
"""At how many places an answer is cut."""


class ServerContract(ProviderContract):
    """The cases for every provider with a server behind it, besides those for all."""

    @covers("connect", "is_available", "get_status", "probe", "generate_chat_completion", "get_available_models")
    async def test_a_server_that_is_down_is_a_connection_error_at_once(self, subject: Subject) -> None:
        async with nobody() as origin, at(subject, origin) as provider:
            started = time.perf_counter()
            asked = partial(ask, subject, provider)
            await refused(LLMConnectionError, provider.connect, provider.probe, provider.get_available_models, asked)
            assert not await provider.is_available()
            status = await provider.get_status()
            assert status.state is ProviderState.FAILED
            assert status.reason
            assert time.perf_counter() - started < 1

    @covers("connect", "is_available", "generate_chat_completion", "stream_completion")
    async def test_a_wrong_key_is_an_authentication_error_and_is_never_shown(self, subject: Subject) -> None:
        provider = subject.at(subject.base_url, WRONG_KEY)
        try:
            if subject.checks_keys:
                raw = partial(provider.generate_completion, "a", model=subject.model, options=BRIEF)
                said = await refused(AuthenticationError, provider.connect, partial(ask, subject, provider), raw)
                assert WRONG_KEY not in " ".join(map(str, said))
            assert await provider.is_available() != subject.checks_keys
            assert WRONG_KEY not in f"{provider!r} {provider.where} {await provider.get_status()}"
        finally:
            await provider.disconnect()

    @covers("observed", "told")
    async def test_the_state_follows_what_a_request_has_shown(self, subject: Subject) -> None:
        states: list[ProviderState] = []

        def hear(event: Event) -> None:
            if isinstance(event, ConnectionStateChanged):
                states.append(event.new)

        async with nobody() as origin, at(subject, origin) as provider:
            provider.publish = hear
            provider.observed(None)
            provider.observed(ModelNotFoundError("no such model"))
            assert states == [ProviderState.CONNECTED]
            provider.observed(LLMConnectionError("gone"))
            provider.told(ProviderState.LOADING)
            assert states == [ProviderState.CONNECTED, ProviderState.FAILED, ProviderState.LOADING]

    @covers("stream_chat_completion")
    @pytest.mark.parametrize("size", [1, 7, 100])
    async def test_any_slicing_of_the_reply_gives_the_same_chunks(self, subject: Subject, size: int) -> None:
        exchanges, _, expected = await heard(subject)
        async with Replay(exchanges, Cut(size)) as server, at(subject, server.origin) as provider:
            stream = provider.stream_chat_completion(subject.question, model=subject.model, options=subject.exact)
            assert contents(await whole(stream)) == expected

    @covers("generate_chat_completion")
    async def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(self, subject: Subject) -> None:
        exchanges, response, _ = await heard(subject)
        length = len(exchanges[-1].reply)
        parts: set[str] = set()
        async with Replay(exchanges) as server:
            for number in range(CUTS):
                server.restart(Cut(stop=length * number // CUTS))
                async with at(subject, server.origin) as provider:
                    answer, error = await outcome(ask(subject, provider))
                if error is None:
                    assert answer is not None
                    assert answer.text == response.text  # all that matters had come
                    continue
                assert well_said(error)
                assert response.text.startswith(error.partial_text)
                assert isinstance(error, StreamTruncatedError) or not error.partial_text
                parts.add(error.partial_text)
        assert len(parts) > 2, "of an answer that broke off, what had come must be kept: partial_text"

    @covers("generate_chat_completion", "get_available_models")
    async def test_a_page_is_no_answer(self, subject: Subject) -> None:
        page = reply_of("200 OK", PAGE, Content_Type="text/html")
        async with Always(lambda _: page) as server, at(subject, server.origin) as provider:
            await refused(LLMError, provider.get_available_models, partial(ask, subject, provider))
            assert not await provider.is_available()

    @covers("generate_chat_completion")
    async def test_no_redirect_is_followed_and_no_key_leaves_its_server(self, subject: Subject) -> None:
        async with Always(lambda _: reply_of("200 OK", b"{}")) as other:
            redirect = reply_of("307 Temporary Redirect", Location=f"{other.origin}/elsewhere")
            async with Always(lambda _: redirect) as server, at(subject, server.origin, WRONG_KEY) as provider:
                await refused(LLMError, partial(ask, subject, provider), provider.get_available_models)
            assert server.visits
            assert other.visits == []

    @covers("stream_chat_completion")
    @pytest.mark.parametrize("way", ["aclose", "exception", "cancel"])
    async def test_leaving_a_stream_closes_its_connection(self, subject: Subject, way: str) -> None:
        exchanges, _, _ = await heard(subject)
        half = Cut(stop=len(exchanges[-1].reply) * 3 // 4, holds=True)
        async with Replay(exchanges, half) as server, at(subject, server.origin) as provider:
            stream = provider.stream_chat_completion(subject.question, model=subject.model, options=subject.exact)
            await leave(stream, way)
            await asyncio.wait_for(server.left.wait(), subject.stops_within)
            assert provider.in_flight == 0


@asynccontextmanager
async def at(subject: Subject, origin: str, api_key: str | None = None) -> AsyncIterator[LLMProvider]:
    """A provider at that origin, below the same path as the real server, disconnected at the end."""
    address = origin + urlsplit(subject.base_url).path
    provider = subject.at(address, subject.api_key if api_key is None else api_key)
    try:
        yield provider
    finally:
        await provider.disconnect()


async def ask(subject: Subject, provider: LLMProvider) -> LLMResponse:
    """The answer to the subject's question."""
    return await provider.generate_chat_completion(subject.question, model=subject.model, options=subject.exact)


async def refused(kind: type[LLMError], *attempts: Callable[[], Awaitable[object]]) -> list[LLMError]:
    """The errors that attempts end in, each of that kind and in few words."""
    errors: list[LLMError] = []
    for attempt in attempts:
        with pytest.raises(kind) as caught:
            await attempt()
        assert well_said(caught.value)
        errors.append(caught.value)
    return errors


async def outcome(attempt: Awaitable[LLMResponse]) -> tuple[LLMResponse | None, LLMError | None]:
    """The answer, or the error in its place."""
    try:
        return await attempt, None
    except LLMError as error:
        return None, error


async def heard(subject: Subject) -> tuple[Sequence[Exchange], LLMResponse, list[tuple[object, ...]]]:
    """What goes over the wire for one real answer, the answer, and the contents of its chunks."""
    async with Recorder(subject.base_url) as recorder, at(subject, recorder.origin) as provider:
        response = await ask(subject, provider)
    async with Replay(recorder.exchanges) as server, at(subject, server.origin) as provider:
        stream = provider.stream_chat_completion(subject.question, model=subject.model, options=subject.exact)
        expected = contents(await whole(stream))
    assert len(expected) > 2
    assert "".join(str(text) for text, *_ in expected) == response.text
    return recorder.exchanges, response, expected


def contents(chunks: Sequence[Chunk]) -> list[tuple[object, ...]]:
    """Chunks without their times, which differ."""
    return [(chunk.text, chunk.thinking, chunk.tool_calls, chunk.finish_reason, chunk.usage) for chunk in chunks]
