"""What a host is, as data, and what is told of one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec

from llm_jupyter._supervisor.order import Order
from llm_jupyter.errors import ConfigurationError

OnMemory = Literal["warn", "restart", "stop"]
StoppableBy = Literal["last-holder", "never"]


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A model server that can be started: times in seconds, memory in bytes.

    In `command` and in the values of `environment`, `{port}` stands for the port (`port`, or a free one where that is 0),
    and in the latter `{api_key}` for the random key of this run. `ready` is a path that answers with status 200 once it
    serves, and with `ready_field` in its JSON object where one is named; with `ready=None` the host prints `READY <url>`.
    `stdin` is sent to it as one line of JSON, the key in it.

    After a death it is started again after `restart_delay`, which doubles to 30 s; the sixth death within a minute is its
    last, as is one before it ever was ready.

    `detaches`: the command returns and the server lives on; `ready` then also tells whether it lives, and `stop_command`
    stops it. `stoppable_by="never"` lets such a one live on when its last user has gone, and refuses to stop it.

    Hosts with the same `key` are one process for all kernels of this user on this machine. Raises `ConfigurationError`.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    port: int = 0
    ready: str | None = "/health"
    ready_field: str | None = None
    stdin: Mapping[str, Any] | None = field(default=None, repr=False)
    start_timeout: float = 60.0
    restart_delay: float = 0.5
    memory_limit: int | None = None
    on_memory: OnMemory = "warn"
    idle_unload: float | None = None
    stop_grace: float = 10.0
    stop_command: tuple[str, ...] | None = None
    detaches: bool = False
    stoppable_by: StoppableBy = "last-holder"
    key: str = ""

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigurationError(f"[hosts.{self.name}] has no command", next_step='Give it one: command = ["…"]')
        if self.detaches and (self.ready is None or not self.port):
            raise ConfigurationError(f"[hosts.{self.name}] detaches, so it needs a port and a path that is ready")
        if self.detaches and self.stop_command is None and self.stoppable_by == "last-holder":
            raise ConfigurationError(f"[hosts.{self.name}] detaches, so it needs a stop_command")
        if self.stoppable_by == "never" and not self.detaches:
            raise ConfigurationError(
                f"[hosts.{self.name}] cannot outlive its kernels: what is started here is stopped here"
            )
        if not self.key:
            object.__setattr__(self, "key", self._default_key())

    @property
    def where(self) -> str:
        """The host as errors name it."""
        return f"host {self.name}" + (f" on port {self.port}" if self.port else "")

    @property
    def start_hint(self) -> str:
        """What a person types to start it, as a next step."""
        return f"%llm host start {self.name} starts it."

    def order(self, run: str, api_key: str) -> bytes:
        """What its supervisor is told, as one line."""
        order = Order(
            name=self.name,
            run=run,
            command=list(self.command),
            api_key=api_key,
            environment=dict(self.environment),
            port=self.port,
            probe=self.ready,
            probe_field=self.ready_field,
            stdin=None if self.stdin is None else dict(self.stdin),
            start_timeout=self.start_timeout,
            restart_delay=self.restart_delay,
            memory_limit=self.memory_limit,
            on_memory=self.on_memory,
            idle_unload=self.idle_unload,
            stop_grace=self.stop_grace,
            stop_command=None if self.stop_command is None else list(self.stop_command),
            detaches=self.detaches,
            left_running=self.stoppable_by == "never",
        )
        return json.dumps(asdict(order)).encode() + b"\n"

    def _default_key(self) -> str:
        """The name, and a hash of what makes it another process; the values of variables are no part: they may be secret."""
        parts = [list(self.command), sorted(self.environment), self.port, self.ready]
        return host_key(self.name, parts)


def host_key(name: str, parts: object) -> str:
    """A folder name for a host: readable, and different for different parts."""
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:40]}-{digest}"


@dataclass(frozen=True, slots=True)
class Running:
    """A host that serves. `generation` differs after each start, as may everything else then."""

    url: str
    api_key: str = field(repr=False)
    pid: int
    generation: tuple[str, int]


HostStateName = Literal["stopped", "starting", "loading", "running", "restarting", "stopping", "failed"]


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A host as it is now.

    `ours` says that llm_jupyter started it, `adopted` that somebody else did and it is only watched; `holders` is how many
    processes use it, and `held` whether this one is among them. `since` is seconds since the epoch, `uptime` seconds, memory bytes, `cpu` in
    cores since the last look; `None` is what the system does not tell.
    """

    name: str
    state: HostStateName
    pid: int | None = None
    url: str = ""
    ours: bool = False
    adopted: bool = False
    holders: int = 0
    held: bool = False
    restarts: int = 0
    since: float | None = None
    rss: int | None = None
    cpu: float | None = None
    threads: int | None = None
    uptime: float | None = None
    gpu_memory: int | None = None
    reason: str = ""
    exit_code: int | None = None
