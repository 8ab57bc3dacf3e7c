"""This kernel's hold of one host: its lease, the supervisor if it had to start one, and what it has heard so far."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from llm_jupyter._supervisor.child import end_leftovers
from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter._supervisor.journal import JournalReader
from llm_jupyter._supervisor.probe import is_taken
from llm_jupyter._supervisor.state import FAILED, JOINABLE, READY, HostState
from llm_jupyter._supervisor.tree import abandoned
from llm_jupyter.errors import HostError
from llm_jupyter.events import Event, HostFailed, HostReady, HostStarted, HostStopped
from llm_jupyter.hosts._happenings import event_of
from llm_jupyter.hosts._launch import disk_errors, last_words, start_supervisor
from llm_jupyter.hosts._remedies import remedy
from llm_jupyter.hosts.sight import Sight
from llm_jupyter.hosts.spec import HostSpec, Running
from llm_jupyter.ports import described_holder

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process to finish joining or ending the host; it takes it milliseconds."""

LOOK = 0.015
"""Seconds between two looks at a host that is about to be ready or gone."""

GONE_TIMEOUT = 5.0
"""Seconds to wait for a host that nobody needs any more; its supervisor promises 2."""

TRIES = 5
"""Supervisors that end without a word before that is taken for a fault."""


