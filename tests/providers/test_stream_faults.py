"""Streams that break, lie, stall or never end, from a real server; and readers that leave."""

from __future__ import annotations

import time

import pytest
from servers.asking import asking, failure
from servers.scripted import (
    DONE,
    End,
    Pause,
    Script,
    ScriptedServer,
    Step,
    answer,
    chunked,
    delta,
    event,
    finish,
    sse,
)

from llm_jupyter.errors import (
    ContextExceededError,
    LLMConnectionError,
    LLMError,
    MalformedResponseError,
    ServerError,
    StreamTruncatedError,
)
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import FinishReason

HELLO = [delta("Hel"), delta("lo")]


# -- truncated

# Some systems throw away what a reader has not taken yet when a reset comes: hence the pause before it.
TRUNCATED: dict[str, Script] = {
    "a clean end without finish reason or [DONE]": sse(*HELLO),
    "a clean end of a body without length": sse(*HELLO, is_chunked=False),
    "a reset": sse(*HELLO, Pause(0.05), End.RESET),
    "a reset of a body without length": sse(*HELLO, Pause(0.05), End.RESET, is_chunked=False),
    "a half-close": sse(*HELLO, End.HALF_CLOSE),
    "a half-close of a body without length": sse(*HELLO, End.HALF_CLOSE, is_chunked=False),
    "a closed connection without the last chunk": sse(*HELLO, End.CLOSE),
    "a cut inside an event": sse(*HELLO, delta("never")[:30]),
    "a cut inside an event of a body without length": sse(*HELLO, delta("never")[:30], is_chunked=False),
    "a cut inside a character": sse(*HELLO, delta("né")[:-60], is_chunked=False),
    "a cut inside the closing word": sse(*HELLO, b"data: [DON", is_chunked=False),
    "a cut inside an HTTP chunk": [*sse(*HELLO, End.CLOSE)[:-1], chunked(delta("never"))[:20]],
}


@pytest.mark.parametrize("fault", TRUNCATED)
async def test_an_answer_that_breaks_off_is_an_error_that_keeps_what_came(fault: str) -> None:
    error = await failure(TRUNCATED[fault])
    assert isinstance(error, StreamTruncatedError)
    assert error.partial_text == "Hello"


async def test_a_stream_cut_anywhere_before_its_finish_reason_never_looks_complete() -> None:
    body = delta("né") + delta("🙂")
    cuts = range(len(body) + 1)
    async with ScriptedServer(*(sse(body[:cut], is_chunked=False) for cut in cuts)) as server:
        provider = OpenAICompatibleProvider("local", server.base_url)
        for cut in cuts:
            with pytest.raises(StreamTruncatedError) as caught:
                await provider.generate_chat_completion("hi", model="m")
            assert "né🙂".startswith(caught.value.partial_text), cut
        assert caught.value.partial_text == "né🙂"
        await provider.disconnect()


@pytest.mark.parametrize(
    "ending",
    [
        (DONE,),
        (b"data: [DONE]",),
        (finish(),),
        (finish().rstrip(),),
        (finish(), b"data: [DON"),
        (finish(), DONE, End.HOLD),
    ],
    ids=["done", "done without newline", "finish reason", "finish without newline", "cut after it", "held open"],
)
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_an_answer_that_says_that_it_is_complete_is_one(ending: tuple[Step, ...], is_chunked: bool) -> None:
    async with asking(sse(*HELLO, *ending, is_chunked=is_chunked)) as (provider, _):
        response = await provider.generate_chat_completion("hi", model="m")
    assert response.text == "Hello"
    assert response.finish_reason is (FinishReason.OTHER if ending[0] in (DONE, b"data: [DONE]") else FinishReason.STOP)


async def test_a_stream_read_in_many_small_packets_has_one_chunk_for_each_delta() -> None:
    texts = [f"{i} né🙂\u2028" for i in range(20)]
    body = b"".join(map(delta, texts)) + finish() + DONE
    slices = [body[i : i + 37] for i in range(0, len(body), 37)]
    async with asking(sse(*slices)) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        chunks = [chunk async for chunk in stream]
    assert [chunk.text for chunk in chunks] == [*texts, ""]
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert chunks[-1].timing is not None


