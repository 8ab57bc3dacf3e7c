"""What every dashboard is: a widget whose state follows the event stream.

Thread rules:
1. All that a dashboard does happens in tasks on the portal's loop, so that it goes on while a cell runs; what may block
   goes to a thread.
2. A message from the page arrives on whatever thread the kernel has for it; that it was taken is said there, and the
   rest is a task.
3. One message with what has changed leaves at most every `beat`; the last state is never held back for good, and if it
   was lost on its way, the page learns of it and asks.
4. Closing waits for nothing and may be done on any thread. `_lock` is held for sending, so that nothing is sent to a comm
   that is closed at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

from traitlets import Dict

from llm_jupyter.errors import InvalidInputError, LLMError
from llm_jupyter.events import Event, FactoryClosed, Feed
from llm_jupyter.factory import LLMFactory
from llm_jupyter.here import Here, here
from llm_jupyter.portal import Job
from llm_jupyter.widgets.asking import is_asked_by_program
from llm_jupyter.widgets.bundle import BundledWidget
from llm_jupyter.widgets.channel import Channel
from llm_jupyter.widgets.picture import Picture

logger = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds for what a closed dashboard has still running to end, before its attributes are gone."""

OVER = "The services that this shows are closed. Run the cell again for those that are open now."

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Dashboard(BundledWidget):
    """The base: subclasses say what they hear, what they show, and what a person can do with them.

    `llm` are the services; without them those of the kernel in which the extension is loaded. Raises `InvalidInputError`
    where it is not.

    A subclass overrides `refresh` (take events in and call `show`, `add_text`, `add_rows`), `picture` (itself for a saved
    file) and has a method `do_NAME` for each thing that the page may ask for. They run on the portal's loop.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    hears: ClassVar[tuple[type[Event], ...]] = ()
    """The kinds of events that make it look again; none means all."""
    every: ClassVar[float | None] = None
    """Seconds after which it looks again although nothing happened."""
    beat: ClassVar[float] = 1 / 12
    """Seconds between two messages to the page, at least."""
    stays: ClassVar[tuple[str, ...]] = ()
    """The attributes that it has for whoever holds it, also once it is closed."""
    echo: ClassVar[float] = 2.0
    """Seconds after which the page is told how many messages it should have: a server drops some that come too fast."""
    lease: ClassVar[float] = 90.0
    """Seconds after which a page that says no more that it shows this is gone; it says so every 30."""

    state = Dict().tag(sync=True, to_json=lambda value, widget: widget.channel.snapshot())
    _is_closed = True

    def __init__(self, llm: LLMFactory | None = None) -> None:
        self._lock = threading.RLock()
        self._users = 2  # its life on the loop, and whoever has it open
        self._kernel = here()
        self.here: Here | None = self._kernel if llm is None else None
        self.llm = llm.open() if llm is not None else _services(self.here)
        self.channel = Channel()
        self.channel.set("kind", self.name)
        self.channel.set("title", self.title)
        self._feed: Feed[Event] = self.llm.events.listen(*((*self.hears, FactoryClosed) if self.hears else ()))
        self._poked, self._has_begun = asyncio.Event(), asyncio.Event()
        self._viewers: dict[str, float] | None = None  # the pages that show it, and when each was heard last
        self._looked_at = 0.0
        self._heard = 0
        self._echo_at = math.inf
        self._trouble: dict[str, Any] | None = None
        self._actions: list[Job] = []
        self._job = self.llm.portal.start(self._live())
        try:
            self.llm.portal.run(self._begin())
            super().__init__(state=self.channel.state)
        except BaseException:
            self._job.cancel()
            raise
        self._is_closed = False
        self.on_msg(self._hear)
        self.comm.on_close(lambda _: self.close())
        self.answer_at_once()
        if self._kernel is not None:
            self._kernel.opened(self)

    # -- for subclasses

    async def begin(self) -> None:
        """Called once, before the first look."""

    async def refresh(self, events: Sequence[Event]) -> None:
        """Look again: `events` are what happened since the last time, oldest first."""

    def picture(self) -> Picture:
        """Itself as it is now, for a saved file."""
        return Picture(self.title)

    def seen(self, is_seen: bool) -> None:
        """Called on the portal's loop when the page begins to show it, and when it no longer does."""

    def ended(self) -> None:
        """Called once, on the portal's loop, when it was closed or its services were: let go of what was taken.

        What runs in tasks of its own is to be cancelled here: after `GRACE` a closed dashboard has only what `stays`.
        """

    def show(self, key: str, value: Any) -> None:
        """Let a JSON value stand under that key of the state."""
        self.channel.set(key, value)

    def add_text(self, key: str, text: str) -> None:
        """Add to the text under that key."""
        self.channel.append(key, text)

    def add_rows(self, key: str, rows: Sequence[Any], limit: int) -> None:
        """Add to the list under that key, of which the last `limit` stay."""
        self.channel.extend(key, rows, limit)

    def unheard(self, events: Iterable[Event]) -> Iterator[Event]:
        """Those of these events that it has not been given before: what the history tells may come by the feed too."""
        for event in events:
            if event.sequence > self._heard:
                self._heard = event.sequence
                yield event

    def poke(self) -> None:
        """Look again soon although nothing was published. On the portal's loop."""
        self._poked.set()

    def say(self, text: str, *, is_error: bool = False) -> None:
        """A line at the foot of the dashboard, in place of the one before."""
        self.show("notice", {"text": text, "error": is_error})
        self.poke()

    # -- its life

    def close(self) -> None:
        """End it and all that it does: it hears and sends no more, and its place in the page becomes empty. Idempotent."""
        if self._is_closed:
            return
        with self._lock:
            if self._is_closed:  # by another thread at this moment
                return
            self._is_closed = True
        for job in (self._job, *self._actions):
            job.cancel()
        if self._kernel is not None:
            self._kernel.closed(self)
        layout = self.layout
        super().close()
        layout.close()
        self._leave()

    def _leave(self) -> None:
        """After the last who uses it, all that it holds goes: IPython's output history keeps the object itself for long."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and its services with it
                    self._loop.call_soon_threadsafe(self._loop.call_later, GRACE, self._forget)

    def _forget(self) -> None:
        for name in self.__dict__.keys() - self.stays:
            del self.__dict__[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self.title} (closed)" if self._is_closed else self.picture().text

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._is_closed:
            return {"text/plain": repr(self)}, {}
        picture = self.picture()
        saved = {"text/html": picture.html, "text/plain": picture.text}
        if is_asked_by_program():  # whoever reads its file would get the page of a kernel that is gone, and no picture
            return saved, {}
        return {WIDGET_VIEW: {"version_major": 2, "version_minor": 1, "model_id": self.model_id}, **saved}, {}

    # -- on the portal's loop

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.begin()
        await self._look()
        self._has_begun.set()

    async def _live(self) -> None:
        try:
            await self._has_begun.wait()
            while not self._feed.closed:
                await self._news()
                self._forget_pages()
                if self._has_reason():
                    await self._look()
                self._flush()
                await asyncio.sleep(self.beat)
        finally:
            self._feed.close()
            if not self._is_closed:  # its services are: what was shown last stays, and answers whatever is asked now
                self.show("over", True)
                self.show("notice", {"text": OVER, "error": True})
                self._tell(self.channel.whole())
            try:
                self.ended()
            finally:
                self._leave()

    @property
    def _is_seen(self) -> bool:
        return self._viewers is None or bool(self._viewers)  # `None`: no page has said anything yet

    def _has_reason(self) -> bool:
        """Whether there is a reason to look again."""
        if self._poked.is_set():
            return True
        return self._is_seen and (self._feed.wait(0) or time.monotonic() >= self._looked_at + (self.every or math.inf))

    async def _news(self) -> None:
        """Wait until there is a reason to look again, or something to send."""
        if self.channel.is_behind or self._has_reason():
            return
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._poked.wait())]
        if self._is_seen:
            waits.append(asyncio.ensure_future(self._feed.news()))
        look_at = self._looked_at + self.every if self.every and self._is_seen else math.inf
        at = min(look_at, self._echo_at, self._lease_ends)
        try:
            await asyncio.wait(
                waits,
                timeout=None if at == math.inf else max(0.0, at - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for wait in waits:
                wait.cancel()

    async def _look(self) -> None:
        """One look; if it fails, that is said, until one succeeds: it must not end the dashboard."""
        self._poked.clear()
        self._looked_at = time.monotonic()
        events = self._feed.take()
        trouble = None
        try:
            await self.refresh(events)
        except LLMError as error:
            trouble = {"text": "\n".join(error.lines()), "error": True}
        except Exception as error:
            trouble = {"text": f"This could not be looked at: {type(error).__name__}: {error}"[:300], "error": True}
            if trouble != self._trouble:
                logger.exception("the dashboard %s could not look", self.name)
        if trouble is not None:
            self.show("notice", trouble)
        elif self._trouble is not None and self.channel.state.get("notice") == self._trouble:
            self.channel.drop("notice")
        self._trouble = trouble
        if any(isinstance(event, FactoryClosed) for event in events):
            self._feed.close()

    def _flush(self) -> None:
        now = time.monotonic()
        try:
            if (message := self.channel.take()) is not None:
                self._tell(message)
                self._echo_at = now + self.echo
            elif now >= self._echo_at:
                self._tell(self.channel.echo())
                self._echo_at = math.inf
        except Exception:  # a value that is no JSON, or a kernel that is about to end
            logger.exception("the dashboard %s could not be sent", self.name)

    def _tell(self, message: dict[str, Any]) -> None:
        """Send a message, with the moment that it is here: the page counts from such moments, and its clock may be another."""
        with self._lock:
            if not self._is_closed:
                self.send({**message, "now": round(time.time(), 3)})

    # -- from the page

    def _hear(self, _: object, content: Any, buffers: object) -> None:
        with self._lock:
            if not isinstance(content, dict) or self._is_closed:
                return
            ticket = content.get("ticket")
            if self._job.done:  # its services are closed
                self._tell(self.channel.whole())
                self._done(ticket)
                return
            if ticket is not None:  # the page is to know now that somebody is there; to do it may take an hour
                self._tell({"taken": ticket})
            running = [job for job in self._actions if not job.done]
            self._actions = [*running, self.llm.portal.start(self._act(dict(content)))]

    async def _act(self, content: dict[str, Any]) -> None:
        verb, ticket = content.pop("do", ""), content.pop("ticket", None)
        with self._lock:
            self._users += 1
        try:
            if verb == "hello":
                self._tell(self.channel.whole())
                self._echo_at = time.monotonic() + self.echo
            elif verb == "seen":
                self._seen_by(str(content.get("page")), bool(content.get("views")))
            else:
                await self._do(str(verb), content)
        finally:
            self.poke()
            self._done(ticket)
            self._leave()

    def _done(self, ticket: object) -> None:
        """Tell the page that what it asked for is done, well or not."""
        if ticket is not None:
            self._tell({"done": ticket})

    def _seen_by(self, page: str, is_seen: bool) -> None:
        """Several pages may show the same kernel's notebook: it is seen until the last one shows it no more."""
        viewers = {**(self._viewers or {}), page: time.monotonic()}
        if not is_seen:
            del viewers[page]
        self._let_see(viewers)

    @property
    def _lease_ends(self) -> float:
        """When the first page is to be forgotten, if it says nothing until then."""
        return min(self._viewers.values()) + self.lease if self._viewers else math.inf

    def _forget_pages(self) -> None:
        """Forget pages that are gone without a word, as with a laptop that was closed."""
        now = time.monotonic()
        if self._viewers and self._lease_ends <= now:
            if self._kernel is not None and self._kernel.is_running:  # what pages say may have to wait for the cell
                self._viewers = dict.fromkeys(self._viewers, now)
            else:
                self._let_see({page: heard for page, heard in self._viewers.items() if heard + self.lease > now})

    def _let_see(self, viewers: dict[str, float]) -> None:
        was_seen, self._viewers = bool(self._viewers), viewers
        if bool(viewers) != was_seen:
            self.seen(not was_seen)

    async def _do(self, verb: str, values: dict[str, Any]) -> None:
        """One action; if it fails, that is said, until one succeeds."""
        before = self.channel.state.get("notice")
        try:
            action = getattr(self, f"do_{verb}", None)
            if action is None:
                raise InvalidInputError(f"this dashboard cannot {verb[:40]!r}")
            await action(**values)
            if before and before["error"] and before is self.channel.state.get("notice"):
                self.channel.drop("notice")
        except LLMError as error:
            self.say("\n".join(error.lines()), is_error=True)
        except Exception as error:
            logger.exception("the dashboard %s could not %s", self.name, verb)
            self.say(f"{verb} failed: {type(error).__name__}: {error}"[:300], is_error=True)


def _services(kernel: Here | None) -> LLMFactory:
    if kernel is None:
        raise InvalidInputError(
            "a dashboard needs services to look at",
            next_step="Type %load_ext llm_jupyter first, or give it an LLMFactory.",
        )
    kernel.session()  # so that it is the notebook's conversation
    return kernel.factory