class Seat(Sight):
    """One host, held by this process from `ensure` to `release`. Used on one event loop, by one task at a time."""

    def __init__(
        self, root: Path, spec: HostSpec, publish: Callable[[Event], object], lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        super().__init__(HostFolder(root / machine() / spec.key))
        self.spec = spec
        self._lock_timeout = lock_timeout
        self._publish = publish
        self._lease: Path | None = None
        self._run = ""
        self._reader: JournalReader | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._reported = ""
        self._is_leaving = False
        self._pid: int | None = None

    # -- what is known without asking anybody

    def running(self) -> Running | None:
        """The host, if it serves."""
        state = self.look()
        if state is None or state.phase != READY or state.host is None or not state.supervisor.is_alive:
            return None
        if not self.spec.detaches and not state.host.is_alive:
            return None  # its supervisor is about to notice
        return Running(state.url, state.api_key, state.host.pid, (state.run, state.generation))

    # -- taking and leaving

    async def ensure(self, *, again: bool = False, starts: bool = True) -> Running:
        """Start the host or join it, and wait until it serves; only join it, unless it `starts`.

        Raises `HostError`; of a host that was given up meanwhile once, and the next call starts it anew, as does `again`.
        """
        self._is_leaving = False
        if again:
            self._reported = self._run
        if (running := self.running()) is not None and self.used():
            self._attach_to(self._state)
            self.hear()
            return running
        with disk_errors(self.folder.path):
            self.folder.make()
            return await self._until_ready(starts)

    def used(self) -> bool:
        """Say that the host is used, which keeps it from being idle. False where there is no lease any more."""
        try:
            if self._lease is not None:
                os.utime(self._lease)
                return True
        except OSError:
            self._lease = None
        return False

    async def release(self) -> None:
        """Need it no more; where nobody else does, wait until it is gone. Idempotent."""
        self._is_leaving = True
        if not self._drop_lease():
            return
        self.folder.wake()
        end = time.monotonic() + GONE_TIMEOUT
        while self._is_ending() and not self.holders() and time.monotonic() < end:
            self.hear()
            await asyncio.sleep(LOOK)
        self._detach()

    async def forget_failure(self) -> None:
        """Let one that was given up be one that is stopped. Raises `HostError`."""
        if (state := self.look()) is not None and state.phase == FAILED:
            with disk_errors(self.folder.path):
                async with self._locked():
                    self.folder.remove_state(state.run)

    def _is_ending(self) -> bool:
        """Whether the supervisor of the run that this seat follows still lives."""
        self._collect()
        state = self.look()
        return self._supervisor is not None or (
            state is not None and state.run == self._run and state.supervisor.is_alive
        )

    def hear(self) -> None:
        """Publish what has happened since the last time."""
        for happening in self._reader.read() if self._reader is not None else ():
            if (event := event_of(self.spec.name, happening)) is not None:
                if isinstance(event, HostStarted | HostReady):
                    self._pid = event.pid
                elif isinstance(event, HostStopped | HostFailed):
                    self._pid = None
                self._publish(event)

    async def follow(self) -> None:
        """One look at how the host is doing: hear, move on to a run that another kernel began, notice a lost supervisor."""
        self.hear()
        self._collect()
        state = self.look()
        if state is None or not self._run:
            self._miss()
            return
        if state.run != self._run:
            self._attach_to(state, from_the_start=True)
        elif state.phase != FAILED and not state.supervisor.is_alive:
            await self._mourn(state)

    # -- joining

    async def _until_ready(self, starts: bool) -> Running:
        end = time.monotonic() + self.spec.start_timeout + LOCK_TIMEOUT
        tries = 0
        while time.monotonic() < end and not self._is_leaving:
            state = self.look()
            if state is None or self._lease is None or state.run != self._run or not self._lives(state):
                if tries == TRIES:
                    raise self._silent()
                tries += await self._take(starts)
                continue
            self.hear()
            if state.phase == FAILED:
                raise self._failure(state)
            if (running := self.running()) is not None:
                self.hear()  # so that whoever waited hears of it before it is used
                return running
            if state.phase == "restarting":  # that is being cared for, however long it takes
                end = max(end, time.monotonic() + self.spec.start_timeout + LOCK_TIMEOUT)
            await asyncio.sleep(LOOK)
        if self._is_leaving:
            raise HostError(f"{self.spec.name} was given back while it started", where=self.spec.where)
        raise HostError(
            f"{self.spec.name} did not become ready within {self.spec.start_timeout:g} s",
            where=self.spec.where,
            next_step=f"Type: %llm host logs {self.spec.name}",
            log_tail=self.log(),
        )

    def _lives(self, state: HostState) -> bool:
        """Whether a state is still worth waiting for; a failure is, once."""
        if state.phase == FAILED:
            return self._reported != state.run
        return state.supervisor.is_alive and state.phase in JOINABLE

    async def _take(self, starts: bool) -> int:
        """Take a lease, and start a supervisor if there is none. Returns how many were started."""
        async with self._locked():
            state = self.folder.read_state()
            if state is not None and state.machine != machine():
                os.replace(self.folder.state_file, self.folder.path / f"state.{state.machine[:100]}.json")
                state = None
            if state is not None and state.supervisor.is_alive:
                if state.phase in JOINABLE:
                    self._take_lease()
                    self._attach_to(state)
                    return 0
            elif not self.folder.is_supervised():
                if not starts:
                    raise HostError(
                        f"{self.spec.name} was stopped", where=self.spec.where, next_step=self.spec.start_hint
                    )
                self._spawn()
                return 1
            self._drop_lease()
        await asyncio.sleep(LOOK)  # one is ending, or mends a state that was damaged
        return 0

    def _take_lease(self) -> None:
        """Under the lock and under the eyes of a supervisor, so that there is always somebody who tidies up."""
        if self._lease is None or not self._lease.exists():
            self._lease = self.folder.take_lease(ProcessIdentity.own())
            self.folder.wake()

    def _drop_lease(self) -> bool:
        """Whether there was one."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(OSError):
                lease.unlink()
        return lease is not None

    def _spawn(self) -> None:
        """Start a supervisor. Called under the lock, and without a pause in which a cancellation could fall."""
        self._collect()
        if self.spec.port and is_taken(self.spec.port):
            raise HostError(
                f"port {self.spec.port} is taken by {described_holder(self.spec.port)}",
                where=self.spec.where,
                next_step=f"Stop that one, or set another port for [hosts.{self.spec.name}].",
            )
        run, api_key = secrets.token_hex(8), secrets.token_urlsafe(32)
        process = start_supervisor(self.folder.path, self.spec.name)
        assert process.stdin is not None
        now = time.time()
        identity = ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, 1)
        state = HostState(run, machine(), self.spec.name, identity, api_key=api_key, started=now, since=now)
        self._supervisor = process
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            self._take_lease()  # where this or the next fails, the supervisor gets no order and ends
            self.folder.write_state(state)
            pipe.write(self.spec.order(run, api_key))
        self._attach_to(state)

    def _attach_to(self, state: HostState | None, *, from_the_start: bool = False) -> None:
        """Follow a run. What came before is not told again, except that it is ready."""
        if state is None or state.run == self._run:
            return
        self._detach()
        self._say_lost()
        self._run, self._pid = state.run, state.host.pid if state.host is not None and not from_the_start else None
        after = 0 if from_the_start else state.seq
        self._reader = JournalReader(self.folder.journal(state.run), after)
        if after and state.phase == READY and state.host is not None:
            self._publish(HostReady(host=self.spec.name, pid=state.host.pid, url=state.url))

    def _detach(self) -> None:
        self.hear()
        self._run = ""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- mishaps

    async def _mourn(self, state: HostState) -> None:
        """The supervisor was killed. The host died with it; end what it may have left, unless somebody else does.

        The locks of a killed process stay taken for as long as its last thread lives, which can be longer than it itself
        seems to: then the next look tries again.
        """
        self._drop_lease()
        lock = self.folder.lock()
        try:
            if not lock.take() or self.folder.is_supervised():
                return
            await asyncio.to_thread(lambda: end_leftovers(abandoned(str(self.folder.path))))
            self.folder.remove_state(state.run)
        except OSError:  # a folder that is gone, or a disk that fails: whoever starts the host next clears up
            pass
        finally:
            lock.let_go()
            self.hear()
            self._say_lost()
        self._detach()

    def _miss(self) -> None:
        """Nothing stands there any more: say so, where its supervisor was killed and another kernel has cleared up first."""
        if self._pid is None or self.folder.is_supervised():
            return
        self.hear()  # what was written down since is told as it was
        if self._pid is not None:
            self._drop_lease()
            self._detach()
            self._say_lost()

    def _say_lost(self) -> None:
        """Of a host whose end nobody could write down."""
        pid, self._pid = self._pid, None
        if pid is not None:
            reason = "its supervisor was killed"
            self._publish(HostStopped(host=self.spec.name, pid=pid, exit_code=None, expected=False, reason=reason))

    def _failure(self, state: HostState) -> HostError:
        self._reported = state.run
        tail = [str(line) for line in state.tail]
        words = f'; it last wrote "{tail[-1].strip()[-160:]}"' if tail else ""
        return HostError(
            f"{self.spec.name} is given up: {state.reason}{words}",
            where=self.spec.where,
            next_step=remedy(self.spec, state.reason),
            log_tail=tail,
        )

    def _silent(self) -> HostError:
        words = last_words(self.folder.path)
        return HostError(
            f"{self.spec.name} cannot be supervised" + (f": {words}" if words else ""), where=self.spec.where
        )

    def _collect(self) -> None:
        """Collect the supervisor that this process started, once it has ended."""
        if self._supervisor is not None and self._supervisor.poll() is not None:
            self._supervisor = None

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        lock = self.folder.lock()
        end = time.monotonic() + self._lock_timeout
        while not lock.take():
            if time.monotonic() > end:
                raise HostError(
                    f"another process has held {self.folder.path / 'lock'} for {self._lock_timeout:g} s",
                    where=self.spec.where,
                    next_step="Is one of your kernels stopped? Restart it.",
                )
            await asyncio.sleep(LOOK)
        try:
            yield
        finally:
            lock.let_go()
