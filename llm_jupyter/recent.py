"""Which models were used last, kept on disk for the next kernel's choice."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

KEPT = 50
"""Models that are remembered."""


class RecentModels:
    """When each model was last chosen, in seconds since the epoch. A file that cannot be read or written costs nothing."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    def times(self) -> dict[str, float]:
        """`provider/model` and when it was last chosen."""
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._file.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                return {name: float(at) for name, at in known.items() if isinstance(at, int | float)}
        return {}

    def remember(self, name: str) -> None:
        """Note that a model was chosen now."""
        known = {**self.times(), name: self._clock()}
        kept = dict(sorted(known.items(), key=lambda item: -item[1])[:KEPT])
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._file.with_suffix(f".{os.getpid()}.new")
            try:
                new.write_text(json.dumps(kept), encoding="utf-8")
                new.replace(self._file)
            finally:
                new.unlink(missing_ok=True)
