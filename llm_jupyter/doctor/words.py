"""Servers and their models as people call them."""

from __future__ import annotations

from llm_jupyter.selection import Recipe
from llm_jupyter.types import LLMModelInfo


def kind_name(recipe: Recipe) -> str:
    """A kind of server as people call it."""
    names = {"ollama": "Ollama", "lmstudio": "LM Studio", "openai-compatible": "server that speaks OpenAI's protocol"}
    return names.get(recipe.kind, f"{recipe.kind} server")


def one_of(recipe: Recipe) -> str:
    """The same for one that is there."""
    return kind_name(recipe) if recipe.kind in ("ollama", "lmstudio") else f"a {kind_name(recipe)}"


def shelf(models: tuple[LLMModelInfo, ...]) -> str:
    """How many models there are, and one that is loaded."""
    loaded = [model.id for model in models if model.loaded]
    return f"{len(models)} model{'' if len(models) == 1 else 's'}" + (f", {loaded[0]} loaded" if loaded else "")
