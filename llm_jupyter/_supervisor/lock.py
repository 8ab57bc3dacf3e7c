"""A lock between processes. (The `filelock` package costs 40 ms to import, twice what the whole supervisor does.)"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class Lock:
    """A lock on a file, which the system lets go when its holder dies. Taken by one object at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Take it, if nobody has it. Raises `OSError` where there can be no such file."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file)
            if os.fstat(file).st_ino == os.stat(self._path).st_ino:  # else somebody removed it meanwhile
                self._file = file
                return True
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in BUSY:
                os.close(file)
                raise
        os.close(file)
        return False

    @property
    def is_in_place(self) -> bool:
        """Whether it is held, and the file that others would try is still the same."""
        try:
            return self._file is not None and os.fstat(self._file).st_ino == os.stat(self._path).st_ino
        except OSError:
            return False

    def let_go(self) -> None:
        """Let it go. Doing so twice is fine."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                _unlock(file)  # said, not only closed: a process forked in between has the file open too
            os.close(file)


def take_patiently(lock: Lock, seconds: float) -> bool:
    """Take a lock within that time, for callers that have nothing else to do."""
    end = time.monotonic() + seconds
    while not lock.take():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
