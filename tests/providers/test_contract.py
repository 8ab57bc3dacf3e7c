"""Every kind of provider through the same cases: live where a small model can, on a scripted server for the rest."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from contract import Contract, Subject, covered_by, covers
from coverage_table import COVERAGE, LIVE, SCRIPTED, UNSUPPORTED
from kind_scripts import SCRIPTS
from live import place
from servers.echoing import KEY, ODD, echo
from servers.real_ollama import Ollama
from servers.scripted import Request, Script, ScriptedServer, reply
from subjects import CONTEXT, SUBJECTS

from llm_jupyter.errors import LLMError, ModelNotFoundError, UnsupportedOperationError
from llm_jupyter.providers import BUILTIN, provider_class
from llm_jupyter.providers._weights import FILE, MODEL_ID
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.providers.lmstudio import LMStudioProvider
from llm_jupyter.testing import ServerContract
from llm_jupyter.testing import Subject as AnySubject
from llm_jupyter.types import FinishReason, GenerationOptions, Image, Message, ToolDefinition


@pytest_asyncio.fixture(scope="class", loop_scope="class", params=sorted(SUBJECTS))
async def served(
    request: pytest.FixtureRequest, weights: Path, tmp_path_factory: pytest.TempPathFactory, ollama: Ollama
) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param](weights, tmp_path_factory.mktemp("home"), ollama) as subject:
        yield subject


class TestEveryKind(Contract):
    """The contract's cases, for every kind."""

    @pytest.fixture
    def subject(self, served: Subject) -> Subject:  # type: ignore[override]  # one server for all cases
        return served


class TestLMStudio(ServerContract):
    """The shipped cases for the kind that no test can start, on a server that repeats what it is asked."""

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with ScriptedServer(echo) as self.server:
            yield

    def describe(self) -> AnySubject:
        url = self.server.base_url
        return AnySubject(LMStudioProvider("studio", url, KEY), "m", url, KEY, answer=ODD, goes_on="you said:")


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


WEATHER = ToolDefinition("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


@asynccontextmanager
async def scripted(kind: str, *scripts: Script) -> AsyncIterator[tuple[LLMProvider, ScriptedServer]]:
    left = list(scripts)

    def play(request: Request) -> Script:
        aside = SCRIPTS[kind].asides.get(request.path)
        return left.pop(0) if aside is None else reply(aside)

    async with ScriptedServer(play) as server:
        provider = provider_class(kind)("scripted", server.base_url)  # type: ignore[call-arg]
        try:
            yield provider, server
        finally:
            await provider.disconnect()


def questions(kind: str, server: ScriptedServer) -> list[Any]:
    """The bodies of the requests that were no asides."""
    return [request.json() for request in server.requests if request.path not in SCRIPTS[kind].asides]


@pytest.mark.parametrize("kind", sorted(BUILTIN))
class TestOnAScriptedServer:
    """The contract's cases that need another model."""

    async def test_a_tool_is_called_and_its_result_sent_back(self, kind: str) -> None:
        scripts = SCRIPTS[kind]
        question = Message.user("How is it in Rome?")
        options = GenerationOptions(tools=(WEATHER,))
        async with scripted(kind, scripts.calls_tool, scripts.answers("Sunny.")) as (provider, server):
            asked = await provider.generate_chat_completion([question], model="m", options=options)
            (call,) = asked.tool_calls
            assert (call.name, call.parsed_arguments()) == ("weather", {"city": "Rome"})
            assert (asked.text, asked.finish_reason) == ("", FinishReason.TOOL_CALLS)
            told = [question, asked.message, Message.tool("22 degrees", call.id)]
            response = await provider.generate_chat_completion(told, model="m", options=options)
        assert (response.text, response.finish_reason) == ("Sunny.", FinishReason.STOP)
        sent = questions(kind, server)[1]["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
        assert "Rome" in str(sent[1]["tool_calls"])
        assert "22 degrees" in str(sent[2])

    async def test_thinking_stands_apart_and_is_not_sent_back(self, kind: str) -> None:
        scripts = SCRIPTS[kind]
        async with scripted(kind, scripts.thinks, scripts.answers("Sure.")) as (provider, server):
            response = await provider.generate_chat_completion("Is it?", model="m")
            assert (response.thinking, response.text) == ("It is easy.", "Yes.")
            again = [Message.user("Is it?"), response.message, Message.user("Sure?")]
            await provider.generate_chat_completion(again, model="m")
        sent = str(questions(kind, server)[1])
        assert "easy" not in sent
        assert "Yes." in sent

    async def test_a_picture_is_sent_with_its_question(self, kind: str) -> None:
        picture = Image(b"\x89PNG\r\n", "image/png")
        async with scripted(kind, SCRIPTS[kind].answers("A cat.")) as (provider, server):
            response = await provider.generate_chat_completion([Message.user("What?", [picture])], model="m")
        assert response.text == "A cat."
        (message,) = questions(kind, server)[0]["messages"]
        assert "What?" in str(message)
        assert "iVBORw0K" in str(message)


@covers("embed")
@pytest.mark.parametrize("kind", [kind for kind, row in COVERAGE.items() if row["embed"] == SCRIPTED])
async def test_texts_become_vectors_in_their_order(kind: str) -> None:
    async with scripted(kind, SCRIPTS[kind].embeds) as (provider, server):
        assert await provider.embed(["a", "b"], model="m") == [[1.0, 0.0], [2.0, 0.5]]
    assert questions(kind, server)[0]["input"] == ["a", "b"]


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
    assert set(COVERAGE) == set(BUILTIN) == set(SCRIPTS)
    assert set(SUBJECTS) == {kind for kind, row in COVERAGE.items() if LIVE in row.values()}
    for kind, row in COVERAGE.items():
        assert set(row) == methods, kind
        assert all(cell in (LIVE, SCRIPTED) or len(cell) > len(UNSUPPORTED) for cell in row.values()), kind


def test_what_the_table_says_is_what_the_cases_cover() -> None:
    live = covered_by(TestEveryKind)
    managed = covered_by(test_the_embedded_provider_manages_its_models)
    on_ollama = covered_by(importlib.import_module("test_ollama_models"))
    said = {kind: {method for method in row if row[method] == LIVE} for kind, row in COVERAGE.items()}
    assert said == {
        "llamacpp": live | managed, "lmstudio": set(), "ollama": live | on_ollama, "openai-compatible": live
    }  # fmt: skip
    embedding = covered_by(test_texts_become_vectors_in_their_order)
    scripted_ones = {kind: {method for method in row if row[method] == SCRIPTED} for kind, row in COVERAGE.items()}
    modules = [importlib.import_module(name) for name in ("test_lmstudio", "test_windows")]
    lm_studio = embedding | covered_by(TestLMStudio, *modules)
    assert scripted_ones == {"llamacpp": set(), "lmstudio": lm_studio, "ollama": set(), "openai-compatible": embedding}
    assert live
    assert managed < on_ollama
    assert not live & managed


def test_nothing_of_model_management_is_missing_from_the_embedded_model_and_from_ollama() -> None:
    must = {"get_available_models", "get_model_info", "load_model", "unload_model", "pull_model", "delete_model"}
    for kind in ("llamacpp", "ollama"):
        assert {COVERAGE[kind][method] for method in must | {"generate_chat_completion"}} == {LIVE}
