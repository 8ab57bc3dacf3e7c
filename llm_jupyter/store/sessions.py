"""The rows of conversations, on a connection that is given."""

# ruff: noqa: S608 - only names of our own are put into statements; values never are
from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from itertools import islice

from llm_jupyter.store.records import SessionConfig, SessionRecord
from llm_jupyter.store.sql import as_json, columns, reading_rows, run, text, transaction

COLUMNS = ("id", "name", "created", "updated", "kernel", "notebook", "parent", "holder", "config")
TURNS = """(SELECT count(*) FROM turns WHERE session = sessions.id AND is_current = 1 AND left_out = ''
    AND state IN ('complete', 'interrupted') AND answers > 0)"""
ASKED = """(SELECT coalesce(template, (SELECT text FROM parts WHERE turn = serial AND number = 0 AND kind = 'text'))
    FROM turns WHERE session = sessions.id AND is_current = 1 ORDER BY position, serial LIMIT 1)"""
BEGINNING = 200
"""Characters of the first question, as it was typed, that a record has."""
SELECT = f"SELECT *, {TURNS} AS turns, {ASKED} AS question FROM sessions"


def save(connection: sqlite3.Connection, record: SessionRecord) -> None:
    """Insert or update one; its turns stay as they are."""
    values = {name: getattr(record, name) for name in COLUMNS} | {"config": as_json(record.config)}
    changes = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
    run(
        connection,
        f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
        f"ON CONFLICT (id) DO UPDATE SET {changes}",
        *values.values(),
    )


def touch(connection: sqlite3.Connection, session: str, now: float) -> None:
    """Say that something happened in it."""
    run(connection, "UPDATE sessions SET updated = ? WHERE id = ? AND updated < ?", now, session, now)


def get(connection: sqlite3.Connection, session: str) -> SessionRecord | None:
    """The one of that id."""
    return next(iter(_records(run(connection, f"{SELECT} WHERE id = ?", session))), None)


def latest(connection: sqlite3.Connection, limit: int | None, called: str = "") -> list[SessionRecord]:
    """The last updated ones that are called so, the latest first. SQLite itself tells cases apart outside of ASCII."""
    with reading_rows(), closing(run(connection, f"{SELECT} ORDER BY updated DESC, rowid DESC")) as rows:
        return list(islice((record for record in map(_record, rows) if record.is_called(called)), limit))


def count(connection: sqlite3.Connection) -> int:
    """How many there are."""
    return int(run(connection, "SELECT count(*) FROM sessions").fetchone()[0])


def named(connection: sqlite3.Connection, name: str) -> list[SessionRecord]:
    """Those of that name, the latest first."""
    return _records(run(connection, f"{SELECT} WHERE name = ? ORDER BY updated DESC, rowid DESC", name))


def matching(
    connection: sqlite3.Connection,
    kernel: str | None,
    notebook: str | None,
    ids: Collection[str],
    cells: Collection[str],
) -> list[SessionRecord]:
    """Those of the kernel, of the notebook, of one of the ids or with a current turn of one of the cells."""
    found = {*ids, *_ids_of(connection, kernel, notebook, cells)}
    return [record for session in sorted(found) if (record := get(connection, session)) is not None]


def claim(connection: sqlite3.Connection, session: str, holder: str, expected: str | None) -> bool:
    """Make a process its holder if its holder is still the expected one."""
    sql = "UPDATE sessions SET holder = ? WHERE id = ? AND holder IS ?"
    return run(connection, sql, holder, session, expected).rowcount == 1


def release(connection: sqlite3.Connection, session: str, holder: str) -> None:
    """Let it be nobody's, if it is still this holder's."""
    run(connection, "UPDATE sessions SET holder = NULL WHERE id = ? AND holder = ?", session, holder)


def delete(connection: sqlite3.Connection, session: str) -> int | None:
    """Remove one with all that is in it; how many turns it had, `None` where there is none."""
    with transaction(connection):
        turns = delete_turns(connection, "session = ?", session)
        was_there = run(connection, "DELETE FROM sessions WHERE id = ?", session).rowcount
    return turns if was_there or turns else None


def delete_turns(connection: sqlite3.Connection, where: str, *values: object) -> int:
    """Remove the turns of which something holds, with all that is in them; how many there were."""
    serials = f"(SELECT serial FROM turns WHERE {where})"
    for table, column in (("parts", "turn"), ("messages", "turn"), ("found", "rowid")):
        run(connection, f"DELETE FROM {table} WHERE {column} IN {serials}", *values)
    return run(connection, f"DELETE FROM turns WHERE {where}", *values).rowcount


def _ids_of(
    connection: sqlite3.Connection, kernel: str | None, notebook: str | None, cells: Collection[str]
) -> Iterator[str]:
    queries = [
        ("SELECT id FROM sessions WHERE kernel = ?", kernel),
        ("SELECT id FROM sessions WHERE notebook = ?", notebook),
        *(("SELECT DISTINCT session FROM turns WHERE cell = ? AND is_current = 1", cell) for cell in cells),
    ]
    for sql, value in queries:
        for (session,) in run(connection, sql, value) if value is not None else ():
            yield text(session)


def _records(rows: sqlite3.Cursor) -> list[SessionRecord]:
    with reading_rows():
        return [_record(row) for row in rows]


def _record(row: sqlite3.Row) -> SessionRecord:
    values = columns(row)
    config, question = SessionConfig(**json.loads(values["config"])), (values["question"] or "")[:BEGINNING]
    return SessionRecord(**{**values, "config": config, "question": question})
