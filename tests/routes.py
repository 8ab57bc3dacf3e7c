"""Conversations over several servers at once, on a simulated clock.

    async with Faulty() as first, Faulty() as second, Routes({"first": first, "second": second}, fallback=["second/m"]) as routes:
        first.chat = reply("", 500)
        assert (await routes.ask()).provider == "second"

The model `m` of the provider named first answers unless a question names another.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from clocks import JumpingClock
from servers.paced import ModelServer
from servers.scripted import Request, Script, ScriptedServer

from llm_jupyter.cache import LLMCache
from llm_jupyter.clock import Clock
from llm_jupyter.connection import Connection, LLMConnectionManager, Watching
from llm_jupyter.events import Event, EventBus
from llm_jupyter.foreign import foreign_among
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.providers.openai_compatible import OpenAICompatibleProvider
from llm_jupyter.registry import ProviderRegistry, Recipe
from llm_jupyter.sessions import LLMSession, Services
from llm_jupyter.store import Store
from llm_jupyter.types import GenerationOptions, LLMResponse, ProviderState

EventT = TypeVar("EventT", bound=Event)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Faulty(ModelServer):
    """A model server whose `listing` and `chat` can be replaced until further notice; it may come up on a known port."""

    def __init__(self, models: Sequence[str] = ("m",), *, port: int | None = None) -> None:
        self.listing: Script | None = None
        self.chat: Script | None = None
        super().__init__(models)
        if port is not None:
            self._listener.close()
            self._listener = socket.create_server(("127.0.0.1", port))
            self.port = port

    def _script(self, request: Request) -> Script:
        script = self.listing if request.method == "GET" else self.chat
        return super()._script(request) if script is None else script


Server = ScriptedServer | str | Callable[[str], LLMProvider]


def provider_of(name: str, server: Server) -> LLMProvider:
    """A provider for a server, for a base URL, or one that is made for this test."""
    if callable(server):
        return server(name)
    return OpenAICompatibleProvider(name, server if isinstance(server, str) else server.base_url)


class Routes:
    """A session over servers by name, and everything that happens. No server is looked after unless `health_interval` is set."""

    def __init__(
        self, servers: Mapping[str, Server], *, fallback: Sequence[str] = (), clock: Clock | None = None,
        retries: int = 2, health_interval: float = 0.0, random: Callable[[], float] = lambda: 0.5,
        first_token_timeout: float = 300.0, recipes: Mapping[str, Mapping[str, Any]] | None = None,
        foreign: Callable[[Collection[str]], Collection[str]] = foreign_among, **settings: Any,
    ) -> None:  # fmt: skip
        self.clock = clock or JumpingClock()
        self.events = EventBus()
        self.registry = ProviderRegistry(self.events, foreign=foreign)
        for number, (name, server) in enumerate(servers.items()):
            self.registry.register(self._recipe(name, server, -number, **(recipes or {}).get(name, {})))
        watching = Watching(health_interval, first_token_timeout, retries)
        self.manager = LLMProviderManager(
            self.registry, self.events, fallback=fallback, **{"default_model": f"{next(iter(servers))}/m", **settings},
            connections=LLMConnectionManager(self.events, watching, clock=self.clock, random=random),
        )  # fmt: skip
        cache = LLMCache(Path(os.devnull), self.events)  # which is off, and looks at no folder
        self.session = LLMSession(Services(self.manager, self.events, cache), Store(None))

    @staticmethod
    def _recipe(name: str, server: Server, priority: int, **fields: Any) -> Recipe:
        usual = {"is_local": True, "priority": priority}
        return Recipe(name, "openai-compatible", lambda: provider_of(name, server), **{**usual, **fields})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.manager.aclose()

    async def ask(self, prompt: str = "hi", *, model: str | None = None, **options: Any) -> LLMResponse:
        """One answer; `model` is named for this question alone."""
        choice = None if model is None else await self.manager.resolve(model, trusting=True, named=True)
        async with self.session.ask(prompt, choice=choice, options=GenerationOptions(**options)) as answering:
            while await answering.read_batch():
                pass
        assert answering.response is not None
        return answering.response

    def heard(self, kind: type[EventT]) -> list[EventT]:
        """What was published of a kind, in order."""
        return self.events.history(kind)

    def connection(self, name: str) -> Connection:
        return self.manager.connections.of(self.manager.get(name))

    def state(self, name: str) -> ProviderState:
        return self.connection(name).status().state

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, which is looked at with each event, for 5 real seconds at most."""
        with self.events.listen(replay=True) as feed:
            async with asyncio.timeout(5):
                while not condition():
                    await anext(feed)
