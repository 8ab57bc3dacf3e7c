"""Opening the file: who may see it, how it is written, and what to say where it cannot be.

On a local disk it has a write-ahead log with `synchronous=NORMAL`: what is committed survives the death of every process;
a power cut may take the last commits but damages nothing. A network file system has no memory that machines share, which
that log needs: there it is a rollback journal, and every commit waits for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

from llm_jupyter.store.schema import VERSION, migrate, version_of
from llm_jupyter.store.sql import run

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
SIDES = ("", "-wal", "-shm", "-journal")
"""The file itself, and what SQLite keeps beside it."""

Tune = Callable[[sqlite3.Connection], object]


class NewerFileError(Exception):
    """A later version of this package wrote the file."""


def open_to_keep(path: Path, *, wait: float, is_remote: Callable[[Path], bool], tune: Tune) -> sqlite3.Connection:
    """Open the file, made and brought up to date if need be. Raises `OSError`, `sqlite3.Error` or `NewerFileError`.

    A lock is waited for `wait` seconds. `tune` is given the connection first: tests set limits on it.
    """
    make(path)
    connection = connected(str(path), wait)
    try:
        tune(connection)
        run(connection, "PRAGMA secure_delete = ON")
        journal = "DELETE" if is_remote(path) else "WAL"
        _until_free(lambda: _prepare(connection, journal), wait)
    except BaseException:
        connection.close()
        raise
    return connection


def open_in_memory() -> sqlite3.Connection:
    """A store that ends with its process."""
    connection = connected("file::memory:")
    migrate(connection)
    return connection


def uri_to_read(path: Path) -> str:
    """How SQLite is to open a file of this version that need not be sound. Raises `sqlite3.Error` where it cannot.

    Who may write leaves nothing beside the file when it is closed. Where even a reader cannot lock it (a read-only folder,
    a lock that is never let go), it is read as it lies there.
    """
    uri = uri_to_look(path)
    with contextlib.closing(connected(uri)) as connection:
        if (version := version_of(connection)) != VERSION:
            raise sqlite3.DatabaseError(f"its tables are of version {version}, not {VERSION}")
    return uri


def uri_to_look(path: Path) -> str:
    """The same for a file of any version, or of none."""
    *ways, last = (f"{path.absolute().as_uri()}?{way}" for way in ("mode=rw", "mode=ro", "mode=ro&immutable=1"))
    return next((way for way in ways if _can_be_read(way)), last)


def connected(name: str, wait: float = 0) -> sqlite3.Connection:
    """A connection to a file, or to what a URI names; locks are waited for `wait` seconds. Raises `sqlite3.Error`."""
    connection = sqlite3.connect(
        name, timeout=wait, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
    )
    connection.row_factory = sqlite3.Row
    return connection


def make(path: Path) -> None:
    """Make the file and its folder for this person alone, and take from others what they may do there. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _keep_private(path.parent)
    with contextlib.suppress(FileExistsError):  # never opened by us if it is there: closing it would end SQLite's locks
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for side in SIDES:  # SQLite makes the others with the rights of the first
        _keep_private(path.with_name(path.name + side))


def size_of(path: Path) -> int:
    """Bytes on disk, those beside the file included."""
    total = 0
    for side in SIDES:
        with contextlib.suppress(OSError):
            total += path.with_name(path.name + side).stat().st_size
    return total


def newer(version: int) -> str:
    """What is wrong with a file of a later version."""
    return f"a later version of llm_jupyter wrote it (its tables are of version {version}, known are {VERSION})"


def is_busy(error: BaseException) -> bool:
    """Whether somebody else holds the lock."""
    return isinstance(error, sqlite3.Error) and _code(error) in BUSY


def is_damage(error: sqlite3.Error) -> bool:
    """Whether what stands in the file is at fault."""
    return _code(error) in DAMAGED


def reason_of(error: BaseException) -> str:
    """Why the store cannot be used, in words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    code = _code(error) if isinstance(error, sqlite3.Error) else sqlite3.SQLITE_OK
    if code in BUSY:
        return "another process has held its lock for too long"
    if code == sqlite3.SQLITE_FULL:
        return os.strerror(errno.ENOSPC)
    if code in UNWRITABLE:
        return f"it cannot be written ({error})"
    if code in DAMAGED:
        return f"the file is damaged ({error})"
    return str(error) or type(error).__name__


def _prepare(connection: sqlite3.Connection, journal: str) -> None:
    if (version := version_of(connection)) > VERSION:
        raise NewerFileError(newer(version))
    (mode,) = run(connection, f"PRAGMA journal_mode = {journal}").fetchone()
    run(connection, f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
    migrate(connection)


def _until_free(act: Callable[[], None], wait: float) -> None:
    """Some locks SQLite itself does not wait for, that for another journal among them."""
    end = time.monotonic() + wait
    while True:
        try:
            return act()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > end:
                raise
        time.sleep(0.005)


def _can_be_read(uri: str) -> bool:
    try:
        with contextlib.closing(connected(uri)) as connection:
            return version_of(connection) >= 0
    except sqlite3.Error:
        return False


def _code(error: sqlite3.Error) -> int:
    """The kind of error; one of our own making, for a record that makes no sense, counts as damage."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _keep_private(path: Path) -> None:
    """Others lose what they may do here. What is not ours stays as it is, and so does a folder that is there for all."""
    with contextlib.suppress(OSError, AttributeError, RuntimeError):  # no such user ids, no home
        status = path.stat()
        everybodys = status.st_mode & stat.S_ISVTX or path == Path.home()
        if status.st_mode & 0o077 and status.st_uid == os.geteuid() and not everybodys:
            path.chmod(stat.S_IMODE(status.st_mode) & 0o700)
