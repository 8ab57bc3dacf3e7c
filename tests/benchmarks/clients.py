"""One client in its own environment: `python -P clients.py NAME URL TOKENS TEXT`.

For every line on its input it streams one answer and prints the CPU seconds that took, from the request to the end of the
stream. What arrived is checked against the number of tokens and the text after the clock has stopped. A client of
another protocol is one more function here, and one more format in the server.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

MESSAGES = [{"role": "user", "content": ""}]

Stream = Callable[[], Any]
"""One whole answer: a coroutine function that gives everything that arrived, unlooked at."""


@asynccontextmanager
async def llm_jupyter(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider

    async with OpenAICompatibleProvider("bench", base_url=url) as provider:

        async def stream() -> list[Any]:
            async with provider.stream_chat_completion(MESSAGES, model="m") as chunks:
                return [chunk async for chunk in chunks]

        yield stream, lambda chunk: chunk.text


@asynccontextmanager
async def httpx(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    import json

    import httpx

    body = {"model": "m", "stream": True, "messages": MESSAGES}
    async with httpx.AsyncClient(timeout=60) as client:

        async def stream() -> list[str]:
            async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                return [line async for line in response.aiter_lines()]

        def text(line: str) -> str:
            data = line.removeprefix("data: ")
            return json.loads(data)["choices"][0]["delta"].get("content", "") if data.startswith("{") else ""

        yield stream, text


@asynccontextmanager
async def openai(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none") as client:

        async def stream() -> list[Any]:
            reply = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            return [event async for event in reply]

        yield stream, lambda event: event.choices[0].delta.content or "" if event.choices else ""


@asynccontextmanager
async def litellm(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    import litellm

    async def stream() -> list[Any]:
        reply = await litellm.acompletion(
            model="openai/m", api_base=url, api_key="none", messages=MESSAGES, stream=True
        )
        return [event async for event in reply]

    yield stream, lambda event: event.choices[0].delta.content or ""


@asynccontextmanager
async def llm_jupyter_ollama(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    from llm_jupyter.providers.ollama import OllamaProvider

    async with OllamaProvider("bench", base_url=url) as provider:

        async def stream() -> list[Any]:
            async with provider.stream_chat_completion(MESSAGES, model="m") as chunks:
                return [chunk async for chunk in chunks]

        yield stream, lambda chunk: chunk.text


@asynccontextmanager
async def httpx_ndjson(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    import json

    import httpx

    body = {"model": "m", "stream": True, "messages": MESSAGES}
    async with httpx.AsyncClient(timeout=60) as client:

        async def stream() -> list[str]:
            async with client.stream("POST", url.removesuffix("/v1") + "/api/chat", json=body) as response:
                return [line async for line in response.aiter_lines()]

        yield stream, lambda line: json.loads(line)["message"]["content"] if line else ""


@asynccontextmanager
async def ollama(url: str) -> AsyncIterator[tuple[Stream, Callable[[Any], str]]]:
    from ollama import AsyncClient

    client = AsyncClient(host=url.removesuffix("/v1"))

    async def stream() -> list[Any]:
        return [part async for part in await client.chat(model="m", messages=MESSAGES, stream=True)]

    yield stream, lambda part: part["message"]["content"] or ""


CLIENTS = {
    client.__name__: client
    for client in (llm_jupyter, httpx, openai, litellm, llm_jupyter_ollama, httpx_ndjson, ollama)
}


async def main(name: str, url: str, count: int, expected: str) -> None:
    async with CLIENTS[name](url) as (stream, text_of):
        print("ready", flush=True)
        for _ in sys.stdin:  # nothing else runs on this loop
            started = time.process_time()
            arrived = await stream()
            seconds = time.process_time() - started
            texts = [text for item in arrived if (text := text_of(item))]
            assert len(texts) == count, f"{name}: {len(texts)} pieces of text instead of {count}"
            assert "".join(texts) == expected, f"{name}: the text is not what was sent"
            print(seconds, flush=True)


if __name__ == "__main__":
    MESSAGES[0]["content"] = sys.argv[3]
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3].split()[1]), sys.stdin.readline().rstrip("\n")))
