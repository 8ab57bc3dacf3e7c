"""Names to recipes: what providers there are, what they can do, how they are, and which of them to ask first."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from llm_jupyter.errors import ConfigurationError, LLMError, ProviderNotFoundError
from llm_jupyter.events import EventBus, ProviderRegistered, ProviderUnregistered
from llm_jupyter.foreign import foreign_among
from llm_jupyter.providers import BUILTIN, plugins, provider_class
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.selection import EMBEDDED as EMBEDDED
from llm_jupyter.selection import EMBEDDED_PRIORITY as EMBEDDED_PRIORITY
from llm_jupyter.selection import (
    FORBIDDEN,
    Candidate,
    LeftOut,
    Need,
    Recipe,
    Selection,
    ability,
    is_called,
    is_permitted,
    switched_off,
)
from llm_jupyter.selection import FOUND as FOUND
from llm_jupyter.types import Capability, LLMModelInfo, LLMProviderStatus, ProviderState

logger = logging.getLogger(__name__)

SMOOTHING = 0.3
"""The weight of the newest measured latency; the ones before keep the rest, so that one slow answer moves little."""


class ProviderRegistry:
    """The recipes by name, with what has been seen of their providers."""

    def __init__(
        self,
        events: EventBus,
        *,
        foreign: Callable[[Collection[str]], Collection[str]] = foreign_among,
    ) -> None:
        self._events = events
        self._foreign = foreign
        self._recipes: dict[str, Recipe] = {}
        self._models: dict[str, tuple[LLMModelInfo, ...]] = {}
        self._statuses: dict[str, LLMProviderStatus] = {}
        self._latencies: dict[str, float] = {}
        self._unread: set[str] = set()
        self._was_scanned = False

    # -- recipes

    def register(self, recipe: Recipe) -> None:
        """Add a recipe, or put it in place of the one with that name."""
        self._forget(recipe.name)
        self._recipes[recipe.name] = recipe
        if recipe.kind not in BUILTIN and recipe.kind in plugins():  # a program may register kinds of its own
            self._unread.add(recipe.name)
        self._events.publish(ProviderRegistered(provider=recipe.name, kind=recipe.kind, is_local=recipe.is_local))

    def register_plugins(self) -> None:
        """Add one recipe for each kind of provider that an installed package brings, unless its name is taken.

        Nothing of those packages is imported. They count as remote until they are read, and answer only when named.
        """
        for kind, entry in plugins().items():
            if kind not in self._recipes:
                package = entry.dist.name if entry.dist else entry.value
                self.register(
                    Recipe(kind, kind, _plugin(kind), False, source=f"the package {package}", only_named=True)
                )

    def unregister(self, name: str) -> None:
        """Forget a recipe and what was seen of its provider. Raises `ProviderNotFoundError`."""
        self._known(name)
        del self._recipes[name]
        self._forget(name)
        self._events.publish(ProviderUnregistered(provider=name))

    def enable(self, name: str, enabled: bool = True, *, reason: str = "") -> None:
        """Let a provider answer again, or no longer. Raises `ProviderNotFoundError`, and `InvalidInputError` for one that is
        to stay off, see `Recipe.stays_off`.
        """
        recipe = self._known(name)
        if not recipe.stays_off:
            self._recipes[name] = replace(recipe, enabled=enabled, reason="" if enabled else reason)
        elif enabled:
            raise switched_off(recipe)

    def disable(self, name: str, reason: str = "") -> None:
        """Let a provider answer no longer. Raises `ProviderNotFoundError`."""
        self.enable(name, False, reason=reason)

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name; a plug-in of that name is read now. Raises `ProviderNotFoundError` with the nearest name."""
        self._known(name)
        self._read(name)
        return self._recipes[name]

    def recipes(self) -> list[Recipe]:
        """All recipes, by priority and then by name."""
        return sorted(self._recipes.values(), key=lambda recipe: (-recipe.priority, recipe.name))

    def listed(self) -> list[Recipe]:
        """`recipes`, for showing them: plug-ins are read, and those that cannot be are disabled with the reason."""
        self._scan()
        for name in sorted(self._unread):
            self._read(name)
        return self.recipes()

    def __contains__(self, name: object) -> bool:
        if name not in self._recipes:
            self._scan()
        return name in self._recipes

    # -- what was seen of them

    def note_models(self, name: str, models: Iterable[LLMModelInfo]) -> None:
        """A provider has told of its models."""
        if name in self._recipes:
            self._models[name] = tuple(models)

    def known_models(self) -> list[LLMModelInfo]:
        """What the providers told of when they were asked last."""
        return [model for models in self._models.values() for model in models]

    def note_status(self, status: LLMProviderStatus) -> None:
        """A provider's state has been seen, and perhaps measured."""
        if status.name not in self._recipes:
            return
        self._statuses[status.name] = status
        if (new := status.latency) is not None:
            old = self._latencies.get(status.name, new)
            self._latencies[status.name] = old + SMOOTHING * (new - old)

    def status(self, name: str) -> LLMProviderStatus | None:
        """The provider's state when it was last seen."""
        return self._statuses.get(name)

    def latency(self, name: str) -> float | None:
        """The smoothed time of the provider's answers to a look, in seconds."""
        return self._latencies.get(name)

    def capabilities(self, name: str, model: str | None = None) -> frozenset[Capability] | None:
        """What a provider's models can do, or one of them; `None` where nothing is known. Raises `ProviderNotFoundError`."""
        self._known(name)
        models = self._models.get(name, ())
        told = [one.capabilities for one in models if model is None or is_called(one, model)]
        return frozenset[Capability]().union(*told) or None

    # -- whom to ask

    def select(self, need: Need) -> Selection:
        """The providers that may answer, in the order in which to ask them; nothing is contacted, no plug-in is read."""
        candidates: list[Candidate] = []
        left_out: list[LeftOut] = []
        for recipe in self.recipes():
            reason = self._objection(recipe, need)
            if reason:
                left_out.append(LeftOut(recipe, reason))
                continue
            status = self._statuses.get(recipe.name)
            state = status.state if status else ProviderState.DISCONNECTED
            certain = self._ability(recipe, need) is True
            candidates.append(Candidate(recipe, certain, state, self._latencies.get(recipe.name)))
        return Selection(tuple(sorted(candidates, key=lambda one: one.rank)), tuple(left_out))

    def _objection(self, recipe: Recipe, need: Need) -> str:
        """Why a provider may not be asked; empty if it may."""
        is_named = any(one.partition("/")[0] == recipe.name for one in need.named)
        if recipe.name in need.exclude:
            return "it was to be passed over"
        if not recipe.enabled:
            return recipe.reason or "it is switched off"
        if need.local_only and not recipe.is_local:
            return f"it is {FORBIDDEN}"
        if not is_named and (recipe.only_named or (recipe.was_found and not recipe.is_local)):
            return "it is asked only when you name it" if recipe.is_local else "it is remote, and you did not name it"
        if not is_named and self.is_foreign(recipe):
            return "it belongs to another user of this machine, and you did not name it"
        return self._lack(recipe, need) if self._ability(recipe, need) is False else ""

    def is_foreign(self, recipe: Recipe) -> bool:
        """Whether what nobody named by its address is another user's at this moment: a port changes hands in no time."""
        is_assumed = recipe.was_found or recipe.of_host
        return bool(is_assumed and recipe.is_local and recipe.base_url and self._foreign([recipe.base_url]))

    def _ability(self, recipe: Recipe, need: Need) -> bool | None:
        """Whether one of its models has all that is needed; `None` where that is not known."""
        known = self._models.get(recipe.name)
        if known is None:
            return None
        answers = [ability(model, recipe, need) for model in known if is_permitted(model, recipe, need)]
        return True if True in answers else (None if None in answers else False)

    def _lack(self, recipe: Recipe, need: Need) -> str:
        models = self._models.get(recipe.name, ())
        if need.model is not None:
            models = tuple(model for model in models if is_called(model, need.model))
            if not models:
                return f"it has no model {need.model}"
        if not models:
            return "it has no model"
        if not any(is_permitted(model, recipe, need) for model in models):
            return "its model runs elsewhere, and " + (
                "local_only is set" if need.local_only else "you did not name it"
            )
        what = " and ".join(sorted(need.capabilities))
        return f"it has no model for {what}" if need.model is None else f"its model {need.model} is not for {what}"

    # -- for ourselves

    def _scan(self) -> None:
        """Register what installed packages bring, when it is first needed: to look for that costs 30 ms."""
        if not self._was_scanned:
            self._was_scanned = True
            self.register_plugins()

    def _known(self, name: str) -> Recipe:
        if name in self:
            return self._recipes[name]
        near = difflib.get_close_matches(name, self._recipes, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(self._recipes) or 'none'}."
        raise ProviderNotFoundError(f"there is no provider {name!r}", next_step=hint)

    def _forget(self, name: str) -> None:
        self._unread.discard(name)
        for notes in (self._models, self._statuses, self._latencies):
            notes.pop(name, None)

    def _read(self, name: str) -> None:
        """Import the package of a plug-in, once; see whether it is local, or why it cannot be used."""
        if name not in self._unread:
            return
        self._unread.discard(name)
        recipe = self._recipes[name]
        try:
            if recipe.base_url is None:  # only its package knows where it is
                self._recipes[name] = replace(recipe, is_local=recipe.build().is_local)
            else:
                provider_class(recipe.kind)
        except LLMError as error:
            logger.warning("the provider %s cannot be used: %s", name, error.what)
            self.disable(name, error.what)


def _plugin(kind: str) -> Callable[[], LLMProvider]:
    def build() -> LLMProvider:
        made = provider_class(kind)
        try:
            return made(name=kind)
        except LLMError:
            raise
        except Exception as error:  # somebody else's constructor: whatever it raises, it cannot be used as it is
            raise ConfigurationError(
                f"the provider {kind} cannot be made without settings: {error}",
                next_step=f'Give what it needs under [providers.{kind}] with kind = "{kind}" in your settings file.',
            ) from None

    return build
