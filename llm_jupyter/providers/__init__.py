"""The kinds of providers. A new one is one file in this folder and one row in `BUILTIN`, or an entry point of a package."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, cast

from llm_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from llm_jupyter.providers.base import LLMProvider

BUILTIN: dict[str, str] = {
    "llamacpp": "llm_jupyter.providers.llamacpp:LlamaCppProvider",
    "lmstudio": "llm_jupyter.providers.lmstudio:LMStudioProvider",
    "ollama": "llm_jupyter.providers.ollama:OllamaProvider",
    "openai-compatible": "llm_jupyter.providers.openai_compatible:OpenAICompatibleProvider",
}
"""Kind, as written in the settings, to `module:class`; a module is imported when its kind is first used."""


GROUP = "llm_jupyter.providers"
"""The entry points by which an installed package brings a kind: `name = "module:SubclassOfLLMProvider"`."""


def plugins() -> dict[str, EntryPoint]:
    """The kinds that installed packages bring, by name. Nothing of them is imported; a built-in kind keeps its name."""
    from importlib.metadata import entry_points  # costs more than the rest of this module, and is seldom needed

    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, _package(entry))):
        if entry.name not in BUILTIN:
            found.setdefault(entry.name, entry)
    return found


def check_kind(kind: str) -> None:
    """Raise `ConfigurationError` for an unknown kind of provider. Nothing is imported."""
    if kind not in BUILTIN and kind not in (others := plugins()):
        raise ConfigurationError(
            f"there is no kind of provider {kind!r}", next_step=f"The kinds are: {', '.join([*BUILTIN, *others])}."
        )


def provider_class(kind: str) -> type[LLMProvider]:
    """The class of a kind of provider. Raises `ConfigurationError` for an unknown kind, or one whose package is broken."""
    if kind not in BUILTIN:
        check_kind(kind)
        return _plugin_class(plugins()[kind])
    module, name = BUILTIN[kind].split(":")
    return cast("type[LLMProvider]", getattr(importlib.import_module(module), name))


def _plugin_class(entry: EntryPoint) -> type[LLMProvider]:
    from llm_jupyter.providers.base import LLMProvider

    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:  # somebody else's module: whatever it does, the notebook goes on
        raise _broken(entry, f"{type(error).__name__}: {error}") from None
    if not (isinstance(loaded, type) and issubclass(loaded, LLMProvider)):
        raise _broken(entry, f"{entry.value} is no subclass of LLMProvider")
    if inspect.isabstract(loaded):
        raise _broken(entry, f"it lacks {', '.join(sorted(loaded.__abstractmethods__))}")
    return loaded


def _broken(entry: EntryPoint, why: str) -> ConfigurationError:
    package = _package(entry)
    return ConfigurationError(
        f"the kind of provider {entry.name!r} of the package {package} does not load: {why}",
        next_step=f"%pip install -U {package} may mend it; %pip uninstall -y {package} removes it.",
    )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
