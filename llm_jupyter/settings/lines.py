"""On which line of a TOML text a key stands. The text is valid: tomllib has read it before."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from contextlib import suppress

from llm_jupyter.settings.keys import Key


def lines_of(text: str) -> Mapping[Key, int]:
    """Every table, key and element of a list with the line of its name, from 1; a table's is where it first appears.

    Of a text that is not understood, as far as it is.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with suppress(_LostError, IndexError, tomllib.TOMLDecodeError):
        scanner.document()
    return scanner.lines


def line_of(text: str, key: Key) -> int | None:
    """The line of a key, or of the innermost table above it that is written down; `None` where there is none."""
    lines = lines_of(text)
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key)


class _LostError(Exception):
    """The text is none that the scanner knows."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self._lists: dict[Key, int] = {}

    def document(self) -> None:
        table: Key = ()
        while self._skip(" \t\n"):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Key:
        is_list = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 2 if is_list else 1
        key = self._inside_lists(self._key())
        self.at += 2 if is_list else 1
        if is_list:
            self._note(key, start)
            number = self._lists[key] = self._lists.get(key, -1) + 1
            key = (*key, number)
        self._note(key, start)
        return key

    def _inside_lists(self, parts: Key) -> Key:
        """A header names the last element of every list of tables above it."""
        key: Key = ()
        for part in parts[:-1]:
            key = (*key, part)
            if key in self._lists:
                key = (*key, self._lists[key])
        return (*key, parts[-1])

    def _pair(self, table: Key) -> None:
        start = self.at
        key = (*table, *self._key())
        self._note(key, start)
        self.at += 1  # the sign =
        self._skip(" \t", comments=False)
        self._value(key)

    def _key(self) -> Key:
        parts: list[str] = []
        while True:
            self._skip(" \t", comments=False)
            start = self.at
            if self.text[self.at] in "\"'":
                self._string()
                parts.append(_string_value(self.text[start : self.at]))
            else:
                while self.text[self.at].isalnum() or self.text[self.at] in "_-":
                    self.at += 1
                parts.append(self.text[start : self.at])
            self._skip(" \t", comments=False)
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _value(self, key: Key) -> None:
        sign = self.text[self.at]
        if sign in "\"'":
            self._string()
        elif sign == "[":
            self._list(key)
        elif sign == "{":
            self._inline_table(key)
        else:
            start = self.at
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1
            if self.at == start:
                raise _LostError

    def _list(self, key: Key) -> None:
        self.at += 1
        number = 0
        while self._skip(" \t\n,") and self.text[self.at] != "]":
            self._note((*key, number), self.at)
            self._value((*key, number))
            number += 1
        self.at += 1

    def _inline_table(self, key: Key) -> None:
        self.at += 1
        while self._skip(" \t\n,") and self.text[self.at] != "}":
            self._pair(key)
        self.at += 1

    def _string(self) -> None:
        quote = self.text[self.at]
        triple = self.text.startswith(quote * 3, self.at)
        end = quote * 3 if triple else quote
        self.at += len(end)
        while not self.text.startswith(end, self.at):
            if self.at >= len(self.text):
                raise _LostError
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(end)
        while triple and self.at < len(self.text) and self.text[self.at] == quote:
            self.at += 1  # up to two quotes may stand before the closing three

    def _skip(self, signs: str, *, comments: bool = True) -> bool:
        """Go on past these signs and comments; whether anything is left."""
        while self.at < len(self.text):
            if comments and self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in signs:
                self.at += 1
            else:
                return True
        return False

    def _note(self, key: Key, at: int) -> None:
        line = self.text.count("\n", 0, at) + 1
        for length in range(1, len(key) + 1):
            self.lines.setdefault(key[:length], line)


def _string_value(quoted: str) -> str:
    return str(tomllib.loads(f"key = {quoted}")["key"])
