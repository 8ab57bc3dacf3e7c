"""Asking everybody: contenders on different servers at once, those on one server in turn.

A server that swaps models or shares its cores between requests answers two at once more slowly than one after the other, so
its questions stand in a queue here, and what they wait there is told apart from what the server took. They come in rounds:
every contender answers a prompt before any is asked the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_jupyter.choice import Choice
from llm_jupyter.comparison.attempt import Attempt
from llm_jupyter.comparison.comparison import Comparison
from llm_jupyter.comparison.contender import Contender
from llm_jupyter.comparison.given import count_of
from llm_jupyter.comparison.lane import Lane, LaneState
from llm_jupyter.errors import AnswerInterrupted, LLMError
from llm_jupyter.events import AnswerReplayed, ModelLoaded, RequestFirstToken
from llm_jupyter.sessions import CellPlace, LLMSession

if TYPE_CHECKING:
    from llm_jupyter.factory import LLMFactory

READ_INTERVAL = 0.02
"""Seconds that a socket is left unread at a time once the answer comes: times are measured as exactly as that."""

AT_ONCE = 4
"""Questions that a remote server gets at once."""

KEEPING = ("record", "replay")
"""The modes of offline use in which the answers to one question are numbered in the order in which it is asked."""


async def run(
    comparison: Comparison, llm: LLMFactory, *, session: LLMSession | None = None, parallel: int | None = None,
    place: CellPlace | None = None,
) -> Comparison:  # fmt: skip
    """Ask everything that stands in the comparison, and return it when all is over or `stop` was called.

    `parallel` questions are asked of each server at once; by default as many as a local server works on, one where that is
    not known, and four of a remote one. `session` gives the options that stand behind those of the contenders, by default
    the current one; nothing is written into it. `place` is the cell that asks. A model that is not there or fails is a row
    with its error. Cancelled, it keeps what has arrived. Raises `InvalidInputError`.
    """
    at_once = None if parallel is None else count_of("parallel", parallel)
    asking = _Run(comparison, llm, session or llm.sessions.current, at_once, place)
    loop, work = asyncio.get_running_loop(), asyncio.create_task(asking.all())
    comparison.running(lambda: loop.call_soon_threadsafe(work.cancel))
    try:
        await asyncio.wait([work])
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.wait([work])
        raise
    finally:
        comparison.running(None)
        asking.give_up()
    if not work.cancelled():
        work.result()
    return comparison


def beats(
    comparison: Comparison, llm: LLMFactory, *, interval: float, session: LLMSession | None = None,
    parallel: int | None = None, place: CellPlace | None = None,
) -> Generator[None, None, None]:  # fmt: skip
    """As `run`, for callers without a loop: the iteration comes by every `interval` seconds until all is over.

    Leaving it stops the comparison; what has arrived is kept. Raises `InvalidInputError`.
    """
    work = _Work(lambda: run(comparison, llm, session=session, parallel=parallel, place=place))
    with contextlib.closing(llm.portal.batches(lambda: work, interval=interval)) as batches:
        for _ in batches:
            yield


class _Work(contextlib.AbstractAsyncContextManager[Any]):
    """Something to do, as a stream in which nothing comes before it ends."""

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self._work = work

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read_batch(self) -> list[None]:
        await self._work()
        return []


@dataclass(order=True)
class _Turn:
    """A question that waits for its turn; the order is that of the rounds."""

    rank: tuple[int, int, int]
    lane: Lane = field(compare=False)
    contender: Contender = field(compare=False)
    choice: Choice | None = field(compare=False)


@dataclass
class _Server:
    """The questions that wait for one server, and how many it works on."""

    slots: int
    waiting: list[_Turn] = field(default_factory=list)
    busy: int = 0


class _Run:
    """One run of a comparison, on one event loop."""

    def __init__(
        self,
        comparison: Comparison,
        llm: LLMFactory,
        session: LLMSession,
        parallel: int | None,
        place: CellPlace | None,
    ) -> None:
        self._comparison = comparison
        self._llm = llm
        self._session = session
        self._parallel = parallel
        self._place = place
        self._began = time.monotonic()
        self._servers: dict[tuple[str, bool], _Server] = {}
        everything = len(comparison.progress)
        self._limit = asyncio.Semaphore(llm.settings.limits.parallel_requests or everything)
        self._same: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._is_kept = llm.cache.mode in KEEPING

    async def all(self) -> None:
        """Ask everybody. What is no `LLMError` ends it all, and is raised."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, contender in enumerate(self._comparison.contenders):
                    group.create_task(self._enter(number, contender, group))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None

    def give_up(self) -> None:
        """Mark what was not asked any more."""
        for lane in self._comparison.progress:
            if not lane.is_over:
                Attempt(self._comparison, lane, self._began).end(None)

    async def _enter(self, number: int, contender: Contender, group: asyncio.TaskGroup) -> None:
        """Find the model, and let its questions stand in the queue of its server."""
        lanes = [lane for lane in self._comparison.lanes_of(contender.label) if not lane.is_over]
        choice = None
        if self._llm.cache.mode != "replay":  # where nobody is asked anything
            try:
                choice = await self._llm.providers.resolve(contender.model, trusting=True, named=True)
            except LLMError as error:
                for lane in lanes:
                    Attempt(self._comparison, lane, self._began).fail(error)
                return
        server = self._server(choice)
        for lane in lanes:
            lane.queue(choice.full_name if choice is not None else contender.model)
            heapq.heappush(server.waiting, _Turn((*lane.rank, number), lane, contender, choice))
        for _ in range(min(len(lanes), server.slots - server.busy)):
            server.busy += 1
            group.create_task(self._serve(server))

    def _server(self, choice: Choice | None) -> _Server:
        if choice is None:  # what is replayed comes at once; only where it is slowed down is there anything to see
            at_once = len(self._comparison.progress) if self._llm.cache.pace else 1
            return self._servers.setdefault(("", True), _Server(at_once))
        provider = choice.provider
        slots = self._parallel or ((provider.slots or 1) if choice.is_local else AT_ONCE)
        return self._servers.setdefault((provider.url or provider.name, choice.is_local), _Server(slots))

    async def _serve(self, server: _Server) -> None:
        """Ask one after the other, as long as any waits."""
        try:
            while server.waiting:
                turn = heapq.heappop(server.waiting)
                async with self._limit, self._one_by_one(turn.lane):
                    await self._ask(turn)
        finally:
            server.busy -= 1

    def _one_by_one(self, lane: Lane) -> contextlib.AbstractAsyncContextManager[object]:
        """Where answers are numbered, the same question is asked again only after its answer."""
        return self._same[lane.contender, lane.prompt] if self._is_kept else contextlib.nullcontext()

    async def _ask(self, turn: _Turn) -> None:
        """Ask one question, and keep what comes of it."""
        lane, contender = turn.lane, turn.contender
        attempt = Attempt(self._comparison, lane, self._began)
        answering = self._session.ask_once(
            self._comparison.messages[lane.prompt], choice=turn.choice, wanted=contender.model, options=contender.options,
            system=contender.system, read_interval=READ_INTERVAL, place=self._place,
            alone=True,
        )  # fmt: skip
        try:
            with self._llm.events.listen(ModelLoaded, RequestFirstToken, AnswerReplayed) as feed:
                async with answering:
                    while batch := await answering.read_batch():
                        if lane.state is not LaneState.STREAMING:
                            attempt.hear(feed.take(), answering.request)
                        lane.take(batch)
        except AnswerInterrupted:
            attempt.end(answering)
        except LLMError as error:
            attempt.fail(error)
        except asyncio.CancelledError:
            attempt.end(answering)
            raise
        else:
            attempt.end(answering)
