"""What a page does with a dashboard, without a page: it applies messages as `frontend/src/channel.ts` does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comm.base_comm import BaseComm

from llm_jupyter.widgets import Dashboard

PATIENCE = 10.0
"""Seconds that anything may take; nothing takes that long."""


class PageComm(BaseComm):
    """The kernel's end of a comm whose other end is a `Page`."""

    def __init__(self, page: Page) -> None:
        self._page = page
        super().__init__(target_name="jupyter.widget")

    def publish_msg(
        self, msg_type: str, data: Mapping[str, Any] | None = None, metadata: Any = None, buffers: Any = None, **_: Any
    ) -> None:
        self._page.hear(msg_type, dict(data or {}))


class Page:
    """Shows one dashboard: `state` is what would be drawn."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        self.state: dict[str, Any] = {}
        self.messages: list[tuple[float, dict[str, Any]]] = []
        """Every message of changes, with the second at which it came."""
        self.answers: list[dict[str, Any]] = []
        """What the kernel has said of that which it was asked to do: that it took it, and that it is done."""
        self.moments: list[float] = []
        """When each message was sent, as the kernel says it."""
        self.is_closed = False
        self.loses: Callable[[dict[str, Any]], bool] = lambda content: False
        """Which messages get lost on their way; none."""
        self.lost = 0
        self._number: int | None = None
        self._tickets = 0
        self._news = threading.Condition()
        dashboard.comm = PageComm(self)
        self._comm = dashboard.comm
        self.send(do="hello")
        self.look()
        self.until(lambda: self.state)

    def send(self, **content: Any) -> None:
        """Send a message as the page does."""
        self._comm.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    def look(self, at_it: bool = True, page: str = "page") -> None:
        """Show it, or show it no more."""
        self.send(do="seen", views=int(at_it), page=page)

    def act(self, verb: str, **values: Any) -> None:
        """Press a button, and wait until what it asks for is done."""
        self._tickets += 1
        ticket = self._tickets
        self.send(do=verb, ticket=ticket, **values)
        self.until(lambda: {"done": ticket} in self.answers)

    def until(self, condition: Callable[[], object], within: float = PATIENCE) -> None:
        """Wait until what is shown is so."""
        end = time.monotonic() + within
        with self._news:
            while not condition():
                if not self._news.wait(end - time.monotonic()) and time.monotonic() > end:
                    raise AssertionError(f"it did not come to be: {self.state}")

    def hear(self, kind: str, data: dict[str, Any]) -> None:
        """Take in a message of the kernel."""
        with self._news:
            if kind == "comm_close":
                self.is_closed = True
            if data.get("method") == "custom":
                content = dict(data["content"])
                self.moments.append(content.pop("now"))
                if self.loses(content):
                    self.lost += 1
                else:
                    self._take(content)
            self._news.notify_all()

    def _take(self, content: dict[str, Any]) -> None:
        if "taken" in content or "done" in content:
            self.answers.append(content)
        elif "state" in content:
            self.state, self._number = dict(content["state"]), content["n"]
        elif "last" in content:
            if self._number is None or content["last"] > self._number:
                self._ask()
        elif self._number is None:
            return  # the whole state is on its way
        elif content["n"] > self._number + 1:
            self._ask()
        else:
            self._number = content["n"]
            self.messages.append((time.monotonic(), content))
            for key, change in content["changes"].items():
                self._apply(key, change)

    def _ask(self) -> None:
        """Ask for the whole state."""
        assert self.lost, "a message went missing"
        self._number = None
        self.send(do="hello")

    def _apply(self, key: str, change: list[Any]) -> None:
        kind, *values = change
        if kind == "set":
            self.state[key] = values[0]
        elif kind == "drop":
            self.state.pop(key, None)
        elif kind == "append":
            self.state[key] = self.state.get(key, "") + values[0]
        else:
            self.state[key] = [*self.state.get(key, ()), *values[0]][-values[1] :]


@contextmanager
def shown(dashboard: Dashboard) -> Iterator[Page]:
    """A page that shows it, until it is closed."""
    with dashboard:
        yield Page(dashboard)
