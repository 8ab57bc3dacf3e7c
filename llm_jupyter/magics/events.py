"""`%llm events`: what happened, the latest last."""

from __future__ import annotations

from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events.wording import fields, kind, moment
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.magics.text import say

SHOWN = 20
"""Events that are listed when no number is given."""


def events(kernel: KernelServices, line: str) -> None:
    """`%llm events [-n N]`."""
    happened = kernel.factory.events.history()
    shown = happened[-_count(line) :]
    if not shown:
        say(["Nothing has happened yet."])
        return
    width = max(len(kind(event)) for event in shown)
    lines = [f"{moment(event.timestamp)}  {kind(event):<{width}}  {fields(event)}".rstrip() for event in shown]
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
