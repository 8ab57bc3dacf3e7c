"""What a dashboard shows, and how changes of it travel to the page.

The state is a flat dictionary of JSON values. Changes gather until they are taken: of several of one key the last counts,
text and rows that are appended travel alone. So a page gets at most one message a beat, with what is new, however often
things changed. Long texts travel last, in pieces: nothing else waits behind them. Whoever comes late, or missed one, asks
for the whole state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

RATE = 150_000
"""Bytes a second that all changes of one dashboard may take on average: the message server drops beyond a million."""

BURST = 250_000
"""Bytes that may go at once."""


class Channel:
    """Used from one thread at a time: the portal's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state: dict[str, Any] = {}
        self.number = 0
        """The number of the message that was sent last; a page that misses one asks for the whole state."""
        self._changes: dict[str, list[Any]] = {}
        self._clock = clock
        self._level = float(BURST)
        self._filled = clock()

    def set(self, key: str, value: Any) -> None:
        """Let this value stand under that key. Nothing travels where it stands there already."""
        if key in self.state and self.state[key] == value:
            return
        self.state[key] = value
        self._changes[key] = ["set", value]

    def drop(self, key: str) -> None:
        """Let nothing stand under that key."""
        if self.state.pop(key, None) is not None:
            self._changes[key] = ["drop"]

    def append(self, key: str, text: str) -> None:
        """Add text to the text under that key."""
        if not text:
            return
        self.state[key] = self.state.get(key, "") + text
        change = self._changes.get(key)
        if change is None:
            self._changes[key] = ["append", text]
        elif change[0] == "drop":
            self._changes[key] = ["set", text]
        else:
            change[1] += text

    def extend(self, key: str, rows: Iterable[Any], limit: int) -> None:
        """Add rows to the list under that key, of which the last `limit` stay."""
        rows = list(rows)[-limit:]
        if not rows:
            return
        self.state[key] = [*self.state.get(key, ()), *rows][-limit:]
        change = self._changes.get(key)
        if change is None:
            self._changes[key] = ["extend", rows, limit]
        elif change[0] == "extend":
            change[1] = [*change[1], *rows][-limit:]
        else:
            self._changes[key] = ["set", self.state[key]]

    def take(self) -> dict[str, Any] | None:
        """The message with all that has changed, `None` where nothing has, or where it has to wait for its bytes."""
        if not self._changes or not self._may_send():
            return None
        now, later, room = {}, {}, max(1, int(self._level))
        for key, change in sorted(self._changes.items(), key=lambda one: _length(one[1])):
            verb, *values = change
            if (length := _length(change)) > room:
                later[key] = ["append", values[0][room:]] if room else change
                values = [values[0][:room]]
            if room or not length:
                now[key] = [verb, *values]
            room = max(0, room - length)
        self._changes = later
        message, size = _sendable({"n": self.number + 1, "changes": now})
        self.number += 1
        self._level -= size
        return message

    @property
    def is_behind(self) -> bool:
        """Whether changes wait."""
        return bool(self._changes)

    def whole(self) -> dict[str, Any]:
        """The message with the whole state; changes that waited are in it."""
        self._changes = {}
        return {"n": self.number, "state": self.snapshot()}

    def echo(self) -> dict[str, Any]:
        """The number of the last message: a page sees by it whether it has missed one."""
        return {"last": self.number}

    def snapshot(self) -> dict[str, Any]:
        """The state as it is now, on any thread, fit to be sent."""
        return _sendable(dict(self.state))[0]

    def _may_send(self) -> bool:
        now = self._clock()
        self._level = min(float(BURST), self._level + (now - self._filled) * RATE)
        self._filled = now
        return self._level > 0


def _length(change: list[Any]) -> int:
    """Of the text that a change brings, which may travel in pieces; 0 where it brings something else."""
    return len(change[1]) if len(change) > 1 and isinstance(change[1], str) else 0


def _sendable(message: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """A message that has a form in UTF-8, and its bytes: half of a surrogate pair, which a model may send, has none."""
    text = json.dumps(message, ensure_ascii=False)
    try:
        return message, len(text.encode())
    except UnicodeEncodeError:
        data = text.encode(errors="replace")
        return json.loads(data), len(data)
