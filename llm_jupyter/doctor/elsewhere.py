"""Where a server is that is not where it was looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.ports import PROGRAMS, USUAL, Listener
from llm_jupyter.errors import LLMError
from llm_jupyter.foreign import is_foreign
from llm_jupyter.ports import port_of
from llm_jupyter.providers import provider_class
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.selection import Recipe

TIME = 1.0
"""Seconds that a place gets to show what it is."""

OPENAI_KINDS = ("openai-compatible", "llamacpp")


@dataclass(frozen=True, slots=True)
class Place:
    """An address at which a server of the right kind answers; `listener` is who it is, if the system tells."""

    url: str
    models: tuple[str, ...]
    listener: Listener | None = None

    @property
    def whose(self) -> str:
        """The process, in brackets."""
        return f" ({self.listener})" if self.listener and self.listener.pid else ""


class Elsewhere:
    """Looks for servers on this machine: at the usual ports, where a model server's process listens, and where the
    environment points. No key is sent there, and another user's servers are left alone.
    """

    def __init__(self, case: Case, recipes: Iterable[Recipe], ports: dict[int, Listener]) -> None:
        self._case = case
        self._recipes = list(recipes)
        self._ports = ports
        self._tries: dict[tuple[str, int], asyncio.Task[Place | None]] = {}

    async def find(self, recipe: Recipe, *, unknown: bool = False) -> Place | None:
        """The best other place for a server that was looked for in vain: one with the model that is to answer.

        `unknown`: only places at which no provider looks.
        """
        if recipe.kind not in (*USUAL, *OPENAI_KINDS):
            return None
        places = [other.base_url for other in self._recipes if other.base_url and is_loopback(other.base_url)]
        known = {port_of(url) for url in places} if unknown else {port_of(recipe.base_url or "")}
        ports = [port for port in self._candidates(recipe) if port not in known]
        found = [place for place in await asyncio.gather(*(self._tried(recipe, port) for port in ports)) if place]
        prefix, _, wanted = (self._case.settings.default_model or "").partition("/")
        holding = [place for place in found if prefix == recipe.name and wanted in place.models]
        return next(iter(holding or found), None)

    async def path(self, recipe: Recipe) -> str | None:
        """The same server's address with `/v1` at its end, if it is an OpenAI-compatible one only there."""
        url = recipe.base_url or ""
        if recipe.kind not in OPENAI_KINDS or url.endswith("/v1"):
            return None
        return f"{url}/v1" if await self._listed(recipe, f"{url}/v1") is not None else None

    def _candidates(self, recipe: Recipe) -> list[int]:
        kind = "openai-compatible" if recipe.kind in OPENAI_KINDS else recipe.kind
        alike = OPENAI_KINDS if kind in OPENAI_KINDS else (kind,)
        urls = [other.base_url for other in self._recipes if other.base_url and other.kind in alike]
        named = [port_of(url) for url in urls if is_loopback(url)]
        usual = [port for port in USUAL.get(kind, ()) if not self._ports or port in self._ports]
        program = PROGRAMS.get(kind)
        running = [port for port, listener in self._ports.items() if program and program.search(listener.program)]
        return list(dict.fromkeys([*named, *usual, *running]))

    def _tried(self, recipe: Recipe, port: int) -> asyncio.Task[Place | None]:
        """A try of that port; one is enough for all who look for the same kind."""
        key = (recipe.kind, port)
        if key not in self._tries:
            self._tries[key] = asyncio.create_task(self._try(recipe, port))
        return self._tries[key]

    async def _try(self, recipe: Recipe, port: int) -> Place | None:
        url = f"http://127.0.0.1:{port}" + ("/v1" if recipe.kind in OPENAI_KINDS else "")
        if await asyncio.to_thread(is_foreign, url):
            return None
        models = await self._listed(recipe, url)
        return None if models is None else Place(url, models, self._ports.get(port))

    async def _listed(self, recipe: Recipe, url: str) -> tuple[str, ...] | None:
        """The models that a server of that kind lists there; `None` where none does."""
        provider = provider_class(recipe.kind)(name=recipe.name, base_url=url)  # type: ignore[call-arg]
        try:
            async with asyncio.timeout(TIME):
                return tuple(model.id for model in await provider.get_available_models())
        except (LLMError, TimeoutError):
            return None
        finally:
            await provider.disconnect()
