"""Saving what can be read of a damaged file: its rows, wherever they stand, without the indices that led to them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from llm_jupyter.errors import StoreError
from llm_jupyter.store import sessions, turns
from llm_jupyter.store.file import connected, open_in_memory, reason_of, uri_to_read
from llm_jupyter.store.records import SessionRecord, TurnRecord
from llm_jupyter.store.sql import marks, run, text, transaction
from llm_jupyter.store.store import Store

TABLES = ("sessions", "turns", "messages", "parts")
GAP = 100_000
"""Row numbers that are tried behind a damaged place, at most."""

SMALL = 50
"""Bytes that a row takes at least: so many rows can a damaged place hold."""


class Rescued(NamedTuple):
    """How many conversations and turns were saved, and how many conversations were there before."""

    sessions: int
    turns: int
    known: int


def rescue(source: Path, target: Store) -> Rescued:
    """Keep every conversation that can be read of a file in another store, unless it is there.

    Raises `StoreError` where nothing can be read, or kept.
    """
    if not source.is_file():
        raise StoreError(f"there is no file {source}")
    saved = count = known = 0
    with contextlib.closing(open_in_memory()) as memory:
        _salvage(source, memory)
        for record, found in _conversations(memory):
            if target.session(record.id) is not None:
                known += 1
                continue
            target.take_in(msgspec.structs.replace(record, holder=None), found)
            saved, count = saved + 1, count + len(found)
    if not target.is_kept:
        raise StoreError(f"the conversations could not be kept: {target.trouble}", where=str(target.path))
    if not saved and not known:
        raise StoreError(f"no conversation can be read of {source}")
    return Rescued(saved, count, known)


def _salvage(source: Path, memory: sqlite3.Connection) -> None:
    """Copy the rows that can be read. Raises `StoreError` where not even the tables can be found."""
    try:
        with contextlib.closing(connected(uri_to_read(source))) as damaged:
            run(damaged, "PRAGMA query_only = ON")
            damaged.text_factory = bytes  # a text may be none any more
            for table in TABLES:
                with transaction(memory):
                    for row in _rows(damaged, table, min(GAP, source.stat().st_size // SMALL)):
                        _copy(row, table, memory)
    except sqlite3.Error as error:
        raise StoreError(f"no conversation can be read of {source}: {reason_of(error)}") from None


def _rows(damaged: sqlite3.Connection, table: str, gap: int) -> Iterator[sqlite3.Row]:
    """Every row that can be read, by its number: what comes behind a damaged place is found by trying on."""
    number, missed = 0, 0
    sql = f"SELECT rowid, * FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"  # noqa: S608 - a name of our own
    run(damaged, f"{sql} LIMIT 0", 0)  # without its tables there is nothing to try
    while missed < gap:
        try:
            for row in run(damaged, sql, number):
                number, missed = int(row[0]), 0
                yield row
            return
        except sqlite3.DatabaseError:
            number, missed = number + 1, missed + 1


def _copy(row: sqlite3.Row, table: str, memory: sqlite3.Connection) -> None:
    names = [name for name in row.keys() if name != "rowid"]  # noqa: SIM118 - iterating over a row gives its values
    values = [_as_given(row[name], name) for name in names]
    sql = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks(names)})"  # noqa: S608 - as above
    with contextlib.suppress(sqlite3.IntegrityError):
        run(memory, sql, *values)


def _as_given(value: object, name: str) -> object:
    """A text as a text where it is one, and bytes as they are."""
    if not isinstance(value, bytes) or name == "data":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _conversations(memory: sqlite3.Connection) -> Iterator[tuple[SessionRecord, list[TurnRecord]]]:
    """The conversations with those of their turns that are whole."""
    rows = run(memory, "SELECT id FROM sessions UNION SELECT session FROM turns").fetchall()
    for session in (text(row[0]) for row in rows):
        found = list(_turns(memory, session))
        record = None
        with contextlib.suppress(sqlite3.Error):
            record = sessions.get(memory, session)
        if record is None and found:
            times = [turn.created for turn in found]
            record = SessionRecord(id=session, created=min(times), updated=max(times))
        if record is not None:
            yield record, found


def _turns(memory: sqlite3.Connection, session: str) -> Iterator[TurnRecord]:
    for row in run(memory, "SELECT * FROM turns WHERE session = ? ORDER BY position, slot, version", session):
        with contextlib.suppress(sqlite3.Error):
            yield turns.load(memory, [row])[0]
