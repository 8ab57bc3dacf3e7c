"""Who is compared: models, each with settings of its own."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llm_jupyter.comparison.given import several, text_of
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import GenerationOptions

_PLAIN = GenerationOptions()
EXAMPLE = 'Write "provider/model", or {"model": "provider/model", "temperature": 0}.'
LONGEST_SETTING = 24
"""Characters of a setting that a label shows."""


class Contender(msgspec.Struct, frozen=True):
    """A model as `-m` names it, with the options and the instructions that it is asked with.

    `label` is what tells it from the others; left empty, a comparison finds one.
    """

    model: str
    label: str = ""
    options: GenerationOptions = _PLAIN
    system: str | None = None

    @classmethod
    def of(cls, value: ContenderLike) -> Contender:
        """A contender from a model's name, or from a mapping with `model` and settings. Raises `InvalidInputError`."""
        if isinstance(value, Contender):
            return value
        if not isinstance(value, Mapping):
            value = {"model": text_of("a model to compare", value, EXAMPLE)}
        told = dict(value)
        model, label, system = told.pop("model", ""), told.pop("label", ""), told.pop("system", None)
        if not (name := text_of('"model"', model, EXAMPLE).strip()):
            raise InvalidInputError("a model to compare has no name", next_step=EXAMPLE)
        instructions = None if system is None else text_of("system", system)
        return cls(name, str(label), options_of(told), instructions)


ContenderLike = str | Contender | Mapping[str, Any]


def options_of(settings: Mapping[str, Any]) -> GenerationOptions:
    """Options from their names and values. Raises `InvalidInputError`."""
    known = GenerationOptions.__struct_fields__
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise InvalidInputError(
                f"there is no setting {name!r}",
                next_step=f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}.",
            )
    told = {**settings, "stop": (stop,)} if isinstance(stop := settings.get("stop"), str) else settings
    try:
        return msgspec.convert(told, GenerationOptions)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"a setting cannot be so: {error}") from None


def contenders_of(
    models: ContenderLike | Sequence[ContenderLike], *, options: GenerationOptions = _PLAIN, system: str | None = None
) -> tuple[Contender, ...]:
    """Who is compared, each with a label of its own. `options` and `system` hold where a contender says nothing else.

    One model under several settings gets those into its labels. Raises `InvalidInputError`.
    """
    asked = [Contender.of(one) for one in several("models", models, str, Contender, Mapping)]
    if not asked:
        raise InvalidInputError("there is no model to compare", next_step='Give some: compare(prompt, ["embedded"]).')
    instructions = None if system is None else text_of("system", system)
    merged = [
        msgspec.structs.replace(one, options=one.options.merged_over(options), system=one.system or instructions)
        for one in asked
    ]
    labels = _told_apart([one.label or _named(one, merged) for one in merged])
    return tuple(msgspec.structs.replace(one, label=label) for one, label in zip(merged, labels, strict=True))


def _named(one: Contender, others: Sequence[Contender]) -> str:
    """The model, with the settings in which it differs from other contenders of that model."""
    model = Path(one.model).name if Path(one.model).is_absolute() else one.model  # folders name their owner
    same = [_settings(other) for other in others if other.model == one.model and not other.label]
    own = [f"{name}={text}" for name, text in _settings(one).items() if any(s.get(name) != text for s in same)]
    return " ".join([model, *own])


def _settings(one: Contender) -> dict[str, str]:
    """What a contender is asked with, in words."""
    values = {n: v for n in _PLAIN.__struct_fields__ if (v := getattr(one.options, n)) != getattr(_PLAIN, n)}
    if one.system is not None:
        values["system"] = one.system
    return {name: _shortly(value) for name, value in values.items()}


def _shortly(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_SETTING else f"{text[: LONGEST_SETTING - 1]}…"


def _told_apart(labels: Sequence[str]) -> list[str]:
    """The labels, with numbers at those that occur before."""
    result: list[str] = []
    for label in labels:
        number, name = 1, label
        while name in result:
            number += 1
            name = f"{label} ({number})"
        result.append(name)
    return result
