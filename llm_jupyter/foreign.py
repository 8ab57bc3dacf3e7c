"""Whose server it is that listens on this machine.

On a shared machine anyone can listen on a well-known port. A server of another ordinary user is not spoken to unless the
person names it: it would read their prompts.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

LISTENING = "0A"
FIRST_ORDINARY_USER = 1000
"""Below are root and the system's services (Linux: `UID_MIN` of login.defs)."""

PROC_NET = Path("/proc/net")


def owners_of_port(port: int, tables: Path = PROC_NET) -> set[int]:
    """The user ids of whoever listens on a TCP port. Empty where the system does not tell (anywhere but on Linux)."""
    owners: set[int] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in (tables / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    owners.add(int(fields[7]))
    return owners


def is_foreign(url: str, tables: Path = PROC_NET) -> bool:
    """Whether another ordinary user of this machine listens at that loopback address."""
    if not hasattr(os, "getuid"):
        return False
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return any(owner >= FIRST_ORDINARY_USER and owner != os.getuid() for owner in owners_of_port(port, tables))
