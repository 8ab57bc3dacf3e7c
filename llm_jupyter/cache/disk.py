"""The person's cache of answers: one database for all notebooks. Trouble with it costs nothing but the keeping."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llm_jupyter.cache.answers import Kept
from llm_jupyter.cache.request import Request, Who
from llm_jupyter.errors import CacheError

logger = logging.getLogger(__name__)

SIZE_LIMIT = 2**30
"""Bytes on disk; beyond them the answers that were used longest ago go."""

PATIENCE = 2.0
"""Seconds that the disk, or another process that holds the cache, is waited for."""

REST = 60.0
"""Seconds that a cache with trouble is left alone, so that not every question waits for it."""

MODELS = 16
"""Models whose answers to one question are kept."""

LOOKED_THROUGH = 200
"""Questions among which one is looked for by its words alone."""

DATABASE = "cache.db"
"""diskcache's name for it."""

T = TypeVar("T")
_decoder = msgspec.json.Decoder(list[Kept])


class CacheStats(msgspec.Struct, frozen=True):
    """How many questions have answers, the bytes on disk, where, and when the oldest came (seconds since the epoch)."""

    count: int
    size: int
    folder: Path
    oldest: float | None = None
    trouble: str = ""


class AnswerCache:
    """Answers by question, the latest one of each model.

    On a network file system SQLite's locks cannot be relied on: then the cache is in a folder of this user alone below
    the system's temporary one. All work is done on one thread, whose connection is the only one.
    """

    def __init__(
        self, folder: Path, *, size_limit: int = SIZE_LIMIT, is_remote: Callable[[Path], bool] = lambda path: False,
        clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._home = folder
        self._size_limit = size_limit
        self._is_remote = is_remote
        self._clock = clock
        self._monotonic = monotonic
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="llm-cache")
        self._cache: Any = None
        self._rests_until = 0.0
        self.trouble = ""
        """Why nothing is kept now; empty where all is well."""

    @cached_property
    def folder(self) -> Path:
        """Where the database is."""
        return _temporary_folder() / "cache" if self._is_remote(self._home) else self._home

    async def get(self, request: Request, who: Who) -> Kept | None:
        """What exactly this model answered."""
        return await self.newest(request.digest, lambda kept: kept.who == who)

    async def newest(self, digest: str, accepts: Callable[[Kept], bool] = lambda kept: True) -> Kept | None:
        """The latest answer to the question of that digest among those that are accepted."""
        if not self._is_there():
            return None
        nothing: list[Kept] = []
        answers = await self._try(lambda cache: _answers(cache, digest), nothing)
        return next((kept for kept in reversed(answers) if accepts(kept)), None)

    async def otherwise(self, request: Request) -> list[Kept]:
        """As a recording's, among the latest questions."""
        nothing: list[Kept] = []
        return await self._try(lambda cache: _otherwise(cache, request), nothing) if self._is_there() else nothing

    async def put(self, kept: Kept) -> bool:
        """Keep an answer in place of what the same model answered before; whether that succeeded."""
        return await self._try(lambda cache: _put(cache, kept), False)

    async def stats(self) -> CacheStats:
        """What is kept."""
        nothing: tuple[int, int, float | None] = (0, 0, None)
        count, size, oldest = await self._try(_measured, nothing) if self._is_there() else nothing
        return CacheStats(count, size, self.folder, oldest, self.trouble)

    async def examine(self) -> CacheStats:
        """What is kept, and what is wrong with it, for the doctor: all of it is read, and nothing is left alone."""
        if not self._is_there():
            return CacheStats(0, 0, self.folder)
        try:
            count, size, oldest = await self._work(_measured)
            return CacheStats(count, size, self.folder, oldest, await self._damage())
        except Exception as error:  # as in _try
            return CacheStats(0, 0, self.folder, trouble=_reason(error))

    async def holds_older(self, older: float) -> bool:
        """Whether any answer came more than `older` seconds ago; where that cannot be told, one may have."""
        limit = self._clock() - older
        return self._is_there() and await self._try(lambda cache: _holds_older(cache, limit), True)

    async def clear(self, older: float | None = None) -> int:
        """Forget all answers, or those that came more than `older` seconds ago; returns how many questions are left without.

        A damaged database is removed. Raises `CacheError` if that cannot be done.
        """
        if not self._is_there():
            return 0
        limit = None if older is None else self._clock() - older
        try:
            count = await self._work(lambda cache: _clear(cache, limit))
            if limit is None and (damage := await self._damage()):
                raise sqlite3.DatabaseError(damage)
        except Exception as error:  # as in _try
            if isinstance(error, OSError | RuntimeError) or _is_busy(error):  # a RuntimeError: it is closed
                raise CacheError(f"the cache cannot be cleared: {_reason(error)}", where=str(self.folder)) from None
            count = await asyncio.to_thread(self._remove)
        with contextlib.suppress(RuntimeError, sqlite3.Error):  # closed meanwhile; no room for it
            await asyncio.get_running_loop().run_in_executor(self._worker, self._scrub)
        self._rests_until, self.trouble = 0.0, ""
        return count

    def warm(self) -> None:
        """Open what is there, without waiting for it: the first look takes longer than all later ones."""
        if self._is_there():
            self._worker.submit(self._warmed)

    def close(self) -> None:
        """Close the database. Idempotent."""
        with contextlib.suppress(RuntimeError):  # it was closed before
            self._worker.submit(self._let_go)
        self._worker.shutdown()

    # -- the one thread

    async def _try(self, task: Callable[[Any], T], otherwise: T) -> T:
        """Do something with the cache; where that fails, say so once and do without."""
        if self._monotonic() < self._rests_until:
            return otherwise
        try:
            result = await self._work(task)
        except Exception as error:  # a damaged database can make diskcache raise anything
            reason = _reason(error)
            if reason != self.trouble:
                logger.warning("answers are not cached for now: %s [%s]", reason, self._home)
            self._rests_until, self.trouble = self._monotonic() + REST, reason
            return otherwise
        self.trouble = ""
        return result

    async def _work(self, task: Callable[[Any], T]) -> T:
        async with asyncio.timeout(2 * PATIENCE):  # should the disk itself hang
            return await asyncio.get_running_loop().run_in_executor(self._worker, self._done, task)

    def _done(self, task: Callable[[Any], T]) -> T:
        try:
            if self._cache is None:
                self._cache = self._opened()
            return task(self._cache)
        except BaseException:
            self._let_go()
            raise

    def _opened(self) -> Any:
        from llm_jupyter.cache._blobs import opened

        folder = self.folder
        if folder != self._home:
            _make_own(folder.parent)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)
        return opened(folder, size_limit=self._size_limit, timeout=PATIENCE)

    def _warmed(self) -> None:
        with contextlib.suppress(Exception):  # the first look will say it
            self._done(lambda cache: None)

    def _let_go(self) -> None:
        cache, self._cache = self._cache, None
        if cache is not None:
            with contextlib.suppress(sqlite3.Error):
                cache.close()

    def _scrub(self) -> None:
        """See that what was removed stands in no free page and in no journal, as far as other kernels let go of those."""
        self._let_go()
        if self._is_there():
            file = self.folder / DATABASE
            with contextlib.closing(sqlite3.connect(file, timeout=PATIENCE, isolation_level=None)) as database:
                database.execute("VACUUM")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def _damage(self) -> str:
        """What is wrong inside the database; empty where nothing is."""
        return await asyncio.to_thread(_damage, self.folder / DATABASE)

    def _is_there(self) -> bool:
        return os.path.exists(self.folder / DATABASE)

    def _remove(self) -> int:
        """Remove a damaged database; how much was in it nobody knows. Raises `CacheError`."""
        try:
            for file in self.folder.glob(f"{DATABASE}*"):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"the damaged cache cannot be removed: {_reason(error)}", where=str(self.folder)) from None
        return 0


