"""Copies of whole conversations: a fork within the store, or what is saved of a file that can only be read."""

# ruff: noqa: S608 - only names of our own are put into statements; values never are
from __future__ import annotations

import sqlite3

from llm_jupyter.errors import StoreError
from llm_jupyter.store import sessions, turns
from llm_jupyter.store.records import SessionRecord
from llm_jupyter.store.sql import run, transaction

TURN = ", ".join((*(name for name in turns.COLUMNS if name not in ("session", "id")), "answers"))
MESSAGE = (
    "number, role, name, created, is_whole, model, provider, finish_reason, is_local, from_cache, usage, timing, tried"
)
PART = "number, position, kind, text, data, media_type, name, reference"


def fork(connection: sqlite3.Connection, source: str, record: SessionRecord) -> None:
    """Keep a new conversation that has all turns of another. Raises `StoreError` if it is not new."""
    with transaction(connection):
        if sessions.get(connection, record.id) is not None:
            raise StoreError(f"there is a conversation {record.id} already")
        sessions.save(connection, record)
        copy_turns(connection, "main", source, record.id)
        run(
            connection,
            """INSERT INTO found (rowid, prompt, answers) SELECT new.serial, prompt, found.answers FROM turns AS old
            JOIN turns AS new ON new.session = ? AND new.id = old.id JOIN found ON found.rowid = old.serial
            WHERE old.session = ?""",
            record.id, source,
        )  # fmt: skip


def copy_turns(connection: sqlite3.Connection, schema: str, source: str, target: str, only: str | None = None) -> None:
    """Copy the turns of a conversation, or one of them, from a schema (`main` or an attached file) to another one.

    The search index is not copied.
    """
    which, of = ("session = ?", (source,)) if only is None else ("session = ? AND id = ?", (source, only))
    pairs = f"""(SELECT old.serial AS old, new.serial AS new
        FROM (SELECT serial, id FROM {schema}.turns WHERE {which}) AS old
        JOIN main.turns AS new ON new.session = ? AND new.id = old.id) AS pairs"""
    run(
        connection,
        f"INSERT INTO main.turns (session, id, {TURN}) SELECT ?, id, {TURN} FROM {schema}.turns WHERE {which}",
        target, *of,
    )  # fmt: skip
    for table, columns in (("messages", MESSAGE), ("parts", PART)):
        run(
            connection,
            f"INSERT INTO main.{table} (turn, {columns}) SELECT pairs.new, {columns} "
            f"FROM {pairs} JOIN {schema}.{table} ON turn = pairs.old",
            *of, target,
        )  # fmt: skip
