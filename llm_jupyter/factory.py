"""The one place where the services are made and put together."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_jupyter.cache import LLMCache
from llm_jupyter.choice import Shelf
from llm_jupyter.connection import LLMConnectionManager, Watching
from llm_jupyter.defaults import ModelDefaults
from llm_jupyter.discovery import NotFound, probe_all
from llm_jupyter.documents import kernel_here
from llm_jupyter.errors import (
    AuthenticationError,
    ConfigurationError,
    ForeignServerError,
    LLMConnectionError,
    LLMError,
    SessionError,
)
from llm_jupyter.events import Event, EventBus, FactoryClosed, FactoryOpened, HostReady, HostStopped, JsonlLog
from llm_jupyter.hosts import HostSpec, LLMHostManager, ServingHosts, SharedLlama, builtin_specs, spec_from_settings
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.mounts import on_network
from llm_jupyter.places import Place, places, settings_at
from llm_jupyter.portal import Portal
from llm_jupyter.ports import port_of
from llm_jupyter.providers import BUILTIN, check_kind, plugins, provider_class
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.recent import RecentModels
from llm_jupyter.registry import ProviderRegistry
from llm_jupyter.selection import EMBEDDED, EMBEDDED_PRIORITY, Recipe
from llm_jupyter.sessions import LLMSessionManager, Services
from llm_jupyter.settings import HostSettings, LLMSettings, ProviderSettings, load_settings
from llm_jupyter.store import Store
from llm_jupyter.types import GenerationOptions, LLMResponse

STREAM_INTERVAL = 1 / 30
"""Seconds between two looks at a stream that a plain program reads."""


class LLMFactory:
    """Everything, put together: `events registry hosts connections providers cache store sessions`.

    In a program without a loop of its own:

        with LLMFactory() as llm:
            print(llm.chat("What is a monad?"))

    and with one:

        async with LLMFactory() as llm:
            print(await llm.sessions.current.chat("What is a monad?"))

    The steps are events in this order, each when first needed: the factory opens, providers are registered, a model is
    chosen, its provider connects, the model is loaded, the session begins. Closing goes the other way round.
    """

    def __init__(
        self,
        settings: LLMSettings | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        holds_hosts: bool = True,
    ) -> None:
        """Without `holds_hosts` no question starts or keeps a host of the settings: what looks on must change nothing."""
        self.settings = settings or load_settings(environment=environment)
        self.events = EventBus()
        self.registry = ProviderRegistry(self.events)
        self._environment = environment
        self.hosts = LLMHostManager(self.settings.home, self._host_told, self._host_specs())
        self.serving = ServingHosts(self.hosts, [name for name, host in self.settings.hosts.items() if host.autostart])
        self.connections = LLMConnectionManager(self.events, _watching(self.settings), hosts=self.serving)
        self.providers = LLMProviderManager(
            self.registry,
            self.events,
            default_model=self.settings.default_model,
            local_only=self.settings.local_only,
            fallback=self.settings.fallback,
            recent=RecentModels(self.settings.home / "recent.json"),
            connections=self.connections,
            defaults=ModelDefaults(self.settings.models, max_tokens=self.settings.limits.max_tokens),
            parallel_requests=self.settings.limits.parallel_requests,
            discover=self._discover,
            start_host=self._hold_host if holds_hosts else None,
        )
        self.cache = self._cache()
        self.store, self.sessions = self._conversations()
        self.portal = Portal()
        self._log: JsonlLog | None = None
        self._open = self._was_closed = False

    def open(self) -> Self:
        """Register the providers. Nothing is contacted. Opening twice is fine."""
        if not self._open:
            if self._was_closed:
                self.store, self.sessions = self._conversations()
            self._open, self._was_closed = True, False
            self.log_events()
            if (here := kernel_here()) is not None:  # what a notebook's code asks is recorded beside it, too
                self.cache.place(here.notebook, Path.cwd())
            self.events.publish(FactoryOpened(home=str(self.settings.home)))
            for recipe in self._recipes():
                self.registry.register(recipe)
        return self

    async def aclose(self) -> None:
        """Close everything in reverse order. Idempotent."""
        if self._open:
            self._open = False
            self._close_conversations()
            await self.providers.aclose()
            await self.hosts.aclose()
            self._say_closed()

    def close(self) -> None:
        """`aclose`, for callers without a loop; the portal's thread ends too."""
        if self.portal.started:
            self.portal.run(self.aclose())
        elif self._open:  # nothing was asked, so nothing is open that needs a loop
            self._open = False
            self._close_conversations()
            self._say_closed()
        self.portal.close()

    def _expect_open(self) -> None:
        """Raise `SessionError` where it was not opened: what it opened then by itself, nobody would close."""
        if not self._open:
            raise SessionError(
                f"this LLMFactory {'was closed' if self._was_closed else 'is not open yet'}",
                next_step="Write: with LLMFactory() as llm: ...   Or call llm.open() first, and llm.close() at the end.",
            )

    def _close_conversations(self) -> None:
        self.sessions.close()
        self.cache.close()
        self._was_closed = True

    def _say_closed(self) -> None:
        self.events.publish(FactoryClosed())
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def is_replaying(self) -> bool:
        """Whether answers come from what was kept, and nobody is asked anything."""
        return self.cache.is_replaying

    async def offers(self, *, remote: bool = False) -> list[Shelf]:
        """What every enabled provider offers, as `LLMProviderManager.catalogue`; nothing where nobody is asked."""
        return [] if self.is_replaying else await self.providers.catalogue(remote=remote)

    # -- for programs without a loop

    def use(self, model: str) -> None:
        """Let `provider/model` answer from now on. Raises `ModelNotFoundError` and its kin."""
        self._expect_open()
        self.portal.run(self.sessions.current.use(model))

    def chat(self, prompt: str, *, system: str | None = None, **options: Any) -> LLMResponse:
        """Ask the next question of the conversation; `options` are those of `GenerationOptions`."""
        self._expect_open()
        return self.portal.run(self.sessions.current.chat(prompt, system=system, options=GenerationOptions(**options)))

    def stream(self, prompt: str, *, system: str | None = None, **options: Any) -> Iterator[str]:
        """Ask the next question and iterate over the answer's text as it comes. Leaving the loop stops the answer."""
        self._expect_open()
        session = self.sessions.current
        chosen = GenerationOptions(**options)
        for batch in self.portal.batches(
            lambda: session.ask(prompt, system=system, options=chosen), interval=STREAM_INTERVAL
        ):
            if text := "".join(chunk.text for chunk in batch):
                yield text

    # -- recipes

    def _recipes(self) -> Iterator[Recipe]:
        """The embedded provider, those of the settings, and those at their usual places."""
        configured, locked = self.settings.providers, self.settings.as_locked
        if EMBEDDED not in configured:
            built_in = ProviderSettings(kind="llamacpp", priority=EMBEDDED_PRIORITY)
            yield self._recipe(EMBEDDED, locked(EMBEDDED, built_in), "built in")
        for name, provider in configured.items():
            yield self._recipe(name, provider, "your settings")
        spoken_to = {port_of(url) for one in configured.values() if (url := one.base_url) and is_loopback(url)}
        for name in self.settings.hosts:
            port = self.hosts.port(name)
            if port and port not in spoken_to and name not in configured:
                provider = locked(name, settings_at(port, name, self._environment))
                yield replace(self._recipe(name, provider, "its host in your settings"), of_host=True)
        for place in self._places():
            if place.name not in configured and place.name not in self.settings.hosts:
                yield replace(self._recipe(place.name, place.settings, place.source), was_found=True)
        yield from self._locked_plugins()

    def _locked_plugins(self) -> Iterator[Recipe]:
        """What installed packages bring under their kind's name, where the locks say something of it; see `ProviderRegistry`."""
        others = self.settings.held.keys() - {EMBEDDED, *self.settings.hosts, *(place.name for place in self._places())}
        for name in sorted(others and others & plugins().keys()):
            provider = self.settings.as_locked(name, ProviderSettings(kind=name))
            recipe = self._recipe(name, provider, "an installed package")
            yield replace(recipe, is_local=False, only_named=True)

    def _places(self) -> Iterator[Place]:
        """Where servers may be that nobody configured, as the locks of the settings leave them."""
        for place in places(self._environment):
            yield replace(place, settings=self.settings.as_locked(place.name, place.settings))

    def _recipe(self, name: str, provider: ProviderSettings, source: str) -> Recipe:
        try:
            check_kind(provider.kind)  # an unknown kind is an error now, not at the first question
        except ConfigurationError as error:
            origin = self.settings.origin(f'providers."{name}".kind')
            error.what = f"[providers.{name}] ({origin}): {error.what}"
            raise
        local = provider.kind in BUILTIN if provider.base_url is None else is_loopback(provider.base_url)
        key = ("providers", name, "enabled")
        lock = None if provider.enabled else self.settings.provenance.lock(key)
        return Recipe(
            name,
            provider.kind,
            self._builder(name, provider),
            local,
            provider.priority,
            provider.enabled,
            source,
            provider.base_url,
            reason=lock.origin(key) if lock is not None else "",
            stays_off=lock is not None,
        )

    # -- hosts

    def _host_specs(self) -> dict[str, HostSpec]:
        limit = self.settings.limits.host_memory
        tables = {name: host for name, host in self.settings.hosts.items() if name != EMBEDDED}
        home = self.settings.home
        own = {
            name: spec_from_settings(name, host, home, memory_limit=limit, environment=self._environment)
            for name, host in tables.items()
        }
        return {**builtin_specs(self._environment), **own}

    def _host_told(self, event: Event) -> None:
        """Publish what happened to a host; its providers are looked at now, and not when their turn comes."""
        self.events.publish(event)
        if isinstance(event, HostReady | HostStopped) and (port := self.hosts.port(event.host)) is not None:
            self.providers.look_at(port)

    def _shared_llama(self) -> SharedLlama:
        """What starts the embedded model's process: its command is ours, its limits are those of `[hosts.embedded]`."""
        own = self.settings.hosts.get(EMBEDDED, HostSettings())
        limit = own.memory_limit if own.memory_limit is not None else self.settings.limits.host_memory
        return SharedLlama(self.hosts, memory_limit=limit, on_memory=own.on_memory, idle_unload=own.idle_unload)

    async def _hold_host(self, name: str) -> None:
        """Let the host behind a provider run for as long as this kernel asks it, as `ServingHosts.hold` does."""
        await self.serving.hold(self.providers.get(name))

    def _conversations(self) -> tuple[Store, LLMSessionManager]:
        settings = self.settings
        store = Store(settings.home / "sessions.db", publish=self.events.publish)
        sessions = LLMSessionManager(
            Services(
                self.providers, self.events, self.cache, timeout=settings.timeout, expect_open=self._expect_open
            ), store,
            system=settings.session.system, policy=settings.session.context, private=settings.session.private,
        )  # fmt: skip
        return store, sessions

    def _cache(self) -> LLMCache:
        settings = self.settings
        return LLMCache(
            settings.home / "cache", self.events, mode=settings.offline, recording=settings.recording,
            pace=settings.replay_pace, defaults=self.providers.defaults, is_remote=on_network,
            digest_of=self.providers.digest,
        )  # fmt: skip

    def log_events(self) -> None:
        """Write events where the settings say now, and no longer where they said before."""
        where = self.settings.event_log
        path = self.settings.home / "events.jsonl" if where is True else Path(where or "").expanduser().absolute()
        if self._log is not None:
            self._log.close()
        self._log = JsonlLog(self.events, path) if where else None

    async def _discover(self, recipes: Sequence[Recipe]) -> Mapping[str, LLMError | None]:
        """Whether servers that nobody configured are there: `None` for those that are."""
        wanted = {recipe.name for recipe in recipes}
        looked = [place for place in self._places() if place.name in wanted]
        findings = await probe_all(
            looked, environment=self._environment, timeout=self.settings.connection.discovery_timeout
        )
        return {
            finding.place.name: _absence(finding) if isinstance(finding, NotFound) else None for finding in findings
        }

    def _builder(self, name: str, provider: ProviderSettings) -> Callable[[], LLMProvider]:
        def build() -> LLMProvider:
            kind = provider_class(provider.kind)
            arguments: dict[str, Any] = {"name": name, **_limits(kind, self.settings), **provider.options}
            if provider.base_url is not None:
                arguments["base_url"] = provider.base_url
            if (key := provider.secret(self._environment)) is not None:
                arguments["api_key"] = key
            if provider.kind == "llamacpp":
                arguments.setdefault("home", self.settings.home)
                arguments.setdefault("launcher", self._shared_llama())
            return _constructed(kind, name, arguments)

        return build


