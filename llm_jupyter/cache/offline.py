"""Offline mode: what is kept of answers, and when it stands in for a model.

`off` keeps nothing. `record` writes every whole answer into the notebook's recording and into the cache, `auto` into the
cache alone, and gives what is there where nobody could answer. `replay` asks nobody, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from llm_jupyter.cache.answers import Kept, Recorder
from llm_jupyter.cache.asking import Answerer, Asking, Found, Keeping, LastResort, Live, Replaying
from llm_jupyter.cache.disk import SIZE_LIMIT, AnswerCache, CacheStats
from llm_jupyter.cache.nearly import ANOTHER, NONE, nearest
from llm_jupyter.cache.recording import SUFFIX, Asker, Recording
from llm_jupyter.cache.request import Request, Who, fingerprint
from llm_jupyter.choice import Choice
from llm_jupyter.clock import SYSTEM_CLOCK, Clock
from llm_jupyter.defaults import ModelDefaults
from llm_jupyter.errors import CacheError, InvalidInputError, OfflineMissError
from llm_jupyter.events import AnswerRecorded, AnswerReplayed, ErrorOccurred, EventBus
from llm_jupyter.failover import Route
from llm_jupyter.question import Question
from llm_jupyter.types import GenerationOptions

logger = logging.getLogger(__name__)

OFF, AUTO, RECORD, REPLAY = MODES = ("off", "auto", "record", "replay")

SHOWN_OF_A_PROMPT = 60
"""Characters by which an error names a question."""


class OfflineStatus(msgspec.Struct, frozen=True):
    """What offline mode does now. `recording` is the file that answers are recorded to and replayed from, `recorded` how
    many it holds, `trouble` why that cannot be told. `beside` are all recordings that a replay looks into too.
    """

    mode: str
    recording: Path | None
    recorded: int
    trouble: str
    cache: CacheStats
    beside: tuple[Path, ...] = ()


class Asked(NamedTuple):
    """A question on its way: its number, its canonical form, and who asks."""

    number: str
    request: Request
    asker: Asker


class LLMCache:
    """The door between conversations and models.

    `folder` is where the cache is, `recording` the file that the person named, `pace` the seconds between two pieces of a
    replayed answer. `digest_of` tells the digest of a model's weights where its server has told it.
    """

    def __init__(
        self, folder: Path, events: EventBus, *, mode: str = OFF, recording: str | None = None, pace: float | None = None,
        size_limit: int = SIZE_LIMIT, is_remote: Callable[[Path], bool] = lambda path: False,
        defaults: ModelDefaults | None = None, digest_of: Callable[[Choice], str | None] = lambda choice: None,
        clock: Callable[[], float] = time.time, waits: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self.answers = AnswerCache(folder, size_limit=size_limit, is_remote=is_remote, clock=clock)
        self.pace = pace
        self._events = events
        self._locks = folder / "locks"
        self.recording = recording
        self._defaults = defaults or ModelDefaults()
        self._digest_of = digest_of
        self._clock = clock
        self._waits = waits
        self._notebook: Path | None = None
        self._folder: Path | None = None
        self._recordings: dict[Path, Recording] = {}
        self.mode = mode

    @property
    def mode(self) -> str:
        """One of `MODES`. Setting it begins a new run: replays start with the first answers again."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        mode = REPLAY if mode == "on" else mode
        if mode not in MODES:
            raise InvalidInputError(
                f"there is no offline mode {mode!r}", next_step=f"It is one of {', '.join(MODES)} (on is replay)."
            )
        self._mode = mode
        self._recordings.clear()
        if mode == REPLAY:
            self.answers.warm()

    @property
    def is_replaying(self) -> bool:
        """Whether nobody is asked: what answers is recordings and what is kept."""
        return self._mode == REPLAY

    @property
    def is_recording(self) -> bool:
        """Whether answers are written into the notebook's recording."""
        return self._mode == RECORD

    @property
    def comes_at_once(self) -> bool:
        """Whether whole answers come at a stroke, so that there is nothing to watch."""
        return self.is_replaying and not self.pace

    def place(self, notebook: Path | None, folder: Path) -> None:
        """Say where recordings are: beside the notebook, where its path is known, and in the kernel's folder."""
        self._notebook = None if notebook is None else notebook.absolute()  # a cell may go to another folder
        self._folder = folder.absolute()

    async def route(
        self, question: Question, live: Callable[[], Route], asker: Asker | None = None, *, is_private: bool = False
    ) -> Asking:
        """How a question finds its answer. `live` makes the way to a model; offline it is not called.

        The answer to a private question is not kept. Raises `InvalidInputError` for one that JSON cannot carry.
        """
        if self._mode == OFF:
            return Live(live())
        said = [question.prompt] if question.completion else await question.conversation()
        request = Request.of(said, question.options, completion=question.completion)
        asked = Asked(question.request, request, asker or Asker())

        async def keep(recorder: Recorder, choice: Choice) -> None:
            kept = recorder.kept(
                request, self._who(choice, question), provider=choice.provider.name, is_local=choice.is_local,
                created=self._clock(),
            )  # fmt: skip
            if kept is not None and not is_private:
                await self._keep(asked, kept)

        async def kept_instead(choice: Choice | None, wanted: str | None) -> Found | None:
            if choice is None or not choice.model:
                return await self._cached(asked, lambda kept: kept.is_of(wanted))
            who = self._who(choice, question)
            return await self._cached(asked, lambda kept: kept.who.may_be(who))

        if self._mode == REPLAY:
            return Replaying(lambda wanted: self._replayed(asked, wanted), self.pace, self._waits)
        keeping = Keeping(live(), keep)
        return LastResort(keeping, kept_instead, self.pace, self._waits) if self._mode == AUTO else keeping

    async def recorded(self, request: Request, *, model: str | None = None) -> Kept | None:
        """What a replay would answer, of that model or of any. Raises `CacheError` for a recording that cannot be read."""
        kept, trouble = await asyncio.to_thread(self._in_recordings, request.digest, model, None)
        if kept is None:
            kept = await self.answers.newest(request.digest, lambda kept: kept.is_of(model))
        if kept is None and trouble is not None:
            raise trouble
        return kept

    async def recorded_by(self, model: str) -> Answerer | None:
        """Whose answers a replay gives for that model. Raises `CacheError` for a recording that cannot be read."""

        def found() -> Answerer | None:
            own = self._own()
            everywhere = (one.by(model) for one in (*([own] if own else []), *self._beside()))
            kept = next((kept for kept in everywhere if kept is not None), None)
            return None if kept is None else Answerer(kept.provider, kept.who.model, kept.is_local)

        return await asyncio.to_thread(found)

    def recordings(self) -> list[Recording]:
        """Where a replay looks, its own recording first; that one need not be there."""
        own = self._own()
        beside = [one for one in self._beside() if own is None or one.path != own.path]
        return beside if own is None else [own, *beside]

    async def status(self) -> OfflineStatus:
        """What is kept where. Never raises."""
        own = self._own()
        recorded, trouble = 0, ""
        try:
            if own is not None:
                recorded = await asyncio.to_thread(own.count)
                trouble = wrong.what if (wrong := own.trouble()) is not None else ""
        except CacheError as error:
            trouble = error.what
        beside = tuple(one.path for one in await asyncio.to_thread(self._beside))
        return OfflineStatus(self._mode, own.path if own else None, recorded, trouble, await self.stats(), beside)

    async def stats(self) -> CacheStats:
        """What the cache holds."""
        return await self.answers.stats()

    async def clear(self, older: float | None = None) -> int:
        """Empty the cache, or forget what came more than `older` seconds ago; returns how many questions that concerns.

        Recordings stay. Raises `CacheError`.
        """
        return await self.answers.clear(older)

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self.answers.close()

    # -- keeping

    async def _keep(self, asked: Asked, kept: Kept) -> None:
        """Put an answer wherever this mode puts it; what fails is told and costs nothing else."""
        is_kept = await self.answers.put(kept)
        if self._mode == RECORD and (own := self._own()) is not None:
            try:
                await asyncio.to_thread(own.add, kept, asked.asker)
                is_kept = True
            except CacheError as error:
                logger.warning("an answer was not recorded: %s", error.what)
                self._events.publish(ErrorOccurred(source="recording", error=type(error).__name__, message=error.what))
        if is_kept:
            self._events.publish(AnswerRecorded(request=asked.number, digest=asked.request.digest))

    def _who(self, choice: Choice, question: Question) -> Who:
        own = self._defaults.options(choice, GenerationOptions())
        system = None if question.completion or question.is_instructed else self._defaults.system(choice)
        plain = own == GenerationOptions() and system is None
        settings = None if plain else fingerprint([own, system])
        return Who(choice.provider.kind, choice.model, self._digest_of(choice), settings)

    # -- finding

    async def _replayed(self, asked: Asked, wanted: str | None) -> Found:
        digest = asked.request.digest
        kept, trouble = await asyncio.to_thread(self._in_recordings, digest, wanted, asked.asker)
        if kept is not None:
            return self._told(asked, Found(kept, "recording"))
        if (found := await self._cached(asked, lambda kept: kept.is_of(wanted))) is not None:
            return found
        if trouble is not None:
            raise trouble
        raise await self._miss(asked.request, wanted)

    async def _cached(self, asked: Asked, accepts: Callable[[Kept], bool]) -> Found | None:
        kept = await self.answers.newest(asked.request.digest, accepts)
        if kept is None:
            return None
        age = None if kept.created is None else max(0.0, self._clock() - kept.created)
        return self._told(asked, Found(kept, "cache", age))

    def _told(self, asked: Asked, found: Found) -> Found:
        digest = asked.request.digest
        self._events.publish(AnswerReplayed(request=asked.number, digest=digest, source=found.source, age=found.age))
        return found

    def _in_recordings(
        self, digest: str, wanted: str | None, asker: Asker | None
    ) -> tuple[Kept | None, CacheError | None]:
        """The answer in the notebook's own recording or in one beside it, else what is wrong with those.

        Raises `CacheError` for an own one that cannot be read.
        """
        trouble = None
        if (own := self._own()) is not None:
            if (kept := own.find(digest, wanted, asker)) is not None:
                return kept, None
            trouble = own.trouble()
        for recording in self._beside():
            try:
                if (kept := recording.find(digest, wanted, asker)) is not None:
                    return kept, None
                trouble = trouble or recording.trouble()
            except CacheError as error:
                trouble = trouble or error
        return None, trouble

    async def _miss(self, request: Request, wanted: str | None) -> OfflineMissError:
        prompt = " ".join(request.prompt.split())
        shown = prompt if len(prompt) <= SHOWN_OF_A_PROMPT else prompt[: SHOWN_OF_A_PROMPT - 1] + "…"
        other = await self.recorded(request) if wanted is not None else None
        by = f" by {wanted}" if wanted is not None else ""
        otherwise = await self._asked_otherwise(request, wanted) if other is None else []
        but = f" as it is asked here: one was, with {' and '.join(otherwise)}" if otherwise else ""
        instead = f"{other.full_name} answered it: -m {other.full_name}. " if other is not None else ""
        if ANOTHER in otherwise or NONE in otherwise:
            instead = "Cells that run in the order in which they were recorded find their answers. "
        return OfflineMissError(
            f'offline, and no answer{by} was recorded for "{shown}"{but}',
            next_step=f"{instead}%llm offline record, and run the cell; or %llm offline off asks the model.",
        )

    async def _asked_otherwise(self, request: Request, wanted: str | None) -> list[str]:
        """How this question was asked where it was answered; empty where it never was, as far as is known."""
        answers: list[Kept] = []
        for recording in list(self._recordings.values()):  # they were read a moment ago: it takes no thread
            with contextlib.suppress(CacheError):  # in one beside the notebook's own
                answers += recording.otherwise(request)
        if self._own() is None:  # then they went into the cache alone
            answers += await self.answers.otherwise(request)
        return nearest(request, [kept for kept in answers if kept.is_of(wanted)])

    # -- recordings

    def _own(self) -> Recording | None:
        """The recording that the person named, else the notebook's; `None` where no place is known."""
        beside = self._notebook.parent if self._notebook is not None else self._folder
        if self.recording is None:
            return self._recording(self._notebook.with_name(self._notebook.stem + SUFFIX)) if self._notebook else None
        path = Path(self.recording).expanduser()
        if beside is not None:
            path = beside / path  # an absolute one stays as it is
        return self._recording(path) if path.is_absolute() else None

    def _beside(self) -> list[Recording]:
        """All recordings in the folder: a kernel that runs under a test tool knows the folder but no notebook."""
        folder = self._notebook.parent if self._notebook is not None else self._folder
        if folder is None or self.recording is not None:
            return []
        return [self._recording(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]

    def _recording(self, path: Path) -> Recording:
        return self._recordings.setdefault(path, Recording(path, self._locks))
