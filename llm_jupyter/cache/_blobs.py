"""diskcache without pickle, and without a minute of waiting. Imported when a cache is first used: it takes its time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache  # type: ignore[import-untyped]
from diskcache.core import DBNAME, MODE_RAW  # type: ignore[import-untyped]


class BlobDisk(diskcache.Disk):  # type: ignore[misc]
    """Texts as keys, bytes as values, all in the one database. Whatever else stands in there is refused, not unpickled."""

    def put(self, key: Any) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError("a key must be a text")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if not raw or not isinstance(key, str):
            raise ValueError("there is a key that this cache did not write")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, bytes]:
        if not isinstance(value, bytes):
            raise TypeError("a value must be bytes")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if mode != MODE_RAW or not isinstance(value, bytes):
            raise ValueError("there is a value that this cache did not write")
        return value


def opened(folder: Path, *, size_limit: int, timeout: float) -> diskcache.Cache:
    """The cache in that folder, which is there. Raises `sqlite3.Error` or `OSError`, after `timeout` seconds at most."""
    if (file := folder / DBNAME).exists():
        _wait_for(file, timeout)
    return diskcache.Cache(
        str(folder), timeout=timeout, disk=BlobDisk, size_limit=size_limit, eviction_policy="least-recently-used",
        sqlite_mmap_size=0,  # a mapped file that somebody cuts short would end the kernel
    )  # fmt: skip


def _wait_for(file: Path, timeout: float) -> None:
    """See that the database can be written: diskcache itself would wait for a minute."""
    with closing(sqlite3.connect(file, timeout=timeout, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")
