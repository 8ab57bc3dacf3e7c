"""Every event, as a frozen value.

A connection's change of state is one event, and of the most telling kind: `ProviderLost` is a `ConnectionStateChanged`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from llm_jupyter.types import ProviderState


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The root: `timestamp` in seconds since the epoch and `sequence`, both stamped by the bus."""

    timestamp: float = 0.0
    sequence: int = 0
    is_frequent: ClassVar[bool] = False
    """Whether it comes by the second: measurements, progress. Those are remembered apart, so that they push nothing out."""


class FactoryOpened(Event, frozen=True, kw_only=True):
    """The services stand; nothing was contacted yet."""

    home: str


class FactoryClosed(Event, frozen=True, kw_only=True):
    """Everything that was opened is closed."""


class ProviderRegistered(Event, frozen=True, kw_only=True):
    """A provider's recipe is known under this name."""

    provider: str
    kind: str
    is_local: bool


class ProviderUnregistered(Event, frozen=True, kw_only=True):
    """A provider's recipe is forgotten."""

    provider: str


class ConnectionStateChanged(Event, frozen=True, kw_only=True):
    """A provider's connection went from one state to another."""

    provider: str
    old: ProviderState
    new: ProviderState
    reason: str = ""


class ProviderConnected(ConnectionStateChanged, frozen=True, kw_only=True):
    """A provider answers, for the first time or after it was disconnected."""


class ProviderLost(ConnectionStateChanged, frozen=True, kw_only=True):
    """A provider that was there answers no more."""


class ProviderRecovered(ConnectionStateChanged, frozen=True, kw_only=True):
    """A provider that had failed answers again."""


class HealthChecked(Event, frozen=True, kw_only=True):
    """A look at a provider's server; `latency` in seconds."""

    is_frequent: ClassVar[bool] = True
    provider: str
    healthy: bool
    latency: float | None = None
    reason: str = ""


class ModelChosen(Event, frozen=True, kw_only=True):
    """This model answers from now on, for this reason."""

    provider: str
    model: str
    is_local: bool
    reason: str


class ModelPulling(Event, frozen=True, kw_only=True):
    """A download goes on; bytes so far and in all (`None`: not known yet)."""

    is_frequent: ClassVar[bool] = True
    provider: str
    model: str
    status: str
    completed: int
    total: int | None
    folder: str = ""


class ModelPulled(Event, frozen=True, kw_only=True):
    """A model arrived whole."""

    provider: str
    model: str


class ModelDeleted(Event, frozen=True, kw_only=True):
    """A model was removed from its server."""

    provider: str
    model: str


class ModelLoading(Event, frozen=True, kw_only=True):
    """A model is being read into memory; `size` in bytes, `elapsed` in seconds where it has been going on for a while."""

    provider: str
    model: str
    size: int | None = None
    elapsed: float | None = None


class ModelLoaded(Event, frozen=True, kw_only=True):
    """A model is ready to answer, after so many seconds."""

    provider: str
    model: str
    seconds: float


class ModelUnloaded(Event, frozen=True, kw_only=True):
    """A model's memory is free again."""

    provider: str
    model: str


class HostStarted(Event, frozen=True, kw_only=True):
    """A model-server process runs; it may still be loading."""

    host: str
    pid: int


class HostReady(Event, frozen=True, kw_only=True):
    """A model-server process answers at `url`."""

    host: str
    pid: int | None
    url: str


class HostAdopted(Event, frozen=True, kw_only=True):
    """A model-server process that somebody else started is watched; it is never stopped."""

    host: str
    pid: int | None
    url: str


class HostStopped(Event, frozen=True, kw_only=True):
    """A model-server process ended; `exit_code` is negative for a signal. `expected` says whether we ended it."""

    host: str
    pid: int
    exit_code: int | None
    expected: bool
    reason: str = ""


class HostRestarting(Event, frozen=True, kw_only=True):
    """A model-server process died and is started again after `delay` seconds; `attempt` counts from 1."""

    host: str
    attempt: int
    delay: float


class HostFailed(Event, frozen=True, kw_only=True):
    """A model-server process is given up."""

    host: str
    reason: str
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()


class HostMeasured(Event, frozen=True, kw_only=True):
    """What a model-server process takes, its children included; memory in bytes, `cpu` in cores, `uptime` in seconds."""

    is_frequent: ClassVar[bool] = True
    host: str
    pid: int
    rss: int
    cpu: float
    threads: int
    uptime: float
    gpu_memory: int | None = None


class HostLimitExceeded(Event, frozen=True, kw_only=True):
    """A model-server process takes more memory than it may; both in bytes. `action` is what is done about it."""

    host: str
    rss: int
    limit: int
    action: str


class SessionCreated(Event, frozen=True, kw_only=True):
    """A conversation began."""

    session: str


class SessionResumed(Event, frozen=True, kw_only=True):
    """A conversation that was kept goes on in this kernel; `turns` stand in it. `reason` says how it was found."""

    session: str
    turns: int
    reason: str


class SessionForked(Event, frozen=True, kw_only=True):
    """A conversation began as a copy of another; `reason` says why."""

    session: str
    parent: str
    turns: int
    reason: str


class SessionRenamed(Event, frozen=True, kw_only=True):
    """A conversation has another name."""

    session: str
    name: str


class SessionDeleted(Event, frozen=True, kw_only=True):
    """A conversation is gone from the store."""

    session: str


class TurnRestored(Event, frozen=True, kw_only=True):
    """An older version of a turn counts again."""

    session: str
    turn: str


class StoreDegraded(Event, frozen=True, kw_only=True):
    """Conversations can no longer be kept on disk; from now on they live in memory."""

    path: str
    reason: str


class AnswerRecorded(Event, frozen=True, kw_only=True):
    """An answer was kept for offline use."""

    request: str
    digest: str


class AnswerReplayed(Event, frozen=True, kw_only=True):
    """A request was answered from what was kept; `age` in seconds, `None` where the recording does not tell."""

    request: str
    digest: str
    source: str
    age: float | None = None


class TurnReplaced(Event, frozen=True, kw_only=True):
    """A cell was run again: its turn gave way to a new one."""

    session: str
    turn: str


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request left for a provider."""

    request: str
    provider: str
    model: str


class RequestQueued(Event, frozen=True, kw_only=True):
    """The request waits for others on the same server; so many stand before it."""

    request: str
    ahead: int


class RequestRetried(Event, frozen=True, kw_only=True):
    """A request failed before its first token and is sent again after `delay` seconds."""

    request: str
    provider: str
    model: str
    attempt: int
    delay: float
    reason: str


class RequestFailedOver(Event, frozen=True, kw_only=True):
    """A request failed before its first token, and the next permitted model is asked."""

    request: str
    provider: str
    model: str
    to_provider: str
    to_model: str
    reason: str


class RequestFirstToken(Event, frozen=True, kw_only=True):
    """The first piece of the answer came, after so many seconds."""

    request: str
    seconds: float


class RequestFinished(Event, frozen=True, kw_only=True):
    """An answer is whole, or was interrupted (`finish_reason` says)."""

    request: str
    finish_reason: str
    seconds: float
    completion_tokens: int | None = None


class RequestFailed(Event, frozen=True, kw_only=True):
    """A request ended in an error."""

    request: str
    error: str
    message: str


class ErrorOccurred(Event, frozen=True, kw_only=True):
    """Something failed that no request waits for; `source` says where."""

    source: str
    error: str
    message: str
