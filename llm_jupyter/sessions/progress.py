"""What is known of an answer under way, and how that is said in a line: in a cell and in a dashboard alike."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llm_jupyter.cache import age_in_words
from llm_jupyter.events import (
    AnswerReplayed,
    Event,
    ModelChosen,
    ModelLoading,
    ModelPulled,
    ModelPulling,
    RequestQueued,
    RequestStarted,
)
from llm_jupyter.sessions.answering import Answering
from llm_jupyter.types import Chunk
from llm_jupyter.wording import size


class Progress:
    """What is known of an answer under way: its text, and from the events what is going on."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._event: Event | None = None
        self._since = time.monotonic()
        self._first: float | None = None
        self._deltas = 0
        self.fetched = ""
        self.reason = ""
        self.is_replayed = False
        self.replayed = ""

    @property
    def text(self) -> str:
        """The text so far."""
        return _joined(self._text)

    @property
    def thinking(self) -> str:
        """The thinking so far."""
        return _joined(self._thinking)

    def hear(self, events: Sequence[Event]) -> None:
        """Take events in, in the order in which they happened; those of other requests are passed over."""
        for event in events:
            if getattr(event, "request", self._answering.request) == self._answering.request:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, ModelChosen):
            self.reason = event.reason
        elif isinstance(event, ModelPulling):
            if event.completed:
                fetched_size = f" ({size(event.total)})" if event.total else ""
                self.fetched = f"{event.model}{fetched_size} was fetched into {event.folder}."
            self._event = event
        elif isinstance(event, AnswerReplayed):
            self.is_replayed = True
            self.replayed = f"cached, {age_in_words(event.age)}" if event.age is not None else ""
        elif isinstance(event, RequestStarted) and isinstance(self._event, RequestQueued):
            return  # it left, and waits at the server
        elif isinstance(event, ModelLoading | ModelPulled | RequestStarted | RequestQueued):
            self._event = event
            self._since = time.monotonic()

    def take(self, batch: Sequence[Chunk]) -> None:
        """Take chunks in."""
        if not batch:
            return
        if self._first is None:
            self._first = time.monotonic()
        self._deltas += len(batch)
        if text := "".join(chunk.text for chunk in batch):
            self._text.append(text)
        if thinking := "".join(chunk.thinking for chunk in batch):
            self._thinking.append(thinking)

    def label(self) -> str:
        """Who answers, and where."""
        who, choice = self._answering.answered_by, self._answering.choice
        if who is not None:
            return f"{who.full_name} · {'local' if who.is_local else 'remote'}"
        if choice is not None:
            return f"{choice.full_name} · {'local' if choice.is_local else 'remote'}"
        return "no model yet"

    def status(self) -> str:
        """One line: how fast the answer comes, or what it waits for."""
        if self.is_replayed:
            return "replayed"
        if self._first is not None:
            elapsed = time.monotonic() - self._first
            return f"{self._deltas / elapsed:.0f} tokens/s" if elapsed > 0.5 else "answering"
        if isinstance(self._event, ModelPulling):
            return self.wait()
        return f"{self.wait()} {time.monotonic() - self._since:.0f} s"

    def wait(self) -> str:
        """What the answer waits for before its first token, without the time that this takes."""
        event = self._event
        if isinstance(event, ModelPulling):
            return _pulling(event)
        if isinstance(event, ModelLoading):
            model_size = f" ({size(event.size)})" if event.size else ""
            return f"Loading {event.model}{model_size}…"
        if isinstance(event, RequestQueued):
            return f"Queued behind {event.ahead} more…"
        if isinstance(event, RequestStarted):
            return f"Waiting for {event.provider}/{event.model}…"
        return "Looking for the model…"


def _joined(pieces: list[str]) -> str:
    """The pieces as one string, which then is the only piece: joining is linear over a whole answer's beats."""
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""


def _pulling(event: ModelPulling) -> str:
    if not event.total or not event.completed:
        return f"Fetching {event.model} into {event.folder}: {event.status}…"
    share = event.completed / event.total
    bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
    return f"Fetching {event.model} ({size(event.total)}) into {event.folder}  {bar} {share:.0%}"
