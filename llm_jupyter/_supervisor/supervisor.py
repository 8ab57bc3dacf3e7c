"""The supervisor itself: one host, for as long as a process that holds a lease lives.

    no lease of a living process ──► TERM, one second, KILL; the state is removed; it ends
    the host dies                ──► started again with back-off, or given up with exit code and last lines
    a command, a limit, idleness ──► done as asked

It runs in a process session of its own, so that no kernel's interrupt or shutdown reaches it, and outlives the kernel
that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType

from llm_jupyter._supervisor import reasons
from llm_jupyter._supervisor.alarm import POLL, Alarm
from llm_jupyter._supervisor.backoff import RestartPolicy
from llm_jupyter._supervisor.child import (
    ABANDONED_GRACE,
    HostProcess,
    adopt_orphans,
    describe_exit,
    end_leftovers,
    run_to_the_end,
)
from llm_jupyter._supervisor.folder import HostFolder, Stamp
from llm_jupyter._supervisor.holders import Holders
from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter._supervisor.journal import HostLog, JournalWriter
from llm_jupyter._supervisor.lock import Lock, take_patiently
from llm_jupyter._supervisor.order import Order
from llm_jupyter._supervisor.probe import NOT_YET, READY_NOW, SILENT, look, status_at
from llm_jupyter._supervisor.state import (
    FAILED,
    LOADING,
    READY,
    RESTART,
    RESTARTING,
    STARTING,
    STOP,
    STOPPING,
    HostState,
)
from llm_jupyter._supervisor.tree import abandoned, mark_of
from llm_jupyter._supervisor.watch import Watch

QUICK_POLL = 0.02
"""Seconds between two looks at a host that is about to be ready."""

PROBE_INTERVAL = 2.0
SILENCES = 3
"""A detached server is looked at so often, and is taken for dead after so many silent looks in a row."""


class Supervisor:
    """Follows one host. `run` returns when there is nothing left to follow."""

    def __init__(self, order: Order, folder: HostFolder, alive: Lock) -> None:
        self._order = order
        self._alive = alive
        self._folder = folder
        self._log = HostLog(folder.log, order.secrets)
        self._journal = JournalWriter(folder.journal(order.run))
        now = time.time()
        self._state = HostState(
            order.run, machine(), order.name, ProcessIdentity.own(), api_key=order.api_key, started=now, since=now
        )
        self._written: Stamp | None = None
        self._policy = RestartPolicy(order.restart_delay)
        self._watch = Watch(order, folder)
        self._alarm = Alarm(folder.path / "wake")
        self._host: HostProcess | None = None
        self._holders = Holders(folder)
        self._was_ready = False
        self._told_to_end = False
        self._begun = self._due = self._next_probe = 0.0
        self._silences = 0

    def run(self) -> None:
        """Start the host and follow it to its end."""
        for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if os.name == "posix" else [])):
            signal.signal(number, self._signalled)  # a handler and not SIG_IGN, which the host would inherit
        if not self._order.detaches:
            adopt_orphans()
        self._folder.remove_old_runs(self._order.run)
        self._folder.take_commands()
        end_leftovers(abandoned(str(self._folder.path)))
        try:
            self._start()
            while self._state.phase not in (STOPPING, FAILED):
                self._alarm.watch(self._holders.known)
                self._alarm.wait(self._interval)
                self._turn()
        finally:
            if self._host is not None:
                self._host.kill()

    # -- one turn

    @property
    def _interval(self) -> float:
        """Seconds until the next turn, if nothing rings before."""
        if self._state.phase in (STARTING, LOADING):
            return QUICK_POLL
        if self._state.phase == RESTARTING:
            return max(0.0, min(POLL, self._due - time.monotonic()))
        return self._alarm.interval

    def _turn(self) -> None:
        if self._told_to_end:
            self._end(reasons.TOLD_TO_END, self._order.stop_grace)
        elif self._is_abandoned():
            self._end(reasons.UNUSED, ABANDONED_GRACE)
        elif not self._obey(self._folder.take_commands()):
            self._follow()
        self._journal.flush()
        is_over = self._state.phase in (STOPPING, FAILED)
        if not is_over and self._folder.state_stamp() != self._written and self._alive.is_in_place:
            self._tell()  # torn or removed by somebody; where the whole folder was, its place may be another's

    def _follow(self) -> None:
        phase = self._state.phase
        if phase == RESTARTING:
            if time.monotonic() >= self._due:
                self._start()
        elif (reason := self._death()) is not None:
            self._died(reason)
        elif phase in (STARTING, LOADING):
            self._look_whether_ready()
        elif phase == READY:
            self._enforce()

    def _is_abandoned(self) -> bool:
        """Whether nobody needs the host any more; then whoever comes next sees that it is being stopped."""
        lock = self._folder.lock()
        gone = self._holders.are_gone(lock)
        if gone:
            self._enter(STOPPING)
        lock.let_go()
        return gone

    def _obey(self, commands: list[str]) -> bool:
        if STOP in commands:
            self._end(reasons.STOPPED, self._order.stop_grace)
        elif RESTART in commands:
            self._restart(reasons.RESTARTED)
        else:
            return False
        return True

    # -- life

    def _start(self) -> None:
        self._begun = time.monotonic()
        self._silences, self._next_probe = 0, 0.0
        try:
            self._host = HostProcess(self._order, self._log, mark_of(str(self._folder.path)), self._alarm.ring)
        except (OSError, ValueError) as error:  # the latter: what no command line may hold
            reason = error.strerror if isinstance(error, OSError) else None
            self._fail(f"{self._order.command[0]} {reasons.CANNOT_RUN}: {reason or error}", None)
            return
        self._state.host, self._state.url = self._host.identity, ""
        self._state.generation += 1
        self._journal_and_enter(STARTING, "started", pid=self._host.identity.pid)

    def _look_whether_ready(self) -> None:
        assert self._host is not None
        order, now = self._order, time.monotonic()
        if now - self._begun > order.start_timeout:
            self._died(f"{reasons.NOT_READY} {order.start_timeout:g} s{self._last_answer()}")
            return
        answer = READY_NOW if self._host.url and order.probe is None else SILENT
        if order.probe is not None and now >= self._next_probe:
            answer = look(self._host.port, order.probe, order.probe_field)
            self._next_probe = now + min(POLL, (now - self._begun) / 4)
        if answer == READY_NOW:
            self._was_ready = True
            self._state.url, self._state.reason, self._state.exit_code = self._host.url, "", None
            self._watch.begin(self._host)
            self._journal_and_enter(READY, "ready", pid=self._host.identity.pid, url=self._host.url)
        elif answer == NOT_YET and self._state.phase == STARTING:
            self._enter(LOADING)

    def _last_answer(self) -> str:
        """What the host says at its path, in words that follow others; its readers know what can be changed about that."""
        if self._host is None or self._order.probe is None:
            return ""
        status = status_at(self._host.port, self._order.probe)
        if status is None:
            return f": {reasons.SILENCE} {self._host.port}"
        return f": {self._order.probe} answers {status}"

    def _death(self) -> str | None:
        """Why the host is dead; `None` while it lives."""
        assert self._host is not None
        code = self._host.exit_code
        if not self._order.detaches:
            return None if code is None else describe_exit(code)
        if self._state.phase != READY:
            return describe_exit(code) if code else None  # the command returned, as it should, or still runs
        if time.monotonic() < self._next_probe:
            return None
        self._next_probe = time.monotonic() + PROBE_INTERVAL
        silent = look(self._host.port, self._order.probe or "/", self._order.probe_field) == SILENT
        self._silences = self._silences + 1 if silent else 0
        return "it answers no more" if self._silences >= SILENCES else None

    def _died(self, reason: str) -> None:
        assert self._host is not None
        pid, code = self._host.identity.pid, self._host.exit_code
        self._put_down(ABANDONED_GRACE if code is None else 0.0)
        code = self._host.exit_code if code is None else code
        self._journal.append("stopped", pid=pid, exit_code=code, expected=False, reason=reason)
        self._come_again(reason, code)

    def _come_again(self, reason: str, code: int | None) -> None:
        """It ended: start it again after a while, unless that has happened too often."""
        delay = self._policy.died() if self._was_ready else None
        if delay is None:
            self._fail(reason if not self._was_ready else f"{reason}; it was started again too often", code)
            return
        self._state.restarts += 1
        self._state.exit_code, self._state.reason, self._state.url = code, reason, ""
        self._state.host, self._state.tail = None, self._log.tail()
        self._due = time.monotonic() + delay
        self._journal_and_enter(RESTARTING, "restarting", attempt=self._state.restarts, delay=delay)

    def _enforce(self) -> None:
        """Act on a limit that is exceeded and on idleness, where the order says so."""
        if (limit := self._watch.memory_exceeded()) is not None:
            action = self._order.on_memory
            self._journal_and_enter(READY, "limit", rss=limit, limit=self._order.memory_limit, action=action)
            if action == "restart":
                self._put_down_and_say(self._order.stop_grace, reasons.TOO_LARGE)
                self._come_again(reasons.TOO_LARGE, None)
            elif action == "stop":
                self._end(reasons.TOO_LARGE, self._order.stop_grace)
        elif self._watch.is_idle():
            self._end(f"{reasons.IDLE} {self._order.idle_unload:g} s", self._order.stop_grace)

    def _restart(self, reason: str) -> None:
        self._enter(RESTARTING)
        self._put_down_and_say(self._order.stop_grace, reason)
        self._due = time.monotonic()  # by the next turn, unless its last holder has left meanwhile

    def _end(self, reason: str, grace: float) -> None:
        self._state.reason = reason
        self._enter(STOPPING)
        if self._order.left_running:
            self._host = None
        self._put_down_and_say(grace, reason)
        lock = self._folder.lock()
        with contextlib.suppress(OSError):
            take_patiently(lock, 0.5)
            self._folder.void_leases()
            self._folder.remove_state(self._order.run)
        lock.let_go()

    def _fail(self, reason: str, code: int | None) -> None:
        self._state.exit_code, self._state.reason, self._state.url = code, reason, ""
        self._state.host, self._state.tail = None, self._log.tail()
        self._folder.void_leases()
        self._journal_and_enter(FAILED, "failed", reason=reason, exit_code=code, tail=self._state.tail)

    def _put_down(self, grace: float) -> None:
        if self._host is not None:
            if self._order.detaches and self._order.stop_command is not None:
                run_to_the_end(
                    [self._order.filled(part, self._host.port) for part in self._order.stop_command], self._log
                )
            self._host.stop(grace, lambda: not self._holders.any_left())

    def _put_down_and_say(self, grace: float, reason: str) -> None:
        host, self._state.url = self._host, ""
        if host is None or self._state.host is None:
            return
        self._journal.append("ending", reason=reason)  # before it hangs up on whoever is to be told why
        self._put_down(grace)
        self._state.host = None
        self._journal.append("stopped", pid=host.identity.pid, exit_code=host.exit_code, expected=True, reason=reason)

    # -- telling

    def _journal_and_enter(self, phase: str, kind: str, **values: object) -> None:
        """The line first, then the state with its number: whoever reads the state knows which lines it covers."""
        self._journal.append(kind, **values)
        self._enter(phase)

    def _enter(self, phase: str) -> None:
        if phase != self._state.phase:
            self._state.phase, self._state.since = phase, time.time()
        self._state.seq = self._journal.seq
        self._tell()

    def _tell(self) -> None:
        self._written = None  # where the disk refuses it, the next turn tries again
        with contextlib.suppress(OSError):
            self._written = self._folder.write_state(self._state)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self._told_to_end = True
            self._alarm.ring()
