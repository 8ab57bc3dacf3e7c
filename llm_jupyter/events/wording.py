"""An event as people read it: when, what it is about, and its fields."""

from __future__ import annotations

import time
from collections.abc import Collection

from llm_jupyter.events.kinds import Event
from llm_jupyter.wording import shortened

WIDTH = 70
"""Characters of one field that are shown."""

_STAMPS = ("timestamp", "sequence")


def moment(timestamp: float) -> str:
    """The time of day, by this machine's clock, to the millisecond; from seconds since the epoch."""
    return time.strftime("%H:%M:%S", time.localtime(timestamp)) + f".{int(timestamp * 1000) % 1000:03d}"


def fields(event: Event, *, without: Collection[str] = ()) -> str:
    """Its fields that say something, on one line, as `name=value`; those of `without` are left out."""
    return " ".join(
        f"{name}={shortened(_written(value), WIDTH)}"
        for name in event.__struct_fields__
        if name not in _STAMPS and name not in without and (value := getattr(event, name)) not in (None, "", ())
    )


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    try:
        text = " ".join(str(value).split())
    except Exception:  # an event of somebody else's, with something in it that has no text
        text = f"<{type(value).__name__}>"
    return f'"{text}"' if " " in text else text
