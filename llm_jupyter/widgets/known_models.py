"""The models that a dashboard offers to choose from. Remote providers are asked only when the person says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from llm_jupyter.choice import Shelf
from llm_jupyter.errors import LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.types import Capability, LLMModelInfo


class KnownModels:
    """What the providers offer for a chat, as they told when they were asked last."""

    def __init__(self, llm: LLMFactory) -> None:
        self._llm = llm
        self._remote: list[Shelf] | None = None
        self.found: list[LLMModelInfo] = []

    async def look(self, *, remote: bool = False) -> None:
        """Ask the local providers again, and the remote ones too if `remote`; what those told stays known."""
        shelves = await self._llm.offers(remote=remote)
        if remote:
            self._remote = [shelf for shelf in shelves if not shelf.recipe.is_local]
        local = [shelf for shelf in shelves if shelf.recipe.is_local]
        models = (model for shelf in (*local, *(self._remote or ())) for model in shelf.models)
        self.found = [model for model in models if Capability.CHAT in model.capabilities]

    def rows(self) -> list[dict[str, Any]]:
        """Their names, and where they run, as JSON."""
        return [{"name": model.full_name, "local": model.is_local} for model in self.found]

    def unasked(self) -> list[str]:
        """The remote providers that were not asked yet, and may be."""
        if self._remote is not None or self._llm.providers.local_only:
            return []
        return [recipe.name for recipe in self._llm.registry.recipes() if recipe.enabled and not recipe.is_local]

    async def remote_among(self, names: Iterable[str]) -> list[str]:
        """Which models of these names run on other machines; those are not asked for it."""
        if self._llm.is_replaying:
            return []
        models = list(dict.fromkeys(names))
        are_remote = await asyncio.gather(*map(self._is_remote, models))
        return [model for model, is_remote in zip(models, are_remote, strict=True) if is_remote]

    async def _is_remote(self, model: str) -> bool:
        provider, registry = model.partition("/")[0], self._llm.registry
        if provider in registry and not registry.recipe(provider).is_local:
            return True
        try:
            return not (await self._llm.providers.resolve(model)).is_local
        except LLMError:
            return False  # whoever asks it will hear why not
