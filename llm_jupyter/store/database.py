"""The connection under a `Store`: opened at first use, shared by threads, and replaced by memory where the file fails."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from llm_jupyter.errors import StoreError
from llm_jupyter.events import Event, StoreDegraded
from llm_jupyter.store import sessions
from llm_jupyter.store.file import NewerFileError, open_in_memory, reason_of
from llm_jupyter.store.records import SessionRecord
from llm_jupyter.store.remains import R, Remains
from llm_jupyter.store.sql import roll_back

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

CALLERS_FAULT = (sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError)
"""Errors that no other disk would mend. What is not unique was asked for before: only a damaged file says it then."""


class Database:
    """One connection under one lock: to the file at `path`, which `open_file` opens, or to memory.

    Memory it is where `path` is `None`, and from the first trouble on, of which `trouble` tells in words.
    """

    def __init__(
        self, path: Path | None, open_file: Callable[[Path], sqlite3.Connection], publish: Callable[[Event], object]
    ) -> None:
        self.path = path
        self.trouble = ""
        self._open_file = open_file
        self._publish = publish
        self._is_closed = False
        self._connection: sqlite3.Connection | None = None
        self._remains: Remains | None = None
        self._known: dict[str, SessionRecord] = {}
        self._process = os.getpid()
        self._lock = threading.RLock()

    @property
    def is_kept(self) -> bool:
        """Whether the file is in use, as far as is known."""
        return self.path is not None and not self.trouble

    def do(self, operation: Operation[T], session: str | None = None) -> T:
        """Do something on the file; if the file fails, in memory, with what is left of the conversation in question.

        Raises `StoreError` for what memory cannot do either.
        """
        with self.held():
            connection = self._opened()
            if self.is_kept:
                try:
                    roll_back(connection)  # an interrupt may have come right after a transaction began
                    return operation(connection)
                except CALLERS_FAULT as error:
                    raise _refusal(error) from error
                except sqlite3.Error as error:
                    connection = self._give_up(error)
            if session is not None and self._remains is not None:
                self._remains.carry(session, connection)
            try:
                roll_back(connection)
                return operation(connection)
            except sqlite3.Error as error:
                raise _refusal(error) from error

    def know(self, record: SessionRecord) -> None:
        """Remember a conversation that is in use here: should the file fail, it is the first to go on in memory."""
        self._known[record.id] = record

    def forget(self, session: str) -> None:
        """Forget what `know` was told."""
        self._known.pop(session, None)

    def look(self, operation: Operation[list[R]]) -> list[R]:
        """Find something wherever conversations are: on the file, or in memory first and then in what is left of it."""
        with self.held():
            found = self.do(operation)
            return found if self._remains is None else found + self._remains.beyond(operation)

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the time of the block, no other thread does anything."""
        if self._process != os.getpid():
            self._begin_in_child()
        with self._lock:
            yield

    def close(self) -> None:
        """Let go of everything. Doing so twice is fine."""
        with self.held():
            self._is_closed = True
            if self._remains is not None:
                self._remains.close()
            if self._connection is not None:
                connection, self._connection = self._connection, None
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._is_closed:
            raise StoreError(
                "the store of conversations is closed", next_step="open() of its LLMFactory opens it again."
            )
        if self._connection is None:
            if self.path is None:
                self._connection = open_in_memory()
            else:
                try:
                    self._connection = self._open_file(self.path)
                except (OSError, sqlite3.Error, NewerFileError) as error:
                    self._connection = self._give_up(error)
        return self._connection

    def _give_up(self, error: Exception) -> sqlite3.Connection:
        assert self.path is not None
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = open_in_memory()
        self._remains = Remains(self.path)
        for record in list(self._known.values()):
            sessions.save(self._connection, record)  # what the file says of it takes its place, where that can be read
            self._remains.carry(record.id, self._connection)
        self.trouble = reason_of(error)
        self._publish(StoreDegraded(path=str(self.path), reason=self.trouble))
        return self._connection

    def _begin_in_child(self) -> None:
        """Leave to the parent what is the parent's: its lock may be held for ever here, and SQLite forbids even to close a
        connection that came through a fork.
        """
        import ctypes

        for inherited in (self._connection, self._remains):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
        self._process, self._lock = os.getpid(), threading.RLock()
        self._connection, self._remains, self.trouble = None, None, ""


def _refusal(error: sqlite3.Error) -> StoreError:
    return StoreError(f"this cannot be kept: {error}")
