"""Which provider and which model answer.

Nothing leaves the machine and nothing is swapped unasked: without a name only local servers are asked, and a model that
was chosen and is gone is an error with the command that chooses another.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psutil

from llm_jupyter.errors import (
    ConfigurationError,
    ForeignServerError,
    InvalidInputError,
    LLMConnectionError,
    LLMError,
    ModelNotFoundError,
)
from llm_jupyter.events import EventBus, ModelChosen
from llm_jupyter.foreign import is_foreign
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.recent import RecentModels
from llm_jupyter.registry import EMBEDDED, ProviderRegistry, Recipe
from llm_jupyter.types import Capability, LLMModelInfo

logger = logging.getLogger(__name__)

NAMED = "you named it"

CATALOGUE_TIMEOUT = 2.0
"""Seconds that a server gets to list its models."""

PROBE_TIMEOUT = 1.0
"""Seconds that a local server gets to show that it is there, when nobody named it."""

LIST_TIMEOUT = 5.0
"""Seconds that a server gets to tell of its models."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that answers, and why."""

    provider: LLMProvider
    model: str
    reason: str
    is_local: bool

    @property
    def full_name(self) -> str:
        """`provider/model`, or the path of a model that is named by one."""
        return self.model if Path(self.model).is_absolute() else f"{self.provider.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one provider offers: its models, or the error that it answered with."""

    recipe: Recipe
    models: tuple[LLMModelInfo, ...] = ()
    error: LLMError | None = None

    @property
    def is_absent(self) -> bool:
        """Whether nothing runs at a place that nobody configured: no fault, and not worth a word."""
        return self.recipe.was_found and isinstance(self.error, LLMConnectionError)


