"""Changing one setting in the settings file, so that a remedy is one line; comments and all else stay as they are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions

from llm_jupyter.errors import ConfigurationError, InvalidInputError
from llm_jupyter.settings import Layer, LLMSettings, Source
from llm_jupyter.settings.keys import ALIASES, NAMED, Key, read, written
from llm_jupyter.settings.problems import no_toml
from llm_jupyter.settings.schema import Schema
from llm_jupyter.settings.trial import Trial, tried
from llm_jupyter.settings.writing import write

RESTART = "A kernel that runs reads it after its restart."


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, as a sentence without its end; `is_heard` says that kernels will go by it."""

    said: str
    is_heard: bool

    @property
    def in_a_kernel(self) -> str:
        """The same for somebody whose kernel runs."""
        return f"{self.said}. {RESTART}" if self.is_heard else f"{self.said}."


def set_value(file: Path, key: str, text: str, overrides: Mapping[str, Any] | None = None) -> Change:
    """Set a dotted key (`providers.local.base_url`) to what a text means there. `overrides` is what `%config` says.

    The text is a TOML value where that fits (`true`, `8080`, `["a", "b"]`), else it is itself. Raises `InvalidInputError`
    for what the settings do not take, or what is locked; `ConfigurationError` for a file that cannot be used.
    """
    document = _read(file)
    parts = _parts(key, document)
    if parts == ("home",):
        raise InvalidInputError("home cannot be set in a file", next_step="The variable LLM_JUPYTER_HOME moves it.")
    Schema(LLMSettings).check(parts)
    key, parts = _as_in_file(key, parts, document)
    before = tried(file, tomlkit.dumps(document), overrides=overrides)
    above = before.provenance.overruling(parts)
    if above is not None and above.source is Source.LOCK:
        raise InvalidInputError(
            f"{key} is {above.origin(parts)}", next_step="Whoever looks after this machine can change it there."
        )
    for value in _meanings(text):
        _put(document, parts, value, key)
        refusal = _refusal(key, parts, before, tried(file, tomlkit.dumps(document)), file)
        if refusal is None:
            write(file, tomlkit.dumps(document))
            return Change(f"{key} is set in {file}{_but(above, parts, 'overrules it')}", above is None)
    assert refusal is not None  # a text means something
    raise refusal


def unset(file: Path, key: str, overrides: Mapping[str, Any] | None = None) -> Change:
    """Take a dotted key out, with the tables that are empty then. Raises as `set_value`, and for what others need."""
    document = _read(file)
    key, parts = _as_in_file(key, _parts(key, document), document)
    tables: list[Any] = [document]
    for folder in parts[:-1]:
        inner = tables[-1].get(folder)
        if not isinstance(inner, Mapping):
            return Change(f"{key} is not in {file}", False)
        tables.append(inner)
    if parts[-1] not in tables[-1]:
        return Change(f"{key} is not in {file}", False)
    before = tried(file, tomlkit.dumps(document), overrides=overrides)
    for table, name in zip(reversed(tables), reversed(parts), strict=True):
        table.remove(name)
        if table:
            break
    new = [fault for at, fault in tried(file, tomlkit.dumps(document)).faults.items() if at not in before.faults]
    if new:
        raise InvalidInputError(
            f"{key} cannot be taken out: then {new[0].what}",
            next_step=f"Nothing was changed in {file}. The whole table can be taken out: {written(parts[:-1])}",
        )
    write(file, tomlkit.dumps(document))
    above = before.provenance.overruling(parts)
    return Change(f"{key} is taken out of {file}{_but(above, parts, 'sets it too')}", above is None)


def _but(above: Layer | None, key: Key, does: str) -> str:
    """What the place does that goes over the file, if there is one."""
    if above is None:
        return ""
    return f", but it is {above.origin(key)}" if above.source is Source.LOCK else f", but {above.origin(key)} {does}"


def _refusal(key: str, parts: Key, before: Trial, after: Trial, file: Path) -> InvalidInputError | None:
    """What is wrong with the key itself, or somewhere else because of it; other faults of the file may stay."""
    for at, fault in after.faults.items():
        if at[: len(parts)] == parts or parts[: len(at)] == at:
            return InvalidInputError(fault.what, next_step=f"Nothing was changed in {file}.")
        if at not in before.faults:
            info = Schema(LLMSettings).field(at)
            means = f" {info.description}" if info and info.description else ""
            return InvalidInputError(f"{key} cannot be set yet: {fault.what}", next_step=f"Set that first.{means}")
    return None


def _parts(key: str, document: Mapping[str, Any]) -> Key:
    """A written key in its parts."""
    tables = {section: document.get(section, {}) for section in NAMED}
    parts = tuple(str(part) for part in read(key, {name: t for name, t in tables.items() if isinstance(t, Mapping)}))
    if not parts or not all(parts):
        raise InvalidInputError(f"{key[:60]!r} is no name of a setting", next_step="As in: providers.local.base_url")
    return parts


def _as_in_file(key: str, parts: Key, document: Mapping[str, Any]) -> tuple[str, Key]:
    """The key, under the other name that its setting has where the file calls it so."""
    others = {**ALIASES, **{kept: alias for alias, kept in ALIASES.items()}}
    there, other = Layer(Source.PERSON, dict(document)), others.get(parts)
    return (written(other), other) if other and there.has(other) and not there.has(parts) else (key, parts)


def _meanings(text: str) -> list[Any]:
    try:
        parsed = tomllib.loads(f"value = {text}")
        return [parsed["value"], text] if len(parsed) == 1 else [text]
    except tomllib.TOMLDecodeError:
        return [text]


def _put(document: Any, parts: Key, value: Any, key: str) -> None:
    table = document
    for folder in parts[:-1]:
        if folder not in table:
            table[folder] = tomlkit.table(is_super_table=folder != parts[-2])
        table = table[folder]
        if not isinstance(table, Mapping):
            raise InvalidInputError(f"{key} cannot be set: {folder} is no table in the settings file")
    table[parts[-1]] = value


def _read(file: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return tomlkit.document()
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise no_toml(file, error) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
