"""Every kind of provider through the same cases: live where a small model can, on a scripted server for the rest."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from live import place
from servers.scripted import DONE, Script, ScriptedServer, answer, delta, finish, reply, sse

from llm_jupyter.errors import LLMError, ModelNotFoundError, UnsupportedOperationError
from llm_jupyter.providers import BUILTIN, provider_class
from llm_jupyter.providers._llama_process import LaunchPlan, LlamaProcess
from llm_jupyter.providers._weights import FILE, MODEL_ID
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import FinishReason, GenerationOptions, Image, Message, ToolDefinition

pytest.register_assert_rewrite("contract")
from contract import Contract, Subject, covered_by, covers  # noqa: E402 - after the line that makes its asserts speak

CONTEXT = 512
LIVE, SCRIPTED, UNSUPPORTED = "live", "scripted", "unsupported because "
NO_MANAGEMENT = UNSUPPORTED + "the protocol has no such request"

COVERAGE: dict[str, dict[str, str]] = {
    "llamacpp": {
        "advice": LIVE,
        "connect": LIVE,
        "delete_model": LIVE,
        "disconnect": LIVE,
        "embed": UNSUPPORTED + "llama.cpp is started for answers, and a server of its own would have to be for vectors",
        "generate_chat_completion": LIVE,
        "generate_completion": LIVE,
        "get_available_models": LIVE,
        "get_model_info": LIVE,
        "get_status": LIVE,
        "is_available": LIVE,
        "load_model": LIVE,
        "prepare": LIVE,
        "pull_model": LIVE,
        "stream_chat_completion": LIVE,
        "stream_completion": LIVE,
        "unload_model": LIVE,
    },
    "openai-compatible": {
        "advice": LIVE,
        "connect": LIVE,
        "delete_model": NO_MANAGEMENT,
        "disconnect": LIVE,
        "embed": SCRIPTED,
        "generate_chat_completion": LIVE,
        "generate_completion": LIVE,
        "get_available_models": LIVE,
        "get_model_info": LIVE,
        "get_status": LIVE,
        "is_available": LIVE,
        "load_model": NO_MANAGEMENT,
        "prepare": LIVE,
        "pull_model": NO_MANAGEMENT,
        "stream_chat_completion": LIVE,
        "stream_completion": LIVE,
        "unload_model": NO_MANAGEMENT,
    },
}
"""How each method of each kind of provider is tested. A new kind is a new row, and a new entry of `SUBJECTS`."""

KNOWN = {"parameters": 134_515_008, "context_length": 8192, "effective_context": CONTEXT, "quantization": "Q4_1"}


def asker(url: str, key: str) -> Callable[[str, Any], Awaitable[Any]]:
    """Requests to a llama.cpp server, past the provider."""

    async def ask(path: str, body: Any) -> Any:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.request("GET" if body is None else "POST", url + path, json=body) as response,
        ):
            return await response.json()

    return ask


@asynccontextmanager
async def embedded(weights: Path, home: Path) -> AsyncIterator[Subject]:
    place(weights, home)
    async with LlamaCppProvider(home=home, context=CONTEXT, threads=1) as provider:

        async def ask(path: str, body: Any) -> Any:
            await provider.prepare(MODEL_ID)
            assert provider._process is not None
            return await asker(provider._process.url, provider._process.api_key)(path, body)

        server = await LlamaProcess.start(weights, MODEL_ID, LaunchPlan(CONTEXT, 1, 1))
        try:
            facts = {**KNOWN, "license": "apache-2.0", "size": 98_362_432, "loaded": True}
            yield Subject(provider, MODEL_ID, f"{server.url}/v1", ask, facts, refuses_unknown_models=True)
        finally:
            await server.stop()


@asynccontextmanager
async def llama_server(weights: Path, home: Path) -> AsyncIterator[Subject]:
    server = await LlamaProcess.start(weights, MODEL_ID, LaunchPlan(CONTEXT, 1, 1))
    url = f"{server.url}/v1"
    try:
        async with OpenAICompatibleProvider("local", url, server.api_key) as provider:
            ask = asker(server.url, server.api_key)
            facts = {**KNOWN, "size": 96_576_768, "loaded": True}  # without the header, which is not in memory
            yield Subject(provider, MODEL_ID, url, ask, facts, refuses_unknown_models=False)
    finally:
        await server.stop()


SUBJECTS = {"llamacpp": embedded, "openai-compatible": llama_server}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(BUILTIN))
async def subject(
    request: pytest.FixtureRequest, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param](weights, tmp_path_factory.mktemp("home")) as subject:
        yield subject


class TestEveryKind(Contract):
    """The contract's cases, for every kind."""


