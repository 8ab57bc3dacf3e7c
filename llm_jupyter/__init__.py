"""Language models, above all local ones, in a Jupyter notebook: `%load_ext llm_jupyter`.

Every name is imported when it is first used, so that `import llm_jupyter` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

_HOME = {
    "Capability": "types",
    "Chunk": "types",
    "Comparison": "comparison",
    "Contender": "comparison",
    "EventBus": "events",
    "FinishReason": "types",
    "GenerationOptions": "types",
    "Image": "types",
    "LLMError": "errors",
    "LLMFactory": "factory",
    "LLMModelInfo": "types",
    "LLMProvider": "providers.base",
    "LLMProviderManager": "manager",
    "LLMProviderStatus": "types",
    "LLMResponse": "types",
    "LLMSession": "sessions",
    "LLMSessionManager": "sessions",
    "LLMSettings": "settings",
    "LMStudioProvider": "providers.lmstudio",
    "LlamaCppProvider": "providers.llamacpp",
    "Message": "types",
    "OllamaProvider": "providers.ollama",
    "OpenAICompatibleProvider": "providers.openai_compatible",
    "ProviderRegistry": "registry",
    "Role": "types",
    "Timing": "types",
    "ToolCall": "types",
    "ToolDefinition": "types",
    "Usage": "types",
    "compare": "comparison",
}

__all__ = sorted([*_HOME, "load_ipython_extension", "unload_ipython_extension"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'llm_jupyter' has no attribute {name!r}")
    return getattr(importlib.import_module(f"llm_jupyter.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext llm_jupyter`."""
    from llm_jupyter.magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext llm_jupyter`."""
    from llm_jupyter.magics import unload

    unload(shell)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where jupyter_server finds the server extension."""
    from llm_jupyter.server.app import LLMServerExtension

    return [{"module": "llm_jupyter.server.app", "app": LLMServerExtension}]
