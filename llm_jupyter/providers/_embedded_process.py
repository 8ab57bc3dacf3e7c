"""The embedded model's process as its provider holds it: started, followed, replaced, and what is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from llm_jupyter.errors import LLMError
from llm_jupyter.events import ModelLoaded, ModelLoading, ModelUnloaded
from llm_jupyter.providers._http import HttpClient
from llm_jupyter.providers._llama_process import Launcher, LaunchPlan, ModelHost
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.types import ProviderState

IN_MEMORY = frozenset({ProviderState.LOADING, ProviderState.CONNECTED})
"""What becomes of the process while its model takes memory, or is about to."""


class EmbeddedProcess:
    """One process at a time, with one model. The state of its provider's connection is that of the process.

    `enter` changes that state, with a reason; `file_of` finds the file of a model, or fetches it.
    """

    def __init__(
        self, provider: LLMProvider, launcher: Launcher, plan: LaunchPlan, *,
        enter: Callable[[ProviderState, str], None], file_of: Callable[[str], Awaitable[Path]],
    ) -> None:  # fmt: skip
        self.host: ModelHost | None = None
        self.model: str | None = None
        self._provider = provider
        self._launcher = launcher
        self._plan = plan
        self._enter = enter
        self._file_of = file_of
        self._client: HttpClient | None = None
        self._outdated: list[HttpClient] = []
        self._starting = asyncio.Lock()
        self._told = ProviderState.DISCONNECTED
        self._since = 0.0

    @property
    def pid(self) -> int | None:
        """Its process id, if it runs."""
        return self.host.pid if self.host is not None else None

    @property
    def is_coming_back(self) -> bool:
        """Whether it died and is started again, as far as was seen."""
        return self._told is ProviderState.LOADING

    async def ready(self, model: str) -> HttpClient:
        """The client of a running process that has the model loaded; starts, restarts or fetches what is missing."""
        async with self._starting:
            await self._close_outdated()
            if self.host is not None and model == self.model:
                if self._client is not None and self.host.is_running:
                    return self._client
                if await self._is_recovered(self.host, model):
                    return self._serving(self.host, model)
            if self.host is not None:
                await self._stop()
            return await self._start(model)

    def reachable(self, model: str) -> HttpClient | None:
        """The client, where nothing has to be started for that model."""
        is_serving = model == self.model and not self._starting.locked()
        return self._client if is_serving and self.host is not None and self.host.is_running else None

    async def stop(self, model: str | None = None) -> None:
        """End it, or only if it has that model. Idempotent."""
        async with self._starting:
            if model in (None, self.model):
                await self._stop()

    def follow(self) -> None:
        """Let the state follow the process, although nobody asks it anything."""
        if self.host is None or self.model is None or self._starting.locked():
            return  # whoever starts or stops it now says what becomes of it
        state, reason, is_anew = self.host.follow()
        if state is not ProviderState.CONNECTED:
            self._tell(state, reason)
        elif is_anew or self._told is not state:
            self._tell(ProviderState.LOADING)  # where its death fell between two looks
            self._serving(self.host, self.model, is_anew=is_anew)

    # -- starting and stopping

    async def _start(self, model: str) -> HttpClient:
        provider, before = self._provider, self._provider.state
        self._enter(ProviderState.LOADING, "")
        try:
            file = await self._file_of(model)
            self._since = time.monotonic()
            provider.publish(ModelLoading(provider=provider.name, model=model, size=file.stat().st_size))
            self.host = await self._launcher.launch(
                file, model, self._plan, host=provider.name, publish=lambda event: provider.publish(event),
                looked=self.follow,
            )  # fmt: skip
        except LLMError as error:
            self._enter(ProviderState.FAILED, error.what)
            raise
        except asyncio.CancelledError:
            self._enter(ProviderState.DISCONNECTED if before is ProviderState.LOADING else before, "")
            raise
        self.model = model
        return self._serving(self.host, model)

    async def _is_recovered(self, host: ModelHost, model: str) -> bool:
        """Whether the process that died serves again, because whoever watches it has started it again."""
        before = self._provider.state
        self._enter(ProviderState.LOADING, "its process died")
        try:
            if not await host.recover():
                return False
        except LLMError as error:
            await self._stop()
            self._enter(ProviderState.FAILED, error.what)
            raise
        except asyncio.CancelledError:
            self._enter(before, "")
            raise
        self._tell_of_model(ProviderState.LOADING, model)
        return True

    def _serving(self, host: ModelHost, model: str, *, is_anew: bool = True) -> HttpClient:
        provider, client = self._provider, self._client
        if is_anew or client is None:
            self._retire_client()
            self._client = client = HttpClient(f"{host.url}/v1", name=provider.name, api_key=host.api_key)
            client.where = provider.where
        self._told = ProviderState.CONNECTED
        self._enter(ProviderState.CONNECTED, "")
        provider.publish(ModelLoaded(provider=provider.name, model=model, seconds=time.monotonic() - self._since))
        return client

    async def _stop(self) -> None:
        host, model = self.host, self.model
        self.host = self.model = None
        self._retire_client()
        if host is not None:
            await host.stop()  # before the client is closed: whoever still reads an answer then sees it break off
        await self._close_outdated()
        if model is not None:
            self._tell_of_model(ProviderState.DISCONNECTED, model)

    def _retire_client(self) -> None:
        """Use it no more; it is closed where there is time to wait for that."""
        if self._client is not None:
            self._outdated.append(self._client)
            self._client = None

    async def _close_outdated(self) -> None:
        while self._outdated:
            await self._outdated.pop().close()

    # -- telling

    def _tell(self, state: ProviderState, reason: str = "") -> None:
        """Say once what has become of the process."""
        if state is not self._told and self.model is not None:
            self._enter(state, reason)
            self._tell_of_model(state, self.model)

    def _tell_of_model(self, state: ProviderState, model: str) -> None:
        """Say once what that means for the model."""
        before, self._told = self._told, state
        if state is before:
            return
        provider = self._provider
        if before in IN_MEMORY:
            provider.publish(ModelUnloaded(provider=provider.name, model=model))
        if state is ProviderState.LOADING:
            self._since = time.monotonic()
            provider.publish(ModelLoading(provider=provider.name, model=model))
