"""How a question finds its answer: from whoever is asked, from what was kept, or from the one where the other fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from llm_jupyter.cache.answers import Kept, Recorder
from llm_jupyter.choice import Choice
from llm_jupyter.clock import Clock
from llm_jupyter.errors import ModelNotFoundError
from llm_jupyter.failover import GIVES_WAY, Route
from llm_jupyter.question import Tried
from llm_jupyter.types import Chunk

Choose = Callable[[], Awaitable[Choice]]
"""Finds the model that answers; it may ask servers for that."""


class Answerer(NamedTuple):
    """Who gave an answer."""

    provider: str
    model: str
    is_local: bool

    @property
    def full_name(self) -> str:
        """`provider/model`, as people type it, or the path of a model that is named by one."""
        return self.model if Path(self.model).is_absolute() else f"{self.provider}/{self.model}"


class Found(NamedTuple):
    """An answer that was kept: where (`recording` or `cache`), and how many seconds ago it came, where that is known."""

    kept: Kept
    source: str
    age: float | None = None


class Asking(Protocol):
    """One question on its way to its answer, as a conversation sees it.

    `source` is empty for an answer that somebody gives now, else `recording` or `cache`; `age` is then in seconds, where
    known. `choice` is whoever was asked last, `tried` who failed, `started` when the request left (monotonic seconds).
    """

    @property
    def choice(self) -> Choice | None: ...
    @property
    def tried(self) -> Sequence[Tried]: ...
    @property
    def started(self) -> float: ...
    @property
    def source(self) -> str: ...
    @property
    def age(self) -> float | None: ...
    @property
    def answered_by(self) -> Answerer | None:
        """Who gives the answer; `None` before that is known."""

    async def open(self, choose: Choose, *, named: bool = False, wanted: str | None = None) -> list[Chunk]:
        """The first pieces of the answer.

        `choose` is called only if somebody is asked. `named` says that the model was named for this question, `wanted` how
        the person named it, for this question or before; `None` where nobody named one. Raises what `Route.open` raises,
        and `OfflineMissError`.
        """

    async def read_batch(self) -> list[Chunk]:
        """The next pieces; an empty list once the answer is whole."""

    async def aclose(self) -> None:
        """Close what is open. Idempotent."""


class Live:
    """Asks, and keeps nothing."""

    source = ""
    age: float | None = None

    def __init__(self, route: Route) -> None:
        self._route = route

    @property
    def choice(self) -> Choice | None:
        return self._route.choice

    @property
    def tried(self) -> Sequence[Tried]:
        return self._route.tried

    @property
    def started(self) -> float:
        return self._route.started

    @property
    def answered_by(self) -> Answerer | None:
        choice = self.choice
        return None if choice is None else Answerer(choice.provider.name, choice.model, choice.is_local)

    async def open(self, choose: Choose, *, named: bool = False, wanted: str | None = None) -> list[Chunk]:
        return await self.ask(await choose(), named)

    async def ask(self, choice: Choice, named: bool) -> list[Chunk]:
        """As `open`, once the model is chosen."""
        return await self._route.open(choice, named=named)

    async def read_batch(self) -> list[Chunk]:
        return await self._route.read_batch()

    async def aclose(self) -> None:
        await self._route.aclose()


class Keeping(Live):
    """Asks, and hands a recorder of the answer on once it has come to its end."""

    def __init__(self, route: Route, keep: Callable[[Recorder, Choice], Awaitable[None]]) -> None:
        super().__init__(route)
        self._keep = keep
        self._recorder: Recorder | None = Recorder()

    async def ask(self, choice: Choice, named: bool) -> list[Chunk]:
        return self._heard(await super().ask(choice, named))

    async def read_batch(self) -> list[Chunk]:
        batch = self._heard(await super().read_batch())
        if not batch and self._recorder is not None and self.choice is not None:
            recorder, self._recorder = self._recorder, None
            await self._keep(recorder, self.choice)
        return batch

    def _heard(self, batch: list[Chunk]) -> list[Chunk]:
        if self._recorder is not None:
            self._recorder.feed(batch)
        return batch


class Replay:
    """Gives what was kept, at once or `pace` seconds between two pieces."""

    choice: Choice | None = None

    def __init__(self, pace: float | None, clock: Clock, tried: Sequence[Tried] = ()) -> None:
        self.tried = tried
        self.started = time.monotonic()
        self.source = ""
        self.age: float | None = None
        self.answered_by: Answerer | None = None
        self._pace = pace
        self._clock = clock
        self._left: deque[Chunk] = deque()

    def begin(self, found: Found) -> list[Chunk]:
        """The first pieces of this answer."""
        kept, self.source, self.age = found
        self.answered_by = Answerer(kept.provider, kept.who.model, kept.is_local)
        self._left.extend(kept.chunks())
        return self._taken()

    async def read_batch(self) -> list[Chunk]:
        if self._pace and len(self._left) > 1:  # the last one says nothing
            await self._clock.sleep(self._pace)
        return self._taken()

    async def aclose(self) -> None:
        self._left.clear()

    def _taken(self) -> list[Chunk]:
        count = min(1, len(self._left)) if self._pace else len(self._left)
        return [self._left.popleft() for _ in range(count)]


class Replaying(Replay):
    """Asks nobody: gives what `find` finds for the model that is wanted."""

    def __init__(self, find: Callable[[str | None], Awaitable[Found]], pace: float | None, clock: Clock) -> None:
        super().__init__(pace, clock)
        self._find = find

    async def open(self, choose: Choose, *, named: bool = False, wanted: str | None = None) -> list[Chunk]:
        self.started = time.monotonic()
        return self.begin(await self._find(wanted))


class LastResort:
    """Asks, and where nobody could answer gives what was kept.

    `find` looks for an answer of the model that was chosen, or of the one that was wanted where even that failed.
    """

    def __init__(
        self, live: Keeping, find: Callable[[Choice | None, str | None], Awaitable[Found | None]], pace: float | None,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._live = live
        self._find = find
        self._pace = pace
        self._clock = clock
        self._giving: Live | Replay = live

    @property
    def choice(self) -> Choice | None:
        return self._live.choice

    @property
    def tried(self) -> Sequence[Tried]:
        return self._live.tried

    @property
    def started(self) -> float:
        return self._giving.started

    @property
    def source(self) -> str:
        return self._giving.source

    @property
    def age(self) -> float | None:
        return self._giving.age

    @property
    def answered_by(self) -> Answerer | None:
        return self._giving.answered_by

    async def open(self, choose: Choose, *, named: bool = False, wanted: str | None = None) -> list[Chunk]:
        chosen: Choice | None = None
        try:
            chosen = await choose()
            return await self._live.ask(chosen, named)
        except (*GIVES_WAY, ModelNotFoundError) as error:
            if chosen is not None and isinstance(error, ModelNotFoundError):
                raise  # its server is there and does not hold it
            if (found := await self._find(chosen, wanted)) is None:
                raise
        self._giving = replay = Replay(self._pace, self._clock, self._live.tried)
        return replay.begin(found)

    async def read_batch(self) -> list[Chunk]:
        return await self._giving.read_batch()

    async def aclose(self) -> None:
        await self._live.aclose()
        await self._giving.aclose()


def age_in_words(seconds: float) -> str:
    """How old something is, as one says it: `3 days old`."""
    for length, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' if count > 1 else ''} old"
    return "less than a minute old"
