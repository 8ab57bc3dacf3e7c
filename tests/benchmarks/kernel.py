"""A real kernel in a process of its own, seen from outside: what it sends, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from tests.kernels import kernel_environment

PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of the kernel to the page: when it left, when it was here (seconds of the wall clock), and its size."""

    kind: str
    content: dict[str, Any]
    left: float
    arrived: float
    size: int


@dataclass(slots=True)
class Run:
    """What one cell sent and what it cost."""

    sent: list[Sent] = field(default_factory=list)
    cpu: float = 0.0
    memory: int = 0
    threads: int = 0

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return sum(message.size for message in self.sent)

    @property
    def error(self) -> str:
        """The error the cell ended with, or nothing."""
        return next((f"{m.content['ename']}: {m.content['evalue']}" for m in self.sent if m.kind == "error"), "")


class Kernel:
    """A kernel, warm: it has run cells before. `environment` is added to a home of its own with no settings in it."""

    def __init__(self, python: str = sys.executable, **environment: str) -> None:
        self._python = python
        self._environment = environment

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        home = Path(self._folder.name)
        file, _ = write_connection_file(str(home / "kernel.json"))
        ends_with_us = {"JPY_PARENT_PID": str(os.getpid())}
        self._process = subprocess.Popen(
            [self._python, "-m", "ipykernel_launcher", "-f", file],
            env=kernel_environment(home, self._environment | ends_with_us),
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._watched = psutil.Process(self._process.pid)
        self._client = BlockingKernelClient(connection_file=file)
        self._client.load_connection_file()
        self._page = self._client.connect_iopub()
        # Once the kernel's word of welcome is here, so is every message that follows. (A second subscriber, such as the
        # client's own channel, may be forgotten by the kernel while the first one leaves: hence this one only.)
        assert self._page.poll(PATIENCE * 1000), "the kernel did not start"
        self._client.start_channels(iopub=False, stdin=False, hb=False)
        self.run("pass")
        self.run("pass")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.shutdown()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._page.close()
        self._client.stop_channels()
        self._folder.cleanup()

    def run(self, code: str, *, quiet_for: float = 0.0) -> Run:
        """Run a cell. Its costs count until the kernel has been idle for `quiet_for` seconds."""
        run = Run()
        cpu, memory, threads = self._cpu(), self._watched.memory_info().rss, self._watched.num_threads()
        request = self._client.execute(code, store_history=False)
        deadline = time.monotonic() + PATIENCE
        while not self._take(run, request, 1.0):
            assert time.monotonic() < deadline, f"the kernel has not finished within {PATIENCE} s"
        until = time.monotonic() + quiet_for
        while (left := until - time.monotonic()) > 0:
            self._take(run, request, left)  # what comes late counts too
        run.cpu = self._cpu() - cpu
        run.memory = self._watched.memory_info().rss - memory
        run.threads = self._watched.num_threads() - threads
        return run

    def tell(self, comm: str, data: dict[str, Any]) -> None:
        """Send a message of the page's end of a widget."""
        content = {"comm_id": comm, "data": data}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", content))

    def _take(self, run: Run, request: str, patience: float) -> bool:
        """Wait for one message; whether it says that the cell is over."""
        if not self._page.poll(patience * 1000):
            return False
        frames = self._page.recv_multipart()
        arrived = time.time()
        session = self._client.session
        message = session.deserialize(session.feed_identities(frames)[1])
        is_of_this_cell = message["parent_header"].get("msg_id") == request
        if (
            not is_of_this_cell and message["msg_type"] != "comm_msg"
        ):  # a widget goes on sending for the cell that it is in
            return False
        left: datetime = message["header"]["date"]
        run.sent.append(
            Sent(
                message["msg_type"], message["content"], left.timestamp(), arrived, sum(len(frame) for frame in frames)
            )
        )
        return is_of_this_cell and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"

    def _cpu(self) -> float:
        """CPU seconds of the kernel so far, of threads that have ended too."""
        if sys.platform == "linux":  # exact; the other way counts in hundredths of a second
            return time.clock_gettime((~self._process.pid << 3) | 2)  # what clock_getcpuclockid(3) gives
        times = self._watched.cpu_times()
        return times.user + times.system