# -- malformed

PAGE = "<html><body><h1>Welcome to the portal</h1>" + "<p>please log in</p>" * 50 + "</body></html>"

MALFORMED: dict[str, tuple[Script, str]] = {
    "JSON that is none": (sse(*HELLO, event('{"choices": nonsense}'), finish(), DONE), '{"choices": nonsense}'),
    "JSON of another shape": (sse(*HELLO, event({"choices": "none"}), finish(), DONE), '{"choices": "none"}'),
    "invalid UTF-8": (sse(event(b'{"choices":[{"delta":{"content":"\xff\xfe"}}]}'), DONE), '{"choices":[{"delta"'),
    "HTML": (sse(PAGE.encode(), content_type="text/html; charset=utf-8"), PAGE[:200]),
    "HTML that claims to be a stream": (sse(PAGE.encode()), PAGE[:200]),
    "HTML without a type": (sse(PAGE.encode(), content_type=None, is_chunked=False), PAGE[:200]),
    "a type that is no stream": (sse(*HELLO, DONE, content_type="text/plain"), "text/plain"),
    "a whole JSON reply": (sse(b'{"choices": []}', content_type="application/json"), '{"choices": []}'),
    "lines of JSON": (sse(b'{"message": {"content": "a"}}\n' * 30, content_type="application/x-ndjson"), '{"message"'),
    "an empty reply": (sse(content_type="application/json"), "empty"),
}


@pytest.mark.parametrize("fault", MALFORMED)
async def test_what_is_no_stream_of_the_protocol_is_named_with_its_beginning(fault: str) -> None:
    script, shown = MALFORMED[fault]
    error = await failure(script)
    assert isinstance(error, MalformedResponseError)
    assert shown in error.what


async def test_an_empty_stream_is_no_empty_success() -> None:
    assert isinstance(await failure(sse()), StreamTruncatedError)
    assert isinstance(await failure(sse(is_chunked=False)), StreamTruncatedError)


async def test_what_came_before_a_malformed_event_is_kept() -> None:
    error = await failure(sse(*HELLO, event("nonsense"), finish(), DONE))
    assert isinstance(error, MalformedResponseError)
    assert error.partial_text == "Hello"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"error": {"message": "out of memory", "type": "server_error", "code": 500}}, ServerError),
        ({"error": "out of memory"}, ServerError),
        ({"error": {"message": "x", "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}},
         ContextExceededError),
    ],
)  # fmt: skip
async def test_an_error_object_in_mid_stream_ends_the_answer_with_that_error(
    said: object, kind: type[LLMError]
) -> None:
    error = await failure(sse(*HELLO, event(said), finish(), DONE))
    assert type(error) is kind


async def test_chunks_that_arrived_with_an_error_are_handed_on_before_it() -> None:
    script = sse(b"".join(HELLO) + event({"error": {"message": "out of memory"}}))
    async with asking(script) as (provider, _), provider.stream_chat_completion("hi", model="m") as stream:
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "lo"]
        with pytest.raises(ServerError, match="out of memory"):
            await anext(stream)


# -- connections


async def test_the_connection_to_nobody_fails_at_once() -> None:
    async with ScriptedServer(answer("x")) as server:
        url = server.base_url
    provider = OpenAICompatibleProvider("local", url)
    started = time.monotonic()
    with pytest.raises(LLMConnectionError, match="refused") as caught:
        await provider.generate_chat_completion("hi", model="m")
    assert time.monotonic() - started < 0.5
    await provider.disconnect()
    assert len(caught.value.lines()) == 2


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_server_that_hangs_up_before_it_answers_is_a_connection_error(end: End) -> None:
    assert isinstance(await failure([end]), LLMConnectionError)
    assert isinstance(await failure([b"HTTP/1.1 200 OK\r\nContent-", end]), LLMConnectionError)


async def test_what_is_no_http_server_is_said_to_be_none() -> None:
    assert isinstance(await failure([b"SSH-2.0-OpenSSH_9.2\r\n", End.HOLD]), MalformedResponseError)
