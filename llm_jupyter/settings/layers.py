"""Reading the settings: %config over the environment over the person's file over the system's files over the defaults.

What stands under `[locked]` in a system's file goes over all of them. That is a convenience for a hub and no sandbox:
whoever runs a kernel can run other code in it. Of several system's files the one for the whole machine locks last.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.environment import environment_layer
from llm_jupyter.settings.keys import ALIASES, NAMED, written
from llm_jupyter.settings.model import AS_FOUND, FILE_NAME, LLMSettings, home_folder, same
from llm_jupyter.settings.problems import explained, faults, no_toml
from llm_jupyter.settings.provenance import Layer, Provenance, Source
from llm_jupyter.settings.schema import Schema
from llm_jupyter.settings.sections import CREDENTIALS
from llm_jupyter.settings.writing import expect_own

SYSTEM_FILE = Path("llm_jupyter") / FILE_NAME
"""The system's settings file, below each folder of Jupyter's config path."""

LOCKED = "locked"


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    system: Sequence[Path] | None = None,
) -> LLMSettings:
    """Read the files and the environment, and put `overrides` (what %config says) over them.

    `system` are the system's files, the strongest first; `None` looks on Jupyter's config path. Raises
    `ConfigurationError` naming the place of what is wrong: the file with the line, the variable or %config.
    """
    home = home_folder(environment)
    return _out_of(home, layers_around(_person_layer(home / FILE_NAME), overrides or {}, environment, system))


def with_overrides(settings: LLMSettings, overrides: Mapping[str, Any]) -> LLMSettings:
    """The settings that `load_settings` read, where `%config` says this now; no file is read again.

    Raises `ConfigurationError`.
    """
    config = config_layer(overrides)
    layers = settings.provenance.layers
    return _out_of(settings.home, [config if layer.source is Source.CONFIG else layer for layer in layers])


def config_layer(overrides: Mapping[str, Any]) -> Layer:
    """What `%config` says. Raises `ConfigurationError` where it says two things of one setting."""
    layer = Layer(Source.CONFIG, _plain(overrides), "%config")
    use_one_name(layer)
    return layer


def _out_of(home: Path, layers: Sequence[Layer]) -> LLMSettings:
    values, held = merged(layers), locks_on_others(layers)
    said = {**values, "providers": {**values.get("providers", {}), **held}} if held else values
    provenance = Provenance(layers, said)
    try:
        settings = LLMSettings.model_validate({"home": home, **values})
        if held:
            tables = {name: {"kind": AS_FOUND, **table} for name, table in held.items()}
            settings._held = LLMSettings.model_validate({"home": home, "providers": tables}).providers
    except ValidationError as error:
        raise explained(error, provenance, Schema(LLMSettings)) from None
    settings._provenance = provenance
    return settings


def all_faults(
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    system: Sequence[Path] | None = None,
) -> list[ConfigurationError]:
    """All that is wrong with what `load_settings` reads, as far as it can be told at once; empty where nothing is."""
    try:
        home = home_folder(environment)
        layers = layers_around(_person_layer(home / FILE_NAME), overrides or {}, environment, system)
        LLMSettings.model_validate({"home": home, **(values := merged(layers))})
    except ConfigurationError as fault:
        return [fault]
    except ValidationError as error:
        return list(faults(error, Provenance(layers, values), Schema(LLMSettings)).values())
    return []


def layers_around(
    person: Layer, overrides: Mapping[str, Any], environment: Mapping[str, str], system: Sequence[Path] | None
) -> list[Layer]:
    """What every place says, the strongest first, where `person` is what the person's file says.

    Raises `ConfigurationError` for a place that cannot be read.
    """
    ours, locks = _system_layers(system_files() if system is None else system)
    config = config_layer(overrides)
    known = _names([config, person, *ours, *locks])
    variables = environment_layer(environment, LLMSettings.model_fields, known, home_folder(environment))
    layers = [*locks, config, variables, person, *ours]
    for layer in layers:
        use_one_name(layer)
    return layers


def system_files() -> list[Path]:
    """Where the system's settings files are, or would be: the folders of Jupyter's config path that are not the person's."""
    import site

    from jupyter_core import paths  # most of what loading the settings costs in a plain program

    shared = {*paths.ENV_CONFIG_PATH, *paths.SYSTEM_CONFIG_PATH}
    own = {paths.jupyter_config_dir(), str(Path(site.getuserbase(), "etc", "jupyter"))}
    folders = dict.fromkeys(paths.jupyter_config_path())
    return [Path(folder) / SYSTEM_FILE for folder in folders if folder in shared or folder not in own]


