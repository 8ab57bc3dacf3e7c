"""What is said about a placeholder that stays as it is although it looks like one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from llm_jupyter.filling.placeholders import Placeholder, root_of

MOST_HINTS = 3
MOST_NAMES = 20
"""Unknown names that are compared with the known ones. A prompt with more of them was not typed."""

SHORTEST_NAME = 3
LONGEST_NAME = 60
_NOT_THE_PERSONS = frozenset({"In", "Out", "get_ipython", "exit", "quit"})


class Hints:
    """The first few hints on a prompt, each one line."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._compared: set[str] = set()
        self.lines: list[str] = []

    def unknown(self, expression: str) -> None:
        """There is no variable of that name; a hint follows only if there is one of a similar name."""
        root = root_of(expression)
        is_full = len(self.lines) == MOST_HINTS or len(self._compared) == MOST_NAMES
        if is_full or root in self._compared or not SHORTEST_NAME <= len(root) <= LONGEST_NAME:
            return
        self._compared.add(root)
        if near := self._nearest(root.lower()):
            meant = near + expression.removeprefix(root)
            self.stays(expression, f"there is no variable {root}. Did you mean {{{_short(meant)}}}?")

    def verbatim(self, place: Placeholder) -> None:
        """There is a variable of that name, but the braces are those of code or mathematics."""
        if place.verbatim == "$":
            self.stays(place.expression, r"between two $ it is mathematics. \$ is a plain dollar.")
        else:
            self.stays(place.expression, "between backticks it is code. Without them it is filled in.")

    def computed(self, place: Placeholder) -> None:
        """There is a variable of that name, but more than a look at it would be needed."""
        self.stays(place.expression, "only names, attributes and keys are filled in.")

    def stays(self, expression: str, why: str) -> None:
        """Say why an expression was not filled in."""
        line = f"{{{_short(expression)}}} stays as it is: {why}"
        if len(self.lines) < MOST_HINTS and line not in self.lines:
            self.lines.append(line)

    def _nearest(self, name: str) -> str | None:
        near = difflib.get_close_matches(name, self._known, 1, 0.8)
        letters = sorted(name)  # of `nmae` and `name`, difflib thinks too little
        swapped = (known for known in self._known if sorted(known) == letters)
        found = near[0] if near else next(swapped, None)
        return self._known[found] if found else None

    @cached_property
    def _known(self) -> dict[str, str]:
        """The person's variables, by their names in small letters."""
        persons = (name for name in self._names if not name.startswith("_") and name not in _NOT_THE_PERSONS)
        return {name.lower(): name for name in persons}


def _short(expression: str) -> str:
    return expression if len(expression) <= 60 else expression[:59] + "…"
