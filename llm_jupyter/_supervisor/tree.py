"""A process with everything that it has started, and what all of it takes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from llm_jupyter._supervisor.identity import DEAD, ProcessIdentity, stat_fields

MARK = "LLM_JUPYTER_HOST"
"""Variable in the environment of a host, inherited by all that it starts: whose it is, even where its parents died."""

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def descendants(root: int) -> list[ProcessIdentity]:
    """Every living process that this one has started, its children's children too."""
    if sys.platform == "linux" and os.path.exists(f"/proc/{root}/task/{root}/children"):
        found = [ProcessIdentity.of(pid) for pid in _walk(root)]
        return [process for process in found if process is not None]
    import psutil

    with contextlib.suppress(psutil.Error):
        children = psutil.Process(root).children(recursive=True)
        return [process for child in children if (process := ProcessIdentity.of(child.pid)) is not None]
    return []


def mark_of(folder: str) -> str:
    """The mark for what this supervisor starts: the host's folder, and the supervisor's identity."""
    own = ProcessIdentity.own()
    return f"{own.pid}.{own.start}.{folder}"


def abandoned(folder: str) -> list[ProcessIdentity]:
    """Every living process that was started for a host by a supervisor that is dead, whoever its parent is now."""
    return [process for process, mark in _marks() if _is_abandoned(mark, folder)]


def _is_abandoned(mark: str, folder: str) -> bool:
    pid, _, rest = mark.partition(".")
    start, _, place = rest.partition(".")
    if place != folder or not (pid.isdigit() and start.isdigit()):
        return False
    return not ProcessIdentity(int(pid), int(start)).is_alive


def usage(processes: Iterable[ProcessIdentity]) -> tuple[int, float, int]:
    """What they take together: memory in bytes (RSS), processor seconds so far, and threads."""
    memory, seconds, threads = 0, 0.0, 0
    for process in processes:
        with contextlib.suppress(OSError):
            parts = _usage_of(process)
            memory, seconds, threads = memory + parts[0], seconds + parts[1], threads + parts[2]
    return memory, seconds, threads


def _walk(root: int) -> Iterator[int]:
    todo = [root]
    while todo:
        parent = todo.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    for child in file.read().split():
                        todo.append(int(child))
                        yield int(child)


def _usage_of(process: ProcessIdentity) -> tuple[int, float, int]:
    if sys.platform == "linux":
        fields = stat_fields(process.pid)
        if fields[0] in DEAD or int(fields[19]) != process.start:
            return 0, 0.0, 0
        return int(fields[21]) * PAGE, (int(fields[11]) + int(fields[12])) / TICKS, int(fields[17])
    import psutil

    try:
        found = psutil.Process(process.pid)
        with found.oneshot():
            times = found.cpu_times()
            return found.memory_info().rss, times.user + times.system, found.num_threads()
    except psutil.Error:
        return 0, 0.0, 0


def _marks() -> Iterator[tuple[ProcessIdentity, str]]:
    if sys.platform == "linux":
        wanted = f"{MARK}=".encode()
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    content = Path("/proc", name, "environ").read_bytes()
                    if wanted in content and (process := ProcessIdentity.of(int(name))) is not None:
                        yield from (
                            (process, os.fsdecode(v[len(wanted) :]))
                            for v in content.split(b"\0")
                            if v.startswith(wanted)
                        )
        return
    import psutil

    for found in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (mark := found.environ().get(MARK)) and (process := ProcessIdentity.of(found.pid)) is not None:
                yield process, mark
