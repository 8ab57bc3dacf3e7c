"""The kinds of providers. A new one is one file in this folder and one row in `BUILTIN`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from llm_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_jupyter.providers.base import LLMProvider

BUILTIN: dict[str, str] = {
    "llamacpp": "llm_jupyter.providers.llamacpp:LlamaCppProvider",
    "lmstudio": "llm_jupyter.providers.lmstudio:LMStudioProvider",
    "ollama": "llm_jupyter.providers.ollama:OllamaProvider",
    "openai-compatible": "llm_jupyter.providers.openai_compatible:OpenAICompatibleProvider",
}
"""Kind, as written in the settings, to `module:class`; a module is imported when its kind is first used."""


def check_kind(kind: str) -> None:
    """Raise `ConfigurationError` for an unknown kind of provider. Nothing is imported."""
    if kind not in BUILTIN:
        raise ConfigurationError(
            f"there is no kind of provider {kind!r}", next_step=f"The kinds are: {', '.join(BUILTIN)}."
        )


def provider_class(kind: str) -> type[LLMProvider]:
    """The class of a kind of provider. Raises `ConfigurationError` for an unknown kind."""
    check_kind(kind)
    module, name = BUILTIN[kind].split(":")
    return cast("type[LLMProvider]", getattr(importlib.import_module(module), name))
