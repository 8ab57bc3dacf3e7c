"""What a kernel tells a new supervisor, by its standard input: there are secrets in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """One host to run. Times are in seconds, memory in bytes.

    `{port}` stands for the port in `command` and in the values of `environment`, `{api_key}` for the key in the latter
    only. `stdin` is sent to the host as one line of JSON, with `api_key` and `parent` (the supervisor's process id) in it;
    its standard input then stays open for as long as the supervisor lives. `probe` is the path that answers once it is
    ready; without one the host prints `READY <url>`. `detaches`: the command returns and the server lives on.
    """

    name: str
    run: str
    command: list[str]
    api_key: str = field(repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    port: int = 0
    probe: str | None = None
    probe_field: str | None = None
    stdin: dict[str, Any] | None = field(default=None, repr=False)
    start_timeout: float = 60.0
    restart_delay: float = 0.5
    memory_limit: int | None = None
    on_memory: str = "warn"
    idle_unload: float | None = None
    stop_grace: float = 10.0
    stop_command: list[str] | None = None
    detaches: bool = False
    left_running: bool = False

    @property
    def secrets(self) -> list[str]:
        """What must not reach the log."""
        words = ("KEY", "TOKEN", "SECRET", "PASSWORD")
        hidden = [value for name, value in self.environment.items() if any(word in name.upper() for word in words)]
        return [self.api_key, *hidden]

    def filled(self, text: str, port: int) -> str:
        """A piece of the command, with the port in it."""
        return text.replace("{port}", str(port))