class LLMProviderManager:
    """Makes providers from their recipes, keeps them, closes them, and finds the model that is meant."""

    def __init__(
        self,
        registry: ProviderRegistry,
        events: EventBus,
        *,
        default_model: str | None = None,
        local_only: bool = False,
        recent: RecentModels | None = None,
    ) -> None:
        self._registry = registry
        self._events = events
        self.default_model = default_model
        self._local_only = local_only
        self._providers: dict[str, LLMProvider] = {}
        self._recent = recent
        self._known: dict[tuple[str, str], Choice] = {}

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
        """The model that answers when none is named.

        The settings' default; else, on the local servers that answer, those of the settings before those that were
        found: a loaded model, the one used last, the newest; else the embedded one. Never a remote model, one that only
        embeds, or one larger than the free memory. A default that is not there is an error: nothing else answers in its
        place.
        """
        if self.default_model:
            choice = replace(await self._default(self.default_model), reason="it is default_model in your settings")
        else:
            choice = await self._unnamed()
        return self._announced(choice) if announce else choice

    async def resolve(self, name: str) -> Choice:
        """The model of that name: `provider/model`, a bare model name, a provider (its best model), or the path of a
        GGUF file.

        Raises `ModelNotFoundError` with the nearest names, or the error of a provider that does not answer.
        """
        name = name.strip()
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._registry:
            return await self._on(self.get(prefix), rest)
        if name in self._registry:
            return await self._best_of(self.get(name))
        if name.endswith(".gguf") and (path := await asyncio.to_thread(_file, name)) is not None:
            info = await self.get(EMBEDDED).get_model_info(str(path))  # an unusable file is an error now
            return Choice(self.get(EMBEDDED), info.id, NAMED, True)
        shelves = await self.catalogue()
        for shelf in shelves:
            if (model := _find(shelf.models, name)) is not None:
                return self._allowed(Choice(self.get(shelf.recipe.name), model.id, NAMED, model.is_local))
        raise _not_found(name, [model.full_name for shelf in shelves for model in shelf.models])

    async def use(self, name: str) -> Choice:
        """As `resolve`, and say it on the event bus."""
        return self._announced(await self.resolve(name))

    async def fetcher(self, name: str) -> tuple[LLMProvider, str]:
        """Who fetches the model of that name (`provider/model`, or whatever one of the local providers knows to fetch), and
        the name that it has there. Raises `ModelNotFoundError` where nobody can.
        """
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._registry:
            return self.get(prefix), rest
        local = sorted(
            (r for r in self._registry.recipes() if r.enabled and r.is_local), key=lambda r: r.name != EMBEDDED
        )
        for recipe in local:
            provider = self.get(recipe.name)
            if (
                self._refused(recipe) is None
                and provider.fetches(name)
                and (recipe.name == EMBEDDED or await provider.is_available())
            ):
                return provider, name
        raise ModelNotFoundError(
            f"no provider that runs here can fetch {name!r}",
            next_step="Start Ollama for the models of its library, or: %llm pull https://HOST/NAME.gguf#sha256=DIGITS",
        )

    def forget(self, choice: Choice) -> None:
        """A model is gone: look for it anew when it is next named."""
        self._known = {key: known for key, known in self._known.items() if known != choice}

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

    def _refused(self, recipe: Recipe) -> ForeignServerError | None:
        """Why a provider that nobody named is not to be spoken to, if it is not."""
        if recipe.was_found and recipe.base_url and is_foreign(recipe.base_url):
            return ForeignServerError("it is another user's; asked only when it is named")
        return None

    async def _shelf_if_there(self, recipe: Recipe) -> Shelf:
        """What a provider offers, if it shows in short time that it is there; to tell of many models may take longer."""
        if (refused := self._refused(recipe)) is not None:
            return Shelf(recipe, error=refused)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                is_there = await self.get(recipe.name).is_available()
        except LLMError as error:
            return Shelf(recipe, error=error)
        except TimeoutError:
            is_there = False
        return await self._shelf(recipe) if is_there else Shelf(recipe, error=LLMConnectionError("it does not answer"))

    async def _shelf(self, recipe: Recipe) -> Shelf:
        if (refused := self._refused(recipe)) is not None:
            return Shelf(recipe, error=refused)
        try:
            async with asyncio.timeout(None if recipe.name == EMBEDDED else LIST_TIMEOUT):
                return Shelf(recipe, tuple(await _models_of(self.get(recipe.name))))
        except LLMError as error:
            return Shelf(recipe, error=error)
        except TimeoutError:
            return Shelf(recipe, error=LLMError("it does not answer"))

    async def _default(self, name: str) -> Choice:
        try:
            return await self.resolve(name)
        except LLMError as error:
            error.next_step = f"It is default_model in your settings; %llm use MODEL takes another. {error.next_step}"
            raise

    async def _best_of(self, provider: LLMProvider) -> Choice:
        models = [model for model in await _models_of(provider) if answers(model) or not provider.is_local]
        chatting = [model for model in models if Capability.CHAT in model.capabilities]
        if not chatting:
            raise ModelNotFoundError(
                "it has no model for chat that fits", where=provider.where, next_step="%llm models lists what is there."
            )
        best = max(chatting, key=lambda model: (model.loaded is True, _moment(model.modified)))
        return self._allowed(Choice(provider, best.id, NAMED, best.is_local))

    async def _on(self, provider: LLMProvider, name: str) -> Choice:
        if (known := self._known.get((provider.name, name))) is not None:
            return known
        if name.endswith(".gguf"):
            return Choice(provider, name, NAMED, provider.is_local)
        models = await _models_of(provider)
        model = _find(models, name)
        if models and model is None:
            raise _not_found(name, [info.id for info in models], provider)
        is_local = model.is_local if model is not None else provider.is_local
        choice = self._allowed(Choice(provider, model.id if model is not None else name, NAMED, is_local))
        self._known[provider.name, name] = choice
        return choice

    def _allowed(self, choice: Choice) -> Choice:
        if self._local_only and not choice.is_local:
            raise InvalidInputError(f"the model {choice.full_name!r} is remote, and local_only is set")
        return choice

    async def _unnamed(self) -> Choice:
        recipes = [r for r in self._registry.recipes() if r.enabled and r.is_local and r.name != EMBEDDED]
        shelves = await asyncio.gather(*(self._shelf_if_there(recipe) for recipe in recipes))
        for shelf in shelves:
            if isinstance(shelf.error, ConfigurationError):
                raise shelf.error  # passing over it would hide the mistake
        used = self._recent.times() if self._recent else {}
        for priority in sorted({recipe.priority for recipe in recipes}, reverse=True):
            models = [m for shelf in shelves if shelf.recipe.priority == priority for m in shelf.models if answers(m)]
            if models:
                best = max(models, key=lambda m: (m.loaded is True, used.get(m.full_name, 0.0), _moment(m.modified)))
                return Choice(self.get(best.provider), best.id, _why(best, used), True)
        return await self._embedded(_why_no_server(shelves))

    async def _embedded(self, reason: str) -> Choice:
        provider = self.get(EMBEDDED)
        models = await _models_of(provider)
        if not models:
            raise ModelNotFoundError(f"{EMBEDDED} has no model", next_step="%llm pull fetches one.")
        model = next((model for model in models if model.loaded), models[0])
        return Choice(provider, model.id, reason, provider.is_local)

    def _announced(self, choice: Choice) -> Choice:
        if self._recent is not None:
            self._recent.remember(choice.full_name)
        self._events.publish(
            ModelChosen(
                provider=choice.provider.name, model=choice.model, is_local=choice.is_local, reason=choice.reason
            )
        )
        return choice


