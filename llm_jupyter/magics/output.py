"""One output of a cell that is shown again in its own place."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class ReplacedOutput:
    """An output that replaces itself each time it is shown. `publish` is IPython's `display_pub.publish`."""

    def __init__(self, publish: Callable[..., None]) -> None:
        self._publish = publish
        self._id = f"llm-{uuid.uuid4().hex[:12]}"
        self._shown: tuple[dict[str, str], dict[str, Any]] | None = None

    @property
    def is_shown(self) -> bool:
        """Whether it stands on the page."""
        return self._shown is not None

    def show(self, data: dict[str, str], metadata: dict[str, Any] | None = None) -> bool:
        """Show this in place of what stands; whether it was another than that."""
        content = (data, metadata or {})
        if content == self._shown:
            return False
        with interrupts_later():  # between the two lines it would be forgotten, and the next would stand beside it
            self._publish(
                data=data, metadata=content[1], transient={"display_id": self._id}, update=self._shown is not None
            )
            self._shown = content
        return True


@contextmanager
def interrupts_later() -> Iterator[None]:
    """The person's interrupt waits until the block is done: a block of two lines that belong together."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    arrived: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *signalled: arrived.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived:
            before(*arrived[0])
