"""The events dashboard: what happens, as it happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from llm_jupyter import events as kinds
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.events import Event
from llm_jupyter.events.wording import fields, kind, moment, was_stopped
from llm_jupyter.types import ProviderState
from llm_jupyter.widgets.base import Dashboard
from llm_jupyter.widgets.picture import Picture
from llm_jupyter.wording import shortened

HELD = 500
"""Rows that the page holds."""

RATE = 200.0
"""Rows a second that are added in the long run: more than can be read, and little for the kernel and the page."""

PICTURED = 20
"""Rows that stand in a saved file."""

GROUPS = {
    "Provider": "provider", "Connection": "provider", "Health": "provider", "Model": "model", "Host": "host",
    "Session": "session", "Turn": "session", "Store": "session", "Request": "request", "Answer": "offline",
    "Error": "error",
}  # fmt: skip
"""By the beginning of an event's name. Whatever is bad belongs to `error` too."""

TONES: dict[type[Event], str] = {
    kinds.ErrorOccurred: "bad",
    kinds.RequestFailed: "bad",
    kinds.HostFailed: "bad",
    kinds.ProviderLost: "bad",
    kinds.StoreDegraded: "bad",
    kinds.RequestRetried: "warn",
    kinds.RequestFailedOver: "warn",
    kinds.HostRestarting: "warn",
    kinds.HostLimitExceeded: "warn",
    kinds.ModelLoading: "busy",
    kinds.ModelPulling: "busy",
    kinds.ModelLoaded: "good",
    kinds.ModelPulled: "good",
    kinds.HostReady: "good",
    kinds.ProviderConnected: "good",
    kinds.ProviderRecovered: "good",
}

SUBJECTS = ("request", "session", "host", "provider", "source")
"""The fields of which the first that an event has says what it is about."""


class Filter(msgspec.Struct, frozen=True):
    """Which events are shown: those of `groups` (none: of all) with `text` in them; measurements only on request."""

    groups: tuple[str, ...] = ()
    text: str = ""
    frequent: bool = False

    def lets(self, event: Event) -> bool:
        """Whether it is shown."""
        if event.is_frequent and not self.frequent:
            return False
        if self.groups and not (group_of(event) in self.groups or ("error" in self.groups and tone_of(event) == "bad")):
            return False
        return not self.text or self.text.casefold() in " ".join(_words(event)).casefold()


class Pace:
    """How many rows may be added: `HELD` at once, `RATE` a second in the long run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level = float(HELD)
        self._filled = clock()

    def take(self, wanted: int) -> int:
        """So many of those that are wanted."""
        now = self._clock()
        self._level = min(float(HELD), self._level + (now - self._filled) * RATE)
        self._filled = now
        taken = min(wanted, int(self._level))
        self._level -= taken
        return taken


class EventsDashboard(Dashboard):
    """A live log of events, with a filter, a pause, and what the bus remembers at its beginning.

    In a burst the page gets the last ones and how many passed; only what is shown is put into words.
    """

    name: ClassVar[str] = "events"
    title: ClassVar[str] = "Events"

    async def begin(self) -> None:
        self._filter = Filter()
        self._pace = Pace()
        self._shown_until = math.inf  # the number of the last event before the pause, while there is one
        self._cleared = self._last = 0
        self.show("all_groups", list(dict.fromkeys(GROUPS.values())))
        self._look_back()

    async def refresh(self, events: Sequence[Event]) -> None:
        matching = [event for event in events if event.sequence > self._last and self._filter.lets(event)]
        if events:
            self._last = max(self._last, events[-1].sequence)
        if self._shown_until < math.inf:
            self.show("waiting", self.channel.state["waiting"] + len(matching))
        elif matching:
            count = max(1, self._pace.take(len(matching)))  # the very last is always shown
            self.add_rows("rows", [row_of(event) for event in matching[-count:]], HELD)
            self.show("skipped", self.channel.state["skipped"] + len(matching) - count)

    def picture(self) -> Picture:
        rows = self.channel.state["rows"]
        shown = [(moment(row["at"]), row["kind"], row["about"], row["text"]) for row in rows[-PICTURED:]]
        earlier = len(rows) - len(shown)
        lines = [] if shown else ["Nothing has happened yet."]
        if earlier:
            lines.append(f"{earlier} earlier ones: %llm events -n {len(rows)}")
        return Picture(self.title, ("time", "event", "about", "what"), shown, lines)

    async def do_filter(self, groups: list[str], text: str, frequent: bool) -> None:
        """Show only what belongs to one of `groups` and has `text` in it; none of them, and an empty one, mean all."""
        if unknown := set(groups) - set(GROUPS.values()):
            raise InvalidInputError(f"there is no group of events {', '.join(sorted(unknown))[:40]!r}")
        self._filter = Filter(tuple(groups), text.strip(), frequent)
        self._look_back()

    async def do_pause(self) -> None:
        """Add nothing until `resume`; what comes meanwhile is counted."""
        self._shown_until = min(self._shown_until, self._last)
        self.show("paused", True)

    async def do_resume(self) -> None:
        """Go on, with what came meanwhile."""
        self._shown_until = math.inf
        self._look_back()

    async def do_clear(self) -> None:
        """Show only what comes from now on."""
        self._cleared = max((event.sequence for event in self.llm.events.history()), default=0)
        self._look_back()

    def _look_back(self) -> None:
        """Show what is remembered, by the filter of this moment; what came since a pause is only counted."""
        past = self.llm.events.history()
        self._last = max((event.sequence for event in past), default=0)
        found = [event for event in past if event.sequence > self._cleared and self._filter.lets(event)]
        shown = [event for event in found if event.sequence <= self._shown_until]
        self.show("groups", list(self._filter.groups))
        self.show("text", self._filter.text)
        self.show("frequent", self._filter.frequent)
        self.show("paused", self._shown_until < math.inf)
        self.show("waiting", len(found) - len(shown))
        self.show("skipped", 0)
        self.show("rows", [row_of(event) for event in shown[-HELD:]])


def row_of(event: Event) -> dict[str, Any]:
    """An event as the page shows it."""
    what, about, text = _words(event)
    return {
        "n": event.sequence, "at": event.timestamp, "kind": what, "tone": tone_of(event), "about": about,
        "text": shortened(text, 400),
    }  # fmt: skip


def group_of(event: Event) -> str:
    """To which of the filter's groups it belongs; `other` where it is none of the package's."""
    name = type(event).__name__
    return next((group for beginning, group in GROUPS.items() if name.startswith(beginning)), "other")


def tone_of(event: Event) -> str:
    """Whether it is `good`, `busy`, `warn`, `bad`, or none of these: `idle`."""
    if was_stopped(event):
        return "idle"
    match event:
        case kinds.HostStopped(expected=False):
            return "bad"
        case kinds.HealthChecked(healthy=False):
            return "warn"
        case kinds.ConnectionStateChanged(new=ProviderState.FAILED):
            return "bad"
    return TONES.get(type(event), "idle")


def _words(event: Event) -> tuple[str, str, str]:
    """Its kind, what it is about, and the rest."""
    names = event.__struct_fields__
    subjects = [name for name in SUBJECTS if name in names][:1]
    if subjects == ["provider"] and "model" in names:
        subjects.append("model")
    about = "/".join(str(getattr(event, name)) for name in subjects)
    return kind(event), shortened(about), fields(event, without=subjects)
