"""A server that somebody else runs: watched, never stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from llm_jupyter._supervisor.identity import ProcessIdentity
from llm_jupyter._supervisor.probe import is_taken
from llm_jupyter.errors import HostError
from llm_jupyter.events import Event, HostAdopted, HostStopped
from llm_jupyter.ports import pid_on


class Adopted:
    """One such server. Its process is known where the system tells."""

    def __init__(
        self, name: str, url: str, port: int, process: ProcessIdentity | None, publish: Callable[[Event], object]
    ) -> None:
        self.name = name
        self.url = url
        self.process = process
        self._port = port
        self._publish = publish
        self._is_over = False

    @classmethod
    async def at(cls, name: str, url: str, publish: Callable[[Event], object]) -> Adopted:
        """Find out who serves there, and say that it is watched. Raises `HostError` where no port is named."""
        try:
            port = urlsplit(url).port
        except ValueError:
            port = None
        if port is None:
            raise HostError(f"{url!r} names no port, so nothing can be watched there")
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
        return self.process.is_alive if self.process is not None else is_taken(self._port)

    def follow(self) -> None:
        """Say once that it ended. One whose process is hidden is left to the checks of its connection."""
        if self.process is not None and not self._is_over and not self.process.is_alive:
            self._is_over = True
            self._publish(HostStopped(host=self.name, pid=self.process.pid, exit_code=None, expected=False))
