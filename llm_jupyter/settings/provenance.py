"""Where every value came from: the layers, the strongest first, and what each of them says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from llm_jupyter.settings.keys import ALIASES, Key
from llm_jupyter.settings.lines import line_of


class Source(Enum):
    """What kind of place a layer is."""

    LOCK = "lock"
    CONFIG = "%config"
    ENVIRONMENT = "the environment"
    PERSON = "the person's file"
    SYSTEM = "the system's file"


_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says. `name` is the file or "%config", `text` the file's text.

    `variables` holds, for the environment, which variable gave which key; `as_written` the names that stand in the
    place where they differ from those of `values`.
    """

    source: Source
    values: dict[str, Any]
    name: str = ""
    text: str = field(default="", repr=False)
    variables: Mapping[Key, str] = field(default_factory=dict)
    as_written: dict[Key, Key] = field(default_factory=dict)

    def get(self, key: Key) -> Any:
        """What stands under the key, or a value that is none of TOML where nothing does."""
        value: Any = self.values
        for part in key:
            if not isinstance(value, Mapping) or part not in value:
                return _ABSENT
            value = value[part]
        return value

    def has(self, key: Key) -> bool:
        """Whether the key is set here."""
        return self.get(key) is not _ABSENT

    def depth(self, key: Key) -> int:
        """How many parts of the key, from its beginning, stand here."""
        return next((length for length in range(len(key), 0, -1) if self.has(key[:length])), 0)

    def origin(self, key: Key) -> str:
        """The place as one says it."""
        if self.source is Source.ENVIRONMENT:
            return self._variable(key)
        return f"locked by {self.name}" if self.source is Source.LOCK else self.name

    def place(self, key: Key) -> str:
        """The place as exactly as it is known: a variable, or a file with the line."""
        if self.source is Source.ENVIRONMENT:
            return self._variable(key)
        line = line_of(self.text, self.key_as_written(key)) if self.text else None
        return f"{self.name}, line {line}" if line else self.name

    def key_as_written(self, key: Key) -> Key:
        """The key as it stands in this place."""
        key = self.as_written.get(key, key)
        return ("locked", *key) if self.source is Source.LOCK else key

    def _variable(self, key: Key) -> str:
        key = self.as_written.get(key, key)
        for length in range(len(key), 0, -1):
            if key[:length] in self.variables:
                return self.variables[key[:length]]
            if below := sorted(name for at, name in self.variables.items() if at[:length] == key[:length]):
                return ", ".join(below)
        return self.name


class Provenance:
    """The layers of one reading, the strongest first, and the values that came out."""

    def __init__(self, layers: Sequence[Layer] = (), values: Mapping[str, Any] | None = None) -> None:
        self.layers = tuple(layers)
        self._merged = Layer(Source.PERSON, dict(values or {}))

    def __repr__(self) -> str:
        return f"Provenance({[layer.name or layer.source.value for layer in self.layers]})"

    def origin(self, key: Key) -> str:
        """The place that gave the value, or "default"; of a table, the places of all that is set in it."""
        leaves = list(self._leaves(ALIASES.get(key, key)))
        origins = dict.fromkeys(layer.origin(leaf) for leaf in leaves if (layer := self.giver(leaf)) is not None)
        return ", ".join(origins) or "default"

    def giver(self, key: Key) -> Layer | None:
        """The layer whose value holds, or `None` for a default."""
        key = ALIASES.get(key, key)
        if not self._merged.has(key):
            return None
        return next((layer for layer in self.layers if layer.has(key)), None)

    def lock(self, key: Key) -> Layer | None:
        """The layer that fixes the value, if one does."""
        layer = self.giver(key)
        return layer if layer is not None and layer.source is Source.LOCK else None

    def overruling(self, key: Key) -> Layer | None:
        """The layer that goes over what the person's file says of this key, if one does."""
        key = ALIASES.get(key, key)
        above = itertools.takewhile(lambda layer: layer.source is not Source.PERSON, self.layers)
        return next((layer for layer in above if layer.has(key)), None)

    def set_aside(self, key: Key) -> list[str]:
        """The places that say something else than the lock on this key, and are not heard."""
        key = ALIASES.get(key, key)
        lock = self.lock(key)
        if lock is None or isinstance(lock.get(key), Mapping):
            return []
        held = str(lock.get(key)).lower()
        others = (layer for layer in self.layers if layer is not lock and layer.has(key))
        return [layer.origin(key) for layer in others if str(layer.get(key)).lower() != held]

    def nearest(self, key: Key) -> Layer | None:
        """The strongest of the layers in which most of the key's parts stand."""
        key = ALIASES.get(key, key)
        best = max(self.layers, key=lambda layer: layer.depth(key), default=None)
        return best if best is not None and best.depth(key) else None

    def _leaves(self, key: Key) -> Iterator[Key]:
        value = self._merged.get(key)
        if isinstance(value, Mapping) and value:
            for name in value:
                yield from self._leaves((*key, name))
        elif value is not _ABSENT:
            yield key
        for alias, kept in ALIASES.items():  # the table of an alias has it too
            if alias != key and alias[: len(key)] == key and self._merged.has(kept):
                yield kept
