"""The tables, as an ordered list of steps from nothing to the present.

A step that was released is never changed: files that took it are out there. The version of a file is how many it took.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from llm_jupyter.store import search
from llm_jupyter.store.sql import run, transaction

Migration = Callable[[sqlite3.Connection], object]

TABLES = (
    """CREATE TABLE sessions (
        id TEXT PRIMARY KEY, name TEXT, created REAL NOT NULL, updated REAL NOT NULL, kernel TEXT, notebook TEXT,
        parent TEXT, holder TEXT, config TEXT NOT NULL)""",
    """CREATE TABLE turns (
        serial INTEGER PRIMARY KEY, session TEXT NOT NULL, id TEXT NOT NULL, slot TEXT NOT NULL,
        version INTEGER NOT NULL, position REAL NOT NULL, cell TEXT, client TEXT, execution TEXT, system TEXT,
        state TEXT NOT NULL, created REAL NOT NULL, is_current INTEGER NOT NULL, left_out TEXT NOT NULL,
        was_saved INTEGER NOT NULL, stamp TEXT NOT NULL, under TEXT NOT NULL, filled TEXT NOT NULL, template TEXT,
        answers INTEGER NOT NULL DEFAULT 0, UNIQUE (session, id), UNIQUE (session, slot, version))""",
    # number 0 is the prompt; the columns from `model` on say who answered, and how
    """CREATE TABLE messages (
        turn INTEGER NOT NULL, number INTEGER NOT NULL, role TEXT NOT NULL, name TEXT, created REAL NOT NULL,
        is_whole INTEGER NOT NULL, model TEXT, provider TEXT, finish_reason TEXT, is_local INTEGER, from_cache INTEGER,
        usage TEXT, timing TEXT, tried TEXT, PRIMARY KEY (turn, number))""",
    """CREATE TABLE parts (
        turn INTEGER NOT NULL, number INTEGER NOT NULL, position INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('text', 'thinking', 'image', 'tool_call', 'tool_result')),
        text TEXT, data BLOB, media_type TEXT, name TEXT, reference TEXT, PRIMARY KEY (turn, number, position))""",
)
INDICES = (
    "CREATE INDEX sessions_by_update ON sessions (updated)",
    "CREATE INDEX sessions_by_name ON sessions (name)",
    "CREATE INDEX sessions_by_kernel ON sessions (kernel)",
    "CREATE INDEX sessions_by_notebook ON sessions (notebook)",
    "CREATE UNIQUE INDEX turns_of_slots ON turns (session, slot) WHERE is_current = 1",
    "CREATE INDEX turns_of_cells ON turns (cell, session, position, serial) WHERE is_current = 1",
    "CREATE INDEX turns_in_order ON turns (session, position, serial) WHERE is_current = 1",
    # with every column that counting asks for, so that it need not look at the turns themselves
    """CREATE INDEX turns_in_context ON turns (session, position, serial, is_current, left_out, state, answers)
        WHERE is_current = 1 AND left_out = ''""",
    """CREATE INDEX turns_that_instruct ON turns (session, position, serial)
        WHERE is_current = 1 AND left_out = '' AND system IS NOT NULL""",
    "CREATE INDEX turns_under_way ON turns (session) WHERE state = 'pending'",
)


def conversations(connection: sqlite3.Connection) -> None:
    """Sessions, and their turns with messages and the parts of those."""
    for statement in (*TABLES, *INDICES):
        run(connection, statement)


def notebooks_of_turns(connection: sqlite3.Connection) -> None:
    """In which notebook a turn was asked; so far that was its conversation's."""
    run(connection, "ALTER TABLE turns ADD COLUMN notebook TEXT")
    theirs = "(SELECT notebook FROM sessions WHERE sessions.id = session)"
    run(connection, f"UPDATE turns SET notebook = {theirs} WHERE cell IS NOT NULL")  # noqa: S608 - a text of our own


MIGRATIONS: tuple[Migration, ...] = (conversations, search.create, notebooks_of_turns)
VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """How many steps a file has taken; 0 where it is new."""
    (version,) = run(connection, "PRAGMA user_version").fetchone()
    return int(version)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Take the steps that are missing, all or none. Of processes that come at once, one takes them."""
    if version_of(connection) >= len(migrations):
        return
    with transaction(connection):
        taken = version_of(connection)  # again: somebody else may have taken them while this one waited for the lock
        for migration in migrations[taken:]:
            migration(connection)
        if taken < len(migrations):
            run(connection, f"PRAGMA user_version = {len(migrations)}")