def _absence(finding: NotFound) -> LLMError:
    """Why a server that nobody configured does not answer unasked."""
    if finding.wants_key:
        return AuthenticationError(finding.reason)
    return LLMConnectionError(finding.reason) if finding.was_asked else ForeignServerError(finding.reason)


def _watching(settings: LLMSettings) -> Watching:
    connection = settings.connection
    return Watching(connection.health_interval, settings.timeout, connection.retries)


def _limits(kind: type[LLMProvider], settings: LLMSettings) -> dict[str, float]:
    """The limits of the settings that this kind of provider knows."""
    connection = settings.connection
    limits = {"first_token_timeout": connection.first_token_timeout, "idle_timeout": connection.idle_timeout}
    known = inspect.signature(kind).parameters
    return {name: limit for name, limit in limits.items() if name in known}


def _constructed(kind: type[LLMProvider], name: str, arguments: dict[str, Any]) -> LLMProvider:
    try:
        return kind(**arguments)
    except TypeError as error:
        known = [field for field in inspect.signature(kind).parameters if field != "name"]
        wrong = next((field for field in arguments if field != "name" and field not in known), None)
        near = difflib.get_close_matches(wrong or "", known, 1)
        raise ConfigurationError(
            f"[providers.{name}] has a field {wrong!r} that its kind does not know"
            if wrong
            else f"[providers.{name}]: {error}",
            next_step=f"Did you mean {near[0]}?" if near else f"It knows: {', '.join(known)}.",
        ) from None
    except LLMError:
        raise
    except Exception as error:  # somebody else's constructor may raise what it likes
        raise ConfigurationError(f"[providers.{name}]: {error}") from None
