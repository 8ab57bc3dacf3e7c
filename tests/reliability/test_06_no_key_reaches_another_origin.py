"""No redirect is followed, and what authorizes a request goes to the server that it was given for and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from servers.scripted import Request, Script, ScriptedServer, answer, reply

from llm_jupyter.errors import LLMError
from llm_jupyter.providers import BUILTIN, provider_class
from llm_jupyter.providers._http import without_secrets
from llm_jupyter.providers.base import LLMProvider

KEY = "sk-secret-1"
QUESTION = ("/chat/completions", "/api/chat")
STATUSES = (301, 302, 303, 307, 308)
ATTEMPTS: dict[str, Callable[[LLMProvider], Awaitable[object]]] = {
    "asking": lambda provider: provider.generate_chat_completion("hi", model="m"),
    "continuing": lambda provider: provider.generate_completion("Once", model="m"),
    "embedding": lambda provider: provider.embed(["a"], model="m"),
    "listing": lambda provider: provider.get_available_models(),
    "connecting": lambda provider: provider.connect(),
    "looking": lambda provider: provider.get_model_info("m"),
}


@asynccontextmanager
async def redirected(
    kind: str, status: int, target: str, *, only: tuple[str, ...] = ()
) -> AsyncIterator[tuple[LLMProvider, ScriptedServer, ScriptedServer]]:
    """A provider with a key, its server that redirects (these paths only, or all), and the server it would lead to."""
    async with ScriptedServer(answer("stolen")) as other:
        location = f"{other.origin}/v1/chat/completions?key=1" if target == "origin" else target

        def play(request: Request) -> Script:
            if only and not request.path.endswith(only):
                return reply({"details": {}, "version": "0.30.0", "models": [{"key": "m", "type": "llm"}], "data": []})
            return reply("", status, headers=[("Location", location)])

        async with ScriptedServer(play) as server:
            provider = provider_class(kind)("local", server.base_url, KEY)  # type: ignore[call-arg]
            try:
                yield provider, server, other
            finally:
                await provider.disconnect()


@pytest.mark.parametrize("kind", sorted(BUILTIN))
@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_no_kind_of_provider_follows_a_redirect(kind: str, attempt: str) -> None:
    async with redirected(kind, 307, "origin") as (provider, server, other):
        with pytest.raises(LLMError) as caught:
            await ATTEMPTS[attempt](provider)
    assert KEY not in str(caught.value)
    assert "key=1" not in str(caught.value)
    assert other.visits == []
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("kind", sorted(BUILTIN))
async def test_a_question_is_not_sent_on_whatever_the_redirect(kind: str, status: int) -> None:
    async with redirected(kind, status, "origin", only=QUESTION) as (provider, server, other):
        with pytest.raises(LLMError, match="redirect") as caught:
            await provider.generate_chat_completion("a private question", model="m")
        assert 1 <= len(caught.value.lines()) <= 3
        assert "base_url" in caught.value.next_step
    assert [request.method for request in server.requests if request.path.endswith(QUESTION)] == ["POST"]
    assert other.visits == []


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "target", ["//evil.invalid/", "/elsewhere", "http://u:pw@[bad:99999/?key=1", "", "javascript:1"]
)
async def test_wherever_a_redirect_leads_it_is_said_without_its_secrets(status: int, target: str) -> None:
    async with redirected("openai-compatible", status, target) as (provider, server, _):
        for attempt in ("asking", "listing"):
            with pytest.raises(LLMError, match="redirect") as caught:
                await ATTEMPTS[attempt](provider)
            assert "key=1" not in str(caught.value)
            assert "pw" not in str(caught.value)
    assert len(server.requests) == 2  # each was asked once, and a path of the same server no more than another one


async def test_an_error_that_names_the_address_shows_nothing_of_its_secrets() -> None:
    async with ScriptedServer(reply("no", 500)) as server:
        secret = server.base_url.replace("http://", "http://someone:pass-word@") + "?token=t0ken"
        provider = provider_class("openai-compatible")("local", secret, KEY)  # type: ignore[call-arg]
        said = []
        for attempt in ("asking", "listing"):
            with pytest.raises(LLMError) as caught:
                await ATTEMPTS[attempt](provider)
            said.append(str(caught.value))
        said += [str(await provider.get_status()), provider.where, repr(provider)]
        await provider.disconnect()
    for text in said:
        assert not any(word in text for word in ("pass-word", "t0ken", KEY))


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    assert without_secrets("https://user:pw@[::1]:80/v1?key=1#x") == "https://[::1]:80/v1"
    assert without_secrets("http://u:pw@h:99999/") == "an invalid URL"


async def test_without_a_key_no_header_pretends_to_one() -> None:
    async with ScriptedServer(answer("x")) as server:
        provider = provider_class("openai-compatible")("local", server.base_url)  # type: ignore[call-arg]
        await provider.generate_chat_completion("hi", model="m")
        await provider.disconnect()
    assert "authorization" not in server.requests[0].headers


async def test_two_providers_keep_their_keys_apart() -> None:
    async with ScriptedServer(answer("a")) as first, ScriptedServer(answer("b")) as second:
        for server, key in ((first, "sk-a"), (second, "sk-b")):
            provider = provider_class("openai-compatible")("local", server.base_url, key)  # type: ignore[call-arg]
            await provider.generate_chat_completion("hi", model="m")
            await provider.disconnect()
    assert [server.requests[0].headers["authorization"] for server in (first, second)] == ["Bearer sk-a", "Bearer sk-b"]
