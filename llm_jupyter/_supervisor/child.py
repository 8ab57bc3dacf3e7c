"""The host as the supervisor's child: started so that it cannot outlive it, and ended with all that it started."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.journal import HostLog
from llm_jupyter._supervisor.order import Order
from llm_jupyter._supervisor.probe import free_port
from llm_jupyter._supervisor.reasons import EXIT_CODE
from llm_jupyter._supervisor.tree import MARK, descendants

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINUX = sys.platform == "linux"
POSIX = os.name == "posix"

STOP_COMMAND_TIMEOUT = 10.0
ABANDONED_GRACE = 1.0
"""Seconds from TERM to KILL when nobody is left who could have asked for more: gone 2 s after the last holder."""

HURRY = 0.25
"""Seconds between two looks whether that is so."""

KILL_PATIENCE = 5.0
"""Seconds to wait for killed processes: one that waits for a broken disk cannot be ended by anybody."""

LINE = 65536


def adopt_orphans() -> None:
    """Become the parent of whatever the host's children leave behind, so that it can be found and ended (Linux)."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class HostProcess:
    """One start of the host. Made on the supervisor's main thread: the parent-death signal follows the thread.

    Raises `OSError` where the command cannot be run.
    """

    def __init__(self, order: Order, log: HostLog, mark: str, notify: Callable[[], object]) -> None:
        self._log = log
        self._notify = notify
        self.port = order.port or (free_port() if order.probe is not None else 0)
        self.url = f"http://127.0.0.1:{self.port}" if order.probe is not None else ""
        fill = {"{port}": str(self.port), "{api_key}": order.api_key}
        extra = {name: _filled(value, fill) for name, value in order.environment.items()}
        environment = {**os.environ, **extra, **({} if order.detaches else {MARK: mark})}
        self._process = subprocess.Popen(
            [order.filled(part, self.port) for part in order.command],
            stdin=subprocess.DEVNULL if order.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=home if os.path.isdir(home := os.path.expanduser("~")) else None,
            start_new_session=True,
            preexec_fn=None if order.detaches else _death_with_parent(),
        )
        self.identity = ProcessIdentity.of(self._process.pid) or ProcessIdentity(self._process.pid, 0)
        self._known: dict[int, ProcessIdentity] = {}
        self._listen(self._process.stdout, order.probe is None)
        self._listen(self._process.stderr, False)
        if order.stdin is not None:
            self._tell({**order.stdin, "api_key": order.api_key, "parent": os.getpid()})

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs; negative for a signal."""
        if LINUX:
            self._collect()
        return self._process.poll()

    def tree(self) -> list[ProcessIdentity]:
        """The host, if it still runs, and everything that it started."""
        root = os.getpid() if LINUX else self._process.pid
        found = {process.pid: process for process in descendants(root)}
        if not LINUX:  # what lost its parent is known only from an earlier look
            self._known = {pid: process for pid, process in {**self._known, **found}.items() if process.is_alive}
            found = dict(self._known)
        if self._process.poll() is None:
            found[self.identity.pid] = self.identity
        return list(found.values())

    def stop(self, grace: float, is_hopeless: Callable[[], bool] = lambda: False) -> None:
        """TERM to its process group and to what has left it, `grace` seconds, KILL; until nothing is left.

        When nobody is left who could want that grace, it is cut short.
        """
        processes = self.tree()
        if self._process.poll() is None:
            _send_group(self._process, forced=False)
        for process in processes:
            if process != self.identity and _group_of(process) != self.identity.pid:
                _send(process, forced=False)
        end = time.monotonic() + grace
        while not self._wait(min(HURRY, end - time.monotonic())):
            if is_hopeless():
                end = min(end, time.monotonic() + ABANDONED_GRACE)
                is_hopeless = _never
            if time.monotonic() > end:
                self.kill()
                return

    def kill(self) -> None:
        """End it and everything that it started, at once."""
        end = time.monotonic() + KILL_PATIENCE
        while time.monotonic() < end:
            if self._process.poll() is None:
                _send_group(self._process, forced=True)
            for process in self.tree():
                _send(process, forced=True)
            if self._wait(0.2):
                return

    def _wait(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.exit_code is None or self.tree():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def _collect(self) -> None:
        """Collect the adopted orphans that died; the host itself is left to `Popen`, which wants its exit code."""
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if dead.si_pid == self._process.pid:
                    self._process.poll()
                else:
                    os.waitpid(dead.si_pid, os.WNOHANG)

    def _tell(self, message: dict[str, object]) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # it died; its exit code says so better
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    def _listen(self, pipe: IO[bytes] | None, announces: bool) -> None:
        assert pipe is not None
        threading.Thread(target=self._pump, args=(pipe, announces), daemon=True).start()

    def _pump(self, pipe: IO[bytes], announces: bool) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in iter(lambda: pipe.readline(LINE), b""):
                if announces and line.startswith(b"READY http"):
                    self.url = line.split()[1].decode("ascii", "replace")
                    self._notify()
                else:
                    self._log.write(line)
        self._notify()  # it closed its output: most likely it died


def describe_exit(code: int) -> str:
    """An exit code in words; negative ones are signals."""
    if code >= 0:
        return f"{EXIT_CODE} {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (perhaps for want of memory)" if name == "SIGKILL" else "")


def _never() -> bool:
    return False


def run_to_the_end(command: list[str], log: HostLog) -> None:
    """Run a stop command, and give it its time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=STOP_COMMAND_TIMEOUT, check=False,
        )  # fmt: skip
        log.write(done.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        log.write(f"{command[0]}: {error}\n".encode())


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _death_with_parent() -> Callable[[], None] | None:
    """Ask Linux for a SIGKILL when the thread that starts the child ends; and end if it did before that was asked."""
    if not LINUX:
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _group_of(process: ProcessIdentity) -> int | None:
    with contextlib.suppress(OSError, AttributeError):
        return os.getpgid(process.pid)
    return None


def _send_group(process: subprocess.Popen[bytes], *, forced: bool) -> None:
    """A signal to the group of a child that was not collected yet, whose id is therefore still its own."""
    with contextlib.suppress(OSError):
        if POSIX:
            os.killpg(process.pid, signal.SIGKILL if forced else signal.SIGTERM)
        else:
            process.terminate()


def _send(process: ProcessIdentity, *, forced: bool) -> None:
    """A signal to exactly this process."""
    with contextlib.suppress(OSError):
        if process.is_alive:
            os.kill(process.pid, signal.SIGTERM if not forced or not POSIX else signal.SIGKILL)


def end_leftovers(processes: list[ProcessIdentity]) -> None:
    """End processes that a supervisor left behind when it was killed. They are known by their mark, not by their parent."""
    end = time.monotonic() + KILL_PATIENCE
    while (living := [process for process in processes if process.is_alive]) and time.monotonic() < end:
        for process in living:
            _send(process, forced=True)
        time.sleep(0.01)
