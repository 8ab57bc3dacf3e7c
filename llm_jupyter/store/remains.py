"""What can still be read of a file that can no longer be written: the conversation goes on in memory from there."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llm_jupyter.store import copying, search, sessions, turns
from llm_jupyter.store.file import connected, uri_to_read
from llm_jupyter.store.records import Hit, SessionRecord
from llm_jupyter.store.sql import run, text, transaction

R = TypeVar("R", SessionRecord, Hit)


class Remains:
    """A file to be read. Nothing here raises `sqlite3.Error`: what cannot be read is not there."""

    def __init__(self, path: Path) -> None:
        self._carried: set[str] = set()
        self._file: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.Error):
            self._uri = uri_to_read(path)
            self._file = connected(self._uri)
            run(self._file, "PRAGMA query_only = ON")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def beyond(self, look: Callable[[sqlite3.Connection], list[R]]) -> list[R]:
        """What is found in the file of the conversations that are not in memory yet."""
        if self._file is None:
            return []
        try:
            return [found for found in look(self._file) if _session_of(found) not in self._carried]
        except sqlite3.Error:
            return []

    def carry(self, session: str, memory: sqlite3.Connection) -> None:
        """Copy a conversation into memory, once: whole, or those of its turns that can be read."""
        if self._file is None or session in self._carried:
            return
        self._carried.add(session)
        with contextlib.suppress(sqlite3.Error):
            if (record := sessions.get(self._file, session)) is not None:
                sessions.save(memory, record)
        with contextlib.suppress(sqlite3.Error):
            run(memory, "ATTACH ? AS kept", self._uri)
            try:
                self._copy(session, memory)
            finally:
                run(memory, "DETACH kept")

    def _copy(self, session: str, memory: sqlite3.Connection) -> None:
        assert self._file is not None
        try:
            with transaction(memory, "DEFERRED"):
                copying.copy_turns(memory, "kept", session, session)
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):  # the turns up to the damaged place are better than none
                for (turn,) in run(self._file, "SELECT id FROM turns WHERE session = ?", session):
                    with contextlib.suppress(sqlite3.Error), transaction(memory, "DEFERRED"):
                        copying.copy_turns(memory, "kept", session, session, only=text(turn))
        for row in run(memory, "SELECT * FROM turns WHERE session = ?", session).fetchall():
            try:
                turns.load(memory, [row])
                search.index(memory, row["serial"])
            except sqlite3.Error:  # it can be read but makes no sense; nor can the slot, without one of its versions
                sessions.delete_turns(memory, "session = ? AND slot = ?", session, row["slot"])


def _session_of(found: SessionRecord | Hit) -> str:
    return found.id if isinstance(found, SessionRecord) else found.session.id
