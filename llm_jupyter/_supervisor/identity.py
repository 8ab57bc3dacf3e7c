"""Which process, on which machine: a process id alone is given to somebody else sooner or later."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DEAD = ("Z", "X", "x")
"""States of `/proc/PID/stat` in which nothing runs any more: a zombie only waits to be collected."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process: its id, and when it started (Linux: clock ticks since boot, so that no change of the clock shifts it;
    elsewhere milliseconds since the epoch).
    """

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The living process of that id; `None` where there is none, or only a zombie."""
        start = _start_of(pid)
        return None if start is None else cls(pid, start)

    @classmethod
    def own(cls) -> ProcessIdentity:
        """This process."""
        identity = cls.of(os.getpid())
        assert identity is not None
        return identity

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process still runs."""
        return _start_of(self.pid) == self.start

    def uptime(self) -> float:
        """Seconds since it started."""
        if sys.platform == "linux":
            return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.start / os.sysconf("SC_CLK_TCK"))
        return max(0.0, time.time() - self.start / 1000)

    def as_json(self) -> list[int]:
        return [self.pid, self.start]

    @classmethod
    def from_json(cls, value: object) -> ProcessIdentity | None:
        """What `as_json` gave; `None` for anything else."""
        if isinstance(value, list) and len(value) == 2 and all(type(part) is int and part > 0 for part in value):
            return cls(value[0], value[1])
        return None


def stat_fields(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the third (the state) on. Raises `OSError` where there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    return text[text.rindex(b")") + 2 :].decode().split()


@cache
def machine() -> str:
    """This boot of this machine, as seen from this container: what a process id means anything on.

    Homes are shared between machines. The name is a file name and has no dot.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())[:64] or "machine"
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
        return f"{name}-{boot}-{namespace}"
    import psutil

    return f"{name}-{int(psutil.boot_time()) // 60}"  # rounded: some systems shift it by a second when the clock is set


def _start_of(pid: int) -> int | None:
    if sys.platform == "linux":
        try:
            fields = stat_fields(pid)
        except OSError:
            return None
        return None if fields[0] in DEAD else int(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 1000)
    except psutil.Error:
        return None