async def _models_of(provider: LLMProvider) -> list[LLMModelInfo]:
    """A provider's models; its connection's state follows."""
    try:
        models = await provider.get_available_models()
    except LLMError as error:
        provider.observed(error)
        raise
    provider.observed(None)
    return models


def free_memory() -> int:
    """Bytes that the system can still give."""
    return int(psutil.virtual_memory().available)


def fits(model: LLMModelInfo) -> bool | None:
    """Whether a model fits into the memory that is free now; `None` where its size is not known.

    A fifth is added to the size of the weights, for the window and the server itself.
    """
    if model.loaded:
        return True
    return None if model.size is None else model.size * 1.2 <= free_memory()


def answers(model: LLMModelInfo) -> bool:
    """Whether a model may answer without being named."""
    return model.is_local and Capability.CHAT in model.capabilities and fits(model) is not False


def _why(model: LLMModelInfo, used: Mapping[str, float]) -> str:
    if model.loaded:
        return f"it is loaded in {model.provider}"
    if model.full_name in used:
        return f"it was used last of what {model.provider} has"
    return (
        f"it is the newest model in {model.provider}"
        if model.modified
        else f"{model.provider} is a local server that answers"
    )


def _moment(text: str | None) -> float:
    """A date of a server, in seconds; 0 where there is none."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _why_no_server(shelves: Sequence[Shelf]) -> str:
    """Why the embedded model answers, though there are these providers."""
    if there := [shelf.recipe.name for shelf in shelves if shelf.error is None]:
        return f"{' and '.join(there)} offered no local model for chat that fits into memory"
    if others := [shelf.recipe.name for shelf in shelves if isinstance(shelf.error, ForeignServerError)]:
        return f"{' and '.join(others)} belongs to another user of this machine"
    if down := [shelf.recipe.name for shelf in shelves if not shelf.recipe.was_found]:
        return f"{' and '.join(down)} did not answer"
    return "no local model server runs"


def _find(models: Sequence[LLMModelInfo], name: str) -> LLMModelInfo | None:
    """The model of that name; `:latest` may be left out."""
    return next((m for m in models if name in (m.id, m.id.removesuffix(":latest"))), None)


def _file(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path.resolve() if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, nobody's home folder, a zero byte
        return None


def _not_found(name: str, names: list[str], provider: LLMProvider | None = None) -> ModelNotFoundError:
    bare = {full.rsplit("/", 1)[-1]: full for full in names}
    near = difflib.get_close_matches(name, names, 3, 0.5)
    near += [
        bare[match]
        for match in difflib.get_close_matches(name.rsplit("/", 1)[-1], bare, 3, 0.5)
        if bare[match] not in near
    ]
    if name.endswith(".gguf"):
        return ModelNotFoundError(f"there is no file {name!r}", next_step="Give the path of a GGUF file that is there.")
    nearest = [f"{provider.name}/{match}" if provider else match for match in near[:3]]
    hint = f"Did you mean {' or '.join(nearest)}?" if near else "%llm models lists what is there."
    return ModelNotFoundError(
        f"there is no model {name!r}", where=provider.where if provider else "", next_step=hint, nearest=nearest
    )
