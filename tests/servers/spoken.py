"""The same few things in the bytes of the two streaming protocols, and a provider that hears them from a real server.

    async with hearing(OLLAMA, OLLAMA.script(OLLAMA.piece("Hel"), End.RESET)) as (provider, server):
        ...

A script is for the request that asks a question; what a provider asks besides is answered as usual.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from servers.scripted import DONE, Request, Script, ScriptedServer, Step, delta, event, finish, reply, sse

from llm_jupyter.errors import LLMError
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.ollama import OllamaProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider


@dataclass(frozen=True)
class Spoken:
    """A protocol: `piece` of a text, the messages that say the `end`, an `error` in mid-stream, a message of one's own."""

    kind: Callable[..., LLMProvider]
    path: str
    content_type: str
    message: Callable[[Any], bytes]
    piece: Callable[[str], bytes]
    end: tuple[bytes, ...]
    asides: dict[str, Any] = field(default_factory=dict)

    def script(self, *steps: Step, content_type: str | None = "", is_chunked: bool = True) -> Script:
        """A streamed reply; `content_type` where it is not the protocol's own."""
        kind = self.content_type if content_type == "" else content_type
        return sse(*steps, content_type=kind, is_chunked=is_chunked)

    def answer(self, *texts: str) -> bytes:
        """All bytes of a whole good answer."""
        return b"".join([*map(self.piece, texts), *self.end])


def _line(data: Any) -> bytes:
    return (data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()) + b"\n"


OPENAI = Spoken(
    OpenAICompatibleProvider, "/v1/chat/completions", "text/event-stream", event, delta, (finish(), DONE),
    {"/v1/models": {"data": [{"id": "m"}]}},
)  # fmt: skip
OLLAMA = Spoken(
    OllamaProvider, "/api/chat", "application/x-ndjson", _line,
    lambda text: _line({"model": "m", "message": {"role": "assistant", "content": text}, "done": False}),
    (_line({"model": "m", "message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True}),),
    {"/api/show": {"details": {}}, "/api/version": {"version": "0.12.6"}, "/api/tags": {"models": []},
     "/api/ps": {"models": []}},
)  # fmt: skip

both = pytest.mark.parametrize("spoken", [OPENAI, OLLAMA], ids=["SSE", "NDJSON"])
"""For a test of either protocol, which it is given as `spoken`."""


@asynccontextmanager
async def hearing(
    spoken: Spoken, *scripts: Script, first_token: float = 5.0, idle: float = 5.0, api_key: str | None = None
) -> AsyncIterator[tuple[LLMProvider, ScriptedServer]]:
    """A provider and its server, whose questions get these scripts in turn; the last one stays."""
    left: list[Sequence[Step]] = list(scripts)

    def play(request: Request) -> Script:
        if request.path in spoken.asides:
            return reply(spoken.asides[request.path])
        return left.pop(0) if len(left) > 1 else left[0]

    async with ScriptedServer(play) as server:
        url = server.base_url if spoken is OPENAI else server.origin
        provider = spoken.kind("local", url, api_key, first_token_timeout=first_token, idle_timeout=idle)
        try:
            yield provider, server
        finally:
            await provider.disconnect()


async def failing(spoken: Spoken, script: Script, *, first_token: float = 5.0, idle: float = 5.0) -> LLMError:
    """The error that a whole answer ends in; it says where, in one to three lines."""
    async with hearing(spoken, script, first_token=first_token, idle=idle) as (provider, _):
        with pytest.raises(LLMError) as caught:
            await provider.generate_chat_completion("hi", model="m")
    lines = caught.value.lines()
    assert 1 <= len(lines) <= 3
    assert all(lines)
    assert "local at http://127.0.0.1:" in lines[0] or lines[0].endswith("…")
    return caught.value
