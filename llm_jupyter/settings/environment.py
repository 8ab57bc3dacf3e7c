"""The settings that the environment holds: `LLM_JUPYTER_<NAME>`, with `__` between the parts of a nested name.

A variable's name can hold neither dots, slashes nor small letters. So the name of a provider, model or host in it is
compared with those that the files know: `LLM_JUPYTER_MODELS__OLLAMA_QWEN3_4B__SEED` means `models."ollama/qwen3:4b".seed`.
What no file knows is named in small letters. A whole table can be given as JSON.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.settings.keys import NAMED, PREFIX, Key
from llm_jupyter.settings.provenance import Layer, Source

Names = Mapping[str, Collection[str]]
OTHERS = frozenset({PREFIX + "HOST"})
"""Variables of ours that are no settings: a process that a supervisor starts has its host's name."""

TABLES = ("session", "connection", "limits", *NAMED)

NEARLY = 0.8
"""How alike two names are of which one is a slip for the other."""

_SINGULAR = {"providers": "provider", "models": "model", "hosts": "host"}


def environment_layer(environment: Mapping[str, str], settings: Collection[str], known: Names, home: Path) -> Layer:
    """What the variables say about `settings` (names of the top level); `known` are the names that other layers hold,
    `home` is the folder that `LLM_JUPYTER_HOME` means.

    Raises `ConfigurationError` for a variable that cannot be understood.
    """
    values: dict[str, Any] = {}
    variables: dict[Key, str] = {}
    for variable, text in sorted(environment.items()):
        section = _section(variable)
        _, separator, rest = variable.removeprefix(PREFIX).partition("__")
        if section == "home" and variable == PREFIX + "HOME" and text:
            values["home"], variables["home",] = home, variable
        if not variable.startswith(PREFIX) or section not in settings or section == "home":
            _expect_no_slip(variable, section, settings)
            continue
        key = _key(variable, section, rest, known, values) if separator else (section,)
        variables[key] = variable
        _put(values, key, _value(variable, key, text), variable)
    return Layer(Source.ENVIRONMENT, values, "the environment", variables=variables)


def unknown_variables(environment: Mapping[str, str], settings: Collection[str]) -> list[str]:
    """The variables that look like settings of ours and are none: of a newer version, say, or of another program."""
    ours = [name for name in environment if name.startswith(PREFIX) and name not in OTHERS]
    return sorted(name for name in ours if _section(name) not in settings)


def _section(variable: str) -> str:
    return variable.removeprefix(PREFIX).partition("__")[0].lower()


def _expect_no_slip(variable: str, section: str, settings: Collection[str]) -> None:
    """Raise `ConfigurationError` for a name that is nearly a setting's: `LOCAL_ONYL` must not pass for nothing said."""
    if variable.startswith(PREFIX) and section not in settings and variable not in OTHERS:
        single = [f"{table}__{section[len(table) + 1 :]}" for table in TABLES if section.startswith(table + "_")]
        for near in [*single, *difflib.get_close_matches(section, settings, 1, NEARLY)]:
            raise ConfigurationError(
                f"the variable {variable} names no setting",
                next_step=f"Did you mean {PREFIX}{near.upper()}{variable[len(PREFIX) + len(section) :]}?",
            )


def _key(variable: str, section: str, rest: str, known: Names, values: Mapping[str, Any]) -> tuple[str, ...]:
    if section not in NAMED:
        return (section, *rest.lower().split("__"))
    given = values.get(section, {})
    name, inner = _named(
        variable, section, rest, {*known.get(section, ()), *(given if isinstance(given, dict) else ())}
    )
    if not inner:
        return (section, name)
    field, *deeper = inner.split("__")
    if (section, field.lower()) != ("hosts", "environment"):  # those are variables too, and keep their letters
        deeper = [part.lower() for part in deeper]
    return (section, name, field.lower(), *deeper)


def _named(variable: str, section: str, rest: str, known: Collection[str]) -> tuple[str, str]:
    """The name at the beginning of `rest`, and what follows it."""
    text = rest.lower()
    matches = [name for name in known if (text + "__").startswith(_as_variable(name) + "__")]
    longest = max((len(name) for name in matches), default=0)
    matches = [name for name in matches if len(name) == longest]
    exact = [name for name in matches if name == text[:longest]]
    if len(matches) > 1 and not exact:
        raise ConfigurationError(
            f"{variable} could mean {' or '.join(map(repr, sorted(matches)))}", next_step="Set it in a settings file."
        )
    if matches:
        name = (exact or matches)[0]
        return name, rest[len(name) + 2 :]
    name = text.partition("__")[0]
    if not name:
        raise ConfigurationError(
            f"{variable} names no {_SINGULAR[section]}", next_step=f"Write {PREFIX}{section.upper()}__NAME__FIELD."
        )
    if section == "models" and "/" not in name:
        raise ConfigurationError(
            f"{variable} names no model of a settings file",
            next_step=f'Name it in JSON: {PREFIX}MODELS=\'{{"ollama/qwen3:4b": {{"temperature": 0}}}}\'',
        )
    return name, rest[len(name) + 2 :]


def _as_variable(name: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def _value(variable: str, key: Key, text: str) -> Any:
    can_be_table = len(key) == 1 or (len(key) == 2 and key[0] in NAMED) or key[2:] == ("environment",)
    if not (can_be_table and text.lstrip().startswith("{")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        place = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigurationError(
            f"{variable} is no valid JSON{place}", next_step='A table is written {"name": "value"}.'
        ) from None


def _put(values: dict[str, Any], key: Key, value: Any, variable: str) -> None:
    table = values
    for part in key[:-1]:
        table = table.setdefault(str(part), {})
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{variable} sets a part of {part!r}, and another variable all of it", next_step="Unset one of them."
            )
    table[str(key[-1])] = value
