"""The servers that the contract's cases run on, one of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from contract import Subject
from live import place
from servers.real_ollama import Ollama, computes

from llm_jupyter.providers._llama_process import LaunchPlan, LlamaProcess
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.providers.llamacpp import LlamaCppProvider
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider

CONTEXT = 512

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


class LlamaLook:
    """A look at a llama.cpp server, by its own addresses."""

    def __init__(self, ask: Callable[[str, Any], Awaitable[Any]]) -> None:
        self._ask = ask

    async def is_busy(self) -> bool:
        return any(slot["is_processing"] for slot in await self._ask("/slots", None))

    async def rendered(self, messages: list[dict[str, Any]]) -> tuple[str, int]:
        prompt = (await self._ask("/apply-template", {"messages": messages}))["prompt"]
        tokens = (await self._ask("/tokenize", {"content": prompt, "parse_special": True}))["tokens"]
        return prompt, len(tokens)


@asynccontextmanager
async def embedded(weights: Path, home: Path, ollama: Ollama) -> AsyncIterator[Subject]:
    place(weights, home)
    async with LlamaCppProvider(home=home, context=CONTEXT, threads=1) as provider:

        async def ask(path: str, body: Any) -> Any:
            await provider.prepare(MODEL_ID)
            assert provider._process.host is not None
            return await asker(provider._process.host.url, provider._process.host.api_key)(path, body)

        look = LlamaLook(ask)

        server = await LlamaProcess.start(weights, MODEL_ID, LaunchPlan(CONTEXT, 1, 1))
        try:
            facts = {**KNOWN, "license": "apache-2.0", "size": 98_362_432, "loaded": True}
            yield Subject(
                provider,
                MODEL_ID,
                f"{server.url}/v1",
                server.api_key,
                is_busy=look.is_busy,
                rendered=look.rendered,
                knows=facts,
                gives_advice=True,
                fetches=True,
            )
        finally:
            await server.stop()


@asynccontextmanager
async def llama_server(weights: Path, home: Path, ollama: Ollama) -> AsyncIterator[Subject]:
    server = await LlamaProcess.start(weights, MODEL_ID, LaunchPlan(CONTEXT, 1, 1))
    url = f"{server.url}/v1"
    try:
        async with OpenAICompatibleProvider("local", url, server.api_key) as provider:
            look = LlamaLook(asker(server.url, server.api_key))
            facts = {**KNOWN, "size": 96_576_768, "loaded": True}  # without the header, which is not in memory
            yield Subject(
                provider,
                MODEL_ID,
                url,
                server.api_key,
                is_busy=look.is_busy,
                rendered=look.rendered,
                knows=facts,
                refuses_unknown_models=False,  # llama.cpp's server answers with what it has
            )
    finally:
        await server.stop()


@asynccontextmanager
async def ollama_server(weights: Path, home: Path, ollama: Ollama) -> AsyncIterator[Subject]:
    async def rendered(messages: list[dict[str, Any]]) -> tuple[str, int]:
        """By the template that Ollama knows these weights to have, counted by sending it as it stands."""
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        prompt = f"{turns}<|im_start|>assistant\n"
        options = {"num_ctx": CONTEXT, "num_predict": 1}
        body = {"model": ollama.model, "prompt": prompt, "raw": True, "stream": False, "options": options}
        return prompt, (await asker(ollama.url, "")("/api/generate", body))["prompt_eval_count"]

    async def is_busy() -> bool:
        return await computes(ollama.runners())

    async with OllamaProvider("ollama", ollama.url, context=CONTEXT) as provider:
        facts = {**KNOWN, "license": "apache-2.0", "size": 98_363_022, "loaded": True}
        yield Subject(
            provider,
            ollama.model,
            ollama.url,
            is_busy=is_busy,
            rendered=rendered,
            knows=facts,
            checks_keys=False,  # Ollama takes any
            fetches=True,
            idles_within=5.0,
        )


SUBJECTS = {"llamacpp": embedded, "ollama": ollama_server, "openai-compatible": llama_server}
"""LM Studio is a program with a window that no test can start: it is scripted."""
