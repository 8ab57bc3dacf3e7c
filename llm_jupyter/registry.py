"""Names to recipes: what providers there are, before any of them exists."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from llm_jupyter.errors import ProviderNotFoundError
from llm_jupyter.events import EventBus, ProviderRegistered
from llm_jupyter.providers.base import LLMProvider

EMBEDDED = "embedded"
"""The name of the provider that answers where no server runs."""

FOUND, EMBEDDED_PRIORITY = -10, -100
"""Priorities of servers that nobody configured, and of the embedded model; a configured one has 0 unless it says."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a provider, and what is known of it before it is made.

    `build` makes it without contacting anything; `base_url` is where it will go;
    `was_found` says that it stands at its usual place and nobody configured it. `priority`: higher is asked first. `source` says where the recipe
    comes from, in words.
    """

    name: str
    kind: str
    build: Callable[[], LLMProvider]
    is_local: bool
    priority: int = 0
    enabled: bool = True
    source: str = ""
    base_url: str | None = None
    was_found: bool = False


class ProviderRegistry:
    """The recipes by name."""

    def __init__(self, events: EventBus) -> None:
        self._events = events
        self._recipes: dict[str, Recipe] = {}

    def register(self, recipe: Recipe) -> None:
        """Add a recipe, or put it in place of the one with that name."""
        self._recipes[recipe.name] = recipe
        self._events.publish(ProviderRegistered(provider=recipe.name, kind=recipe.kind, is_local=recipe.is_local))

    def unregister(self, name: str) -> None:
        """Forget a recipe. Raises `ProviderNotFoundError`."""
        self.recipe(name)
        del self._recipes[name]

    def enable(self, name: str, enabled: bool = True) -> None:
        """Let a provider answer again, or no longer. Raises `ProviderNotFoundError`."""
        self._recipes[name] = replace(self.recipe(name), enabled=enabled)

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name. Raises `ProviderNotFoundError` with the nearest name."""
        if name in self._recipes:
            return self._recipes[name]
        near = difflib.get_close_matches(name, self._recipes, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(self._recipes) or 'none'}."
        raise ProviderNotFoundError(f"there is no provider {name!r}", next_step=hint)

    def recipes(self) -> list[Recipe]:
        """All recipes, by priority and then by name."""
        return sorted(self._recipes.values(), key=lambda recipe: (-recipe.priority, recipe.name))

    def __contains__(self, name: object) -> bool:
        return name in self._recipes
