"""`%llm events`: what happened, the latest last."""

from __future__ import annotations

import time

import msgspec

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events import Event
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say, shortened

SHOWN = 20
"""Events that are listed when no number is given."""


def events(kernel: KernelServices, line: str) -> None:
    """`%llm events [-n N]`."""
    happened = kernel.factory.events.history()
    shown = happened[-_count(line) :]
    if not shown:
        say(["Nothing has happened yet."])
        return
    width = max(len(type(event).__name__) for event in shown)
    lines = [f"{_moment(event)}  {type(event).__name__:<{width}}  {_fields(event)}".rstrip() for event in shown]
    if len(happened) > len(shown):
        lines.append(f"{len(happened) - len(shown)} earlier ones: %llm events -n {len(happened)}")
    say(lines)


def _count(line: str) -> int:
    words = line.split()
    if not words:
        return SHOWN
    if len(words) == 2 and words[0] == "-n" and words[1].isascii() and words[1].isdigit() and int(words[1]) > 0:
        return int(words[1])
    raise InvalidInputError(
        f"%llm events takes -n N, not {line[:40]!r}", next_step="%llm events -n 50 lists the last 50."
    )


def _moment(event: Event) -> str:
    return time.strftime("%H:%M:%S", time.localtime(event.timestamp)) + f".{int(event.timestamp * 1000) % 1000:03d}"


def _fields(event: Event) -> str:
    values = msgspec.structs.asdict(event)
    shown = (
        f"{name}={shortened(_written(value), 70)}"
        for name, value in values.items()
        if name not in ("timestamp", "sequence") and value not in (None, "", ())
    )
    return " ".join(shown)


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = " ".join(str(value).split())
    return f'"{text}"' if " " in text else text
