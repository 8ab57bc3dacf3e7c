"""Which settings there are, what each may be, and which one was meant."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.keys import NAMED, Key, written
from llm_jupyter.settings.values import Allowed


class Schema:
    """What the settings' model says about a key. `root` is that model."""

    def __init__(self, root: type[BaseModel]) -> None:
        self._root = root

    def table(self, key: Key) -> type[BaseModel] | None:
        """The model of the table under a key; `None` where no table of a known form is."""
        model: type[BaseModel] | None = self._root
        for part in _without_names(key):
            info = model.model_fields.get(str(part)) if model else None
            model = _model_of(info.annotation) if info else None
        return model

    def field(self, key: Key) -> FieldInfo | None:
        """The field under a key; `None` for a name's table, for what is unknown, and for what only a provider knows."""
        if not key or (len(key) == 2 and key[0] in NAMED):
            return None
        table = self.table(key[:-1])
        return table.model_fields.get(str(key[-1])) if table else None

    def is_value(self, key: Key) -> bool:
        """Whether a known setting that is no table stands under the key."""
        info = self.field(key)
        return info is not None and _model_of(info.annotation) is None

    def value_of(self, key: Key) -> Key:
        """The key up to the value that it lies in: `fallback` of `fallback[1]`. All of it where there is none."""
        return next((key[:length] for length in range(1, len(key)) if self.is_value(key[:length])), key)

    def holds_texts(self, key: Key) -> bool:
        """Whether the value under the key is a list or a table of texts."""
        info = self.field(key)
        kinds = [info.annotation, *get_args(info.annotation)] if info and self.is_value(key) else []
        return any(get_origin(kind) in (tuple, dict) for kind in kinds)

    def allowed(self, key: Key) -> str:
        """What the setting may be, in words that follow "must be"."""
        if len(key) == 1 and key[0] in NAMED:
            example = '"ollama/qwen3:4b"' if key[0] == "models" else "NAME"
            return f"tables, each with a name: [{key[0]}.{example}]"
        info = self.field(key)
        if info is None:
            return "a table" if self.table(key) else "whatever its provider takes"
        said = next((item.text for item in info.metadata if isinstance(item, Allowed)), "")
        return said or _words_for(info.annotation)

    def names(self, key: Key) -> list[str]:
        """The settings that a table has; empty where its names are free."""
        table = None if len(key) == 1 and key[0] in NAMED else self.table(key)
        return list(table.model_fields) if table else []

    def check(self, key: Key) -> None:
        """Raises `ConfigurationError` with the nearest name where there is no such setting."""
        for length in range(1, len(key) + 1):
            above = key[: length - 1]
            if not self._takes_any_name(above) and str(key[length - 1]) not in self.names(above):
                raise self.unknown(key[:length])

    def unknown(self, key: Key, place: str = "") -> ConfigurationError:
        """The error for a setting that does not exist."""
        return ConfigurationError(f"there is no setting {written(key)!r}", where=place, next_step=self._meant(key))

    def _takes_any_name(self, key: Key) -> bool:
        if len(key) == 1 and key[0] in NAMED:
            return True
        table = self.table(key)
        if table is not None:
            return table.model_config.get("extra") == "allow"
        info = self.field(key)
        return info is None or get_origin(info.annotation) is dict  # a table that only its provider knows

    def _meant(self, key: Key) -> str:
        above, name = key[:-1], str(key[-1])
        names = self.names(above)
        if near := difflib.get_close_matches(name, names, 1, 0.65):
            return f"Did you mean {written((*above, near[0]))}?"
        elsewhere: dict[str, Key] = {
            inner: (section, inner) for section in self.names(()) for inner in self.names((section,))
        }
        elsewhere |= {top: (top,) for top in self.names(())}
        if near := difflib.get_close_matches(name, elsewhere, 1, 0.8):
            return f"Did you mean {written(elsewhere[near[0]])}?"
        if not names:
            return f"{written(above)} is a value and no table: it must be {self.allowed(above)}."
        where = f"The settings of [{written(above)}] are" if above else "The settings are"
        return f"{where}: {', '.join(sorted(names))}."


def _without_names(key: Key) -> Sequence[Any]:
    return (key[0], *key[2:]) if key and key[0] in NAMED else key


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def _words_for(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, types.UnionType):
        return _words_for(next(part for part in parts if part is not type(None)))
    if annotation is bool:
        return "true or false"
    return "a table" if origin is dict or _model_of(annotation) else "text, in quotes"
