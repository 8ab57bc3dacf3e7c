"""How far a download of a model is, how fast it comes, and how it is told in a line."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

from llm_jupyter.types import PullProgress
from llm_jupyter.wording import size, waited

SPEED_WINDOW = 5.0
"""Seconds over which the speed of a download is taken."""

SHORTEST = 0.2
"""Seconds after which a speed can be told."""


class Download:
    """How far a download is, and how fast it was lately; `clock` in seconds."""

    def __init__(self, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = re.split("[?#]", re.sub(r"^\w+://([^/]*@)?", "", model))[0]
        """The model, or its address without what only the server needs."""
        self.began = False
        self.last = PullProgress("starting")
        self._clock = clock
        self._started = clock()
        self._marks: deque[tuple[float, int]] = deque()
        self._was_missing = False

    def add(self, progress: PullProgress) -> None:
        """Take in a report."""
        self.began, self.last = True, progress
        if progress.total:
            self._was_missing |= progress.completed < progress.total
        if progress.completed:
            self._marks.append((self._clock(), progress.completed))

    def speed(self) -> float | None:
        """Bytes a second over the last few seconds; `None` where nothing comes, or nothing is left to come."""
        now, last = self._clock(), self.last
        while self._marks and self._marks[0][0] < now - SPEED_WINDOW:
            self._marks.popleft()
        is_whole = last.total is not None and last.completed >= last.total
        if is_whole or not self._marks or now - self._marks[0][0] < SHORTEST:
            return None
        began, completed = self._marks[0]
        speed = (last.completed - completed) / (now - began)
        return speed if speed > 0 else None

    def left(self) -> float | None:
        """Seconds until it is whole, should it stay as fast as it is; `None` where that cannot be told."""
        speed = self.speed()
        return (self.last.total - self.last.completed) / speed if speed and self.last.total else None

    def line(self) -> str:
        """The state at this moment."""
        last, name = self.last, _tail(self.name)
        if not last.total or not last.completed:
            return f"{name}: {last.status}"
        share = min(1.0, last.completed / last.total)
        bar = "█" * round(24 * share) + "░" * (24 - round(24 * share))
        text = f"{name}  {bar} {share:4.0%}  {self.amount()}"
        if last.completed >= last.total:
            return f"{text}  {'finishing' if last.status.startswith('pulling') else last.status}"
        speed, left = self.speed(), self.left()
        return text if not speed or left is None else f"{text}  {speed / 1e6:,.1f} MB/s  {waited(left, '.0f')} left"

    def amount(self) -> str:
        """The megabytes that are there, of how many."""
        of = f" of {self.last.total / 1e6:,.0f}" if self.last.total else ""
        return f"{self.last.completed / 1e6:,.0f}{of} MB"

    def ending(self, word: str) -> str:
        """The line of a download that broke off."""
        return f"{self.name}: {word}" + (f" at {self.amount()}" if self.last.completed else "")

    def summary(self) -> str:
        """What a download that is over was like."""
        if not self._was_missing:
            return ": it was here already"
        return f": {size(self.last.completed)}, after {waited(self._clock() - self._started)}"


def _tail(name: str, most: int = 30) -> str:
    """The end of a name that is too long for a line that has more to say."""
    if len(name) <= most:
        return name
    _, slash, rest = name[-most:].partition("/")
    return f"…/{rest}" if slash else f"…{name[-most:]}"
