"""The kinds of providers. A new one is one file in this folder and one row in `BUILTIN`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from llm_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_jupyter.providers.base import LLMProvider

BUILTIN: dict[str, str] = {
    "llamacpp": "llm_jupyter.providers.llamacpp:LlamaCppProvider",
    "openai-compatible": "llm_jupyter.providers.openai_compatible:OpenAICompatibleProvider",
}
"""Kind, as written in the settings, to `module:class`; a module is imported when its kind is first used."""


def provider_class(kind: str) -> type[LLMProvider]:
    """The class of a kind of provider. Raises `ConfigurationError` for an unknown kind."""
    try:
        module, name = BUILTIN[kind].split(":")
    except KeyError:
        raise ConfigurationError(
            f"there is no kind of provider {kind!r}", next_step=f"The kinds are: {', '.join(BUILTIN)}."
        ) from None
    return cast("type[LLMProvider]", getattr(importlib.import_module(module), name))
