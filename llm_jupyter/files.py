"""Writing a person's file so that a full disk, or a process that ends half way, leaves the one that stood there."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def put(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Put the data in place of the file at once, or leave everything as it was. Raises `OSError`.

    Its rights are `mode`, else those that the file had, or that a new one gets. A link stays a link, and what is no
    ordinary file, as a pipe, is written to.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    target = Path(os.path.realpath(path))
    new = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        new.write_bytes(data)
        if mode is not None or target.exists():
            new.chmod(mode if mode is not None else stat.S_IMODE(target.stat().st_mode))
        new.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
