"""What of the conversations somebody looks at, read from the store: the list, and the turns of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_jupyter.factory import LLMFactory
from llm_jupyter.sessions import LLMSession
from llm_jupyter.sessions.history import stale_turns
from llm_jupyter.sessions.holding import is_held_by_another
from llm_jupyter.store import SessionRecord
from llm_jupyter.widgets import session_rows as rows

CONVERSATIONS = 200
"""Conversations that are listed."""

TURNS = 50
"""Turns that are shown at first, and so many more each time."""


@dataclass
class View:
    """The conversation that is open, `None` for whichever is the notebook's, and which of its turns are shown.

    They are `count` turns before number `end`, `None` for the end of the conversation. `chosen` are the versions that are
    looked at, `whole` the turns that are shown whole, both by their slots.
    """

    session: str | None = None
    count: int = TURNS
    end: int | None = None
    chosen: dict[str, str] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def earlier(self) -> None:
        """Show more turns before those that are shown."""
        self.count += TURNS

    def later(self) -> None:
        """Show more turns behind those that are shown."""
        if self.end is not None:
            self.end, self.count = self.end + TURNS, self.count + TURNS

    def show(self, number: int, total: int) -> None:
        """Show the turn of that number, counted from 0, with some around it."""
        self.end = None if total - number <= self.count else number + TURNS // 2

    def talk(self, llm: LLMFactory) -> LLMSession:
        """The open conversation. Raises `SessionError` where it is gone."""
        return llm.sessions.current if self.session is None else llm.sessions.look_at(self.session)


@dataclass(frozen=True)
class Listed:
    """The conversations that were used last, the notebook's first, how many are `kept` in all, and the one that is open.

    `named` are those of all that are called what is looked for; `elsewhere` are those that other kernels use.
    """

    records: Sequence[SessionRecord]
    named: Sequence[SessionRecord]
    kept: int
    opened: SessionRecord
    elsewhere: frozenset[str]


@dataclass(frozen=True)
class Turns:
    """Turns as the page gets them, by their slots and in order, and how many there are before and behind them."""

    rows: dict[str, dict[str, Any]]
    earlier: int
    later: int


def listed(llm: LLMFactory, view: View, called: str = "") -> Listed:
    """The conversations that were used last, and those that are called so. One that was open and is gone gives way to the
    notebook's.
    """
    current = llm.sessions.current
    last = {record.id: record for record in llm.store.sessions(limit=CONVERSATIONS)}
    stored = last.pop(current.id, None) or llm.store.session(current.id)
    own = stored or current.store.session(current.id) or current.record
    opened = own
    if view.session not in (None, own.id):
        opened = last.get(str(view.session)) or llm.store.session(str(view.session)) or own
    records = [own, *last.values()][:CONVERSATIONS]
    named = llm.store.sessions(limit=CONVERSATIONS, called=called) if called else []
    if stored is None and own.is_called(called):  # it is private, or nothing was asked in it yet
        named = [own, *named]
    held = (one.id for one in (*records, *named, opened) if is_held_by_another(one.holder))
    return Listed(records, named, llm.store.count() + (stored is None), opened, frozenset(held))


def turns(llm: LLMFactory, view: View, there: Listed) -> Turns:
    """The turns to show of the conversation that is open."""
    session = there.opened.id
    talk = llm.sessions.look_at(session)
    places = talk.store.places(session)
    stale = stale_turns(places)
    under_way = {answering.turn.id for answering in list(talk.under_way) if answering.turn is not None}
    end = len(places) if view.end is None else min(view.end, len(places))
    start = max(0, end - view.count)
    found = {}
    for number, place in enumerate(places[start:end], start + 1):
        if versions := talk.store.versions(session, place.slot):
            found[place.slot] = rows.turn(
                versions, number=number, chosen=view.chosen.get(place.slot), is_stale=place.id in stale,
                is_alive=session in there.elsewhere or place.id in under_way, is_whole=place.slot in view.whole,
            )  # fmt: skip
    return Turns(found, start, len(places) - end)