@covers("pull_model", "delete_model", "load_model", "unload_model")
async def test_the_embedded_provider_manages_its_models(llm_home: Path, weights: Path) -> None:
    second = place(weights, llm_home, "second.gguf")
    async with LlamaCppProvider(home=llm_home, context=CONTEXT) as provider:
        steps = [step.status async for step in provider.pull_model(MODEL_ID)]
        assert steps == ["waiting for another download"]
        assert [model.id for model in await provider.get_available_models()] == [MODEL_ID, "second"]
        await provider.load_model("second")
        assert (await provider.get_model_info("second")).loaded is True
        await provider.unload_model(MODEL_ID)
        assert provider.process_id is not None
        await provider.unload_model("second")
        assert provider.process_id is None
        await provider.load_model("second")
        await provider.delete_model("second")
        assert provider.process_id is None
        assert not second.exists()
        with pytest.raises(ModelNotFoundError):
            await provider.delete_model("second")
    assert (llm_home / "models" / FILE).exists()


# -- what a small model cannot do, and what a server may not have


@dataclass
class Scripts:
    """A kind's protocol: the same three answers in its bytes, and where its requests hold what they were given."""

    calls_tool: Script
    thinks: Script
    embeds: Script
    messages: Callable[[Any], list[dict[str, Any]]]


def _call(**fields: Any) -> bytes:
    return delta(tool_calls=[{"index": 0, **fields}])