def _answers(cache: Any, digest: str) -> list[Kept]:
    """The answers to a question, the latest last; what is damaged counts as none."""
    try:
        data = cache.get(digest)
        return [] if data is None else _decoder.decode(data)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return []


def _otherwise(cache: Any, request: Request) -> list[Kept]:
    own, prompt = request.digest, request.prompt
    latest = [digest for digest in islice(reversed(cache), LOOKED_THROUGH) if digest != own]
    answers = [kept for digest in reversed(latest) for kept in _answers(cache, digest)]
    return [kept for kept in answers if kept.request.prompt == prompt]


def _put(cache: Any, kept: Kept) -> bool:
    digest = kept.request.digest
    with cache.transact():
        others = [other for other in _answers(cache, digest) if other.who != kept.who]
        cache.delete(digest)  # so that the rows are in the order of their time
        return bool(cache.set(digest, msgspec.json.encode([*others, kept][-MODELS:])))


def _measured(cache: Any) -> tuple[int, int, float | None]:
    """How many questions, how many bytes, and when the oldest answer came."""
    first = next(iter(cache), None)
    times = [kept.created for kept in _answers(cache, first)] if first is not None else []
    return len(cache), cache.volume(), min((time for time in times if time is not None), default=None)


def _damage(file: Path) -> str:
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return "" if _is_busy(error) else str(error)
    return "" if said == "ok" else str(said)


def _holds_older(cache: Any, limit: float) -> bool:
    return any(_came(kept) < limit for digest in cache for kept in _answers(cache, digest))


def _came(kept: Kept) -> float:
    return kept.created or 0.0


def _clear(cache: Any, limit: float | None) -> int:
    if limit is None:
        return int(cache.clear())
    count = 0
    for digest in list(cache):
        with cache.transact():
            answers = _answers(cache, digest)
            young = [kept for kept in answers if _came(kept) >= limit]
            if not young:
                cache.delete(digest)
                count += 1
            elif len(young) < len(answers):
                cache.set(digest, msgspec.json.encode(young))
    return count


def _temporary_folder() -> Path:
    owner = os.getuid() if sys.platform != "win32" else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"llm_jupyter-{owner}"


def _make_own(folder: Path) -> None:
    """Make a folder where everybody may; raises `PermissionError` if somebody else has made it, or can look into it."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if sys.platform != "win32":  # there the temporary folder is the user's own
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{folder} is not a folder of this user alone")


def _is_busy(error: BaseException) -> bool:
    return type(error).__name__ == "Timeout" or "locked" in str(error)


def _reason(error: BaseException) -> str:
    if _is_busy(error) or isinstance(error, TimeoutError):
        return f"it was busy for more than {PATIENCE:g} s"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
