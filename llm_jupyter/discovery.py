"""Servers that nobody configured: where they usually are, and whether they are there.

A port proves nothing, and neither does a status: web servers answer 200 to everything, LM Studio does so to addresses that
it does not know, and llama.cpp's server answers one of Ollama's addresses. So each server is asked two things, and is itself
only if both answers have its shape. Only loopback is ever contacted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from llm_jupyter._probe import SERVERS, Answer, Asker
from llm_jupyter.foreign import foreign_among
from llm_jupyter.places import Place
from llm_jupyter.places import found_servers as found_servers
from llm_jupyter.places import ollama_url as ollama_url
from llm_jupyter.places import place_of as place_of
from llm_jupyter.places import places as places
from llm_jupyter.types import ProviderState

DISCOVERY_TIMEOUT = 0.3
"""Seconds for looking at all places together."""

CLOSING_TIME = 0.03
"""Seconds of these that are kept for closing what did not answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """The server is there. `state` is connected or loading; `latency` is the time of its answers in seconds."""

    place: Place
    state: ProviderState
    latency: float


@dataclass(frozen=True, slots=True)
class NotFound:
    """The server is not there, or was not asked; `reason` says why, in words. `wants_key`: it may be there, behind a key."""

    place: Place
    reason: str
    was_asked: bool = True
    wants_key: bool = False


Finding = Found | NotFound
Foreign = Callable[[Collection[str]], Collection[str]]
"""Which of these loopback addresses belong to another user of this machine."""


async def probe_all(
    places: Sequence[Place],
    *,
    environment: Mapping[str, str] = os.environ,
    timeout: float = DISCOVERY_TIMEOUT,
    foreign: Foreign = foreign_among,
) -> list[Finding]:
    """Look at all places at once; the findings are in the order of the places.

    It takes at most `timeout` seconds, whatever the servers do. No model is loaded, no redirect followed, no proxy used, and
    nothing remote nor another user's is contacted. Raises nothing.
    """
    deadline = asyncio.get_running_loop().time() + max(timeout - CLOSING_TIME, 0.0)
    here = [place.base_url for place in places if place.base_url and place.is_local]
    others = asyncio.ensure_future(asyncio.to_thread(foreign, here))
    async with Asker() as asker:
        looks = (_Look(place, environment, asker, deadline, timeout) for place in places)
        return list(await asyncio.gather(*(look.finding(others) for look in looks)))


class _Look:
    """A look at one place."""

    def __init__(
        self, place: Place, environment: Mapping[str, str], asker: Asker, deadline: float, timeout: float
    ) -> None:
        self._place, self._asker, self._deadline, self._timeout = place, asker, deadline, timeout
        self._environment = environment

    async def finding(self, others: asyncio.Future[Collection[str]]) -> Finding:
        if not self._place.base_url:
            return self._not_found("it needs no server", was_asked=False)
        if not self._place.is_local:
            return self._not_found("it is remote, and asked only when you name it", was_asked=False)
        try:
            async with asyncio.timeout_at(self._deadline):
                if self._place.base_url in await asyncio.shield(others):
                    return self._not_found("it belongs to another user of this machine", was_asked=False)
                return await self._asked()
        except TimeoutError:
            return self._not_found(f"it did not answer within {self._timeout:g} s")

    async def _asked(self) -> Finding:
        server = SERVERS[self._place.server]
        loop = asyncio.get_running_loop()
        started = loop.time()
        answers = await self._asker.ask(self._api, server.paths)
        key = None
        if _refused(answers):  # only now: what needs no key is shown none
            key = await asyncio.to_thread(self._place.settings.secret, self._environment)
        if key:
            answers = await self._asker.ask(self._api, server.paths, key)
        if (state := server.state(answers)) is not None:
            return Found(self._place, state, loop.time() - started)
        if _refused(answers):
            return self._not_found(self._about_the_key(key), wants_key=True)
        flaw = next((answer.flaw for answer in answers.values() if answer.flaw), "")
        return self._not_found(flaw or await self._what_else(answers, key))

    @property
    def _api(self) -> str:
        """Where OpenAI's protocol begins: the base URL of those that speak nothing else."""
        url, speaks_openai = self._place.base_url, self._place.settings.kind in ("openai-compatible", "llamacpp")
        return url if speaks_openai else f"{url.removesuffix('/v1')}/v1"

    def _about_the_key(self, key: str | None) -> str:
        variable = self._place.settings.api_key_env
        if key:
            return f"it refuses the key in {variable}" if variable else "it refuses its key"
        return f"it wants a key, and {variable} is not set" if variable else "it wants a key"

    async def _what_else(self, answers: Mapping[str, Answer], key: str | None) -> str:
        """What answers there in place of the one that was looked for, if that shows in the time that is left."""
        title = SERVERS[self._place.server].title
        others = [other for other in SERVERS.values() if other.title != title and other.is_particular]
        missing = {path for other in others for path in other.paths} - answers.keys()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._deadline):
                known = {**answers, **await self._asker.ask(self._api, sorted(missing), key)}
            there = next((other.title for other in others if other.state(known) is not None), None)
            if there is not None:
                return f"{there} answers there, not {title}"
        return f"what answers there is not {title}"

    def _not_found(self, reason: str, *, was_asked: bool = True, wants_key: bool = False) -> NotFound:
        return NotFound(self._place, reason, was_asked, wants_key)


def _refused(answers: Mapping[str, Answer]) -> bool:
    return any(answer.status in (401, 403) for answer in answers.values())