OPENAI = Scripts(
    sse(
        _call(id="c1", type="function", function={"name": "weather", "arguments": ""}),
        *(_call(function={"arguments": piece}) for piece in ('{"ci', 'ty": "Ro', 'me"}')),
        finish("tool_calls"),
        DONE,
    ),
    sse(delta(reasoning_content="It is "), delta(reasoning_content="easy."), delta("Yes."), finish(), DONE),
    reply({"data": [{"index": 1, "embedding": [2.0, 0.5]}, {"index": 0, "embedding": [1.0, 0.0]}]}),
    lambda body: body["messages"],
)
SCRIPTS = {"llamacpp": OPENAI, "openai-compatible": OPENAI}
WEATHER = ToolDefinition("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


@asynccontextmanager
async def scripted(kind: str, *scripts: Script) -> AsyncIterator[tuple[LLMProvider, ScriptedServer]]:
    async with ScriptedServer(*scripts) as server:
        provider = provider_class(kind)("scripted", server.base_url)  # type: ignore[call-arg]
        try:
            yield provider, server
        finally:
            await provider.disconnect()


@pytest.mark.parametrize("kind", sorted(BUILTIN))
class TestOnAScriptedServer:
    """The contract's cases that need another model."""

    async def test_a_tool_is_called_and_its_result_sent_back(self, kind: str) -> None:
        scripts = SCRIPTS[kind]
        question = Message.user("How is it in Rome?")
        options = GenerationOptions(tools=(WEATHER,))
        async with scripted(kind, scripts.calls_tool, answer("Sunny.")) as (provider, server):
            asked = await provider.generate_chat_completion([question], model="m", options=options)
            (call,) = asked.tool_calls
            assert (call.name, call.parsed_arguments()) == ("weather", {"city": "Rome"})
            assert (asked.text, asked.finish_reason) == ("", FinishReason.TOOL_CALLS)
            told = [question, asked.message, Message.tool("22 degrees", call.id)]
            response = await provider.generate_chat_completion(told, model="m", options=options)
        assert (response.text, response.finish_reason) == ("Sunny.", FinishReason.STOP)
        sent = scripts.messages(server.requests[1].json())
        assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
        assert "Rome" in str(sent[1]["tool_calls"])
        assert "22 degrees" in str(sent[2])

    async def test_thinking_stands_apart_and_is_not_sent_back(self, kind: str) -> None:
        scripts = SCRIPTS[kind]
        async with scripted(kind, scripts.thinks, answer("Sure.")) as (provider, server):
            response = await provider.generate_chat_completion("Is it?", model="m")
            assert (response.thinking, response.text) == ("It is easy.", "Yes.")
            again = [Message.user("Is it?"), response.message, Message.user("Sure?")]
            await provider.generate_chat_completion(again, model="m")
        assert "easy" not in server.requests[1].body.decode()
        assert "Yes." in server.requests[1].body.decode()

    async def test_a_picture_is_sent_with_its_question(self, kind: str) -> None:
        picture = Image(b"\x89PNG\r\n", "image/png")
        async with scripted(kind, answer("A cat.")) as (provider, server):
            response = await provider.generate_chat_completion([Message.user("What?", [picture])], model="m")
        assert response.text == "A cat."
        (message,) = SCRIPTS[kind].messages(server.requests[0].json())
        assert "What?" in str(message)
        assert "iVBORw0K" in str(message)


@covers("embed")
@pytest.mark.parametrize("kind", [kind for kind, row in COVERAGE.items() if row["embed"] == SCRIPTED])
async def test_texts_become_vectors_in_their_order(kind: str) -> None:
    async with scripted(kind, SCRIPTS[kind].embeds) as (provider, server):
        assert await provider.embed(["a", "b"], model="m") == [[1.0, 0.0], [2.0, 0.5]]
    assert server.requests[0].json()["input"] == ["a", "b"]


# -- the table itself

ARGUMENTS: dict[str, tuple[Any, ...]] = {"embed": (["a"],)}
REFUSED = [(kind, method) for kind, row in COVERAGE.items() for method in row if row[method].startswith(UNSUPPORTED)]


@pytest.mark.parametrize(("kind", "method"), REFUSED)
async def test_what_a_kind_does_not_support_is_said_and_nothing_is_sent(kind: str, method: str, tmp_path: Path) -> None:
    async def call(provider: LLMProvider) -> None:
        arguments = {"model": "m"}
        result = getattr(provider, method)(*ARGUMENTS.get(method, ()), **arguments)
        if inspect.isasyncgen(result):
            await anext(result)
        else:
            await result

    async with scripted(kind, reply({})) as (provider, server):
        if kind == "llamacpp":  # of the embedded one: at an address it is that server's own affair
            provider = LlamaCppProvider("scripted", home=tmp_path)
        with pytest.raises(UnsupportedOperationError, match="scripted") as caught:
            await call(provider)
    assert isinstance(caught.value, NotImplementedError)
    assert isinstance(caught.value, LLMError)
    assert len(caught.value.lines()) == 1
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_a_row_for_every_kind_and_a_cell_for_every_method() -> None:
    methods = {name for name, member in vars(LLMProvider).items() if callable(member) and not name.startswith("_")}
    assert set(COVERAGE) == set(BUILTIN) == set(SUBJECTS) == set(SCRIPTS)
    for kind, row in COVERAGE.items():
        assert set(row) == methods, kind
        assert all(cell in (LIVE, SCRIPTED) or len(cell) > len(UNSUPPORTED) for cell in row.values()), kind


def test_what_the_table_says_is_what_the_cases_cover() -> None:
    live = covered_by(TestEveryKind)
    managed = covered_by(test_the_embedded_provider_manages_its_models)
    said = {kind: {method for method in row if row[method] == LIVE} for kind, row in COVERAGE.items()}
    assert said == {"llamacpp": live | managed, "openai-compatible": live}
    assert {method for row in COVERAGE.values() for method in row if row[method] == SCRIPTED} == covered_by(
        test_texts_become_vectors_in_their_order
    )
    assert live
    assert not live & managed
