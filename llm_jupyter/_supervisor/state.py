"""What a host is doing, as its supervisor tells the kernels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from llm_jupyter._supervisor.identity import ProcessIdentity

STARTING, LOADING, READY, RESTARTING = "starting", "loading", "ready", "restarting"
STOPPING, STOPPED, FAILED = "stopping", "stopped", "failed"
JOINABLE = (STARTING, LOADING, READY, RESTARTING)
STOP, RESTART = "stop", "restart"


@dataclass(slots=True)
class HostState:
    """What is known of a host. `run` names one life of its supervisor, `generation` counts the host's starts in it."""

    run: str
    machine: str
    name: str
    supervisor: ProcessIdentity
    phase: str = STARTING
    host: ProcessIdentity | None = None
    url: str = ""
    api_key: str = field(default="", repr=False)
    generation: int = 0
    seq: int = 0
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""
    tail: list[str] = field(default_factory=list)
    started: float = 0.0
    since: float = 0.0

    def as_json(self) -> bytes:
        values = asdict(self)
        values["supervisor"] = self.supervisor.as_json()
        values["host"] = self.host.as_json() if self.host else None
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, text: bytes) -> HostState | None:
        """What `as_json` gave; `None` for anything else, torn or not."""
        try:
            values = json.loads(text)
            supervisor = ProcessIdentity.from_json(values["supervisor"])
            values["host"] = ProcessIdentity.from_json(values["host"])
            state = cls(**{**values, "supervisor": supervisor})
        except (ValueError, TypeError, LookupError):
            return None
        texts = (state.run, state.machine, state.name, state.phase, state.url, state.api_key, state.reason)
        numbers = (state.generation, state.seq, state.restarts)
        sound = all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)
        return state if sound and supervisor is not None and isinstance(state.tail, list) else None
