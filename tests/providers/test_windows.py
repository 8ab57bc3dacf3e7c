"""The window that is in effect and the length of a prompt, as each kind of server tells them: live, and on scripted ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from contract import covers
from kind_scripts import ndjson
from servers.real_ollama import Ollama
from servers.scripted import End, Request, Script, ScriptedServer, reply

from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.providers.base import LLMProvider, Window
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.providers.lmstudio import LMStudioProvider
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.types import GenerationOptions, Image, Message, ToolDefinition

HELLO = [Message.user("Hello there.")]
Replies = dict[str, Any]
"""What a server answers, by method and path: a value as JSON, or a script. It may be changed between two requests."""


@asynccontextmanager
async def served(
    replies: Replies,
    kind: type[LLMProvider] = OpenAICompatibleProvider,
    otherwise: Script | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Any, ScriptedServer]]:
    """A provider of a scripted server, and that server."""

    def play(request: Request) -> Script:
        told = replies.get(address(request), otherwise or reply({"error": {"message": "File Not Found"}}, 404))
        return told if isinstance(told, list) else reply(told)

    async with ScriptedServer(play) as server:
        provider = kind("served", server.base_url, **settings)  # type: ignore[call-arg]
        try:
            yield provider, server
        finally:
            await provider.disconnect()


def address(request: Request) -> str:
    return f"{request.method} {request.path}"


def asked(server: ScriptedServer) -> list[str]:
    """The addresses that were asked so far."""
    return [address(request) for request in server.requests]


def props(tokens: int) -> Any:
    return {"default_generation_settings": {"n_ctx": tokens}}


TOKENIZER: Replies = {
    "POST /apply-template": {"prompt": "<user>Hello there."}, "POST /tokenize": {"tokens": [1, 2, 3, 4]}
}  # fmt: skip
SILENT: Script = [End.HOLD]
NONSENSE = reply({"error": "Unexpected endpoint or method. Returning 200 anyway"})


# -- llama.cpp's server


async def test_llama_cpp_is_asked_each_time_since_it_may_have_been_started_anew() -> None:
    replies = {"GET /props": props(4096), "GET /slots": reply([{"n_ctx": 99}])}
    async with served(replies) as (provider, server):
        assert await provider.context_window("m") == Window(4096, "/props")
        replies["GET /props"] = props(512)
        assert await provider.context_window("m") == Window(512, "/props")
    assert asked(server) == ["GET /props", "GET /props"]


async def test_where_the_properties_are_switched_off_the_smallest_slot_tells() -> None:
    async with served({"GET /slots": reply([{"id": 0, "n_ctx": 1024}, {"id": 1, "n_ctx": 512}])}) as (provider, server):
        assert await provider.context_window("m") == Window(512, "/slots")
        assert await provider.context_window("m") == Window(512, "/slots")
    assert asked(server) == ["GET /props", "GET /slots", "GET /slots"]


async def test_a_prompt_is_counted_by_template_and_tokenizer() -> None:
    async with served({"GET /props": props(512), **TOKENIZER}) as (provider, server):
        assert await provider.count_tokens(HELLO, "m") == 4
        assert await provider.count_tokens(HELLO, "m") == 4
        assert await provider.count_tokens([Message.user("What?", [Image(b"png")])], "m") is None
    assert asked(server) == ["GET /props"] + 2 * ["POST /apply-template", "POST /tokenize"]


async def test_a_llama_cpp_without_a_template_address_is_asked_for_it_once() -> None:
    async with served({"GET /props": props(512)}) as (provider, server):
        assert await provider.count_tokens(HELLO, "m") is None
        assert await provider.count_tokens(HELLO, "m") is None
    assert asked(server) == ["GET /props", "POST /apply-template"]


async def test_messages_that_a_template_refuses_do_not_mean_that_there_is_none() -> None:
    replies = {"GET /props": props(512), **TOKENIZER, "POST /apply-template": reply({"error": "roles"}, 500)}
    async with served(replies) as (provider, _):
        assert await provider.count_tokens(HELLO, "m") is None
        replies |= TOKENIZER
        assert await provider.count_tokens(HELLO, "m") == 4


# -- other servers of that protocol

LISTED = {
    "vLLM": ({"id": "m", "max_model_len": 2048}, Window(2048, "as its list of models says")),
    "a loaded one": ({"id": "m", "meta": {"n_ctx": 512, "n_ctx_train": 8192}}, Window(512, "as its list of models says")),
    "a declared one": ({"id": "m", "context_length": 32_768}, Window(32_768, "as the model declares")),
    "nothing": ({"id": "m"}, None),
    "another model": ({"id": "n", "max_model_len": 2048}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTED.values(), ids=LISTED)
@pytest.mark.parametrize("otherwise", [None, NONSENSE], ids=["404", "200 for everything"])
async def test_others_are_asked_once_and_no_prompt_is_posted_to_them(
    case: tuple[Any, Window | None], otherwise: Script | None
) -> None:
    entry, window = case
    async with served({"GET /v1/models": {"data": [entry]}}, otherwise=otherwise) as (provider, server):
        for _ in range(2):
            assert await provider.context_window("m") == window
            assert await provider.count_tokens(HELLO, "m") is None
        assert asked(server) == ["GET /props", "GET /slots", "GET /v1/models"]
        await provider.disconnect()
        assert await provider.context_window("m") == window
        assert len(asked(server)) == 6


async def test_a_server_that_is_down_or_silent_tells_nothing_and_that_is_not_remembered() -> None:
    replies: Replies = {"GET /props": SILENT, **TOKENIZER}
    async with served(replies) as (provider, _):
        assert await provider.context_window("m") is None
        replies["GET /props"] = [End.RESET]
        assert await provider.context_window("m") is None
        assert await provider.count_tokens(HELLO, "m") is None
        replies["GET /props"] = reply({"error": {"message": "Loading model"}}, 503)
        assert await provider.context_window("m") is None
        replies["GET /props"] = props(512)
        assert await provider.context_window("m") == Window(512, "/props")
        assert await provider.count_tokens(HELLO, "m") == 4


# -- LM Studio


def model_v1(*instances: tuple[str, int]) -> Any:
    loaded = [{"id": name, "config": {"context_length": tokens}} for name, tokens in instances]
    return {"models": [{"key": "m", "type": "llm", "max_context_length": 40_960, "loaded_instances": loaded}]}


@covers("context_window", "count_tokens")
async def test_lm_studio_tells_the_window_of_what_is_loaded_and_not_what_is_declared() -> None:
    catalogue = "GET /api/v1/models"
    replies = {catalogue: model_v1()}
    async with served(replies, LMStudioProvider, NONSENSE) as (provider, server):
        assert await provider.context_window("m") is None
        replies[catalogue] = model_v1(("m:2", 8192), ("mine", 4096))
        assert await provider.context_window("m") == Window(4096, "as it is loaded")
        assert await provider.context_window("m:2") == Window(8192, "as it is loaded")
        replies[catalogue] = model_v1(("mine", 4096), ("m", 8192))
        assert await provider.context_window("m") == Window(8192, "as it is loaded")
        assert await provider.count_tokens(HELLO, "m") is None
    assert asked(server) == 4 * [catalogue]


async def test_an_older_lm_studio_tells_it_too() -> None:
    model = {"id": "m", "type": "llm", "state": "loaded", "max_context_length": 40_960, "loaded_context_length": 4096}
    replies: Replies = {"GET /api/v0/models": {"data": [model]}}
    async with served(replies, LMStudioProvider, NONSENSE) as (provider, server):
        assert await provider.context_window("m") == Window(4096, "as it is loaded")
        assert await provider.context_window("m") == Window(4096, "as it is loaded")
        del model["loaded_context_length"]
        assert await provider.context_window("m") is None
    assert asked(server) == ["GET /api/v1/models", "GET /api/v0/models", "GET /api/v0/models", "GET /api/v0/models"]


# -- Ollama

ANSWER = ndjson({"message": {"content": "ok"}}, {"done": True, "prompt_eval_count": 9, "eval_count": 1})


@pytest.mark.parametrize(
    ("context", "asked_for", "declared", "sent"),
    [(None, None, 131_072, 8192), (4096, None, 131_072, 4096), (None, 600, 2048, 600), (None, None, 2048, 2048),
     (4096, 9000, 2048, 2048)],
)  # fmt: skip
async def test_ollamas_window_is_the_one_that_every_request_sends(
    context: int | None, asked_for: int | None, declared: int, sent: int
) -> None:
    shown = {"details": {}, "model_info": {"llama.context_length": declared}}
    options = GenerationOptions(extra={"num_ctx": asked_for} if asked_for else {})
    replies: Replies = {"POST /api/show": shown, "POST /api/chat": ANSWER}
    async with served(replies, OllamaProvider, context=context) as (provider, server):
        for _ in range(2):
            assert await provider.context_window("m", options) == Window(sent, "num_ctx that is sent")
        await provider.generate_chat_completion("hi", model="m", options=options)
        assert await provider.count_tokens(HELLO, "m") is None
        assert asked(server) == ["POST /api/show", "POST /api/chat"]
        assert server.requests[-1].json()["options"]["num_ctx"] == sent


async def test_a_model_that_ollama_passes_on_has_the_window_that_it_declares() -> None:
    shown = {"details": {}, "model_info": {"x.context_length": 131_072}, "remote_host": "https://example.org"}
    async with served({"POST /api/show": shown}, OllamaProvider) as (provider, _):
        assert await provider.context_window("m:cloud") == Window(131_072, "as the model declares")
        assert await provider.context_window("m:cloud") == Window(131_072, "as the model declares")


# -- live


@pytest.mark.live
async def test_the_embedded_model_tells_its_window_before_it_is_loaded_and_truly_afterwards(llm_home: Path) -> None:
    async with LlamaCppProvider(home=llm_home, context=300, threads=1) as provider:
        assert await provider.context_window(MODEL_ID) == Window(300, "as it will be loaded")
        assert await provider.count_tokens(HELLO, MODEL_ID) is None
        assert provider.process_id is None
        await provider.load_model(MODEL_ID)
        assert await provider.context_window(MODEL_ID) == Window(512, "/props")  # llama.cpp rounds up
        assert await provider.context_window("no-such-model") is None
        tool = ToolDefinition("weather", "The weather.", {"type": "object", "properties": {}})
        options = GenerationOptions(max_tokens=1, tools=(tool,), json_schema={"type": "object"})
        answer = await provider.generate_chat_completion(HELLO, model=MODEL_ID, options=options)
        assert await provider.count_tokens(HELLO, MODEL_ID, options) == answer.usage.prompt_tokens
        await provider.unload_model(MODEL_ID)
        assert await provider.count_tokens(HELLO, MODEL_ID) is None
        assert provider.process_id is None


@pytest.mark.live
async def test_a_real_ollama_runs_with_the_window_that_is_told(ollama: Ollama) -> None:
    async with OllamaProvider("ollama", ollama.url, context=384) as provider:
        assert await provider.context_window(ollama.model) == Window(384, "num_ctx that is sent")
        await provider.load_model(ollama.model)
        (runner,) = ollama.runners()
        arguments = runner.cmdline()
        assert arguments[arguments.index("--ctx-size") + 1] == "384"
