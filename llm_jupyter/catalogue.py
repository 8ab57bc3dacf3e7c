"""What each provider offers, and who is there to offer it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from llm_jupyter.admission import Admission
from llm_jupyter.choice import Shelf, best_of, find
from llm_jupyter.connection import LLMConnectionManager
from llm_jupyter.errors import LLMConnectionError, LLMError, ModelNotFoundError
from llm_jupyter.ports import port_of
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.registry import ProviderRegistry
from llm_jupyter.selection import EMBEDDED, Recipe
from llm_jupyter.types import LLMModelInfo, ProviderState

PROBE_TIMEOUT = 1.0
"""Seconds that a server of the settings gets to show that it is there, when nobody named it."""

LIST_TIMEOUT = 5.0
"""Seconds that a server gets to tell of its models."""

Discover = Callable[[Sequence[Recipe]], Awaitable[Mapping[str, LLMError | None]]]
"""Looks whether servers that nobody configured are there: `None` for each that is, else why it is not."""


class Catalogue:
    """Asks providers for their models, and remembers what they told."""

    def __init__(
        self,
        registry: ProviderRegistry,
        admission: Admission,
        connections: LLMConnectionManager,
        get: Callable[[str], LLMProvider],
        discover: Discover | None = None,
        *,
        limit: float = LIST_TIMEOUT,
    ) -> None:
        """`limit` is in seconds: what a server that hangs costs, once."""
        self._limit = limit
        self._registry = registry
        self._admission = admission
        self._connections = connections
        self._get = get
        self._discover = discover
        self.told: dict[str, list[LLMModelInfo]] = {}
        """The models of each provider when it was last asked."""

    async def shelves(self, recipes: Iterable[Recipe], *, briefly: bool = False) -> list[Shelf]:
        """What these providers offer, all asked at once.

        One that nobody configured must first show that it is what it should be. `briefly`: so must those of the settings,
        in short time; to tell of many models may then take longer. Then nobody was named, so that another user's is not asked;
        else it is where it was named before. What was found where a provider of the settings stands is
        that one, and has no shelf of its own.
        """
        asked = [recipe for recipe in recipes if not self._is_double(recipe)]
        absent = await self._absent(
            [
                recipe
                for recipe in asked
                if recipe.was_found and recipe.is_local and not self._is_in_use(recipe, briefly)
            ]
        )
        return list(await asyncio.gather(*(self._shelf(recipe, absent.get(recipe.name), briefly) for recipe in asked)))

    async def models_of(self, provider: LLMProvider, within: float | None = None) -> list[LLMModelInfo]:
        """A provider's models, in so many seconds; the state of its connection follows. Raises what its silence means."""
        connection = self._connections.of(provider)
        try:
            async with connection.look(within):
                models = await provider.get_available_models()
        finally:
            self._registry.note_status(connection.status())
        self._registry.note_models(provider.name, models)
        self.told[provider.name] = provider.held = models
        return models

    async def best_of(self, provider: LLMProvider) -> LLMModelInfo:
        """A provider's model that answers where none is named. Raises `ModelNotFoundError`, and as `models_of`."""
        best = best_of(await self.models_of(provider), is_local=provider.is_local)
        if best is None:
            raise ModelNotFoundError(
                "it has no model for chat that fits", where=provider.where, next_step="%llm models lists what is there."
            )
        return best

    async def lacks(self, provider: LLMProvider, model: str) -> bool:
        """Whether a server lists its models now, and not that one; it gets little time to say."""
        with contextlib.suppress(LLMError):
            models = await self.models_of(provider, PROBE_TIMEOUT)
            return bool(models) and find(models, model) is None
        return False

    async def fetcher(self, name: str) -> tuple[LLMProvider, str]:
        """Who fetches the model of that name, see `LLMProviderManager.fetcher`."""
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._registry:
            self._admission.name(prefix)
            return self._get(prefix), rest
        local = sorted(
            (r for r in self._registry.recipes() if r.enabled and r.is_local), key=lambda r: r.name != EMBEDDED
        )
        for recipe in local:
            provider = self._get(recipe.name)
            if (
                self._admission.refused(recipe.name) is None
                and provider.fetches(name)
                and (recipe.name == EMBEDDED or await provider.is_available())
            ):
                return provider, name
        raise ModelNotFoundError(
            f"no provider that runs here can fetch {name!r}",
            next_step="Start Ollama for the models of its library, or: %llm pull https://HOST/NAME.gguf#sha256=DIGITS",
        )

    def _is_double(self, recipe: Recipe) -> bool:
        """Whether what was found is a server that the settings name, and no more of it can be had under its usual name."""
        if not (recipe.was_found and recipe.is_local and recipe.base_url):
            return False
        port = port_of(recipe.base_url)
        others = [other for other in self._registry.recipes() if other.enabled and not other.was_found]
        return any(
            other.is_local and other.base_url and port_of(other.base_url) == port and _speak_alike(recipe, other)
            for other in others
        )

    def _is_in_use(self, recipe: Recipe, briefly: bool) -> bool:
        """Whether its server has shown before that it is what it should be, and is still the person's own or was named."""
        if not briefly and self._admission.is_others(recipe.name):
            return True
        status = self._registry.status(recipe.name)
        was_there = status is not None and status.state is not ProviderState.DISCONNECTED
        return was_there and self._admission.refused(recipe.name) is None

    async def _absent(self, found: Sequence[Recipe]) -> Mapping[str, LLMError | None]:
        if self._discover is not None and found:
            return await self._discover(found)
        return {recipe.name: self._admission.refused(recipe.name) for recipe in found}

    async def _shelf(self, recipe: Recipe, absent: LLMError | None, briefly: bool) -> Shelf:
        if absent is None and briefly and recipe.of_host:
            absent = self._admission.refused(recipe.name)
        if absent is not None:
            return Shelf(recipe, error=absent)
        try:
            provider = self._get(recipe.name)
            if (silence := self._connections.of(provider).silence) is not None:
                raise silence
            if briefly and not recipe.was_found and not await self._is_there(provider):
                raise LLMConnectionError("it does not answer")
            limit = None if recipe.name == EMBEDDED else self._limit
            return Shelf(recipe, tuple(await self.models_of(provider, limit)), was_asked=True)
        except LLMError as error:
            return Shelf(recipe, error=error, was_asked=True)

    async def _is_there(self, provider: LLMProvider) -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                return await provider.is_available()
        except TimeoutError:
            return False


def _speak_alike(one: Recipe, other: Recipe) -> bool:
    """Whether two kinds of provider ask a server for the same things: those that speak OpenAI's protocol do."""
    return one.kind == other.kind or bool(one.untold and other.untold)
