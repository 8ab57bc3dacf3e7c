"""One client during an outage: `python -P outage_clients.py NAME TROUBLED_URL HEALTHY_URL LIMIT`.

Each line on its input is a question: `main` goes to the server in trouble, with the healthy one to fall back on; `healthy`
goes to the healthy one at once. It prints the seconds to the first piece of the answer, or `error NAME`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

PROMPT = "prose 3 0"
Ask = Callable[[str], Awaitable[float]]


@asynccontextmanager
async def llm_jupyter(troubled: str, healthy: str, limit: float) -> AsyncIterator[Ask]:
    from llm_jupyter.factory import LLMFactory
    from llm_jupyter.settings import load_settings

    def provider(url: str) -> dict[str, str]:
        return {"kind": "openai-compatible", "base_url": url}

    values: dict[str, Any] = {
        "providers": {"troubled": provider(troubled), "healthy": provider(healthy)},
        "default_model": "troubled/m", "fallback": ["healthy/m"], "timeout": limit,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        async with LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": home}), environment={}) as llm:
            straight = await llm.providers.resolve("healthy/m")

            async def ask(whom: str) -> float:
                started = time.perf_counter()
                choice = straight if whom == "healthy" else None
                async with llm.sessions.current.ask_once(PROMPT, choice=choice) as answering:
                    await answering.read_batch()
                    seconds = time.perf_counter() - started
                    while await answering.read_batch():
                        pass
                assert answering.response is not None
                assert answering.response.provider == "healthy"
                return seconds

            yield ask


@asynccontextmanager
async def litellm(troubled: str, healthy: str, limit: float) -> AsyncIterator[Ask]:
    from litellm import Router

    def deployment(name: str, url: str) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": "openai/m", "api_base": url, "api_key": "none"}}

    router = Router(
        model_list=[deployment("main", troubled), deployment("healthy", healthy)],
        fallbacks=[{"main": ["healthy"]}], timeout=limit, stream_timeout=limit,
    )  # fmt: skip

    async def ask(whom: str) -> float:
        started = time.perf_counter()
        reply = await router.acompletion(model=whom, messages=[{"role": "user", "content": PROMPT}], stream=True)
        seconds = 0.0
        async for _ in reply:
            seconds = seconds or time.perf_counter() - started
        return seconds

    yield ask


async def main() -> None:
    """Answer each line of the input."""
    name, troubled, healthy, limit = sys.argv[1:]
    async with {"llm_jupyter": llm_jupyter, "litellm": litellm}[name](troubled, healthy, float(limit)) as ask:
        await ask("healthy")  # warm up
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                print(await ask(line.strip()), flush=True)
            except Exception as error:
                print("error", type(error).__name__, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
