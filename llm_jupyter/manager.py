"""Which provider and which model answer.

Nothing leaves the machine and nothing is swapped unasked: without a name only local servers are asked, and a model that
was chosen and is gone is an error with the command that chooses another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from llm_jupyter.admission import Admission
from llm_jupyter.catalogue import PROBE_TIMEOUT, Catalogue, Discover
from llm_jupyter.choice import (
    NAMED,
    Choice,
    Shelf,
    best_of,
    existing_file,
    find,
    held,
    is_form_of,
    not_found,
    why,
    why_no_server,
)
from llm_jupyter.connection import LLMConnectionManager
from llm_jupyter.defaults import ModelDefaults
from llm_jupyter.errors import ConfigurationError, ForeignServerError, LLMError, ModelNotFoundError
from llm_jupyter.events import EventBus, ModelChosen
from llm_jupyter.ports import port_of
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.recent import RecentModels
from llm_jupyter.registry import ProviderRegistry
from llm_jupyter.selection import EMBEDDED, Need, Recipe, ability, last_resort, no_remote, switched_off
from llm_jupyter.types import Capability, LLMProviderStatus

logger = logging.getLogger(__name__)

CHATS = frozenset({Capability.CHAT})

DEFAULT = "it is default_model"
DEFAULT_GONE = "It is default_model; %llm use MODEL takes another."


class LLMProviderManager:
    """Makes providers from their recipes, keeps them, closes them, and finds the model that is meant."""

    def __init__(
        self,
        registry: ProviderRegistry,
        events: EventBus,
        *,
        default_model: str | None = None,
        local_only: bool = False,
        fallback: Sequence[str] = (),
        recent: RecentModels | None = None,
        connections: LLMConnectionManager | None = None,
        defaults: ModelDefaults | None = None,
        discover: Discover | None = None,
        parallel_requests: int | None = None,
        start_host: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._events = events
        self.default_model = default_model
        self.fallback = tuple(fallback)
        self.defaults = defaults or ModelDefaults()
        self.connections = connections or LLMConnectionManager(events)
        self.local_only = local_only
        self._providers: dict[str, LLMProvider] = {}
        self._recent = recent
        self.admission = Admission(registry)
        self._looks: set[asyncio.Task[LLMProviderStatus]] = set()
        self._start_host = start_host
        self._catalogue = Catalogue(registry, self.admission, self.connections, self.get, discover)
        self.turnstile = asyncio.Semaphore(parallel_requests) if parallel_requests else None
        """Whom a request passes that must wait for others; `None` where any number may run at once."""

    def get(self, name: str) -> LLMProvider:
        """The provider of that name, made on first use. Raises `ProviderNotFoundError`, or `InvalidInputError` where the
        settings forbid it.
        """
        recipe = self._registry.recipe(name)
        if not recipe.enabled:
            raise switched_off(recipe)
        if self.local_only and not recipe.is_local:
            raise no_remote(f"the provider {name!r}")
        if name not in self._providers:
            provider = recipe.build()
            provider.publish = self._events.publish
            provider.gate = partial(self.admission.gate, name)
            self._providers[name] = provider
        return self._providers[name]

    @property
    def last_resort(self) -> str:
        """What lets the embedded model answer, as a next step; empty where it is to stay off."""
        return last_resort(self._registry.recipes())

    def is_active(self, name: str) -> bool:
        """Whether that provider has been made."""
        return name in self._providers

    def status(self, name: str) -> LLMProviderStatus | None:
        """How a provider is, as far as is known; `None` where nothing asked it yet."""
        return self._providers[name].status() if name in self._providers else None

    async def connect(self, name: str) -> LLMProviderStatus:
        """Ask a provider whether it is there, and watch it from now on; to connect it is to name it. Raises what its silence
        means, and `InvalidInputError` where the settings forbid it.
        """
        if not self._registry.recipe(name).enabled:
            self._registry.enable(name)
        self.admission.name(name)
        return await self.connections.of(self.get(name)).connect()

    def look_at(self, port: int) -> None:
        """Something happened at a port of this machine: see at once what it means for the providers there."""
        for provider in self._providers.values():
            if self._registry.recipe(provider.name).enabled and _is_at(provider, port):
                look = asyncio.get_running_loop().create_task(self.connections.of(provider).check(anew=True))
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)

    async def disconnect(self, name: str) -> None:
        """Close what is open to a provider; it is not asked again before `connect`."""
        self._registry.disable(name, "disconnected")
        self.admission.forget(name)
        if (provider := self._providers.get(name)) is not None:
            await self.connections.of(provider).aclose()
            await provider.disconnect()

    async def choose(self, *, announce: bool = True, trusting: bool = False) -> Choice:
        """The model that answers when none is named.

        The settings' default; else, on the local servers that answer, those of the settings before those that were
        found: a loaded model, the one used last, the newest; else the embedded one. Never a remote model, one that only
        embeds, or one larger than the free memory. A default that is not there is an error: nothing else answers in its
        place. `trusting` takes a default at its word, see `resolve`.
        """
        if self.default_model:
            choice = await self._default(self.default_model, trusting)
        else:
            choice = await self._unnamed()
        return self._announced(choice) if announce and choice.model else choice

    async def resolve(self, name: str, *, trusting: bool = False, named: bool = False) -> Choice:
        """The model of that name: `provider/model`, a bare model name, a provider (its best model), or the path of a
        GGUF file.

        Raises `ModelNotFoundError` with the nearest names, or the error of a provider that does not answer. `trusting`
        takes `provider/model` and a provider at their word and asks nobody: whoever sends a request calls `verified` first.
        `named` says that the person gives this name now, and so means even the server of another user that stands there;
        a name in the settings or of an earlier day does not.
        """
        name = name.strip()
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._registry:
            if not rest:
                raise not_found(name, [])
            return await self._at(prefix, rest, trusting, named)
        if name in self._registry:
            return await self._at(name, "", trusting, named)
        if name.endswith(".gguf") and (path := await asyncio.to_thread(existing_file, name)) is not None:
            info = await self.get(EMBEDDED).get_model_info(str(path))  # an unusable file is an error now
            return Choice(self.get(EMBEDDED), info.id, NAMED, True)
        shelves = sorted(await self.catalogue(), key=lambda shelf: self.admission.is_others(shelf.recipe.name))
        for shelf in shelves:
            if (model := find(shelf.models, name)) is not None:
                is_foreign = named and self.admission.name(shelf.recipe.name)
                choice = Choice(self.get(shelf.recipe.name), model.id, NAMED, model.is_local)
                return self.permitted(replace(choice, admits_foreign=is_foreign))
        raise not_found(name, [model.full_name for shelf in shelves for model in shelf.models])

    async def verified(self, choice: Choice) -> Choice:
        """The choice, once its server has said that it holds the model. Raises as `resolve`."""
        name = choice.provider.name
        self.get(name)  # it may have been switched off meanwhile
        self._check(choice)
        await self._start(name)
        try:
            found = await self._on(choice.provider, choice.model)
            verified = replace(found, reason=choice.reason, admits_foreign=choice.admits_foreign)
            return self._announced(verified) if choice.reason == DEFAULT and not choice.model else verified
        except ModelNotFoundError as error:
            if choice.reason == DEFAULT:
                error.next_step = f"{DEFAULT_GONE} {error.next_step}"
            raise

    async def seen(self, choice: Choice) -> Choice:
        """The choice as its server tells of it now, for showing it: nothing is started, no remote one is asked, and what
        cannot be told stays as it is. Raises `ForeignServerError`, and `InvalidInputError` where the settings forbid it.
        """
        self._check(choice)
        if choice.is_local and not choice.is_verified:
            with contextlib.suppress(LLMError, TimeoutError):
                async with asyncio.timeout(PROBE_TIMEOUT):
                    await self._on(choice.provider, choice.model)
        return self.permitted(choice)

    def informed(self, choice: Choice) -> Choice:
        """The choice with what its server has told last of its model, which knows better than a name; nobody is asked."""
        told = self._catalogue.told.get(choice.provider.name, ())
        model = find(told, choice.model) if choice.model else best_of(told, is_local=choice.provider.is_local)
        return choice if model is None else replace(choice, model=choice.model or model.id, is_local=model.is_local)

    def permitted(self, choice: Choice) -> Choice:
        """As `informed`. Raises `InvalidInputError` for a remote model where `local_only` is set."""
        choice = self.informed(choice)
        if self.local_only and not choice.is_local:
            raise no_remote(f"the model {choice.full_name!r}")
        return choice

    def refusal(self, choice: Choice) -> ForeignServerError | None:
        """Why a choice may not be asked: another user's server stands there now that was not named with it."""
        return None if choice.admits_foreign else self.admission.refused(choice.provider.name, choice.full_name)

    async def _start(self, name: str) -> None:
        """Start a provider's server, where the settings say that it starts by itself."""
        if self._start_host is not None:
            await self._start_host(name)

    def _check(self, choice: Choice) -> None:
        if (refused := self.refusal(choice)) is not None:
            raise refused

    def digest(self, choice: Choice) -> str | None:
        """What stands for a model's weights, where its server has told; nobody is asked."""
        model = find(self._catalogue.told.get(choice.provider.name, ()), choice.model)
        return model.digest if model is not None else None

    async def who_answered(self, choice: Choice, model: str) -> Choice:
        """The choice; or the `model` that a reply names, where its server does not list the one asked for any more.

        Only a server of this machine is asked for its list, and only if the names differ.
        """
        provider = choice.provider
        if is_form_of(model, choice.model) or provider.url is None or not provider.is_local:
            return choice
        return replace(choice, model=model) if await self._catalogue.lacks(provider, choice.model) else choice

    def holders(self, choice: Choice, needed: frozenset[Capability] = CHATS) -> list[Choice]:
        """The same model on other servers, as far as they have told, the best first.

        Local ones only, of those that can do what is needed, and never the embedded one.
        """
        for provider in self._providers.values():
            self._registry.note_status(provider.status())
        need = Need(needed, choice.model, local_only=True, exclude=frozenset({choice.provider.name, EMBEDDED}))
        found = []
        for candidate in self._registry.select(need).candidates:
            model = find(self._catalogue.told.get(candidate.name, ()), choice.model)
            if model is not None and model.is_local:
                reason = f"it holds the same model as {choice.provider.name} and {candidate.reason}"
                found.append(Choice(self.get(candidate.name), model.id, reason, True))
        return found

    def can(self, choice: Choice, needed: frozenset[Capability]) -> bool:
        """Whether a model may have all that is needed, as far as its server has told."""
        recipe = self._registry.recipe(choice.provider.name)
        model = find(self._catalogue.told.get(choice.provider.name, ()), choice.model)
        return model is None or ability(model, recipe, Need(needed)) is not False

    async def fallbacks(self) -> list[Choice]:
        """What the person listed as `fallback`, as far as it can be meant; the doctor tells of the rest.

        No server is asked for `provider/model` and for a provider: whether they may answer is for the caller to say.
        """
        found = []
        for name in self.fallback:
            try:
                choice = await self.resolve(name, trusting=True)
                self._check(choice)
                found.append(replace(choice, reason="it is listed as fallback"))
            except LLMError as error:
                logger.warning("fallback %r is passed over: %s", name, error.what)
        return found

    def others(self, choice: Choice, listed: Sequence[Choice], needed: frozenset[Capability] = CHATS) -> list[Choice]:
        """Who may answer in place of a choice, in order: other holders of the same model, then those `listed` that can.

        Never a remote one in place of a local one, as far as their servers have told. Nobody is asked.
        """
        able = [other for other in listed if self.can(other, needed)]
        others = {other.full_name: other for other in (*self.holders(choice, needed), *able)}
        others.pop(choice.full_name, None)
        return [other for other in others.values() if other.is_local or not choice.is_local]

    async def look_around(self, choice: Choice) -> None:
        """Ask the other local servers that have not told yet which models they hold."""
        known = {choice.provider.name, EMBEDDED, *self._catalogue.told}
        recipes = [recipe for recipe in self._unasked() if recipe.name not in known]
        await self._catalogue.shelves(recipes, briefly=True)

    async def use(self, name: str) -> Choice:
        """As `resolve` of a name that the person gives now, and say it on the event bus."""
        return self._announced(await self.resolve(name, named=True))

    async def fetcher(self, name: str) -> tuple[LLMProvider, str]:
        """Who fetches the model of that name (`provider/model`, or whatever one of the local providers knows to fetch), and
        the name that it has there. Raises `ModelNotFoundError` where nobody can.
        """
        return await self._catalogue.fetcher(name)

    def forget(self, choice: Choice) -> None:
        """A model is gone: look for it anew when it is next named."""
        choice.provider.held = None

    async def catalogue(self, *, remote: bool = False) -> list[Shelf]:
        """What every enabled provider offers, all asked at once; remote ones only if `remote` is set."""
        recipes = [
            r for r in self._registry.recipes() if r.enabled and (r.is_local or (remote and not self.local_only))
        ]
        return await self._catalogue.shelves(recipes)

    async def aclose(self) -> None:
        """Disconnect every provider, last made first; one that fails is logged and the others are still closed."""
        await self.connections.aclose()
        while self._providers:
            name, provider = self._providers.popitem()
            try:
                await provider.disconnect()
            except Exception:  # what opens closes, whatever one provider does
                logger.exception("closing %s failed", name)

    async def _default(self, name: str, trusting: bool) -> Choice:
        try:
            return replace(await self.resolve(name, trusting=trusting), reason=DEFAULT)
        except LLMError as error:
            error.next_step = f"{DEFAULT_GONE} {error.next_step}"
            raise

    async def _at(self, name: str, model: str, trusting: bool, named: bool) -> Choice:
        """A provider's model; its best one where none is named."""
        provider = self.get(name)
        is_foreign = named and self.admission.name(name)
        if not trusting:
            await self._start(name)
            return replace(await self._on(provider, model), admits_foreign=is_foreign)
        trusted = Choice(provider, model, NAMED, provider.keeps(model), is_verified=False)
        known = held(provider, model) if model else None
        return replace(self.permitted(known or trusted), admits_foreign=is_foreign)

    async def _on(self, provider: LLMProvider, name: str) -> Choice:
        if not name:
            best = await self._catalogue.best_of(provider)
            return self.permitted(Choice(provider, best.id, NAMED, best.is_local))
        if name.endswith(".gguf") and provider.url is None:  # a file, which no list holds
            return Choice(provider, name, NAMED, provider.is_local)
        if (choice := held(provider, name)) is None:
            models = await self._catalogue.models_of(provider)
            if (choice := held(provider, name)) is None:
                raise not_found(name, [info.id for info in models], provider)
        return self.permitted(choice)

    def _unasked(self) -> list[Recipe]:
        """The providers that may answer without being named."""
        return [r for r in self._registry.recipes() if r.enabled and r.is_local and not r.only_named]

    async def _unnamed(self) -> Choice:
        recipes = [recipe for recipe in self._unasked() if recipe.name != EMBEDDED]
        shelves = await self._catalogue.shelves(recipes, briefly=True)
        for shelf in shelves:
            if isinstance(shelf.error, ConfigurationError):
                raise shelf.error  # passing over it would hide the mistake
        used = self._recent.times() if self._recent else {}
        for priority in sorted({recipe.priority for recipe in recipes}, reverse=True):
            models = [model for shelf in shelves if shelf.recipe.priority == priority for model in shelf.models]
            if (best := best_of(models, used)) is not None:
                return Choice(self.get(best.provider), best.id, why(best, used), True)
        return await self._embedded(why_no_server(shelves))

    async def _embedded(self, reason: str) -> Choice:
        provider = self.get(EMBEDDED)
        models = await self._catalogue.models_of(provider)
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


def _is_at(provider: LLMProvider, port: int) -> bool:
    return provider.url is not None and is_loopback(provider.url) and port_of(provider.url) == port
