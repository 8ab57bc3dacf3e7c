"""Lines of a host's journal, as events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_jupyter.events import (
    Event,
    HostFailed,
    HostLimitExceeded,
    HostReady,
    HostRestarting,
    HostStarted,
    HostStopped,
)

MAKERS: dict[str, Callable[[str, dict[str, Any]], Event]] = {
    "started": lambda host, line: HostStarted(host=host, pid=line["pid"]),
    "ready": lambda host, line: HostReady(host=host, pid=line["pid"], url=line["url"]),
    "stopped": lambda host, line: HostStopped(
        host=host, pid=line["pid"], exit_code=line["exit_code"], expected=line["expected"], reason=line["reason"]
    ),
    "restarting": lambda host, line: HostRestarting(host=host, attempt=line["attempt"], delay=line["delay"]),
    "failed": lambda host, line: HostFailed(
        host=host, reason=line["reason"], exit_code=line["exit_code"], log_tail=tuple(line["tail"])
    ),
    "limit": lambda host, line: HostLimitExceeded(
        host=host, rss=line["rss"], limit=line["limit"], action=line["action"]
    ),
}


def event_of(host: str, line: dict[str, Any]) -> Event | None:
    """The event that a line tells of; `None` for what this version does not know."""
    try:
        return MAKERS[line["kind"]](host, line)
    except LookupError:
        return None
