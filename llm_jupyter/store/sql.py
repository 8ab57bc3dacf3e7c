"""What every query goes through.

Python's texts may hold half a surrogate pair, which no UTF-8 has: such a text is kept as bytes, and read as it was.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
AT_ONCE = 500
"""How many values one query names; old versions of SQLite take 999."""


def run(connection: sqlite3.Connection, sql: str, *values: object) -> sqlite3.Cursor:
    """Execute one statement. Raises `sqlite3.Error`."""
    try:
        return connection.execute(sql, values)
    except UnicodeEncodeError:
        return connection.execute(sql, [_as_bytes(value) if isinstance(value, str) else value for value in values])


def text(value: object) -> str:
    """A text as it was given to `run`. Raises `ValueError` or `TypeError` for what `run` was never given."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogatepass")
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def columns(row: sqlite3.Row) -> dict[str, Any]:
    """A row without pictures, its texts as they were given."""
    return {
        name: text(value) if isinstance(value, bytes) else value for name, value in zip(row.keys(), row, strict=True)
    }


def as_json(value: object) -> str:
    """Plain values and structs as JSON that is ASCII throughout, whatever their texts hold."""
    return json.dumps(msgspec.to_builtins(value))


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All that is written in it, or nothing. It has the right to write from the start, so it never waits half way; one
    that is `DEFERRED` asks for no lock on attached files that it only reads.
    """
    run(connection, f"BEGIN {kind}")
    try:
        yield
        run(connection, "COMMIT")
    except BaseException:  # a person's interrupt, too
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction that somebody left open; a full disk ends it by itself."""
    if connection.in_transaction:
        run(connection, "ROLLBACK")


@contextmanager
def reading_rows() -> Iterator[None]:
    """What cannot be made a record of comes from a damaged file: it leaves as `sqlite3.DatabaseError`."""
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise sqlite3.DatabaseError(f"a record is malformed: {error}") from error


def batches(values: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """The values in portions that one query may name."""
    rest = iter(values)
    while batch := tuple(islice(rest, AT_ONCE)):
        yield batch


def marks(values: Sequence[object]) -> str:
    """Question marks for so many values."""
    return ",".join("?" * len(values))


def _as_bytes(value: str) -> str | bytes:
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    return value
