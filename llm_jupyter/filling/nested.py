"""Lists, dictionaries and sets: a copy that is small enough to be written, and that every process writes alike."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

from llm_jupyter.filling.cutting import cut
from llm_jupyter.filling.shown import count
from llm_jupyter.filling.steady import steady

CONTAINERS = (list, tuple, dict, set, frozenset)

MOST_ITEMS = 10_000
"""Items that are written at all, at whatever depth. To write millions, and to cut them afterwards, would take seconds."""

LONGEST_TEXT = 10_000
"""Bytes of a text among the items."""

TEXT_PER_ITEM = 100
"""So many characters of text count as an item more."""

DEEPEST = 50
"""Levels, one within the other, that are written."""

_BRACKETS = {list: "[...]", dict: "{...}", tuple: "(...)"}


class Written:
    """Stands in a copy for what has no form of its own there; Python writes it to the letter."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Copying:
    """One copy. `is_partial` says that not everything is in it; notes stand where something is missing."""

    def __init__(self) -> None:
        self.is_partial = False
        self._left = MOST_ITEMS
        self._within: set[int] = set()

    def copy(self, value: Any) -> Any:
        """What JSON can carry stays so; of all else there is what Python writes. Raises what the items' `repr` raises."""
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, str):
            return self._short(str.__str__(value))
        if not isinstance(value, CONTAINERS):
            return Written(self._short(_leaf(value)))
        if (is_within := id(value) in self._within) or len(self._within) == DEEPEST:
            self.is_partial |= not is_within
            return Written(next((text for kind, text in _BRACKETS.items() if isinstance(value, kind)), "{...}"))
        self._within.add(id(value))
        try:
            return self._container(value)
        finally:
            self._within.discard(id(value))

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            pairs = [(self._key(key), self.copy(item)) for key, item in self._some(value.items())]
            return dict([*pairs, *(("…", note) for note in self._note(len(pairs), len(value)))])
        if isinstance(value, set | frozenset):
            return self._set(value)
        items = [self.copy(item) for item in self._some(value)]
        notes = self._note(len(items), len(value))
        if isinstance(value, list):
            return [*items, *notes]
        is_named = type(value) is not tuple and hasattr(value, "_make") and not notes
        return value._make(items) if is_named else (*items, *notes)

    def _set(self, value: set[Any] | frozenset[Any]) -> Written:
        """In an order of its own, as a set has one that changes with the process."""
        items = [repr(self.copy(item)) for item in self._some(_in_order(value, self._left))]
        inner = ", ".join([*items, *map(repr, self._note(len(items), len(value)))])
        if type(value) is set and inner:
            return Written(f"{{{inner}}}")
        return Written(f"{type(value).__name__}({f'{{{inner}}}' if inner else ''})")

    def _key(self, key: Any) -> Any:
        return key if isinstance(key, str) else self.copy(key)

    def _some(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if self._left <= 0:
                return
            self._left -= 1
            yield item

    def _note(self, taken: int, of: int) -> list[str]:
        """The note on what is missing at this place, if anything is."""
        if taken == of:
            return []
        self.is_partial = True
        return [f"[… {of - taken:,} of {count(of, 'item')} left out …]"]

    def _short(self, text: str) -> str:
        short = cut(text, LONGEST_TEXT)
        self.is_partial |= short is not text
        self._left -= len(short) // TEXT_PER_ITEM
        return short


def as_python(value: Any) -> str:
    """What Python writes of a value, in short and the same in every process. Raises what its `repr` raises."""
    return repr(Copying().copy(value))


def _leaf(value: Any) -> str:
    if isinstance(value, bytes | bytearray) and len(value) > TEXT_PER_ITEM:
        return f"[{count(len(value), 'byte')}]"
    return steady(repr(value))


def _in_order(values: set[Any] | frozenset[Any], most: int) -> list[Any]:
    """The first of them, by a rule that knows nothing of hashes: numbers by size, then everything else by its text."""
    are_alike = set(map(type, values)) in ({str}, {int})
    return heapq.nsmallest(most, values, key=None if are_alike else _rank)


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and value == value:
        return 0, value, ""
    return 1, 0, value if isinstance(value, str) else as_python(value)
