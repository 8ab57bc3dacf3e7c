"""What is sent again, how often and when: before the first token only, and only where nobody else may answer."""

from __future__ import annotations

import asyncio
import json

import pytest
from clocks import JumpingClock, ManualClock
from hypothesis import given, settings
from hypothesis import strategies as st
from routes import Faulty, Routes, free_port
from servers.scripted import End, Script, ScriptedServer, answer, delta, event, head, reply, sse

from llm_jupyter.errors import (
    AuthenticationError,
    ContextExceededError,
    FirstTokenTimeoutError,
    LLMConnectionError,
    LLMError,
    ModelNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
    StreamStalledError,
    StreamTruncatedError,
)
from llm_jupyter.events import RequestFailedOver, RequestRetried
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider


def status(code: int, **headers: str) -> Script:
    return reply({"error": {"message": "no"}}, code, headers=[(k.replace("_", "-"), v) for k, v in headers.items()])


TOO_LONG = reply(
    {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long", "n_prompt_tokens": 1231, "n_ctx": 512}},
    400,
)  # fmt: skip

PASSING: dict[str, Script] = {
    "reset before headers": [End.RESET],
    "closed before headers": [End.CLOSE],
    "429": status(429),
    "429, soon": status(429, Retry_After="2"),
    "502": status(502),
    "503": status(503),
    "504": status(504),
}

LASTING: dict[str, tuple[Script, type[LLMError]]] = {
    "500": (status(500), ServerError),
    "501": (status(501), ServerError),
    "400": (status(400), RequestError),
    "401": (status(401), AuthenticationError),
    "404": (status(404), RequestError),
    "no such model": (reply({"error": {"message": "model 'm' not found"}}, 404), ModelNotFoundError),
    "context overflow": (TOO_LONG, ContextExceededError),
    "403 with an empty reply": (reply("", 403), LLMConnectionError),
    "no first token": ([End.HOLD], FirstTokenTimeoutError),
    "headers and no token": ([head(200, "text/event-stream"), End.HOLD], FirstTokenTimeoutError),
    "reset before the first token": ([head(200, "text/event-stream"), End.RESET], StreamTruncatedError),
}


# -- with nobody else to ask


@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_by_itself_is_sent_again_twice_at_most(fault: str) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.chat = PASSING[fault]
        with pytest.raises(LLMError):
            await routes.ask()
        assert len(server.chats) == 3
        assert [event.attempt for event in routes.heard(RequestRetried)] == [1, 2]
        assert [event.delay for event in routes.heard(RequestRetried)] == routes.clock.slept


@pytest.mark.parametrize("fault", PASSING)
async def test_an_answer_to_the_second_or_third_request_is_the_answer(fault: str) -> None:
    for failures in (1, 2):
        async with Faulty() as server, Routes({"local": server}) as routes:
            server.next(*[PASSING[fault]] * failures)
            response = await routes.ask()
            assert (response.text, response.tried, len(server.chats)) == ("Heard: hi", (), failures + 1)


async def test_a_refused_connection_is_made_again_twice_at_most() -> None:
    async with Routes({"local": f"http://127.0.0.1:{free_port()}/v1"}) as routes:
        with pytest.raises(LLMConnectionError, match="refused"):
            await routes.ask()
        assert len(routes.clock.slept) == len(routes.heard(RequestRetried)) == 2


async def test_a_server_that_comes_up_meanwhile_answers() -> None:
    port, clock = free_port(), ManualClock()
    async with Routes({"local": f"http://127.0.0.1:{port}/v1"}, clock=clock) as routes:
        asking = asyncio.create_task(routes.ask())
        await clock.until_asleep()
        async with Faulty(port=port) as server:
            clock.advance(clock.due[0])
            assert (await asking).text == "Heard: hi"
            assert len(server.chats) == 1


@pytest.mark.parametrize("fault", LASTING)
async def test_what_lasts_is_not_sent_again(fault: str) -> None:
    script, kind = LASTING[fault]
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.chat = script
        with pytest.raises(kind) as caught:
            await routes.ask(timeout=0.2)
        assert type(caught.value) is kind
        assert len(server.chats) == 1
        assert routes.heard(RequestRetried) == []
        assert routes.clock.slept == []


async def test_the_pauses_double_and_are_spread_by_a_fifth() -> None:
    for chance, expected in ((0.0, [0.2, 0.4]), (0.5, [0.25, 0.5]), (1.0, [0.3, 0.6])):
        async with Faulty() as server, Routes({"local": server}, random=lambda chance=chance: chance) as routes:
            server.chat = status(503)
            with pytest.raises(ServerError):
                await routes.ask()
            assert routes.clock.slept == pytest.approx(expected)


async def test_the_settings_may_forbid_retries() -> None:
    async with Faulty() as server, Routes({"local": server}, retries=0) as routes:
        server.chat = status(503)
        with pytest.raises(ServerError):
            await routes.ask()
        assert len(server.chats) == 1


kinds = {**PASSING, "500": status(500), "429 at once": status(429, Retry_After="0"), "ok": answer("ok")}


@settings(max_examples=40)
@given(st.lists(st.sampled_from(sorted(kinds)), min_size=6, max_size=6))
async def test_whatever_fails_in_whatever_order_three_requests_leave_at_most(faults: list[str]) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.next(*[kinds[fault] for fault in faults])
        try:
            await routes.ask()
            ended = "ok"
        except LLMError:
            ended = "failed"
        stops = next((n for n, fault in enumerate(faults) if fault in ("500", "ok")), 6) + 1
        assert len(server.chats) == min(3, stops)
        assert ended == ("ok" if faults[len(server.chats) - 1] == "ok" else "failed")


# -- Retry-After


@pytest.mark.parametrize("seconds", ["0", "0.5", "7", "30"])
async def test_retry_after_is_waited_out_up_to_half_a_minute(seconds: str) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.next(status(429, Retry_After=seconds))
        assert (await routes.ask()).text == "Heard: hi"
        assert routes.clock.slept == [float(seconds)]


@pytest.mark.parametrize("seconds", ["30.5", "31", "3600", "1e9"])
async def test_a_longer_retry_after_fails_at_once_and_says_so(seconds: str) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.chat = status(429, Retry_After=seconds)
        with pytest.raises(RateLimitedError) as caught:
            await routes.ask()
        assert f"Ask again in {float(seconds):g} s." in str(caught.value)
        assert (len(server.chats), routes.clock.slept) == (1, [])


@pytest.mark.parametrize("seconds", ["nan", "inf", "-5"])
async def test_a_retry_after_that_is_no_time_is_not_waited_for(seconds: str) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.chat = status(429, Retry_After=seconds)
        with pytest.raises(RateLimitedError):
            await routes.ask()
        assert all(0 <= slept <= 30 for slept in routes.clock.slept)
        server.chat = None
        routes.clock.now += 2
        assert (await routes.ask()).text == "Heard: hi"


# -- with somebody else to ask


@pytest.mark.parametrize("fault", PASSING)
async def test_another_candidate_is_asked_at_once_instead(fault: str) -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.chat = PASSING[fault]
        assert (await routes.ask()).provider == "second"
        assert (len(first.chats), len(second.chats)) == (1, 1)
        assert (routes.heard(RequestRetried), routes.clock.slept) == ([], [])


@pytest.mark.parametrize(
    ("seconds", "answering", "slept"), [("0", "first", [0.0]), ("1", "first", [1.0]), ("1.1", "second", [])]
)
async def test_only_a_short_retry_after_is_waited_out_beside_another(
    seconds: str, answering: str, slept: list[float]
) -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.next(status(429, Retry_After=seconds))
        assert (await routes.ask()).provider == answering
        assert routes.clock.slept == slept
        assert len(second.chats) == (answering == "second")


async def test_a_short_retry_after_that_never_ends_is_waited_out_twice_and_then_another_is_asked() -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.chat = status(429, Retry_After="1")
        assert (await routes.ask()).provider == "second"
        assert (len(first.chats), routes.clock.slept) == (3, [1.0, 1.0])


async def test_a_short_retry_after_that_never_ends_is_waited_out_twice_where_nobody_else_may_answer() -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.chat = status(429, Retry_After="1")
        with pytest.raises(RateLimitedError):
            await routes.ask()
        assert (len(server.chats), routes.clock.slept) == (3, [1.0, 1.0])


async def test_after_a_short_wait_any_other_fault_goes_to_the_next_at_once() -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.next(status(429, Retry_After="1"), status(503))
        assert (await routes.ask()).provider == "second"
        assert (len(first.chats), routes.clock.slept) == (2, [1.0])


async def test_the_last_candidate_is_asked_again_twice_at_most() -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.chat, second.chat = status(503), status(502)
        with pytest.raises(ServerError, match="503"):
            await routes.ask()
        assert (len(first.chats), len(second.chats)) == (1, 3)


async def test_a_prompt_that_is_too_long_is_told_with_both_counts_and_nobody_else_is_asked() -> None:
    async with (
        Faulty() as first,
        Faulty(["m"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/m"]) as routes,
    ):
        first.chat = TOO_LONG
        with pytest.raises(ContextExceededError) as caught:
            await routes.ask()
        assert (caught.value.prompt_tokens, caught.value.context_length) == (1231, 512)
        assert (len(first.chats), second.visits, routes.heard(RequestRetried)) == (1, [], [])


@pytest.mark.parametrize("fault", ["400", "401", "404", "no such model"])
async def test_what_another_answer_would_hide_is_told(fault: str) -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.chat, kind = LASTING[fault]
        with pytest.raises(kind):
            await routes.ask()
        assert (len(first.chats), second.chats) == (1, [])


# -- after the first token

BROKEN: dict[str, tuple[Script, type[LLMError]]] = {
    "closed": (sse(End.CLOSE), StreamTruncatedError),
    "reset": (sse(End.RESET), StreamTruncatedError),
    "half-closed": (sse(End.HALF_CLOSE), StreamTruncatedError),
    "an error object": (sse(event({"error": {"message": "busy", "code": 503}})), ServerError),
    "too many": (sse(event({"error": {"message": "busy", "code": 429}})), RateLimitedError),
    "silence": (sse(End.HOLD), StreamStalledError),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("said", [{"content": "half"}, {"reasoning_content": "half"}])
async def test_nothing_is_sent_again_once_a_token_was_handed_on(fault: str, said: dict[str, str]) -> None:
    (start, *rest), kind = BROKEN[fault]
    async with Faulty() as first, Faulty() as second:

        def impatient(name: str) -> OpenAICompatibleProvider:
            return OpenAICompatibleProvider(name, first.base_url, idle_timeout=0.2)

        async with Routes({"first": impatient, "second": second}, fallback=["second/m"]) as routes:
            token = sse(delta(**said))[1]
            first.chat = [start, token, *rest]
            with pytest.raises(kind) as caught:
                await routes.ask()
            assert caught.value.partial_text == said.get("content", "")
            assert (len(first.chats), second.visits) == (1, [])
            assert (routes.heard(RequestRetried), routes.heard(RequestFailedOver), routes.clock.slept) == ([], [], [])


@settings(max_examples=25)
@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5), st.sampled_from([End.CLOSE, End.RESET]))
async def test_however_much_was_handed_on_it_is_kept_and_not_asked_for_again(texts: list[str], end: End) -> None:
    async with Faulty() as server, Routes({"local": server}) as routes:
        server.chat = sse(*map(delta, texts), end)
        with pytest.raises(StreamTruncatedError) as caught:
            await routes.ask()
        assert "".join(texts).startswith(caught.value.partial_text)
        if end is End.CLOSE:
            assert caught.value.partial_text == "".join(texts)
        assert len(server.chats) == 1


async def test_a_delta_that_says_nothing_is_no_token() -> None:
    async with (
        Faulty() as first,
        Faulty(["n"]) as second,
        Routes({"first": first, "second": second}, fallback=["second/n"]) as routes,
    ):
        first.chat = sse(delta(role="assistant", content=""), End.RESET)
        assert (await routes.ask()).provider == "second"


async def test_an_empty_line_of_ollama_is_no_token() -> None:
    line = json.dumps({"model": "m", "message": {"role": "assistant", "content": ""}, "done": False}).encode() + b"\n"
    listed = {"name": "m", "model": "m", "digest": "d", "size": 1}

    def script(path: str) -> Script:
        if path in ("/api/tags", "/api/ps"):
            return reply({"models": [{**listed, "expires_at": "2999-01-01T00:00:00Z"}]})
        if path == "/api/chat":
            return sse(line, End.CLOSE, content_type="application/x-ndjson")
        return reply({"version": "0.33.0", "details": {}, "model_info": {}, "capabilities": ["completion"]})

    async with ScriptedServer(lambda request: script(request.path)) as ollama, Faulty(["n"]) as second:

        def made(name: str) -> OllamaProvider:
            return OllamaProvider(name, ollama.origin)

        async with Routes({"first": made, "second": second}, fallback=["second/n"]) as routes:
            assert (await routes.ask()).provider == "second"
            assert [request.path for request in ollama.requests].count("/api/chat") == 1


async def test_an_answer_of_no_words_is_an_answer() -> None:
    async with Faulty() as server, Routes({"local": server}, clock=JumpingClock()) as routes:
        server.chat = answer()
        assert ((await routes.ask()).text, len(server.chats)) == ("", 1)
