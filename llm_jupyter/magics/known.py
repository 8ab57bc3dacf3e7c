"""The names that Tab offers behind a command: what is known already. No server is asked, and no service made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llm_jupyter.errors import LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.processes import hosts_of
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.settings import LLMSettings, entries, load_settings


def known(kernel: KernelServices, kind: str) -> list[str]:
    """The names of one kind, as `KINDS` calls them; none where the settings cannot be read."""
    factory = kernel.standing
    try:
        settings = factory.settings if factory is not None else load_settings(kernel.overrides())
    except LLMError:
        return []  # the command itself will say why
    return list(dict.fromkeys(name for name in KINDS[kind](settings, factory) if name and " " not in name))


def _models(settings: LLMSettings, factory: LLMFactory | None) -> Iterable[str]:
    yield from (settings.default_model or "", *settings.fallback, *settings.models, EMBEDDED)
    if factory is not None:
        yield from (model.full_name.removesuffix(":latest") for model in factory.registry.known_models())


def _providers(settings: LLMSettings, factory: LLMFactory | None) -> Iterable[str]:
    return [*settings.providers] if factory is None else [recipe.name for recipe in factory.registry.recipes()]


def _hosts(settings: LLMSettings, factory: LLMFactory | None) -> Iterable[str]:
    return [*settings.hosts, EMBEDDED] if factory is None else hosts_of(factory)


def _settings(settings: LLMSettings, factory: LLMFactory | None) -> Iterable[str]:
    for entry in entries(settings, everything=True):
        yield entry.name.partition(".")[0]  # a table can be looked at as a whole
        yield entry.name


KINDS: dict[str, Callable[[LLMSettings, LLMFactory | None], Iterable[str]]] = {
    "model": _models, "provider": _providers, "host": _hosts, "setting": _settings,
}  # fmt: skip