def _person_layer(file: Path) -> Layer:
    layer = _file_layer(file, Source.PERSON)
    if LOCKED in layer.values:
        raise ConfigurationError(
            "[locked] belongs in the system's settings file",
            where=layer.place((LOCKED,)),
            next_step=f"That is {Path('etc', 'jupyter') / SYSTEM_FILE} on the machine; here set the values themselves.",
        )
    return layer


def _system_layers(files: Sequence[Path]) -> tuple[list[Layer], list[Layer]]:
    """What the system's files say, and what they lock, the strongest first."""
    layers: list[Layer] = []
    locks: list[Layer] = []
    for file in files:
        layer = _file_layer(file, Source.SYSTEM)
        locked = layer.values.pop(LOCKED, {})
        if not isinstance(locked, dict):
            raise ConfigurationError(
                "locked must be a table: [locked]",
                where=layer.place((LOCKED,)),
                next_step="Whoever looks after this machine can mend it.",
            )
        layers.append(layer)
        locks.insert(0, Layer(Source.LOCK, locked, str(file), layer.text))
    return layers, [lock for lock in locks if lock.values]


def _file_layer(file: Path, source: Source) -> Layer:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            if source is Source.PERSON:
                expect_own(file, os.fstat(opened.fileno()))
            text = opened.read()
        values = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return Layer(source, {}, str(file))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise no_toml(file, error) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    layer = Layer(source, values, str(file), text)
    for key in (("home",), (LOCKED, "home")):
        if layer.has(key):
            raise ConfigurationError(
                "home cannot be set in a file",
                where=layer.place(key),
                next_step="The variable LLM_JUPYTER_HOME moves it.",
            )
    return layer


def use_one_name(layer: Layer) -> None:
    """Keep a setting that has two names under one of them. Raises `ConfigurationError` where they contradict."""
    for alias, kept in ALIASES.items():
        section, field = map(str, alias)
        table = layer.values.get(section)
        if not isinstance(table, dict) or field not in table:
            continue
        value, top = table.pop(field), str(kept[0])
        if top in layer.values:
            if not same(layer.values[top], value):
                raise ConfigurationError(
                    f"{written(alias)} and {top} are one setting, and say two things",
                    where=layer.place(alias),
                    next_step=f"Keep one of them: {top}, or {written(alias)}.",
                )
            continue
        layer.values[top] = value
        layer.as_written[kept] = alias


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """What comes out of all of them, the strongest first."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        _forget_other_credentials(values, layer.values)
        _merge(values, layer.values)
    for name in locks_on_others(layers):
        del values["providers"][name]
    if values.get("providers") == {}:
        del values["providers"]
    return values


def locks_on_others(layers: Sequence[Layer]) -> dict[str, dict[str, Any]]:
    """What is locked of providers that no layer sets up, by name: it holds for one that is found or built in."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        if layer.source is Source.LOCK:
            _forget_other_credentials(values, layer.values)
            _merge(values, layer.values)
    tables = values.get("providers")
    if not isinstance(tables, dict):
        return {}
    ordinary = [layer for layer in layers if layer.source is not Source.LOCK]
    return {
        name: table
        for name, table in tables.items()
        if isinstance(table, dict)
        and "kind" not in table
        and not any(layer.has(("providers", name)) for layer in ordinary)
    }


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = _plain(value)


def _forget_other_credentials(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """A layer that says how a provider's key is got says all of it: nothing of a weaker layer stands beside."""
    theirs, ours = above.get("providers"), below.get("providers")
    if not (isinstance(theirs, Mapping) and isinstance(ours, dict)):
        return
    for name, table in theirs.items():
        provider = ours.get(name)
        if isinstance(table, Mapping) and isinstance(provider, dict) and any(way in table for way in CREDENTIALS):
            for way in CREDENTIALS:
                provider.pop(way, None)


def _names(layers: Sequence[Layer]) -> dict[str, set[str]]:
    tables = {section: [layer.get((section,)) for layer in layers] for section in NAMED}
    return {
        section: {str(name) for table in found if isinstance(table, Mapping) for name in table}
        for section, found in tables.items()
    }


def _plain(value: Any) -> Any:
    """A copy in plain dictionaries; a section that was made in code is what was given to it."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
