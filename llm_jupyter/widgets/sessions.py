"""`%llm dash sessions`: the conversations that are kept, the turns of one of them, and how full its context is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from llm_jupyter.errors import SessionError
from llm_jupyter.events import (
    Event,
    ModelChosen,
    RequestFailed,
    RequestFinished,
    RequestStarted,
    SessionCreated,
    SessionDeleted,
    SessionForked,
    SessionRenamed,
    SessionResumed,
    StoreDegraded,
    TurnReplaced,
    TurnRestored,
)
from llm_jupyter.portable import export, file_name
from llm_jupyter.store import SessionRecord
from llm_jupyter.widgets import session_rows as rows
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.widgets.session_meter import in_words, measured
from llm_jupyter.widgets.session_view import CONVERSATIONS, Listed, Turns, View, listed, turns

logger = logging.getLogger(__name__)

HITS = 20
"""Turns that a search shows."""

SHORTEST = 2
"""Characters from which on turns are looked for: almost every turn has a word that begins with a given letter."""

UNDATED = (TurnReplaced, TurnRestored, StoreDegraded)
"""What changes turns although it is no use of their conversation, which would change when that was used last."""

PICTURED = 20
"""Conversations in a saved file."""


class SessionsDashboard(Dashboard):
    """The conversations: found, opened, continued, copied, renamed, deleted, exported; their turns and versions."""

    name: ClassVar[str] = "sessions"
    title: ClassVar[str] = "Conversations"
    hears: ClassVar[tuple[type[Event], ...]] = (
        SessionCreated, SessionResumed, SessionForked, SessionRenamed, SessionDeleted, TurnReplaced, TurnRestored,
        RequestStarted, RequestFinished, RequestFailed, ModelChosen, StoreDegraded,
    )  # fmt: skip
    every: ClassVar[float | None] = 10.0
    """Other kernels write to the same store, and say nothing here."""

    async def begin(self) -> None:
        """Open the notebook's conversation."""
        self._view = View()
        self._is_changed = True
        self._seen: SessionRecord | None = None
        self._sought = ""
        self._must_measure = asyncio.Event()
        self._measuring = self.llm.portal.start(self._keep_measuring())
        self.show("hits", None)
        await self._measure()

    def ended(self) -> None:
        """Measure no more."""
        self._measuring.cancel()

    async def refresh(self, events: Sequence[Event]) -> None:
        """Look at the list, which costs little; at the turns only where something happened to them."""
        view, is_changed, self._is_changed = self._view, self._is_changed, False
        there = await asyncio.to_thread(listed, self.llm, view, sought := self._sought)
        self._show_list(there, sought)
        if view.session not in (None, there.opened.id) and view is self._view:
            self._view = view = View()
        is_changed |= there.opened != self._seen or any(isinstance(event, UNDATED) for event in events)
        if is_changed or any(isinstance(event, ModelChosen) for event in events):
            self._must_measure.set()
        if is_changed:
            self._seen = there.opened
            self._show_turns(there, await asyncio.to_thread(turns, self.llm, view, there))

    # -- what is shown

    def _show_list(self, there: Listed, sought: str) -> None:
        self.show("conversations", [self._row(record, there) for record in there.records])
        named = [self._row(record, there) for record in there.named]
        is_all = len(named) < CONVERSATIONS
        self.show("named", {"text": sought, "rows": named, "is_all": is_all} if sought else None)
        self.show("kept", there.kept)
        trouble = self.llm.store.trouble
        remedy = "%llm doctor tells what to do about it."
        self.show("trouble", f"Conversations are no longer kept on disk: {trouble}. {remedy}" if trouble else "")

    def _show_turns(self, there: Listed, found: Turns) -> None:
        for slot in set(self.channel.state.get("slots", ())) - found.rows.keys():
            self.channel.drop(f"turn {slot}")
        for slot, row in found.rows.items():  # each by itself, so that only those travel that have changed
            self.show(f"turn {slot}", row)
        self.show("slots", [*found.rows])
        self.show("opened", {**self._row(there.opened, there), "earlier": found.earlier, "later": found.later})

    def _row(self, record: SessionRecord, there: Listed) -> dict[str, Any]:
        current = self.llm.sessions.current
        is_current = record.id == current.id
        return rows.conversation(
            record, is_current=is_current, is_elsewhere=record.id in there.elsewhere,
            is_private=is_current and current.is_private,
        )  # fmt: skip

    def _open(self, session: str | None) -> View:
        self._view = view = View(session)
        self._is_changed = True
        return view

    # -- how full the context is

    async def _keep_measuring(self) -> None:
        """Measure apart from everything else: a server may take a second to tell its model's window."""
        while True:
            await self._must_measure.wait()
            self._must_measure.clear()
            try:
                await self._measure()
            except Exception:  # one that fails must not be the last
                logger.exception("the context could not be measured")
            self.poke()

    async def _measure(self, *, may_ask: bool = False) -> None:
        self.show("meter", await measured(self.llm, self._view, may_ask=may_ask))

    # -- what the page may ask for

    async def do_refresh(self) -> None:
        """Look at everything anew, and find out who answers."""
        self._is_changed = True
        await self._measure(may_ask=True)

    async def do_open(self, session: str, turn: str | None = None) -> None:
        """Show a conversation without going on with it; at that turn, if one is named."""
        talk = await asyncio.to_thread(self.llm.sessions.look_at, session)
        if turn is None:
            self._open(talk.id)
            return
        found = await asyncio.to_thread(talk.find_turn, turn)
        places = await asyncio.to_thread(talk.store.places, talk.id)
        view = self._open(talk.id)
        view.show(next((n for n, place in enumerate(places) if place.slot == found.slot), 0), len(places))
        if not found.is_current:
            view.chosen[found.slot] = found.id

    async def do_use(self, session: str) -> None:
        """Let the notebook go on with a conversation; with a copy where another kernel does."""
        sessions = self.llm.sessions
        sessions.expect_stored("continuing one")
        used = await asyncio.to_thread(sessions.use, session)
        self._open(None)
        self.say(" ".join(sessions.notices) or f"This notebook goes on with {rows.line(used.record.title)}.")
        sessions.notices.clear()

    async def do_fork(self, session: str) -> None:
        """Let the notebook go on with a copy of a conversation."""
        fork = await asyncio.to_thread(lambda: self.llm.sessions.fork(of=session))
        original = await asyncio.to_thread(self.llm.sessions.one, session)
        self._open(None)
        self.say(f"This notebook goes on with {rows.line(fork.name)}, a copy of {rows.line(original.title)}.")

    async def do_rename(self, session: str, name: str) -> None:
        """Give a conversation another name."""
        self.llm.sessions.expect_stored("a name")
        await asyncio.to_thread(lambda: self.llm.sessions.rename(name.strip(), of=session))
        self.say(f"It is called {name.strip()}.")

    async def do_delete(self, session: str) -> None:
        """Delete a conversation with its turns."""
        sessions = self.llm.sessions
        sessions.expect_stored("deleting one")
        was_current = session == sessions.current.id
        record = await asyncio.to_thread(sessions.delete, session)
        if self._view.session == record.id:
            self._open(None)
        fresh = " A fresh conversation begins here." if was_current else ""
        self.say(f"Deleted {rows.line(record.title)}.{fresh}")

    async def do_new(self) -> None:
        """Let the notebook begin a fresh conversation."""
        await asyncio.to_thread(self.llm.sessions.reset)
        self._open(None)
        self.say("A fresh conversation. The model stays the same.")

    async def do_export(self, session: str, suffix: str) -> None:
        """Write a conversation to a file beside the notebook."""
        notebook = self.llm.sessions.notebook
        folder = notebook.parent if notebook is not None else Path.cwd()

        def write() -> Path:
            talk = self.llm.sessions.look_at(session)
            path = folder / f"{file_name(talk.name or f'conversation {talk.id}')}{suffix}"
            if not export(talk.record, talk.store.all_turns(talk.id), path):
                next_step = "Give the conversation another name, or: %llm session export FILE"
                raise SessionError(f"{path} is no export, and stays as it is", next_step=next_step)
            return path

        self.say(f"Written to {await asyncio.to_thread(write)}.")

    async def do_search(self, text: str) -> None:
        """Find conversations by their names, and turns by their words; nothing to look for ends it."""
        self._sought = words = text.strip()
        if len(words) < SHORTEST:
            self.show("hits", None)
            return
        found = await asyncio.to_thread(lambda: self.llm.store.search(words, limit=HITS))
        self.show("hits", {"text": words, "rows": [rows.hit(one) for one in found], "is_all": len(found) < HITS})

    async def do_earlier(self) -> None:
        """Show more turns, before those that are shown."""
        self._view.earlier()
        self._is_changed = True

    async def do_later(self) -> None:
        """Show more turns, behind those that are shown."""
        self._view.later()
        self._is_changed = True

    async def do_whole(self, slot: str) -> None:
        """Show all of a turn's texts, as far as a page can be sent them."""
        self._view.whole.add(slot)
        self._is_changed = True

    async def do_version(self, slot: str, turn: str) -> None:
        """Look at one version of a turn."""
        self._view.chosen[slot] = turn
        self._is_changed = True

    async def do_restore(self, slot: str, turn: str) -> None:
        """Let a version count that does not."""
        view = self._view
        session = (await asyncio.to_thread(view.talk, self.llm)).id
        await asyncio.to_thread(lambda: self.llm.sessions.restore(turn, of=session))
        view.chosen.pop(slot, None)
        self.say("That version counts again. What comes after it sees it; its cell still shows the other.")

    # -- for a saved file

    def picture(self) -> Picture:
        """The conversations that were used last, and how full the context is."""
        state = self.channel.state
        shown = [
            ("→" if one["current"] else "", one["title"], str(one["turns"]), _moment(one["updated"]), one["model"])
            for one in state["conversations"][:PICTURED]
        ]
        more = state["kept"] - len(shown)
        lines = [state["trouble"], f"{more} more are kept." if more else "", in_words(state["meter"])]
        headings = ("", "conversation", "turns", "last used", "model")
        return Picture(self.title, headings, shown, [one for one in lines if one])


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a moment that no calendar has
        return ""
