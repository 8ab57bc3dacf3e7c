"""What the settings say about single models: how they are asked unless the question says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llm_jupyter.choice import Choice
from llm_jupyter.settings import ModelSettings
from llm_jupyter.types import GenerationOptions

LENGTHS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "n_predict"})
"""What servers call the longest answer: in the OpenAI protocol of two ages and LM Studio's, in Ollama's and llama.cpp's."""


class ModelDefaults:
    """The `[models]` tables, and the cap on every answer's length."""

    def __init__(self, models: Mapping[str, ModelSettings] | None = None, *, max_tokens: int | None = None) -> None:
        self._models = dict(models or {})
        self._max_tokens = max_tokens

    def options(self, choice: Choice, asked: GenerationOptions) -> GenerationOptions:
        """What was asked for, with this model's own values where nothing was, and never more tokens than allowed."""
        if (own := self._of(choice)) is not None:
            given = {name: value for name, value in own if name in choice.provider.own_options and value is not None}
            options = GenerationOptions(
                temperature=own.temperature, max_tokens=own.max_tokens, top_p=own.top_p, seed=own.seed, extra=given
            )
            asked = asked.merged_over(options)
        return asked if self._max_tokens is None else _no_longer(asked, self._max_tokens)

    def system(self, choice: Choice) -> str | None:
        """The instructions that this model gets in place of the session's."""
        own = self._of(choice)
        return own.system if own is not None else None

    def _of(self, choice: Choice) -> ModelSettings | None:
        return self._models.get(choice.full_name) or self._models.get(choice.full_name.removesuffix(":latest"))


def _no_longer(asked: GenerationOptions, limit: int) -> GenerationOptions:
    """The same, with every word about the answer's length held to the limit: one in `extra` would go over ours."""

    def held(name: str, value: Any) -> Any:
        is_within = isinstance(value, int) and 1 <= value <= limit  # less means "no limit" to some servers
        return limit if name in LENGTHS and not is_within else value

    extra = {name: held(name, value) for name, value in asked.extra.items()}
    return msgspec.structs.replace(asked, max_tokens=min(asked.max_tokens or limit, limit), extra=extra)
