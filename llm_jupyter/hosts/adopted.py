"""Servers that somebody else runs: watched, never stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.probe import is_taken
from llm_jupyter.errors import HostError
from llm_jupyter.events import Event, HostAdopted, HostStopped
from llm_jupyter.hosts.spec import HostSpec, HostStatus
from llm_jupyter.ports import pid_on
from llm_jupyter.providers._http import without_secrets


class Adopted:
    """One such server. Its process is known where the system tells."""

    def __init__(
        self, name: str, url: str, port: int, process: ProcessIdentity | None, publish: Callable[[Event], object]
    ) -> None:
        self.name = name
        self.url = url
        self.port = port
        self.process = process
        self._publish = publish
        self._is_over = False

    @classmethod
    async def at(cls, name: str, url: str, publish: Callable[[Event], object]) -> Adopted:
        """Find out who serves there, and say that it is watched. Raises `HostError` where no port is named."""
        port = _named_port(url)
        pid = await asyncio.to_thread(pid_on, port)
        process = ProcessIdentity.of(pid) if pid is not None else None
        publish(HostAdopted(host=name, pid=process.pid if process else None, url=url))
        return cls(name, url, port, process, publish)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether it still serves: its process runs, or, where that is hidden, somebody listens at its port."""
        return self.process.is_alive if self.process is not None else is_taken(self.port)

    def follow(self) -> None:
        """Say once that it ended. One whose process is hidden is left to the checks of its connection."""
        if self.process is not None and not self._is_over and not self.process.is_alive:
            self._is_over = True
            self._publish(HostStopped(host=self.name, pid=self.process.pid, exit_code=None, expected=False))

    def status(self) -> HostStatus:
        """How it is, without what it takes."""
        if not self.is_alive:
            return HostStatus(name=self.name, state="stopped", adopted=True)
        return HostStatus(name=self.name, state="running", pid=self.pid, url=self.url, adopted=True)


class AdoptedHosts:
    """All of them by name. One process is one host, whatever names it has; `ours_at` tells which of ours runs at a port."""

    def __init__(self, publish: Callable[[Event], object], ours_at: Callable[[int], HostSpec | None]) -> None:
        self._publish = publish
        self._ours_at = ours_at
        self._by_name: dict[str, Adopted] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def get(self, name: str) -> Adopted | None:
        """The one of that name, living or dead."""
        return self._by_name.get(name)

    def living(self, name: str) -> Adopted | None:
        """The one of that name, if it still serves."""
        adopted = self._by_name.get(name)
        return adopted if adopted is not None and adopted.is_alive else None

    def is_at(self, port: int | None) -> bool:
        """Whether one that still serves has that port."""
        return any(one.port == port and one.is_alive for one in self._by_name.values())

    async def add(self, name: str, url: str, *, renames: bool = False) -> None:
        """Watch a server, unless it is ours; one that is watched under another name only if this `renames` it.

        What its URL holds of secrets is forgotten here. Raises `HostError` where it names no port.
        """
        port = _named_port(url := without_secrets(url))
        others = [other for other, one in self._by_name.items() if other != name and one.port == port and one.is_alive]
        if self._ours_at(port) is not None or (others and not renames):
            return
        for other in others:
            del self._by_name[other]
        if (same := self.living(name)) is None or same.url != url:
            self._by_name[name] = await Adopted.at(name, url, self._publish)

    def forget(self, name: str, port: int) -> None:
        """Watch nothing under that name, and nothing at that port, if there is one."""
        self._by_name = {
            other: one for other, one in self._by_name.items() if other != name and (not port or one.port != port)
        }

    def follow(self) -> None:
        """Say of each once that it ended."""
        for adopted in self._by_name.values():
            adopted.follow()

    def clear(self) -> None:
        self._by_name.clear()


def _named_port(url: str) -> int:
    """The port that stands in a URL. Raises `HostError` where none does."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    if port is None:
        raise HostError(f"{url!r} names no port, so nothing can be watched there")
    return port
