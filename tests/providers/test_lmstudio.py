"""LM Studio, as its documentation and its users' reports say that it answers; the program itself was not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from contract import covers
from servers.scripted import DONE, Gate, Request, Script, ScriptedServer, event, finish, head, reply

from llm_jupyter import errors, events
from llm_jupyter.providers.lmstudio import LMStudioProvider
from llm_jupyter.types import Capability, FinishReason, ProviderState

QWEN_V0 = {
    "id": "qwen2.5-7b", "object": "model", "type": "llm", "publisher": "lmstudio-community", "arch": "qwen2",
    "compatibility_type": "gguf", "quantization": "Q4_K_M", "state": "not-loaded", "max_context_length": 32768,
}  # fmt: skip
GEMMA_V0 = {**QWEN_V0, "id": "gemma-3-4b", "type": "vlm", "state": "loaded"}
NOMIC_V0 = {**QWEN_V0, "id": "nomic-embed", "type": "embeddings"}
QWEN_V1 = {
    "type": "llm", "publisher": "lmstudio-community", "key": "qwen2.5-7b", "display_name": "Qwen 2.5 7B",
    "architecture": "qwen2", "quantization": {"name": "Q4_K_M", "bits_per_weight": 4}, "size_bytes": 4_700_000_000,
    "params_string": "7B", "loaded_instances": [], "max_context_length": 32768, "format": "gguf",
    "capabilities": {"vision": False, "trained_for_tool_use": True, "reasoning": None},
}  # fmt: skip
LOADED_V1 = {
    **QWEN_V1, "key": "gpt-oss-20b", "params_string": None, "loaded_instances": [
        {"id": "gpt-oss-20b", "config": {"context_length": 8192, "parallel": 1}}, {"id": "my-gpt", "config": {}}
    ], "capabilities": {"vision": True, "trained_for_tool_use": False, "reasoning": {"default": "low"}},
}  # fmt: skip
NOMIC_V1 = {**QWEN_V1, "key": "nomic-embed", "type": "embedding", "capabilities": None, "quantization": None}


def says(text: str, model: str) -> Script:
    """A streamed answer of that model."""
    delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "model": model}
    return [head(200, "text/event-stream") + event(delta) + finish() + DONE]


Replies = dict[str, Any]
V0: Replies = {"GET /api/v0/models": {"object": "list", "data": [QWEN_V0, GEMMA_V0, NOMIC_V0]}}
V1: Replies = {"GET /api/v1/models": {"models": [QWEN_V1, LOADED_V1, NOMIC_V1]}}
CHAT = "POST /v1/chat/completions"


@asynccontextmanager
async def lm_studio(*replies: Replies) -> AsyncIterator[tuple[LMStudioProvider, ScriptedServer, list[events.Event]]]:
    """A provider, its server and its events. What is not in `replies` is answered as LM Studio does: with status 200."""
    known = {address: reply for some in replies for address, reply in some.items()}

    def play(request: Request) -> Script:
        address = f"{request.method} {request.path}"
        if address not in known:
            return reply({"error": f"Unexpected endpoint or method. ({address}). Returning 200 anyway"})
        told = known[address](request) if isinstance(known[address], Callable) else known[address]  # type: ignore[arg-type]
        return told if isinstance(told, list) else reply(told)

    async with ScriptedServer(play) as server:
        provider = LMStudioProvider("studio", server.base_url)
        told: list[events.Event] = []
        provider.publish = told.append
        try:
            yield provider, server, told
        finally:
            await provider.disconnect()


def posts(server: ScriptedServer) -> list[str]:
    return [request.path for request in server.requests if request.method == "POST"]


# -- the catalogue


@covers(
    "get_available_models",
    "get_model_info",
    "is_available",
    "connect",
    "get_status",
    "disconnect",
    "advice",
    "fetches",
    "observed",
    "told",
)
async def test_version_0_3_14_tells_little_and_that_is_normal() -> None:
    async with lm_studio(V0) as (provider, _, _):
        await provider.connect()
        assert await provider.is_available()
        assert (await provider.get_status()).state is ProviderState.CONNECTED
        states: list[ProviderState] = []
        provider.publish = lambda event: isinstance(event, events.ConnectionStateChanged) and states.append(event.new)
        provider.observed(errors.LLMConnectionError("gone"))
        provider.told(ProviderState.CONNECTED)
        provider.observed(None)
        assert states == [ProviderState.FAILED, ProviderState.CONNECTED]
        qwen, gemma, nomic = await provider.get_available_models()
        assert (qwen.id, qwen.loaded, gemma.loaded) == ("qwen2.5-7b", False, True)
        assert (qwen.context_length, qwen.effective_context, qwen.quantization) == (32768, None, "Q4_K_M")
        assert qwen.size is None
        assert Capability.TOOLS not in qwen.capabilities
        assert Capability.VISION in gemma.capabilities
        assert nomic.capabilities == {Capability.EMBEDDING}
        assert await provider.get_model_info("gemma-3-4b") == gemma
        assert provider.advice("gemma-3-4b") == ""
        assert [provider.fetches(name) for name in ("qwen/qwen3", "qwen3", "https://host/x.gguf")] == [
            True,
            False,
            False,
        ]
        with pytest.raises(errors.ModelNotFoundError, match="nobody"):
            await provider.get_model_info("nobody")


async def test_version_0_3_16_tells_capabilities_and_the_loaded_window() -> None:
    newer = {**GEMMA_V0, "loaded_context_length": 4096, "capabilities": ["tool_use"]}
    async with lm_studio({"GET /api/v0/models": {"data": [newer]}}) as (provider, _, _):
        (model,) = await provider.get_available_models()
    assert (model.effective_context, model.context_length) == (4096, 32768)
    assert {Capability.TOOLS, Capability.VISION, Capability.CHAT} <= model.capabilities


async def test_version_0_4_tells_all() -> None:
    async with lm_studio(V0, V1) as (provider, server, _):
        qwen, gpt, nomic = await provider.get_available_models()
        by_instance = await provider.get_model_info("my-gpt")
    assert (qwen.name, qwen.size, qwen.parameters) == ("Qwen 2.5 7B", 4_700_000_000, 7_000_000_000)
    assert (qwen.loaded, gpt.loaded, gpt.effective_context) == (False, True, 8192)
    assert Capability.TOOLS in qwen.capabilities
    assert {Capability.VISION, Capability.THINKING} <= gpt.capabilities
    assert (nomic.capabilities, nomic.quantization) == ({Capability.EMBEDDING}, None)
    assert by_instance == gpt
    assert {request.path for request in server.requests} == {"/api/v1/models"}


@pytest.mark.parametrize(
    "script",
    [
        reply({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "llamacpp"}]}),
        reply("<html>hello</html>", 200, "text/html"),
        reply({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404),
        reply("404 page not found", 404, "text/plain"),
    ],
    ids=["openai", "html", "llama.cpp", "ollama"],
)
async def test_what_is_no_lm_studio_is_known_by_its_shape(script: Script) -> None:
    async with ScriptedServer(script) as server:
        provider = LMStudioProvider("studio", server.origin)
        assert not await provider.is_available()
        with pytest.raises(errors.LLMConnectionError, match="not LM Studio"):
            await provider.connect()
        await provider.disconnect()


async def test_a_missing_token_is_an_authentication_error() -> None:
    error = {"error": {"message": "An LM Studio API token is required", "type": "invalid_request", "code": None}}
    async with ScriptedServer(reply(error, 401)) as server:
        provider = LMStudioProvider("studio", server.origin)
        with pytest.raises(errors.AuthenticationError, match="API token") as caught:
            await provider.connect()
        await provider.disconnect()
    assert len(caught.value.lines()) == 2


# -- models


@covers("load_model", "unload_model")
async def test_models_are_loaded_and_every_instance_is_freed() -> None:
    loaded = {"type": "llm", "instance_id": "qwen2.5-7b", "load_time_seconds": 9.1, "status": "loaded"}
    unload = {"POST /api/v1/models/unload": lambda request: request.json()}
    async with lm_studio(V1, unload, {"POST /api/v1/models/load": loaded}) as (provider, server, told):
        await provider.load_model("qwen2.5-7b")
        await provider.unload_model("gpt-oss-20b")
    assert [type(e) for e in told] == [events.ModelLoading, events.ModelLoaded, events.ModelUnloaded]
    sent = [request.json() for request in server.requests if request.method == "POST"]
    assert sent == [{"model": "qwen2.5-7b"}, {"instance_id": "gpt-oss-20b"}, {"instance_id": "my-gpt"}]


async def test_an_older_server_is_not_even_asked_to_manage_models() -> None:
    async with lm_studio(V0) as (provider, server, _):
        for attempt in (
            provider.load_model("gemma-3-4b"),
            provider.unload_model("gemma-3-4b"),
            anext(provider.pull_model("x")),
        ):
            with pytest.raises(errors.UnsupportedOperationError) as caught:
                await attempt
            assert "0.4" in caught.value.next_step
    assert posts(server) == []


def downloading(*states: dict[str, Any]) -> Replies:
    """A download that goes through these states, one for each look."""
    left = [{"job_id": "j1", "total_size_bytes": 1000, **state} for state in states]

    def look(_: Request) -> Any:
        return left.pop(0)

    return {"POST /api/v1/models/download": look, "GET /api/v1/models/download/status/j1": look}


@covers("pull_model")
async def test_a_download_is_watched_to_its_end() -> None:
    states = [{"status": "downloading"}, {"status": "downloading", "downloaded_bytes": 400, "bytes_per_second": 5}]
    async with lm_studio(V1, downloading(*states, {"status": "completed"})) as (provider, _, told):
        steps = [(step.status, step.completed, step.total) async for step in provider.pull_model("qwen3-4b")]
    assert steps == [("downloading", 0, 1000), ("downloading", 400, 1000), ("completed", 1000, 1000)]
    assert isinstance(told[-1], events.ModelPulled)
    assert [e.completed for e in told[:-1] if isinstance(e, events.ModelPulling)] == [0, 400, 1000]


async def test_what_is_there_already_is_not_fetched() -> None:
    there = {"POST /api/v1/models/download": {"status": "already_downloaded"}}
    async with lm_studio(V1, there) as (provider, _, _):
        assert [step.status async for step in provider.pull_model("qwen3-4b")] == ["already_downloaded"]


async def test_a_download_that_fails_or_is_unknown_says_so() -> None:
    async with lm_studio(V1, downloading({"status": "downloading"}, {"status": "failed"})) as (provider, _, _):
        with pytest.raises(errors.RequestError, match="could not download qwen3"):
            _ = [step async for step in provider.pull_model("qwen3")]
    missing = reply({"error": {"type": "model_not_found", "message": "No model nobody/x", "param": "model"}}, 404)
    async with lm_studio(V1, {"POST /api/v1/models/download": missing}) as (provider, _, told):
        with pytest.raises(errors.ModelNotFoundError, match="nobody/x"):
            _ = [step async for step in provider.pull_model("nobody/x")]
    assert told == []


# -- answers


@covers("generate_chat_completion", "stream_chat_completion", "prepare")
async def test_a_loaded_model_answers_without_a_word_about_loading() -> None:
    async with lm_studio(V0, {CHAT: says("Hello.", "gemma-3-4b")}) as (provider, server, told):
        await provider.prepare("gemma-3-4b")
        response = await provider.generate_chat_completion("hi", model="gemma-3-4b")
    assert (response.text, response.finish_reason, response.model) == ("Hello.", FinishReason.STOP, "gemma-3-4b")
    assert told == []
    assert posts(server) == ["/v1/chat/completions"]


@covers("generate_completion", "stream_completion")
async def test_raw_text_goes_on() -> None:
    more = event({"choices": [{"index": 0, "text": " two", "finish_reason": None}], "model": "gemma-3-4b"})
    script = [head(200, "text/event-stream") + more + finish("length") + DONE]
    async with lm_studio(V0, {"POST /v1/completions": script}) as (provider, _, _):
        response = await provider.generate_completion("one", model="gemma-3-4b")
    assert (response.text, response.finish_reason) == (" two", FinishReason.LENGTH)


async def test_a_long_silence_before_the_first_byte_is_loading_and_is_told() -> None:
    gate = Gate()
    async with lm_studio(V1, {CHAT: [gate, *says("Hi.", "qwen2.5-7b")]}) as (provider, _, told):
        await provider.prepare("qwen2.5-7b")
        asking = asyncio.create_task(provider.generate_chat_completion("hi", model="qwen2.5-7b"))
        await asyncio.to_thread(gate.reached.wait, 5)
        assert [type(e) for e in told] == [events.ModelLoading]
        assert not asking.done()
        gate.open()
        assert (await asking).text == "Hi."
        assert [type(e) for e in told] == [events.ModelLoading, events.ModelLoaded]
        await provider.generate_chat_completion("hi", model="qwen2.5-7b")
    assert len(told) == 2


async def test_another_model_than_the_one_asked_for_is_an_error_before_any_text() -> None:
    async with (
        lm_studio(V0, {CHAT: says("Wrong.", "gemma-3-4b")}) as (provider, _, _),
        provider.stream_chat_completion("hi", model="qwen2.5-7b") as stream,
    ):
        with pytest.raises(errors.ModelNotFoundError, match=r"'gemma-3-4b' instead of 'qwen2.5-7b'"):
            await anext(stream)


@pytest.mark.parametrize(
    ("asked", "answering"),
    [("my-gpt", "my-gpt"), ("gpt-oss-20b", "my-gpt"), ("my-gpt", "gpt-oss-20b"), ("gpt-oss-20b", "gpt-oss-20b:2")],
)
async def test_any_instance_of_the_model_may_answer(asked: str, answering: str) -> None:
    async with lm_studio(V1, {CHAT: says("Right.", answering)}) as (provider, _, _):
        assert (await provider.generate_chat_completion("hi", model=asked)).text == "Right."


async def test_no_model_loaded_and_an_unknown_one_are_named_as_such() -> None:
    words = "No models loaded. Please load a model in the developer page or use the `lms load` command."
    error = {"message": words, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    async with lm_studio(V0, {CHAT: reply({"error": error}, 404)}) as (provider, server, _):
        with pytest.raises(errors.ModelNotFoundError, match="No models loaded"):
            await provider.generate_chat_completion("hi", model="gemma-3-4b")
        with pytest.raises(errors.ModelNotFoundError, match="nobody"):
            await provider.generate_chat_completion("hi", model="nobody")
    assert posts(server) == ["/v1/chat/completions"]


async def test_an_answer_that_breaks_off_is_truncated_and_keeps_its_text() -> None:
    script = [says("Half", "gemma-3-4b")[0].partition(finish())[0]]  # type: ignore[union-attr,operator]
    async with lm_studio(V0, {CHAT: script}) as (provider, _, _):
        with pytest.raises(errors.StreamTruncatedError) as caught:
            await provider.generate_chat_completion("hi", model="gemma-3-4b")
    assert caught.value.partial_text == "Half"


async def test_leaving_a_stream_closes_its_connection() -> None:
    gate = Gate()
    begun = says("One", "gemma-3-4b")[0].partition(finish())[0]  # type: ignore[union-attr,operator]
    async with lm_studio(V0, {CHAT: [begun, gate]}) as (provider, server, _):
        async with provider.stream_chat_completion("hi", model="gemma-3-4b") as stream:
            assert (await anext(stream)).text == "One"
        await server.visits[-1].until_left(2)
        assert provider.in_flight == 0
