"""Which host is behind a provider: held before its models are asked, and looked at where its server is silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from llm_jupyter._supervisor.journal import End
from llm_jupyter._supervisor.probe import is_taken
from llm_jupyter._supervisor.state import LOADING, RESTARTING, STARTING, STOPPING
from llm_jupyter.errors import HungUpError, LLMError, StreamTruncatedError, UnreachableError
from llm_jupyter.hosts._remedies import remedy
from llm_jupyter.hosts.manager import LLMHostManager
from llm_jupyter.hosts.spec import HostSpec
from llm_jupyter.ports import port_of
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.types import ProviderState

COMING = (STARTING, LOADING, RESTARTING)
"""What a host does before it serves."""

LOST = (UnreachableError, HungUpError, StreamTruncatedError)
"""How the end of a host shows to whoever waits for its answer."""

PATIENCE = 0.5
"""Seconds in which a supervisor that lives has written down that its host died."""

LOOK = 0.02


class ServingHosts:
    """The hosts that can be started by name, as providers see them; `autostart` names those that a question starts."""

    def __init__(self, hosts: LLMHostManager, autostart: Collection[str] = ()) -> None:
        self._hosts = hosts
        self._autostart = frozenset(autostart)

    def behind(self, name: str, url: str | None) -> HostSpec | None:
        """The host that serves the provider of that name at that address: it has its name, or its port.

        Of several, that of its name goes before one that runs, and that before one that a question starts.
        """
        if url is None or not is_loopback(url):
            return None
        port = port_of(url)
        return max(
            (spec for spec in self._hosts.specs() if spec.name == name or spec.port == port),
            key=lambda spec: (spec.name == name, self._hosts.is_up(spec), spec.name in self._autostart),
            default=None,
        )

    def starts(self, name: str, url: str | None) -> bool:
        """Whether a question to that provider starts its host."""
        spec = self.behind(name, url)
        return spec is not None and spec.name in self._autostart

    async def hold(self, provider: LLMProvider) -> None:
        """Start the host where the settings say that a question does, join it where it runs; it is not idle meanwhile.

        So it lives for as long as this kernel, or until it is stopped or idle. Raises `HostError`.
        """
        if (spec := self.behind(provider.name, provider.url)) is None:
            return

        def looked() -> None:
            if provider.in_flight:
                self._hosts.running(spec, used=True)

        if spec.name in self._autostart:
            await self._hosts.start(spec.name, user=provider.name, looked=looked)
        elif self._hosts.is_up(spec):
            await self._hosts.ensure(spec, user=provider.name, starts=False, looked=looked)

    def expected(self, provider: LLMProvider) -> ProviderState | None:
        """The state of a provider whose server is silent because its host starts, or waits for the next question.

        `None` where it should have answered.
        """
        if (spec := self.behind(provider.name, provider.url)) is None:
            return None
        state = self._hosts.seen(spec)
        if state is not None and state.phase in COMING and not state.reason:  # a reason is why it died
            return ProviderState.LOADING
        is_at_rest = not is_taken(spec.port) if state is None else state.phase == STOPPING
        return ProviderState.DISCONNECTED if is_at_rest and spec.name in self._autostart else None

    def next_step(self, provider: LLMProvider) -> str:
        """What starts the host of a provider by hand; empty where there is none, or it runs."""
        spec = self.behind(provider.name, provider.url)
        return spec.start_hint if spec is not None and not self._hosts.is_up(spec) else ""

    async def explain(self, provider: LLMProvider, error: LLMError, since: float) -> None:
        """Let an error tell that the host of a provider was put down or died since then, in seconds since the epoch, why that
        was, and what to change.
        """
        spec = self.behind(provider.name, provider.url) or self._hosts.spec(provider.name)
        if spec is None or not isinstance(error, LOST):
            return
        patience = 0.0 if isinstance(error, UnreachableError) else PATIENCE
        if (end := await self._ended(spec, since, patience)) is not None:
            error.what += f": the host {spec.name} {'was put down' if end.expected else 'died'} ({end.reason})"
            error.next_step, error.is_explained = self._what_to_change(spec, end), True

    async def _ended(self, spec: HostSpec, since: float, patience: float) -> End | None:
        """How a host ended since then; where it has a supervisor, it gets so many seconds to tell."""
        until = time.monotonic() + patience
        while (end := self._hosts.last_end(spec)) is None or end.at < since:
            if time.monotonic() >= until or self._hosts.seen(spec) is None:
                return None
            await asyncio.sleep(LOOK)
        return end

    def _what_to_change(self, spec: HostSpec, end: End) -> str:
        """What keeps it from ending so again, and what starts it where the next question does not."""
        starts = "" if self._hosts.is_up(spec) or self._comes_by_itself(spec) else spec.start_hint
        return " ".join(words for words in (remedy(spec, end.reason), starts) if words) or "Ask again."

    def _comes_by_itself(self, spec: HostSpec) -> bool:
        """Whether a question starts it: the embedded model's is none of those that can be started by name."""
        return spec.name in self._autostart or spec not in self._hosts.specs()
