"""What a host takes, seen from a kernel that wants to know."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.tree import descendants, usage
from llm_jupyter.hosts.spec import HostStatus


@dataclass(frozen=True, slots=True)
class Measured:
    """Of a process and all that it started: bytes, cores since the last look (`None` at the first), threads."""

    rss: int
    cpu: float | None
    threads: int
    gpu_memory: int | None


class Meter:
    """Measures processes, and remembers what it needs to tell a rate."""

    def __init__(self) -> None:
        self._last: dict[ProcessIdentity, tuple[float, float]] = {}
        self._nvml: Any = None
        self._has_nvml: bool | None = None

    def measure(self, root: ProcessIdentity) -> Measured:
        """What a process takes now."""
        processes = [root, *descendants(root.pid)]
        now = time.monotonic()
        rss, seconds, threads = usage(processes)
        before = self._last.get(root)
        self._last[root] = now, seconds
        cpu = max(0.0, seconds - before[1]) / (now - before[0]) if before and now > before[0] else None
        return Measured(rss, cpu, threads, self._gpu_memory({process.pid for process in processes}))

    def measured(self, status: HostStatus, process: ProcessIdentity | None) -> HostStatus:
        """The status, with what its process takes, if it has one that lives."""
        if process is None or not process.is_alive:
            return status
        taken = self.measure(process)
        return msgspec.structs.replace(
            status, rss=taken.rss, cpu=taken.cpu, threads=taken.threads, gpu_memory=taken.gpu_memory,
            uptime=process.uptime(),
        )  # fmt: skip

    def forget_the_dead(self) -> None:
        """Drop what is remembered of processes that are gone."""
        self._last = {process: last for process, last in self._last.items() if process.is_alive}

    def _gpu_memory(self, pids: Collection[int]) -> int | None:
        """Bytes on NVIDIA cards, where the optional `pynvml` and a driver are there."""
        if self._has_nvml is None:
            self._has_nvml = False
            with contextlib.suppress(Exception):  # not installed, no driver, no card: all the same here
                self._nvml = importlib.import_module("pynvml")
                self._nvml.nvmlInit()
                self._has_nvml = True
        if not self._has_nvml:
            return None
        total = 0
        with contextlib.suppress(Exception):  # a driver that is being replaced
            for index in range(self._nvml.nvmlDeviceGetCount()):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    if process.pid in pids:
                        total += process.usedGpuMemory or 0
        return total
