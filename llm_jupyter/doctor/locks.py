"""Who holds the lock of an SQLite file for too long, as far as the system tells."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

PENDING = 0x40000000
"""From this byte on a database file is locked: documented in SQLite's "File Locking"."""

LOG_WRITER = 120
"""The byte of the `-shm` file that whoever writes to the log holds (its "WAL-mode File Format")."""

WRITER, PID, INODE, START = 3, 4, 5, 6
"""Columns of `/proc/locks`."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def is_locked(file: Path, wait: float) -> bool:
    """Whether nobody could write to a database within that time. Nothing is written."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", timeout=wait, isolation_level=None, uri=True)
        ) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return False


def holder_of(file: Path) -> Holder | None:
    """The process that holds the right to write to a database now. Only Linux tells."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        for pid in _writers(file):
            process = psutil.Process(pid)
            if any(Path(opened.path).name.startswith(file.name) for opened in process.open_files()):
                return Holder(pid, process.name())
    return None


def _writers(file: Path) -> Iterator[int]:
    """The processes with a lock on the bytes in question. The system numbers files anew on each disk: it may be another."""
    numbers = {}
    for side in ("", "-shm"):
        with contextlib.suppress(OSError):
            numbers[str(file.with_name(file.name + side).stat().st_ino)] = side
    for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if "->" in fields:
            continue  # somebody who waits
        locked, start = numbers.get(fields[INODE].rpartition(":")[2]), int(fields[START])
        if fields[WRITER] == "WRITE" and ((locked == "" and start >= PENDING) or (locked and start == LOG_WRITER)):
            yield int(fields[PID])
