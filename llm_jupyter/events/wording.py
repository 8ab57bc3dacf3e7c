"""An event as people read it: when, what it is about, and its fields."""

from __future__ import annotations

import time
from collections.abc import Collection

from llm_jupyter.errors import AnswerInterrupted
from llm_jupyter.events.kinds import Event, RequestFailed
from llm_jupyter.wording import shortened

WIDTH = 70
"""Characters of one field that are shown."""

STOPPED = "stopped"
"""What a request is called that the person ended before its first token."""

_STAMPS = ("timestamp", "sequence")


def was_stopped(event: Event) -> bool:
    """Whether it tells of a request that the person ended before its first token: no failure, though the same event."""
    return isinstance(event, RequestFailed) and event.error == AnswerInterrupted.__name__


def kind(event: Event) -> str:
    """What sort of event it is: the name of its class, or `stopped`."""
    return STOPPED if was_stopped(event) else type(event).__name__


def moment(timestamp: float) -> str:
    """The time of day, by this machine's clock, to the millisecond; from seconds since the epoch."""
    return time.strftime("%H:%M:%S", time.localtime(timestamp)) + f".{int(timestamp * 1000) % 1000:03d}"


def fields(event: Event, *, without: Collection[str] = ()) -> str:
    """Its fields that say something, on one line, as `name=value`; those of `without` are left out."""
    hidden = {*_STAMPS, *without, *(("error",) if was_stopped(event) else ())}
    return " ".join(
        f"{name}={shortened(_written(value), WIDTH)}"
        for name in event.__struct_fields__
        if name not in hidden and (value := getattr(event, name)) not in (None, "", ())
    )


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    try:
        text = " ".join(str(value).split())
    except Exception:  # an event of somebody else's, with something in it that has no text
        text = f"<{type(value).__name__}>"
    return f'"{text}"' if " " in text else text
