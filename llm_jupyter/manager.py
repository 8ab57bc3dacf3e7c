"""Which provider and which model answer.

Nothing leaves the machine and nothing is swapped unasked: without a name only local servers are asked, and a model that
was chosen and is gone is an error with the command that chooses another.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from dataclasses import dataclass
from pathlib import Path

from llm_jupyter.errors import InvalidInputError, LLMError, ModelNotFoundError
from llm_jupyter.events import EventBus, ModelChosen
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.registry import EMBEDDED, ProviderRegistry, Recipe
from llm_jupyter.types import Capability, LLMModelInfo

logger = logging.getLogger(__name__)

PROBE_TIMEOUT = 1.0
"""Seconds that a local server gets to show that it is there, when nobody named it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that answers, and why."""

    provider: LLMProvider
    model: str
    reason: str

    @property
    def full_name(self) -> str:
        """`provider/model`."""
        return f"{self.provider.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one provider offers: its models, or the error that it answered with."""

    recipe: Recipe
    models: tuple[LLMModelInfo, ...] = ()
    error: LLMError | None = None


class LLMProviderManager:
    """Makes providers from their recipes, keeps them, closes them, and finds the model that is meant."""

    def __init__(
        self,
        registry: ProviderRegistry,
        events: EventBus,
        *,
        default_model: str | None = None,
        local_only: bool = False,
    ) -> None:
        self._registry = registry
        self._events = events
        self.default_model = default_model
        self._local_only = local_only
        self._providers: dict[str, LLMProvider] = {}
        self._known: set[tuple[str, str]] = set()

    def get(self, name: str) -> LLMProvider:
        """The provider of that name, made on first use. Raises `ProviderNotFoundError`, or `InvalidInputError` where the
        settings forbid it.
        """
        recipe = self._registry.recipe(name)
        if not recipe.enabled:
            raise InvalidInputError(
                f"the provider {name!r} is switched off", next_step=f"Set enabled = true in [providers.{name}]."
            )
        if self._local_only and not recipe.is_local:
            raise InvalidInputError(f"the provider {name!r} is remote, and local_only is set")
        if name not in self._providers:
            provider = recipe.build()
            provider.publish = self._events.publish
            self._providers[name] = provider
        return self._providers[name]

    def is_active(self, name: str) -> bool:
        """Whether that provider has been made."""
        return name in self._providers

    async def choose(self, *, announce: bool = True) -> Choice:
        """The model that answers when none is named: the settings' default, a local server that answers, the embedded one.

        A default that is not there is an error: nothing else answers in its place.
        """
        if self.default_model:
            choice = await self.resolve(self.default_model)
            choice = Choice(choice.provider, choice.model, "it is default_model in your settings")
        else:
            choice = await self._first_local_server() or Choice(
                self.get(EMBEDDED), await self._first_model(EMBEDDED), "no local server is configured or answers"
            )
        return self._announced(choice) if announce else choice

    async def resolve(self, name: str) -> Choice:
        """The model of that name: `provider/model`, a bare model name, or the path of a GGUF file.

        Raises `ModelNotFoundError` with the nearest names, or the error of a provider that does not answer.
        """
        name = name.strip()
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._registry:
            return await self._on(self.get(prefix), rest)
        if name.endswith(".gguf") and await asyncio.to_thread(_is_file, name):
            return Choice(self.get(EMBEDDED), str(Path(name).expanduser().absolute()), "you named it")
        shelves = await self.catalogue()
        for shelf in shelves:
            if any(model.id == name for model in shelf.models):
                return Choice(self.get(shelf.recipe.name), name, "you named it")
        raise _not_found(name, [model.full_name for shelf in shelves for model in shelf.models])

    async def use(self, name: str) -> Choice:
        """As `resolve`, and say it on the event bus."""
        return self._announced(await self.resolve(name))

    async def catalogue(self, *, remote: bool = False) -> list[Shelf]:
        """What every enabled provider offers, all asked at once; remote ones only if `remote` is set."""
        recipes = [
            r for r in self._registry.recipes() if r.enabled and (r.is_local or (remote and not self._local_only))
        ]
        return list(await asyncio.gather(*(self._shelf(recipe) for recipe in recipes)))

    async def aclose(self) -> None:
        """Disconnect every provider, last made first; one that fails is logged and the others are still closed."""
        while self._providers:
            name, provider = self._providers.popitem()
            try:
                await provider.disconnect()
            except Exception:  # what opens closes, whatever one provider does
                logger.exception("closing %s failed", name)

    async def _shelf(self, recipe: Recipe) -> Shelf:
        try:
            async with asyncio.timeout(None if recipe.name == EMBEDDED else 5 * PROBE_TIMEOUT):
                return Shelf(recipe, tuple(await self.get(recipe.name).get_available_models()))
        except LLMError as error:
            return Shelf(recipe, error=error)
        except TimeoutError:
            return Shelf(recipe, error=LLMError("it does not answer"))

    async def _on(self, provider: LLMProvider, model: str) -> Choice:
        choice = Choice(provider, model, "you named it")
        if (provider.name, model) in self._known or model.endswith(".gguf"):
            return choice
        names = [info.id for info in await provider.get_available_models()]
        if names and model not in names:
            raise _not_found(model, names, provider)
        self._known.add((provider.name, model))
        return choice

    async def _first_local_server(self) -> Choice | None:
        recipes = [r for r in self._registry.recipes() if r.enabled and r.is_local and r.name != EMBEDDED]
        found = await asyncio.gather(*(self._answering_model(recipe) for recipe in recipes))
        for recipe, model in zip(recipes, found, strict=True):
            if model is not None:
                return Choice(self.get(recipe.name), model, f"{recipe.name} is a local server that answers")
        return None

    async def _answering_model(self, recipe: Recipe) -> str | None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                return await self._first_model(recipe.name)
        except (LLMError, TimeoutError):
            return None

    async def _first_model(self, name: str) -> str:
        """A loaded chat model, else the first that is no mere embedding model."""
        models = [m for m in await self.get(name).get_available_models() if m.capabilities != {Capability.EMBEDDING}]
        if not models:
            raise ModelNotFoundError(f"{name} has no model that chats")
        return next((model.id for model in models if model.loaded), models[0].id)

    def _announced(self, choice: Choice) -> Choice:
        provider = choice.provider
        self._events.publish(
            ModelChosen(provider=provider.name, model=choice.model, is_local=provider.is_local, reason=choice.reason)
        )
        return choice


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long a name, nobody's home folder, a zero byte
        return False


def _not_found(name: str, names: list[str], provider: LLMProvider | None = None) -> ModelNotFoundError:
    bare = {full.rsplit("/", 1)[-1]: full for full in names}
    near = difflib.get_close_matches(name, names, 3, 0.5)
    near += [
        bare[match]
        for match in difflib.get_close_matches(name.rsplit("/", 1)[-1], bare, 3, 0.5)
        if bare[match] not in near
    ]
    nearest = [f"{provider.name}/{match}" if provider else match for match in near[:3]]
    hint = f"Did you mean {' or '.join(nearest)}?" if near else "%llm models lists what is there."
    return ModelNotFoundError(
        f"there is no model {name!r}", where=provider.where if provider else "", next_step=hint, nearest=nearest
    )
