"""Which servers may be spoken to: one that was found and is another user's only where the person names it."""

from __future__ import annotations

from llm_jupyter.errors import ForeignServerError
from llm_jupyter.providers._http import without_secrets
from llm_jupyter.registry import ProviderRegistry


class Admission:
    """Remembers what the person named. Whose a server is, is looked up each time: a port changes hands in no time."""

    def __init__(self, registry: ProviderRegistry) -> None:
        self._registry = registry
        self._named: set[str] = set()

    def name(self, provider: str) -> bool:
        """The person names a provider: whether its server is another user's now, who may be asked from then on.

        One's own that gives way to another user's later was not named.
        """
        is_foreign = self._registry.is_foreign(self._registry.recipe(provider))
        (self._named.add if is_foreign else self._named.discard)(provider)
        return is_foreign

    def is_others(self, provider: str) -> bool:
        """Whether a provider's server is another user's now, and may be asked since the person named it."""
        return provider in self._named and self._registry.is_foreign(self._registry.recipe(provider))

    def forget(self, provider: str) -> None:
        """It was not named."""
        self._named.discard(provider)

    def gate(self, provider: str) -> None:
        """What each request to a provider passes. Raises `ForeignServerError`."""
        if provider not in self._named:
            self.check(provider)

    def check(self, provider: str, model: str = "") -> None:
        """As `gate`, for a provider or a model of it that nobody named."""
        if (refused := self.refused(provider, model)) is not None:
            raise refused

    def refused(self, provider: str, model: str = "") -> ForeignServerError | None:
        """Why a provider that nobody named is not to be spoken to now, if it is not."""
        recipe = self._registry.recipe(provider)
        if not self._registry.is_foreign(recipe):
            return None
        return ForeignServerError(
            "it is another user's; asked only when it is named",
            where=f"{provider} at {without_secrets(recipe.base_url or '')}",
            next_step=f"%llm use {model or provider} names it.",
        )
