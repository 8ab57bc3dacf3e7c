"""Removing for good: afterwards the text stands in no file of the store any more."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Collection

from llm_jupyter.store import sessions
from llm_jupyter.store.records import Purged
from llm_jupyter.store.sql import run, text, transaction


def purge(
    connection: sqlite3.Connection, older: float | None, session: str | None, wait: float, spare: Collection[str]
) -> Purged:
    """Remove what was not updated since `older` but for those to `spare`, or one conversation, and the room that they took.

    Other processes' readers delay the emptying of the log; it is tried for `wait` seconds.
    """
    before = _size(connection)
    doomed = [session] if session is not None else []
    if older is not None:
        old = [text(row[0]) for row in run(connection, "SELECT id FROM sessions WHERE updated < ?", older)]
        doomed += [one for one in old if one not in spare]
    removed = [turns for one in dict.fromkeys(doomed) if (turns := sessions.delete(connection, one)) is not None]
    if removed:
        _scrub(connection, wait)
    return Purged(sessions=len(removed), turns=sum(removed), bytes=max(0, before - _size(connection)))


def _scrub(connection: sqlite3.Connection, wait: float) -> None:
    with transaction(connection):  # deleted words stay in the index until its parts are merged
        run(connection, "INSERT INTO found (found) VALUES ('optimize')")
    with contextlib.suppress(sqlite3.Error):  # no room for it: the pages that became free were overwritten before
        run(connection, "VACUUM")
    end = time.monotonic() + wait
    while _is_log_in_use(connection) and time.monotonic() < end:
        time.sleep(0.01)


def _is_log_in_use(connection: sqlite3.Connection) -> bool:
    """Whether the log still has something in it after an attempt to empty it; a rollback journal is never left over."""
    (busy, *_) = run(connection, "PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return bool(busy)


def _size(connection: sqlite3.Connection) -> int:
    (pages,) = run(connection, "PRAGMA page_count").fetchone()
    (size,) = run(connection, "PRAGMA page_size").fetchone()
    return int(pages) * int(size)
