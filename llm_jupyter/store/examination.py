"""A look at the file from beside, for the doctor: it changes nothing, and waits for nobody."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import msgspec

from llm_jupyter.store.file import connected, is_damage, newer, reason_of, size_of, uri_to_look
from llm_jupyter.store.records import Examination, Fault
from llm_jupyter.store.schema import VERSION, version_of
from llm_jupyter.store.sql import run


def examine(path: Path) -> Examination:
    """What is there, and what is wrong with it. Raises nothing."""
    if not path.exists():
        return Examination(path=path, is_writable=_is_writable(_nearest_folder(path)))
    found = Examination(
        path=path, exists=True, size=size_of(path), is_writable=_is_writable(path) and _is_writable(path.parent)
    )
    try:
        with contextlib.closing(connected(uri_to_look(path))) as connection:
            run(connection, "PRAGMA query_only = ON")
            return _looked_at(connection, found)
    except sqlite3.Error as error:
        fault = Fault.DAMAGED if is_damage(error) else Fault.CLOSED
        return msgspec.structs.replace(found, problem=reason_of(error), fault=fault)


def _looked_at(connection: sqlite3.Connection, found: Examination) -> Examination:
    version = version_of(connection)
    if version > VERSION:
        return msgspec.structs.replace(found, problem=newer(version), fault=Fault.NEWER)
    faults = [str(row[0]) for row in run(connection, "PRAGMA integrity_check(3)")]
    if faults != ["ok"]:
        problem = f"the file is damaged ({'; '.join(faults)})"
        return msgspec.structs.replace(found, problem=problem, fault=Fault.DAMAGED)
    return (
        found if version < VERSION else _counted(connection, found)
    )  # an older one is brought up to date when it is used


def _counted(connection: sqlite3.Connection, found: Examination) -> Examination:
    return msgspec.structs.replace(
        found,
        sessions=_number(connection, "SELECT count(*) FROM sessions"),
        turns=_number(connection, "SELECT count(*) FROM turns"),
        journal=str(run(connection, "PRAGMA journal_mode").fetchone()[0]),
    )


def _number(connection: sqlite3.Connection, sql: str) -> int:
    return int(run(connection, sql).fetchone()[0])


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())
