"""One host on disk: its lock, its state, the leases of its holders, their commands, and the journal of what happened.

$LLM_JUPYTER_HOME/hosts/<machine>/<key>/
    lock        held for moments, by whoever joins, starts or ends the host
    alive       held by the supervisor for as long as it lives
    state.json  what the host is doing now (0600: it holds the key); always replaced, never changed
    leases/     one empty file for each holder, whose name says all: it cannot be half written
    commands/   one empty file for each thing that a holder asks of the supervisor
    journal.<run>.jsonl   one line for each happening; `seq` counts them
    log, log.1  what the host has written
    wake        a pipe that spares the supervisor from looking too often, where the system has such
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter._supervisor.lock import Lock
from llm_jupyter._supervisor.state import HostState

Stamp = tuple[int, int, int]
"""Which state it is on disk, without reading it: another one, or a damaged one, has another stamp."""


class HostFolder:
    """The folder of one host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.leases = path / "leases"
        self.commands = path / "commands"
        self.state_file = path / "state.json"
        self.log = path / "log"

    def make(self) -> None:
        """Make what is missing, for this user alone. Raises `OSError`."""
        for folder in (self.path, self.leases, self.commands):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def lock(self) -> Lock:
        return Lock(self.path / "lock")

    def alive(self) -> Lock:
        return Lock(self.path / "alive")

    def is_supervised(self) -> bool:
        """Whether some supervisor of this host lives, whatever the state says. Raises `OSError`."""
        lock = self.alive()
        free = lock.take()
        lock.let_go()
        return not free

    # -- state

    def read_state(self) -> HostState | None:
        """The state; `None` where there is none that can be read."""
        try:
            return HostState.from_json(self.state_file.read_bytes())
        except OSError:
            return None

    def write_state(self, state: HostState) -> Stamp:
        """Put a state in place of the one before; return its stamp, whatever befalls it from then on. Raises `OSError`."""
        new = self.path / f"state.json.{os.getpid()}.new"
        try:
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                text = state.as_json()
                if os.write(file, text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                stamp = _stamp_of(os.fstat(file))
            finally:
                os.close(file)
            os.replace(new, self.state_file)
            return stamp
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise

    def state_stamp(self) -> Stamp | None:
        """What differs between two states on disk; `None` where there is none."""
        try:
            return _stamp_of(os.stat(self.state_file))
        except OSError:
            return None

    def remove_state(self, run: str) -> None:
        """Remove the state, unless it is of another run."""
        state = self.read_state()
        if state is not None and state.run == run:
            with contextlib.suppress(OSError):
                self.state_file.unlink()

    # -- leases

    def take_lease(self, holder: ProcessIdentity) -> Path:
        """Say on disk that a process needs this host. Raises `OSError`."""
        lease = self.leases / f"{machine()}.{holder.pid}.{holder.start}.{os.urandom(6).hex()}"
        os.close(os.open(lease, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return lease

    def holders(self) -> dict[str, ProcessIdentity]:
        """The leases of this machine's processes by name, living or dead. Raises `OSError`.

        Those of other machines mean nothing here: their process ids are not ours to judge.
        """
        found = {}
        for name in os.listdir(self.leases):
            if (holder := _holder_of(name)) is not None:
                found[name] = holder
        return found

    def sweep_leases(self) -> dict[str, ProcessIdentity]:
        """Remove the leases of this machine's dead processes; return those of the living. Raises `OSError`."""
        living = {}
        for name, holder in self.holders().items():
            if holder.is_alive:
                living[name] = holder
            else:
                with contextlib.suppress(OSError):
                    (self.leases / name).unlink()
        return living

    def void_leases(self) -> None:
        """Remove all leases of this machine: the host has ended, and whoever needs it again takes a new one."""
        with contextlib.suppress(OSError):
            for name in self.holders():
                with contextlib.suppress(OSError):
                    (self.leases / name).unlink()

    def last_use(self) -> float:
        """When a holder last said that it uses the host, in seconds since the epoch; 0 if never."""
        latest = 0.0
        with contextlib.suppress(OSError):
            for name in os.listdir(self.leases):
                with contextlib.suppress(OSError):
                    latest = max(latest, (self.leases / name).stat().st_mtime)
        return latest

    # -- commands

    def ask(self, verb: str) -> None:
        """Ask the supervisor for something. Raises `OSError`."""
        command = self.commands / f"{verb}.{os.urandom(6).hex()}"
        os.close(os.open(command, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self.wake()

    def take_commands(self) -> list[str]:
        """What was asked for since the last look."""
        verbs = []
        with contextlib.suppress(OSError):
            for name in os.listdir(self.commands):
                with contextlib.suppress(OSError):
                    (self.commands / name).unlink()
                    verbs.append(name.partition(".")[0])
        return verbs

    def wake(self) -> None:
        """Let the supervisor look at once rather than at its next turn."""
        with contextlib.suppress(OSError, AttributeError):
            pipe = os.open(self.path / "wake", os.O_WRONLY | os.O_NONBLOCK)  # fails where nobody listens
            try:
                os.write(pipe, b"\n")
            finally:
                os.close(pipe)

    # -- journal

    def journal(self, run: str) -> Path:
        return self.path / f"journal.{run}.jsonl"

    def last_journal(self) -> Path | None:
        """The journal of the last run; `None` where there is none."""
        with contextlib.suppress(OSError):
            return max(self.path.glob("journal.*.jsonl"), key=lambda path: path.stat().st_mtime_ns, default=None)
        return None

    def remove_old_runs(self, run: str) -> None:
        """Remove the journals of earlier runs; whoever still reads one has it open."""
        with contextlib.suppress(OSError):
            for path in (*self.path.glob("journal.*.jsonl"), *self.path.glob("state.json.*.new")):
                if path != self.journal(run):
                    with contextlib.suppress(OSError):
                        path.unlink()


def _stamp_of(stat: os.stat_result) -> Stamp:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _holder_of(name: str) -> ProcessIdentity | None:
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != machine() or not all(part.isascii() and part.isdigit() for part in parts[1:3]):
        return None
    return ProcessIdentity(int(parts[1]), int(parts[2]))
