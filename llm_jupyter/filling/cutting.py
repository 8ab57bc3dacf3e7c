"""How long values are cut: room is shared, and of each value its beginning and its end stay."""

from __future__ import annotations

from collections.abc import Collection

DEFAULT_BUDGET = 2000
"""Tokens for one value."""

BYTES_PER_TOKEN = 3
"""Fewer than most text has, so that what is said to fit does."""


def size_of(text: str) -> int:
    """Its bytes in UTF-8, with a question mark for half a character, as in whatever is sent."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def fair_share(sizes: Collection[int], total: int) -> int:
    """How long each may be, so that together they are no longer than `total`: the small stay whole, the rest is shared."""
    left = max(0, total)
    for done, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - done)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def cut(text: str, limit: int) -> str:
    """The text in at most `limit` bytes: three parts of its beginning to one of its end, and a note between.

    What is no longer than the note stays, and nothing becomes shorter than the note. Cuts between lines where it can.
    """
    note = _note(text, len(text))
    if size_of(text) <= max(limit, size_of(note)):
        return text
    room = limit - size_of(note) - len("\n\n")
    if room <= 0:
        return note
    head, tail = _head(text, room * 3 // 4), _tail(text, room // 4)
    gap = "\n" if head.endswith("\n") or tail.startswith("\n") else " "
    head, tail = head.removesuffix("\n"), tail.removeprefix("\n")
    return f"{head}{gap}{_note(text, len(text) - len(head) - len(tail))}{gap}{tail}"


def _note(text: str, left_out: int) -> str:
    return f"[… {left_out:,} of {len(text):,} characters left out …]"


def _head(text: str, room: int) -> str:
    """The beginning, up to the end of a line if one ends in the second half of it."""
    head = text[:room].encode(errors="replace")[:room].decode(errors="ignore")
    line = head.rfind("\n") + 1
    return head[:line] if line > len(head) // 2 else head


def _tail(text: str, room: int) -> str:
    """The end, from the break before a line if one begins in the first half of it."""
    tail = text[-room:].encode(errors="replace")[-room:].decode(errors="ignore") if room else ""
    line = tail.find("\n")
    return tail[line:] if 0 <= line < len(tail) // 2 else tail
