"""Whose server it is that listens on this machine.

On a shared machine anyone can listen on a well-known port. A server of another ordinary user is not spoken to unless the
person names it: it would read their prompts.

Linux makes its tables anew for each reader, which takes it up to 10 ms: they are read once for many addresses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from llm_jupyter.ports import port_of

LISTENING = "0A"
FIRST_ORDINARY_USER = 1000
"""Below are root and the system's services (Linux: `UID_MIN` of login.defs)."""

PROC_NET = Path("/proc/net")


def is_foreign(url: str, tables: Path = PROC_NET) -> bool:
    """Whether another ordinary user of this machine listens at that loopback address."""
    return bool(foreign_among([url], tables))


def foreign_among(urls: Collection[str], tables: Path = PROC_NET) -> frozenset[str]:
    """Those of the loopback addresses at which another ordinary user of this machine listens, if any.

    Empty where the system does not tell (anywhere but on Linux).
    """
    if not urls or not hasattr(os, "getuid"):
        return frozenset()
    others = {port for port, owner in listening(tables) if owner >= FIRST_ORDINARY_USER and owner != os.getuid()}
    return frozenset(url for url in urls if port_of(url) in others)


def listening(tables: Path) -> set[tuple[int, int]]:
    """Port and user id of everything that listens for TCP."""
    found: set[tuple[int, int]] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (tables / name).read_text().splitlines()[1:]:
                fields = line.split(maxsplit=8)
                with contextlib.suppress(ValueError, IndexError):  # a line that is cut off
                    if fields[3] == LISTENING:
                        found.add((int(fields[1].rpartition(":")[2], 16), int(fields[7])))
    return found
