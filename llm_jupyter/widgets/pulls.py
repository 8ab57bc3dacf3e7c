"""The downloads that the models dashboards show: those that one of them began, and those that something else asked for."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from llm_jupyter.download import Download
from llm_jupyter.errors import InvalidInputError, LLMError
from llm_jupyter.events import ModelPulled, ModelPulling
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.portal import Job, Portal
from llm_jupyter.types import PullProgress

logger = logging.getLogger(__name__)

PROGRESS_EVERY = 0.25
"""Seconds between two looks at what is being fetched."""

QUIET = 5.0
"""Seconds without news after which a download that something else asked for counts as stopped: its end is not told."""


@dataclass
class Pull:
    """One download. `state` is running (a dashboard fetches it), elsewhere (something else does), stopped or failed; `error`
    says why.
    """

    number: int
    provider: str
    model: str
    state: str = "running"
    error: str = ""
    download: Download = field(init=False)
    heard: float = 0.0
    """When something else told of it last, in seconds since the epoch."""
    ended: float = 0.0
    """When it was stopped or failed: what is told of an earlier moment is past."""
    job: Job | None = None

    def __post_init__(self) -> None:
        self.download = Download(self.model)

    @property
    def is_ours(self) -> bool:
        """Whether a dashboard fetches it, if only until it has noticed that it is to stop."""
        return self.job is not None and not self.job.done

    @property
    def full_name(self) -> str:
        """`provider/model` as people read it, without what of an address only the server needs."""
        return f"{self.provider}/{self.download.name}"


class Kept:
    """What all dashboards of the same services have in common: what one has stopped, the next can go on with."""

    def __init__(self) -> None:
        self.pulls: dict[tuple[str, str], Pull] = {}
        self.numbers = itertools.count(1)
        self.shown: set[Pulls] = set()
        """Whoever shows them now."""


class Pulls:
    """All that is fetched now, or was and did not arrive, as one dashboard shows it.

    `changed` is called where there is something new to show, `arrived` with a sentence about a model that is here now and
    that this dashboard asked for. All is for the portal's loop; `clock` gives seconds since the epoch.
    """

    _kept: ClassVar[WeakKeyDictionary[LLMProviderManager, Kept]] = WeakKeyDictionary()

    def __init__(
        self,
        providers: LLMProviderManager,
        portal: Portal,
        changed: Callable[[], None],
        arrived: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._providers = providers
        self._portal = portal
        self._changed = changed
        self._arrived = arrived
        self._clock = clock
        self._common = self._kept.setdefault(providers, Kept())
        self._common.shown.add(self)
        self._pulls, self._numbers = self._common.pulls, self._common.numbers
        self._begun: list[Pull] = []
        self._ticking: Job | None = None

    async def fetch(self, name: str) -> None:
        """Begin to fetch a model, or go on with it. Raises `InvalidInputError`, `ModelNotFoundError` and their kin."""
        if not name.strip():
            raise InvalidInputError(
                "which model is to be fetched?", next_step="Give its name, or the URL of a GGUF file."
            )
        provider, model = await self._providers.fetcher(name.strip())
        pull = self._pulls.get((provider.name, model))
        if pull is not None and self._state(pull) in ("running", "elsewhere"):
            raise InvalidInputError(f"{pull.full_name} is being fetched already")
        reports = provider.pull_model(model)  # raises at once where that kind of server cannot
        pull = Pull(pull.number if pull else next(self._numbers), provider.name, model)
        self._pulls[provider.name, model] = pull
        pull.job = self._portal.start(self._run(pull, reports))
        self._begun.append(pull)
        self._show_all()

    async def resume(self, number: int) -> None:
        """Go on with a download that was stopped or failed."""
        pull = self._numbered(number)
        await self.fetch(f"{pull.provider}/{pull.model}")

    def cancel(self, number: int) -> None:
        """Stop a download that a dashboard began; what has arrived stays where it is."""
        pull = self._numbered(number)
        if pull.job is not None and pull.state == "running":
            self._end(pull, "stopped")
            pull.job.cancel()

    def dismiss(self, number: int) -> None:
        """Show a download no longer that does not go on."""
        pull = self._numbered(number)
        if pull.state != "running":
            self._forget(pull)

    def hear(self, event: ModelPulling | ModelPulled) -> None:
        """Take in what was told of a download that no dashboard began."""
        pull = self._pulls.get((event.provider, event.model))
        if pull is not None and (pull.is_ours or event.timestamp <= pull.ended):
            self.show()
            return
        if isinstance(event, ModelPulled):
            if pull is not None:
                self._forget(pull)
            return
        if pull is None or pull.state != "elsewhere":
            pull = Pull(pull.number if pull else next(self._numbers), event.provider, event.model, "elsewhere")
            self._pulls[event.provider, event.model] = pull
        pull.heard = self._clock()
        pull.download.add(PullProgress(event.status, event.completed, event.total))
        self.show()

    def rows(self) -> list[dict[str, Any]]:
        """All of them as JSON values: bytes, bytes a second, seconds."""
        return [self._row(pull) for pull in self._pulls.values()]

    def close(self) -> None:
        """Show them no longer, and stop those that were begun here."""
        self._common.shown.discard(self)
        if self._ticking is not None:
            self._ticking.cancel()
        for pull in self._begun:
            if self._pulls.get((pull.provider, pull.model)) is pull:
                self.cancel(pull.number)

    async def _run(self, pull: Pull, reports: AsyncIterator[PullProgress]) -> None:
        try:
            async for progress in reports:  # nothing else is awaited here, so that stopping reaches what it waits for
                pull.download.add(progress)
        except asyncio.CancelledError:
            pull.ended = self._clock()
            raise
        except LLMError as error:
            self._end(pull, "failed", "\n".join(error.lines()))
        except Exception as error:
            logger.exception("fetching %s failed", pull.full_name)
            self._end(pull, "failed", f"{type(error).__name__}: {error}"[:300])
        else:
            self._forget(pull)
            self._arrived(f"{pull.full_name} is here{pull.download.summary()}.")

    def _end(self, pull: Pull, state: str, error: str = "") -> None:
        pull.state, pull.error, pull.ended = state, error, self._clock()
        self._show_all()

    def _forget(self, pull: Pull) -> None:
        self._pulls.pop((pull.provider, pull.model), None)
        self._show_all()

    def _numbered(self, number: int) -> Pull:
        for pull in self._pulls.values():
            if pull.number == number:
                return pull
        raise InvalidInputError("that download is not shown any more")

    def _state(self, pull: Pull) -> str:
        """As people see it: one of which nothing was heard for a while is quiet."""
        return "quiet" if pull.state == "elsewhere" and self._clock() - pull.heard > QUIET else pull.state

    def _row(self, pull: Pull) -> dict[str, Any]:
        state, download = self._state(pull), pull.download
        goes_on = state in ("running", "elsewhere")
        return {
            "number": pull.number, "name": pull.full_name, "state": state, "error": pull.error,
            "status": download.last.status, "completed": download.last.completed, "total": download.last.total,
            "speed": download.speed() if goes_on else None, "left": download.left() if goes_on else None,
        }  # fmt: skip

    def _show_all(self) -> None:
        for pulls in self._common.shown:
            pulls.show()

    def show(self) -> None:
        """Show now, and from time to time, how far they are, as long as one goes on."""
        self._changed()
        if self._ticking is None or self._ticking.done:
            self._ticking = self._portal.start(self._show_progress())

    async def _show_progress(self) -> None:
        while any(self._state(pull) in ("running", "elsewhere") for pull in self._pulls.values()):
            self._changed()
            await asyncio.sleep(PROGRESS_EVERY)
        self._changed()
