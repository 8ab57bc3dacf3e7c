"""The settings as they are shown: each with its value as text, its origin, and what it may be. No secret is in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.keys import ALIASES, NAMED, Key, variable, written
from llm_jupyter.settings.model import LLMSettings
from llm_jupyter.settings.schema import Schema
from llm_jupyter.settings.secrets import without_secrets
from llm_jupyter.settings.values import SIZE, written_size

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting; `note` says what a lock has set aside."""

    key: Key
    value: str
    origin: str
    note: str = ""

    @property
    def name(self) -> str:
        """The key as one writes it."""
        return written(self.key)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to know of one setting besides its value."""

    description: str
    allowed: str
    default: str
    variable: str
    same_as: str


def entries(settings: LLMSettings, under: Key = (), *, everything: bool = False) -> list[Entry]:
    """The settings below a key: those that something has set, or all of them.

    A setting with two names is listed under one of them, unless its table is asked for.
    """
    shown = [_entry(settings, key, value) for key, value in _values(settings, under) if under or key not in ALIASES]
    return [entry for entry in shown if everything or entry.origin != DEFAULT]


def explanation(settings: LLMSettings, key: Key) -> Explanation:
    """What one setting means and may be. Raises `ConfigurationError` for an unknown one."""
    schema = Schema(type(settings))
    schema.check(key)
    is_there = len(key) < 2 or key[0] not in NAMED or key[1] in getattr(settings, str(key[0]))
    if not is_there and not _is_held(settings, key):
        raise ConfigurationError(
            f"no [{written(key[:2])}] is set", next_step=f"Such a table can hold: {', '.join(schema.names(key[:2]))}."
        )
    info = schema.field(key)
    default = (
        "" if info is None or info.is_required() else shown(schema, key, info.get_default(call_default_factory=True))
    )
    both = {**ALIASES, **{kept: alias for alias, kept in ALIASES.items()}}
    return Explanation(
        (info.description if info else None) or "",
        schema.allowed(key),
        default,
        variable(key),
        written(both[key]) if key in both else "",
    )


def is_table(settings: LLMSettings, key: Key) -> bool:
    """Whether other settings stand below the key."""
    schema = Schema(type(settings))
    return (len(key) == 1 and key[0] in NAMED) or schema.table(key) is not None


def shown(schema: Schema, key: Key, value: Any) -> str:
    """A value as people read it, without secrets."""
    info = schema.field(key)
    if isinstance(value, int) and info is not None and SIZE in info.metadata:
        return written_size(value)
    return _text(without_secrets(str(key[-1]), value))


def _entry(settings: LLMSettings, key: Key, value: Any) -> Entry:
    aside = settings.provenance.set_aside(key)
    note = f"overrules {', '.join(aside)}" if aside else ""
    return Entry(key, shown(Schema(type(settings)), key, value), settings.origin_of(key), note)


def _values(settings: LLMSettings, under: Key) -> Iterator[tuple[Key, Any]]:
    held = [
        (("providers", name, field), getattr(table, field))
        for name, table in settings.held.items()
        for field in sorted(table.model_fields_set - {"kind"})
    ]
    value: Any = settings
    for part in under:
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, str(part), None)
    if value is not None or not _is_held(settings, under):
        yield from _below(under, value)
    yield from ((key, value) for key, value in held if key[: len(under)] == under)


def _is_held(settings: LLMSettings, key: Key) -> bool:
    """Whether the key is that of a provider which has no table of its own, and parts of which are locked, or below it."""
    return len(key) > 1 and key[0] == "providers" and key[1] in settings.held


def _below(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, BaseModel):
        for name in [*type(value).model_fields, *(value.model_extra or {})]:
            yield from _below((*key, name), getattr(value, name))
    elif len(key) == 1 and key[0] in NAMED and isinstance(value, Mapping):
        for name, table in value.items():
            yield from _below((*key, name), table)
    else:
        yield key, value


def _text(value: Any) -> str:
    if value is None or value in ((), [], {}):
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return " ".join(str(value).split())
