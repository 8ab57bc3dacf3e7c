"""What a conversation may be called, what its copy is called, and how its turns are counted in words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from llm_jupyter.errors import SessionError
from llm_jupyter.store import SessionRecord

LONGEST = 80
"""Characters of a name."""

_NO_LINE = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
"""Line ends, tabs and what steers a terminal, as a regular expression has them in brackets."""

NAME = re.compile(rf"[^\s/\\{_NO_LINE}][^/\\{_NO_LINE}]{{0,{LONGEST - 1}}}")

_COPY = re.compile(r" \(copy(?: \d+)?\)$")
_NOT_IN_NAMES = re.compile(rf"[\s/\\{_NO_LINE}]+")


def expect_name(name: str) -> None:
    """Raise `SessionError` for what cannot be a name."""
    if not NAME.fullmatch(name):
        next_step = f"Take up to {LONGEST} characters on one line, no slashes, no tabs."
        raise SessionError(f"{name[:60]!r} cannot be a name", next_step=next_step)


def name_of_copy(record: SessionRecord, is_taken: Callable[[str], bool]) -> str:
    """`NAME (copy)` after what the list calls the original, or with a number where that is taken."""
    title = record.quoted[1:-1] if record.title == record.quoted else _COPY.sub("", record.title)
    whole = _NOT_IN_NAMES.sub(" ", title).strip() or record.id
    for number in itertools.count(1):
        mark = " (copy)" if number == 1 else f" (copy {number})"
        if not is_taken(name := whole[: LONGEST - len(mark)] + mark):
            return name
    raise AssertionError("there is always another number")


def turns_of(record: SessionRecord) -> str:
    """How many turns a conversation has, in words."""
    return count_of(record.turns)


def count_of(turns: int) -> str:
    """So many turns, in words."""
    return f"{turns} turn{'' if turns == 1 else 's'}"
