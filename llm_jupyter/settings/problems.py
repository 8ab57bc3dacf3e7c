"""What is said when a setting is wrong: what it must be, where it stands, and what to do. No value is quoted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.keys import ALIASES, Key, variable, written
from llm_jupyter.settings.provenance import Layer, Provenance, Source
from llm_jupyter.settings.schema import Schema


def no_toml(file: Path, error: Exception) -> ConfigurationError:
    """The error for a file that cannot be parsed, with the line; the parser says it."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return ConfigurationError(f"{file} is not valid TOML: line {line} is not UTF-8", next_step="Save it as UTF-8.")
    return ConfigurationError(f"{file} is not valid TOML: {error}", next_step="Mend that line, then try again.")


def explained(error: ValidationError, provenance: Provenance, schema: Schema) -> ConfigurationError:
    """The first fault as an error that names its place."""
    return next(iter(faults(error, provenance, schema).values()))


def faults(error: ValidationError, provenance: Provenance, schema: Schema) -> dict[Key, ConfigurationError]:
    """Each fault as an error that names its place, by the key at which it stands."""
    found = error.errors(include_url=False, include_input=False)
    return {fault["loc"]: _explained(fault, provenance, schema) for fault in found}


def _explained(fault: Mapping[str, Any], provenance: Provenance, schema: Schema) -> ConfigurationError:
    location = tuple(part for part in fault["loc"] if part != "[key]")
    key = schema.value_of(location)
    allowed = schema.allowed(key)
    if len(location) > len(key) and schema.holds_texts(key):
        key, allowed = location[: len(key) + 1], "text in quotes, and not empty"
    layer = provenance.giver(key) or provenance.nearest(key)
    name = layer.as_written.get(ALIASES.get(key, key), key) if layer else key
    place = layer.place(ALIASES.get(key, key)) if layer else ""
    if fault["type"] == "extra_forbidden":
        return schema.unknown(name, place)
    if fault["type"] == "missing":
        info = schema.field(key)
        meaning = f"{info.description} " if info and info.description else ""
        step = f"{meaning}Give it there, or in {variable(name)}."
        return ConfigurationError(f"{written(name)} is missing", where=place, next_step=step)
    demand = _demand(fault, allowed)
    step = "Take it out there." if demand.startswith("must not") else _next_step(layer, schema.value_of(name))
    return ConfigurationError(f"{written(name)} {demand}", where=place, next_step=step)


def _demand(fault: Mapping[str, Any], allowed: str) -> str:
    ours = str(fault["msg"]).removeprefix("Value error, ")
    return ours if fault["type"] == "value_error" and ours.startswith(("must ", "names ")) else f"must be {allowed}"


def _next_step(layer: Layer | None, name: Key) -> str:
    if layer is None or layer.source is Source.CONFIG:
        return "Give it another value."
    if layer.source is Source.ENVIRONMENT:
        return "Give the variable another value, or unset it."
    if layer.source is Source.LOCK:
        return "It is locked there: whoever looks after this machine can mend it."
    return f"Mend it there, or set {variable(name)}." if name[0] != "models" or len(name) > 2 else "Mend it there."
