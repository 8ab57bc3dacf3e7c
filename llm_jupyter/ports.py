"""TCP ports of this machine: which one a URL means, and who listens there, where the system tells."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil


def port_of(url: str) -> int:
    """The TCP port that a URL means. Raises `ValueError` for one that is no number."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def listening() -> Iterator[tuple[int, int | None]]:
    """Each port on which somebody listens, and the process id; `None` where that is hidden (another user's, macOS)."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr:
                yield int(connection.laddr[1]), connection.pid


def pid_on(port: int) -> int | None:
    """The id of the process that listens on a port; `None` where there is none, or it is hidden."""
    return next((pid for listened, pid in listening() if listened == port and pid is not None), None)


def described_holder(port: int) -> str:
    """Who listens on a port, in words for an error."""
    pid = pid_on(port)
    with contextlib.suppress(psutil.Error, OSError):
        if pid is not None:
            return f"process {pid} ({psutil.Process(pid).name()})"
    return "a process that this system does not name"
