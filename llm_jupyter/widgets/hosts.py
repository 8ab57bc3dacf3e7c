"""The processes that serve models, and what they take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from llm_jupyter.errors import HostError
from llm_jupyter.events import (
    Event,
    HostAdopted,
    HostFailed,
    HostLimitExceeded,
    HostMeasured,
    HostReady,
    HostRestarting,
    HostStarted,
    HostStopped,
    ProviderConnected,
    ProviderRecovered,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.hosts import HostStatus
from llm_jupyter.processes import act, adopt_others, log, memory_limit
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.widgets.rounds import PATIENCE, Rounds
from llm_jupyter.wording import duration, shortened, size

MEASUREMENTS = 120
"""Seconds that the plots show: there is one measurement a second."""

LOG_LINES, LINE_LENGTH = 40, 300
LOG_INTERVAL = 1.0
"""Seconds between two looks at a log that is open."""

AT_REST = ("stopped", "failed")
NOTHING = "No model server runs here that llm_jupyter could watch; a [hosts.NAME] table in the settings adds one."


class HostsDashboard(Dashboard):
    """A row for each host: state, memory, CPU, uptime, restarts, who holds it; start, stop, restart, log.

    The hosts are measured once a second as long as the page shows it, those of other kernels too. Servers that somebody
    else started are listed, and never stopped.
    """

    name: ClassVar[str] = "hosts"
    title: ClassVar[str] = "Hosts"
    every: ClassVar[float | None] = 1.0
    hears: ClassVar[tuple[type[Event], ...]] = (
        HostAdopted,
        HostFailed,
        HostLimitExceeded,
        HostMeasured,
        HostReady,
        HostRestarting,
        HostStarted,
        HostStopped,
        ProviderConnected,
        ProviderRecovered,
    )

    def __init__(self, llm: LLMFactory | None = None) -> None:
        self._rounds = Rounds(self._adopt)
        self._measuring = contextlib.ExitStack()
        self._began: dict[str, tuple[int, float]] = {}
        self._ends: dict[str, dict[str, Any]] = {}
        self._names: list[str] = []
        self._logs: dict[str, float] = {}
        super().__init__(llm)

    async def begin(self) -> None:
        self._rounds.wish()
        await self._rounds.over(PATIENCE)
        self._take(self.llm.events.history(*self.hears))
        for status in self.llm.hosts.status():
            if status.rss is not None:
                self._show_taken(status.name, status)

    async def refresh(self, events: Sequence[Event]) -> None:
        self._take(events)
        statuses = self._statuses()
        for status in statuses:
            self._show_host(status)
        names = [status.name for status in statuses]
        for gone in set(self._names) - set(names):
            for key in ("host", "taken", "memory", "cpu", "log"):
                self.channel.drop(f"{key} {gone}")
        self._names = names
        self.show("names", names)
        self._read_logs()

    def seen(self, is_seen: bool) -> None:
        self._measuring.close()
        if is_seen:
            self._measuring.enter_context(self.llm.hosts.watch())

    def ended(self) -> None:
        self._measuring.close()
        self._rounds.cancel()

    # -- what the page may ask for

    async def do_start(self, name: str) -> None:
        """As `%llm host start NAME`."""
        self.say(await act(self.llm, "start", name))

    async def do_stop(self, name: str) -> None:
        """As `%llm host stop NAME`."""
        self.say(await act(self.llm, "stop", name))

    async def do_restart(self, name: str) -> None:
        """As `%llm host restart NAME`."""
        self.say(await act(self.llm, "restart", name))

    async def do_log(self, name: str) -> None:
        """Show what the host wrote last, and follow it."""
        self.show(f"log {name}", self._log(name))
        self._logs[name] = time.monotonic()

    async def do_close_log(self, name: str) -> None:
        """Follow it no more."""
        self._logs.pop(name, None)
        self.channel.drop(f"log {name}")

    async def do_look(self) -> None:
        """Look anew for servers that somebody else started."""
        self._rounds.wish()
        await self._rounds.over()

    # -- what is shown

    def _statuses(self) -> list[HostStatus]:
        """All hosts; the embedded model's, too, while it does not run."""
        statuses = self.llm.hosts.status()
        is_listed = any(status.name == EMBEDDED for status in statuses)
        if is_listed or EMBEDDED not in self.llm.registry or self.llm.registry.recipe(EMBEDDED).base_url:
            return statuses
        return [HostStatus(name=EMBEDDED, state="stopped"), *statuses]

    def _show_host(self, status: HostStatus) -> None:
        key, state = f"host {status.name}", self.channel.state
        has_ended = status.pid is None and key in state and state[key]["pid"] is not None
        self.show(key, self._row(status))
        if has_ended and state.get(f"taken {status.name}"):
            self._show_taken(status.name, None)  # one that only other kernels use: nobody told of its end

    def _row(self, status: HostStatus) -> dict[str, Any]:
        is_at_rest = status.state in AT_REST
        spec = self.llm.hosts.spec(status.name)
        can_be_started = is_at_rest and (spec is not None or status.name == EMBEDDED)
        can_be_ended = status.ours and not is_at_rest and status.state != "stopping"
        return {
            "state": status.state,
            "whose": "" if is_at_rest else "ours" if status.ours else "somebody else's" if status.adopted else "",
            "pid": status.pid,
            "url": status.url,
            "began": self._beginning(status),
            "restarts": status.restarts,
            "holders": status.holders,
            "held": status.held,
            "reason": status.reason,
            "limit": spec.memory_limit if spec is not None else memory_limit(self.llm, status.name),
            "end": self._ends.get(status.name),
            "can": {"start": can_be_started, "stop": can_be_ended, "restart": can_be_ended, "log": not status.adopted},
        }

    def _beginning(self, status: HostStatus) -> float | None:
        """When its process began, in seconds since the epoch: the same number for the same process."""
        if status.pid is None or status.uptime is None:
            return None
        if self._began.get(status.name, (0, 0.0))[0] != status.pid:
            self._began[status.name] = status.pid, round(time.time() - status.uptime, 1)
        return self._began[status.name][1]

    def _show_taken(self, name: str, taken: HostStatus | HostMeasured | None) -> None:
        """What a host takes, in figures and as the next point of its plots; nothing where it ended."""
        rss, cpu = (taken.rss or 0, round(taken.cpu or 0.0, 2)) if taken is not None else (0, 0.0)
        threads, gpu = (taken.threads, taken.gpu_memory) if taken is not None else (None, None)
        self.show(f"taken {name}", {"rss": rss, "cpu": cpu, "threads": threads, "gpu": gpu} if taken else None)
        self.add_rows(f"memory {name}", [rss], MEASUREMENTS)
        self.add_rows(f"cpu {name}", [cpu], MEASUREMENTS)

    def _read_logs(self) -> None:
        now = time.monotonic()
        for name, read in self._logs.items():
            if now - read >= LOG_INTERVAL:
                self._logs[name] = now
                with contextlib.suppress(HostError):  # somebody else runs it now: what was read stays
                    self.show(f"log {name}", self._log(name))

    def _log(self, name: str) -> str:
        return "\n".join(line[:LINE_LENGTH] for line in log(self.llm, name, LOG_LINES))

    async def _adopt(self) -> None:
        await adopt_others(self.llm)
        self.poke()

    def _take(self, events: Sequence[Event]) -> None:
        for event in self.unheard(events):
            self._hear_of(event)

    def _hear_of(self, event: Event) -> None:
        match event:
            case HostMeasured(host=name):
                self._show_taken(name, event)
            case HostStopped(host=name):
                self._note_end(name, event, event.reason or "it ended")
                self._show_taken(name, None)
            case HostFailed(host=name):
                self._note_end(name, event, f"given up: {event.reason}")
            case HostLimitExceeded(host=name):
                self._note_end(name, event, f"it took {size(event.rss)}, and may take {size(event.limit)}")
            case ProviderConnected() | ProviderRecovered():
                self._rounds.wish()

    def _note_end(self, name: str, event: Event, text: str) -> None:
        self._ends[name] = {"text": text, "at": round(event.timestamp, 1)}

    def picture(self) -> Picture:
        state = self.channel.state
        rows = [_line(name, state[f"host {name}"], state.get(f"taken {name}")) for name in state.get("names", ())]
        headings = ("host", "state", "whose", "pid", "memory", "cpu", "up for", "restarts", "held by", "last end")
        return Picture(self.title, headings, rows, [] if rows else [NOTHING])


def _line(name: str, row: dict[str, Any], taken: dict[str, Any] | None) -> tuple[str, ...]:
    """A row as words, for the picture."""
    return (
        name,
        row["state"],
        row["whose"],
        str(row["pid"] or ""),
        size(taken["rss"]) if taken else "",
        f"{taken['cpu']:.0%}" if taken else "",
        duration(max(0.0, time.time() - row["began"])) if row["began"] is not None else "",
        str(row["restarts"] or ""),
        str(row["holders"] or ""),
        shortened(row["reason"] or (row["end"] or {}).get("text", ""), 80),
    )
