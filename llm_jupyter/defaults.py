"""What the settings say about single models: how they are asked unless the question says otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llm_jupyter.choice import Choice
from llm_jupyter.settings import ModelSettings
from llm_jupyter.types import GenerationOptions


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
        if self._max_tokens is not None and (asked.max_tokens or self._max_tokens + 1) > self._max_tokens:
            asked = msgspec.structs.replace(asked, max_tokens=self._max_tokens)
        return asked

    def system(self, choice: Choice) -> str | None:
        """The instructions that this model gets in place of the session's."""
        own = self._of(choice)
        return own.system if own is not None else None

    def _of(self, choice: Choice) -> ModelSettings | None:
        return self._models.get(choice.full_name) or self._models.get(choice.full_name.removesuffix(":latest"))
