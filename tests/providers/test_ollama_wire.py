"""What newer Ollamas send, and what any of them may: scripted from its documentation, its source and captures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kind_scripts import END, ndjson
from servers.scripted import Request, Script, ScriptedServer, head, reply

from llm_jupyter import errors
from llm_jupyter.providers._ollama_wire import refuses_to_cut
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.types import (
    Capability,
    FinishReason,
    GenerationOptions,
    Image,
    LLMResponse,
    Message,
    ToolCall,
    ToolDefinition,
)

HELLO = ndjson({"message": {"content": "Hello"}}, END)
DETAILS = {"format": "gguf", "family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_K_M"}
NEW = {
    "name": "llama4:8b", "model": "llama4:8b", "size": 4_900_000_000, "digest": "d1", "modified_at": "2026-01-02T03:04:05Z",
    "details": {**DETAILS, "context_length": 131072, "embedding_length": 4096},
    "capabilities": ["completion", "tools", "vision", "thinking", "insert", "audio"],
}  # fmt: skip
VECTORS = {**NEW, "name": "bge-m3:latest", "digest": "d2", "capabilities": ["embedding"]}
CLOUD = {
    **NEW, "name": "gpt-oss:120b-cloud", "digest": "d3", "size": 384, "remote_model": "gpt-oss:120b",
    "remote_host": "https://ollama.com:443", "details": {"format": ""},
}  # fmt: skip
OLD = {"name": "old:1b", "model": "old:1b", "size": 7, "digest": "d4", "details": DETAILS}


@asynccontextmanager
async def ollama(
    script: Script = HELLO, replies: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[OllamaProvider, ScriptedServer]]:
    known = {"/api/show": {"details": {}}, "/api/version": {"version": "0.30.0"}, **(replies or {})}

    def play(request: Request) -> Script:
        return reply(known[request.path]) if request.path in known else script

    async with ScriptedServer(play) as server:
        provider = OllamaProvider("ollama", server.origin, **options)
        try:
            yield provider, server
        finally:
            await provider.disconnect()


async def ask(
    script: Script, prompt: Any = "hi", model: str = "m", **options: Any
) -> tuple[LLMResponse, dict[str, Any]]:
    """The response, and the body of the request for it."""
    async with ollama(script) as (provider, server):
        response = await provider.generate_chat_completion(prompt, model=model, options=GenerationOptions(**options))
        return response, next(r.json() for r in server.requests if r.path == "/api/chat")


async def failure(script: Script, model: str = "m") -> errors.LLMError:
    with pytest.raises(errors.LLMError) as caught:
        await ask(script, model=model)
    assert 1 <= len(caught.value.lines()) <= 3
    return caught.value


# -- models


async def test_a_newer_list_needs_no_further_question() -> None:
    running = {**NEW, "expires_at": "2318-01-01T00:00:00.123456789Z", "size_vram": 5, "context_length": 4096}
    lists = {"/api/tags": {"models": [NEW, VECTORS, CLOUD]}, "/api/ps": {"models": [running]}}
    async with ollama(replies=lists) as (provider, server):
        llama, bge, cloud = await provider.get_available_models()
    assert {request.path for request in server.requests} == {"/api/tags", "/api/ps", "/api/show"}
    assert [r.json()["model"] for r in server.requests if r.path == "/api/show"] == ["gpt-oss:120b-cloud"]
    assert (llama.context_length, llama.effective_context, llama.loaded) == (131072, 4096, True)
    assert {Capability.CHAT, Capability.TOOLS, Capability.VISION, Capability.THINKING} <= llama.capabilities
    assert (llama.parameters, llama.quantization, llama.size) == (8_000_000_000, "Q4_K_M", 4_900_000_000)
    assert bge.capabilities == {Capability.EMBEDDING, Capability.MODEL_MANAGEMENT}
    assert (bge.name, bge.loaded, bge.effective_context) == ("bge-m3", False, 8192)
    assert [model.is_local for model in (llama, bge, cloud)] == [True, True, False]


async def test_an_older_list_is_completed_by_show() -> None:
    show = {"details": DETAILS, "model_info": {"llama.context_length": 2048}, "capabilities": ["completion", "tools"]}
    gone = {**OLD, "expires_at": "2026-01-01T00:00:00Z"}  # just unloaded, and still in the list
    lists = {"/api/tags": {"models": [OLD]}, "/api/ps": {"models": [gone]}, "/api/show": show}
    async with ollama(replies=lists) as (provider, server):
        (old,) = await provider.get_available_models()
        assert (old.context_length, old.effective_context, old.loaded) == (2048, 2048, False)
        assert Capability.TOOLS in old.capabilities
        await provider.get_available_models()
    assert [request.path for request in server.requests].count("/api/show") == 1


async def test_what_a_failed_creation_left_behind_cannot_chat() -> None:
    empty = {"name": "x:latest", "size": 168, "details": {"format": "", "families": None}}
    async with ollama(replies={"/api/tags": {"models": [empty]}, "/api/ps": {"models": []}}) as (provider, _):
        (model,) = await provider.get_available_models()
    assert Capability.CHAT not in model.capabilities


@pytest.mark.parametrize(
    ("name", "show", "is_local"),
    [
        ("gpt-oss:120b-cloud", {}, False),
        ("deepseek:cloud", {}, False),
        ("mine:latest", {"remote_host": "https://ollama.com:443"}, False),
        ("cloudy:7b", {}, True),
        ("127.0.0.1:5000/library/x-cloud", {}, True),
    ],
)
async def test_an_answer_says_whether_it_was_made_here(name: str, show: dict[str, str], is_local: bool) -> None:
    shown = {"details": {}, **show}
    async with ollama(HELLO, {"/api/show": shown}) as (provider, server):
        response = await provider.generate_chat_completion("hi", model=name)
    assert response.is_local is is_local
    assert ("num_ctx" in server.requests[-1].json()["options"]) is is_local  # a remote one has a window of its own


@pytest.mark.parametrize(
    ("version", "obeys"), [("0.9.3", False), ("0.12.5", False), ("0.12.6", True), ("1.0.0-rc1", True), ("dev", False)]
)
def test_the_version_tells_whether_a_prompt_may_be_cut(version: str, obeys: bool) -> None:
    assert refuses_to_cut(version) is obeys


# -- requests


async def test_everything_stands_where_ollama_looks_for_it() -> None:
    schema = {"type": "object"}
    talk = [
        Message.user("See", [Image(b"\x89PNG")]),
        Message.assistant("", [ToolCall("c1", "weather", '{"city": "Rome"}')]),
        Message.tool("22 degrees", "c1"),
    ]
    _, body = await ask(
        HELLO, talk, temperature=0.5, max_tokens=7, top_p=0.9, seed=3, stop=("x",), think=False, json_schema=schema,
        tools=(ToolDefinition("weather", "The weather.", schema),), extra={"top_k": 5, "keep_alive": "1h", "num_ctx": 99},
    )  # fmt: skip
    assert body["options"] == {
        "temperature": 0.5, "num_predict": 7, "top_p": 0.9, "seed": 3, "stop": ["x"], "top_k": 5, "num_ctx": 99
    }  # fmt: skip
    assert (body["keep_alive"], body["think"], body["format"], body["truncate"]) == ("1h", False, schema, False)
    assert body["messages"][0] == {"role": "user", "content": "See", "images": ["iVBORw=="]}
    assert body["messages"][1]["tool_calls"] == [
        {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    ]
    assert body["messages"][2] == {
        "role": "tool", "content": "22 degrees", "tool_call_id": "c1", "tool_name": "weather"
    }  # fmt: skip
    assert body["tools"][0]["function"]["name"] == "weather"


async def test_thinking_may_have_a_level_and_tools_may_be_forbidden() -> None:
    _, body = await ask(HELLO, extra={"think": "high"}, tools=(ToolDefinition("w"),), tool_choice="none")
    assert body["think"] == "high"
    assert "tools" not in body
    async with ollama() as (provider, server):
        with pytest.raises(errors.UnsupportedOperationError, match="certain tool"):
            provider.stream_chat_completion("hi", model="m", options=GenerationOptions(tool_choice="weather"))
    assert server.requests == []


# -- answers


async def test_the_last_line_gives_usage_and_timing_in_seconds() -> None:
    last = {
        **END, "done_reason": "length", "total_duration": 1_044_149_200, "load_duration": 11_310_876,
        "prompt_eval_count": 11, "prompt_eval_duration": 721_230_378, "eval_count": 4, "eval_duration": 500_000_000,
        "remote_model": "x", "logprobs": [],
    }  # fmt: skip
    response, _ = await ask(ndjson({"message": {"content": "Hel"}}, {"message": {"content": "lo"}}, last))
    assert (response.text, response.finish_reason) == ("Hello", FinishReason.LENGTH)
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (11, 4)
    assert response.timing.prompt == pytest.approx(0.721230378)
    assert response.timing.tokens_per_second == 8


async def test_calls_with_ids_keep_them_and_calls_without_are_told_apart() -> None:
    calls = [{"id": "a1", "function": {"index": 0, "name": "w", "arguments": {"n": 1}}}]
    more = [{"function": {"name": "w", "arguments": {"n": 2}}}]
    response, _ = await ask(ndjson({"message": {"tool_calls": calls}}, {"message": {"tool_calls": more}}, END))
    assert [(call.id, call.parsed_arguments()["n"]) for call in response.tool_calls] == [("a1", 1), ("call_1", 2)]
    assert response.finish_reason is FinishReason.TOOL_CALLS


# -- errors


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (429, {"error": "you have reached your hourly usage limit"}, errors.RateLimitedError, "hourly"),
        (502, {"error": "remote model is unavailable"}, errors.ServerError, "unavailable"),
        (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, errors.ServerError, "busy"),
        (401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect?key=abc"}, errors.AuthenticationError, ""),
        (400, {"error": 'think must be a boolean or string ("high", "low")'}, errors.RequestError, "boolean"),
        (500, {"error": "llama runner process has terminated: exit status 2"}, errors.ServerError, "died"),
        (500, {"error": "model requires more system memory (9.1 GiB) than is available (2.0 GiB)"},
         errors.InsufficientMemoryError, "9.1 GiB"),
        (404, {"error": "model 'm' not found"}, errors.ModelNotFoundError, "'m'"),
    ],
)  # fmt: skip
async def test_a_refusal_is_typed(status: int, body: Any, kind: type[errors.LLMError], words: str) -> None:
    error = await failure(reply(body, status))
    assert type(error) is kind
    assert words in error.what
    assert "key=abc" not in str(error)


async def test_a_remote_model_without_a_sign_in_says_how_to_sign_in() -> None:
    error = await failure(reply({"error": "unauthorized", "signin_url": "https://x"}, 401), "gpt-oss:120b-cloud")
    assert error.next_step.endswith("ollama signin")


async def test_a_foreign_host_name_is_refused_with_nothing_and_that_is_explained() -> None:
    error = await failure([head(403, None, headers=[("Content-Length", "0")])])
    assert isinstance(error, errors.LLMConnectionError)
    assert "OLLAMA_ORIGINS" in error.next_step


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"error": "upstream is busy", "status": 429}, errors.RateLimitedError),
        ({"error": "an error was encountered while running the model: unexpected EOF"}, errors.ServerError),
        ({"error": "something"}, errors.ServerError),
        ({"message": "no object"}, errors.MalformedResponseError),
    ],
)
async def test_an_error_in_mid_answer_is_typed_and_keeps_the_text(line: Any, kind: type[errors.LLMError]) -> None:
    error = await failure(ndjson({"message": {"content": "Half"}}, line))
    assert type(error) is kind
    assert error.partial_text == "Half"
