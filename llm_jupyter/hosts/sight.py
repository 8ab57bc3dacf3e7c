"""A host as it is seen from outside, by whoever does not hold it; and those that are only seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from llm_jupyter._supervisor.folder import HostFolder
from llm_jupyter._supervisor.identity import ProcessIdentity, machine
from llm_jupyter._supervisor.journal import End, last_end, tail_of
from llm_jupyter._supervisor.state import FAILED, JOINABLE, READY, RESTART, STARTING, HostState
from llm_jupyter.hosts._launch import disk_errors
from llm_jupyter.hosts.spec import HostStateName, HostStatus
from llm_jupyter.ports import port_of

LOOK = 0.03
"""Seconds between two looks at a host that is about to do what it was asked for."""

ORDER_TIMEOUT = 60.0
"""Seconds to wait for that where the limits of the host are known to other kernels only."""


class Sight:
    """One host on disk, whichever kernel of this user started it."""

    def __init__(self, folder: HostFolder) -> None:
        self.folder = folder
        self._stamp: object = ()
        self._state: HostState | None = None

    def look(self) -> HostState | None:
        """What the host is doing now; costs one `stat` where nothing has changed."""
        stamp = self.folder.state_stamp()
        if stamp != self._stamp or stamp is None:
            self._state, self._stamp = self.folder.read_state(), stamp
        return self._state if self._state is not None and self._state.machine == machine() else None

    def attended(self) -> HostState | None:
        """What the host is doing, unless the supervisor that said so is gone."""
        state = self.look()
        return state if state is not None and (state.supervisor.is_alive or state.phase == FAILED) else None

    def is_up(self) -> bool:
        """Whether somebody has started it already, or is about to start it again."""
        state = self.look()
        return state is not None and state.phase in JOINABLE and state.supervisor.is_alive

    def holders(self) -> set[ProcessIdentity]:
        """The living processes that hold it."""
        try:
            return {holder for holder in self.folder.holders().values() if holder.is_alive}
        except OSError:
            return set()

    @property
    def port(self) -> int | None:
        """Where it listens, if it does already."""
        state = self.look()
        with contextlib.suppress(ValueError):  # what a host prints may be no URL
            return port_of(state.url) if state is not None and state.url else None
        return None

    def log(self, lines: int = 50) -> list[str]:
        """The last lines that the host wrote."""
        return tail_of(self.folder.log, lines)

    def last_end(self) -> End | None:
        """Why it was put down or died last, as far as that was written down."""
        journal = self.folder.last_journal()
        return last_end(journal) if journal is not None else None

    async def order(self, verb: str, within: float = ORDER_TIMEOUT) -> None:
        """Ask its supervisor for something, and wait so many seconds until it has stopped, or serves after another start.

        Raises `HostError` where the disk does not let it.
        """
        before = self.look()
        with disk_errors(self.folder.path):
            self.folder.ask(verb)
        end = time.monotonic() + within
        while before is not None and before.supervisor.is_alive and time.monotonic() < end:
            state = self.look()
            if verb == RESTART and state is not None and state.phase == READY and state.generation != before.generation:
                return
            await asyncio.sleep(LOOK)

    def status(self, name: str) -> HostStatus:
        """How it is, without what it takes."""
        state, end = self.attended(), self.last_end()
        before = end.reason if end is not None and not end.given_up else ""  # of that the state tells
        if state is None:
            return HostStatus(name=name, state="stopped", reason=before)
        holders = self.holders()
        return HostStatus(
            name=name, state=_state_name(state), pid=state.host.pid if state.host else None, url=state.url, ours=True,
            holders=len(holders), held=ProcessIdentity.own() in holders, restarts=state.restarts, since=state.since,
            reason=state.reason or before, exit_code=state.exit_code,
        )  # fmt: skip


class SeenHosts:
    """The hosts that run because other kernels started them, and that nothing in this one describes.

    The embedded model is one before its first question here; so is a host of settings that this kernel does not have.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sights: dict[str, Sight] = {}

    def by_name(self, known: Collection[str], taken: Collection[str]) -> dict[str, Sight]:
        """Those without the keys that are `known`. Where a name is taken, by an older one too, a host has its key as name."""
        folder = self._root / machine()
        try:
            keys = set(os.listdir(folder)) - set(known)
        except OSError:  # nobody has started one yet
            keys = set()
        self._sights = {key: self._sights.get(key) or Sight(HostFolder(folder / key)) for key in keys}
        states = {key: state for key, sight in self._sights.items() if (state := sight.look()) is not None}
        found: dict[str, Sight] = {}
        for key, state in sorted(states.items(), key=lambda item: (item[1].supervisor.start, item[0])):
            if state.supervisor.is_alive:
                found[key if state.name in taken or state.name in found else state.name] = self._sights[key]
        return found


def _state_name(state: HostState) -> HostStateName:
    names: dict[str, HostStateName] = {
        STARTING: "starting", "loading": "loading", READY: "running", "restarting": "restarting",
        "stopping": "stopping", "failed": "failed",
    }  # fmt: skip
    return names.get(state.phase, "stopped")
