"""A provider that asks a scripted server, and the error that it ends in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from servers.scripted import Script, ScriptedServer

from llm_jupyter.errors import LLMError
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider


@asynccontextmanager
async def asking(
    script: Script, *, first_token: float = 5.0, idle: float = 5.0
) -> AsyncIterator[tuple[OpenAICompatibleProvider, ScriptedServer]]:
    async with ScriptedServer(script) as server:
        provider = OpenAICompatibleProvider(
            "local", server.base_url, first_token_timeout=first_token, idle_timeout=idle
        )
        try:
            yield provider, server
        finally:
            await provider.disconnect()


async def failure(script: Script, *, first_token: float = 5.0, idle: float = 5.0) -> LLMError:
    """The error that a whole answer ends in."""
    async with asking(script, first_token=first_token, idle=idle) as (provider, _):
        with pytest.raises(LLMError) as caught:
            await provider.generate_chat_completion("hi", model="m")
    assert 1 <= len(caught.value.lines()) <= 3
    assert all(line for line in caught.value.lines())
    assert "local at http://127.0.0.1:" in caught.value.lines()[0] or caught.value.lines()[0].endswith("…")
    return caught.value
