"""Changing one setting in the settings file, so that a remedy is one line; comments and all else stay as they are."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions
from pydantic import ValidationError

from llm_jupyter.errors import ConfigurationError, InvalidInputError
from llm_jupyter.settings import LLMSettings
from llm_jupyter.settings.keys import NAMED, read


def set_value(file: Path, key: str, text: str) -> Any:
    """Set a dotted key (`providers.local.base_url`) to what a text means there; the value that was written.

    The text is a TOML value where that fits (`true`, `8080`, `["a", "b"]`), else it is itself. Raises `InvalidInputError`
    for a key or value that the settings do not take, `ConfigurationError` for a file that cannot be used.
    """
    document = _read(file)
    parts = _parts(key, document)
    complaint = ""
    for value in _meanings(text):
        _put(document, parts, value, key)
        complaint = _complaint(document, parts, file)
        if not complaint:
            _write(file, document)
            return value
    raise InvalidInputError(f"{key} cannot be {text[:60]!r}: {complaint}", next_step=f"Nothing was changed in {file}.")


def unset(file: Path, key: str) -> bool:
    """Take a dotted key out; whether it was there. Raises as `set_value`."""
    document = _read(file)
    *folders, name = _parts(key, document)
    table: Any = document
    for folder in folders:
        table = table.get(folder) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or name not in table:
        return False
    table.remove(name)  # type: ignore[attr-defined]  # tomlkit's tables and documents have it
    _write(file, document)
    return True


def _parts(key: str, document: Mapping[str, Any]) -> list[str]:
    """A written key in its parts."""
    tables = {section: document.get(section, {}) for section in NAMED}
    parts = [str(part) for part in read(key, {name: t for name, t in tables.items() if isinstance(t, Mapping)})]
    if not parts or not all(parts):
        raise InvalidInputError(f"{key[:60]!r} is no name of a setting", next_step="As in: providers.local.base_url")
    return parts


def _meanings(text: str) -> list[Any]:
    try:
        parsed = tomllib.loads(f"value = {text}")
        return [parsed["value"], text] if len(parsed) == 1 else [text]
    except tomllib.TOMLDecodeError:
        return [text]


def _put(document: Any, parts: list[str], value: Any, key: str) -> None:
    table = document
    for folder in parts[:-1]:
        if folder not in table:
            table[folder] = tomlkit.table(is_super_table=folder != parts[-2])
        table = table[folder]
        if not isinstance(table, Mapping):
            raise InvalidInputError(f"{key} cannot be set: {folder} is no table in the settings file")
    table[parts[-1]] = value


def _complaint(document: Any, parts: list[str], file: Path) -> str:
    """What the settings say against the value at that key, if anything; what else is wrong with the file is not asked."""
    values = tomllib.loads(tomlkit.dumps(document))
    try:
        LLMSettings.model_validate({"home": file.parent, **values})
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            place = [str(part) for part in fault["loc"]]
            if place[: len(parts)] == parts or place == parts[: len(place)]:
                return "there is no such setting" if fault["type"] == "extra_forbidden" else str(fault["msg"])
    return ""


def _read(file: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}", next_step="Mend that line first.") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def _write(file: Path, document: tomlkit.TOMLDocument) -> None:
    target = file.resolve()  # a link stays a link
    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.touch(mode=0o600)  # the file may hold keys
        new.write_text(tomlkit.dumps(document), encoding="utf-8")
        new.replace(target)
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written: {error.strerror}", next_step="jupyter llm doctor says what to do."
        ) from None
    finally:
        new.unlink(missing_ok=True)
