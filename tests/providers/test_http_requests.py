"""Where a request goes, and what it may and may not carry there."""

from __future__ import annotations

import base64

import pytest
from servers.asking import asking
from servers.scripted import ScriptedServer, answer

from llm_jupyter.errors import ConfigurationError, LLMConnectionError
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import GenerationOptions, Image, Message, ToolCall, ToolDefinition


async def test_proxies_of_the_environment_are_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer(answer("from the proxy")) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with asking(answer("direct")) as (provider, _):
            assert (await provider.generate_chat_completion("hi", model="m")).text == "direct"
        assert proxy.requests == []
        # The same variables do reach a client for another machine: the test above can fail.
        remote = OpenAICompatibleProvider("far", "http://models.invalid/v1")
        assert (await remote.generate_chat_completion("hi", model="m")).text == "from the proxy"
        await remote.disconnect()


async def test_a_request_asks_for_plain_bytes_and_carries_no_key_that_it_was_not_given() -> None:
    async with asking(answer("x")) as (provider, server):
        await provider.generate_chat_completion("hi", model="m")
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert request.json() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_conversation_with_pictures_and_tools_is_sent_as_the_protocol_wants_it() -> None:
    call = ToolCall("c1", "look", '{"at": "x"}')
    picture = Image(b"\x89PNG", "image/png")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    options = GenerationOptions(
        temperature=0.0,
        max_tokens=5,
        seed=0,
        stop=("\n",),
        tools=(ToolDefinition("look", "Looks.", schema),),
        tool_choice="look",
        json_schema=schema,
        extra={"min_p": 0.1},
    )
    messages = [
        Message.system("Be brief."),
        Message.user("What is it?", [picture]),
        Message.assistant("", [call]),
        Message.tool("a cat", "c1"),
    ]
    async with asking(answer("x")) as (provider, server):
        await provider.generate_chat_completion(messages, model="m", options=options)
    body = server.requests[0].json()
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    function = {"name": "look", "arguments": '{"at": "x"}'}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}],
        },
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
    ]
    tool = {"name": "look", "description": "Looks.", "parameters": schema}
    assert body["tools"] == [{"type": "function", "function": tool}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert {key: body[key] for key in ("temperature", "max_tokens", "seed", "stop", "min_p")} == {
        "temperature": 0.0,
        "max_tokens": 5,
        "seed": 0,
        "stop": ["\n"],
        "min_p": 0.1,
    }


async def test_half_a_character_is_sent_as_a_question_mark() -> None:
    async with asking(answer("x")) as (provider, server):
        await provider.generate_chat_completion([Message.user("a\udcff.txt, é")], model="m")
    (request,) = server.requests
    assert request.json()["messages"] == [{"role": "user", "content": "a?.txt, é"}]


async def test_raw_text_is_continued_without_roles() -> None:
    async with asking(answer("x")) as (provider, server):
        await provider.generate_completion("Once", model="m", options=GenerationOptions(max_tokens=3))
    (request,) = server.requests
    assert request.path == "/v1/completions"
    assert request.json()["prompt"] == "Once"
    assert "messages" not in request.json()


@pytest.mark.parametrize(
    "url", ["http://", "no scheme", "http://[::1", "http://h:99999/v1", "ftp://127.0.0.1/v1", "http://a b/v1", ""]
)
async def test_an_address_that_is_none_is_said_to_be_none(url: str) -> None:
    provider = OpenAICompatibleProvider("local", url)
    with pytest.raises(LLMConnectionError) as caught:
        await provider.generate_chat_completion("hi", model="m")
    assert 1 <= len(caught.value.lines()) <= 3
    await provider.disconnect()


@pytest.mark.parametrize("host", ["no-such-name.localhost", "localhost.", "0.0.0.0"])
async def test_what_counts_as_this_machine_is_asked_on_this_machine_whatever_name_servers_say(host: str) -> None:
    async with ScriptedServer(answer("here")) as server:
        provider = OpenAICompatibleProvider("local", f"http://{host}:{server.port}/v1")
        assert (await provider.generate_chat_completion("hi", model="m")).text == "here"
        await provider.disconnect()


async def test_a_password_in_the_address_and_a_key_are_one_too_many() -> None:
    provider = OpenAICompatibleProvider("local", "http://me:hunter2@127.0.0.1:9/v1", api_key="sk-1")
    with pytest.raises(ConfigurationError) as caught:
        await provider.generate_chat_completion("hi", model="m")
    assert "a request carries one of them" in caught.value.what
    assert "Take the password out of its base_url" in caught.value.next_step
    assert not {"hunter2", "sk-1"} & set(str(caught.value).replace("@", " ").replace(":", " ").split())
    await provider.disconnect()


def test_this_machine_is_told_from_others_by_its_own_names_and_numbers() -> None:
    local = [
        *("http://localhost:1/v1", "http://127.9.9.9", "http://[::1]:8/", "http://a.localhost"),
        *("http://localhost.:1", "http://0.0.0.0:8080/v1", "http://[::]:1", "http://[::ffff:127.0.0.1]/"),
    ]
    remote = [
        "http://localhost.example/",
        "http://10.0.0.1",
        "http://127.0.0.1.example",
        "http://127.0.0.1@example/",
        *(
            "http://127.1.example",
            "http://[::ffff:10.0.0.1]",
            "http://127.0.0.0.1",
            "http://127.0.0.256",
            "http://0.0.0.1",
        ),
        "x",
    ]
    assert [url for url in local if not is_loopback(url)] == []
    assert [url for url in remote if is_loopback(url)] == []
