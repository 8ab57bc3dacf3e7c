"""How much a server of this machine has worked: the sign that it makes progress while it loads a model.

The servers do not tell how far they are. But one that loads reads, fills memory or computes, and one that hangs does not.
"""

from __future__ import annotations

import psutil

from llm_jupyter.ports import pid_on, port_of

MEMORY_STEP = 16 * 1024 * 1024
"""Bytes of memory or of reading that count as a step."""

PROCESSOR_STEP = 1.0
"""Seconds of processor time that count as a step. To say `503` twice a second takes minutes to make one."""

Mark = tuple[int, int, int]


class Effort:
    """What the process that listens at a loopback address has done so far, with all that it has started."""

    def __init__(self, url: str) -> None:
        self._port = port_of(url)
        self._listener: psutil.Process | None = None

    def mark(self) -> Mark | None:
        """Steps of processor time, of memory and of reading; `None` where the system does not tell. It takes milliseconds."""
        try:
            if self._listener is None or not self._listener.is_running():
                pid = pid_on(self._port)
                self._listener = None if pid is None else psutil.Process(pid)
            return None if self._listener is None else _work_of(self._listener)
        except (psutil.Error, OSError):
            return None


def _work_of(listener: psutil.Process) -> Mark:
    seconds, memory, reading = 0.0, 0, 0
    for process in (listener, *listener.children(recursive=True)):
        try:
            with process.oneshot():
                times = process.cpu_times()
                seconds += times.user + times.system
                memory += process.memory_info().rss
                reading += process.io_counters().read_bytes if hasattr(process, "io_counters") else 0
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile, or hides the rest
    return int(seconds / PROCESSOR_STEP), memory // MEMORY_STEP, reading // MEMORY_STEP
