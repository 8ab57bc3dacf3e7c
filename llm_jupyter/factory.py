"""The one place where the services are made and put together."""

from __future__ import annotations

import difflib
import inspect
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from llm_jupyter.errors import ConfigurationError
from llm_jupyter.events import EventBus, FactoryClosed, FactoryOpened
from llm_jupyter.manager import LLMProviderManager
from llm_jupyter.portal import Portal
from llm_jupyter.providers import check_kind, provider_class
from llm_jupyter.providers._http import is_loopback
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.recent import RecentModels
from llm_jupyter.registry import EMBEDDED, EMBEDDED_PRIORITY, FOUND, ProviderRegistry, Recipe
from llm_jupyter.sessions import LLMSessionManager
from llm_jupyter.settings import LLMSettings, ProviderSettings, load_settings
from llm_jupyter.types import GenerationOptions, LLMResponse

OPENAI_URL = "https://api.openai.com/v1"
LMSTUDIO_URL = "http://127.0.0.1:1234"
OLLAMA_PORT = "11434"
STREAM_INTERVAL = 1 / 30
"""Seconds between two looks at a stream that a plain program reads."""


class LLMFactory:
    """Everything, put together: `events registry providers sessions`.

    In a program without a loop of its own:

        with LLMFactory() as llm:
            print(llm.chat("What is a monad?"))

    and with one:

        async with LLMFactory() as llm:
            print(await llm.sessions.current.chat("What is a monad?"))

    The steps are events in this order, each when first needed: the factory opens, providers are registered, a model is
    chosen, its provider connects, the model is loaded, the session begins. Closing goes the other way round.
    """

    def __init__(self, settings: LLMSettings | None = None, *, environment: Mapping[str, str] = os.environ) -> None:
        self.settings = settings or load_settings(environment=environment)
        self.events = EventBus()
        self.registry = ProviderRegistry(self.events)
        self.providers = LLMProviderManager(
            self.registry,
            self.events,
            default_model=self.settings.default_model,
            local_only=self.settings.local_only,
            recent=RecentModels(self.settings.home / "recent.json"),
        )
        self.sessions = LLMSessionManager(
            self.providers, self.events, options=GenerationOptions(timeout=self.settings.timeout)
        )
        self.portal = Portal()
        self._environment = environment
        self._open = False

    def open(self) -> Self:
        """Register the providers. Nothing is contacted. Opening twice is fine."""
        if not self._open:
            self._open = True
            self.events.publish(FactoryOpened(home=str(self.settings.home)))
            for recipe in self._recipes():
                self.registry.register(recipe)
        return self

    async def aclose(self) -> None:
        """Close everything in reverse order. Idempotent."""
        if self._open:
            self._open = False
            await self.providers.aclose()
            self.events.publish(FactoryClosed())

    def close(self) -> None:
        """`aclose`, for callers without a loop; the portal's thread ends too."""
        if self.portal.started:
            self.portal.run(self.aclose())
        self.portal.close()
        self._open = False

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

    # -- for programs without a loop

    def use(self, model: str) -> None:
        """Let `provider/model` answer from now on. Raises `ModelNotFoundError` and its kin."""
        self.portal.run(self.sessions.current.use(model))

    def chat(self, prompt: str, *, system: str | None = None, **options: Any) -> LLMResponse:
        """Ask the next question of the conversation; `options` are those of `GenerationOptions`."""
        return self.portal.run(self.sessions.current.chat(prompt, system=system, options=GenerationOptions(**options)))

    def stream(self, prompt: str, *, system: str | None = None, **options: Any) -> Iterator[str]:
        """Ask the next question and iterate over the answer's text as it comes. Leaving the loop stops the answer."""
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
        configured = self.settings.providers
        if EMBEDDED not in configured:
            yield Recipe(
                EMBEDDED,
                "llamacpp",
                self._builder(EMBEDDED, ProviderSettings(kind="llamacpp")),
                True,
                EMBEDDED_PRIORITY,
                source="built in",
            )
        for name, provider in configured.items():
            yield self._recipe(name, provider, "your settings")
        for name, provider, source in found_servers(self._environment):
            if name not in configured:
                yield replace(self._recipe(name, provider, source), was_found=True)

    def _recipe(self, name: str, provider: ProviderSettings, source: str) -> Recipe:
        try:
            check_kind(provider.kind)  # an unknown kind is an error now, not at the first question
        except ConfigurationError as error:
            error.what = f"[providers.{name}] in {self.settings.file}: {error.what}"
            raise
        local = provider.base_url is None or is_loopback(provider.base_url)
        return Recipe(
            name,
            provider.kind,
            self._builder(name, provider),
            local,
            provider.priority,
            provider.enabled,
            source,
            provider.base_url,
        )

    def _builder(self, name: str, provider: ProviderSettings) -> Callable[[], LLMProvider]:
        def build() -> LLMProvider:
            arguments: dict[str, Any] = {"name": name, **provider.options}
            if provider.base_url is not None:
                arguments["base_url"] = provider.base_url
            if (key := provider.secret(self._environment)) is not None:
                arguments["api_key"] = key
            if provider.kind == "llamacpp":
                arguments.setdefault("home", self.settings.home)
            return _constructed(provider_class(provider.kind), name, arguments)

        return build


def found_servers(environment: Mapping[str, str]) -> Iterator[tuple[str, ProviderSettings, str]]:
    """Servers that nobody configured: Ollama and LM Studio where they usually listen, and what the environment names.

    They rank below those of the settings and above the embedded model. Nothing is contacted here.
    """
    host = environment.get("OLLAMA_HOST", "")
    source = "the environment (OLLAMA_HOST)" if host else "its usual port"
    yield "ollama", ProviderSettings(kind="ollama", base_url=ollama_url(host), priority=FOUND), source
    studio = ProviderSettings(kind="lmstudio", base_url=LMSTUDIO_URL, api_key_env="LM_API_TOKEN", priority=FOUND)
    yield "lmstudio", studio, "its usual port"
    key, url = environment.get("OPENAI_API_KEY"), environment.get("OPENAI_BASE_URL")
    if key or url:
        provider = ProviderSettings(
            kind="openai-compatible",
            base_url=(url or OPENAI_URL).rstrip("/"),
            api_key_env="OPENAI_API_KEY" if key else None,
            priority=FOUND,
        )
        yield "openai", provider, f"the environment ({'OPENAI_BASE_URL' if url else 'OPENAI_API_KEY'})"


def ollama_url(host: str) -> str:
    """The address that `OLLAMA_HOST` means: a host, a port, both, or a URL, in quotes or not.

    Read as Ollama itself reads it (`envconfig` of its repository), except that `0.0.0.0` is where a server listens and
    not where it is, and that what cannot be a host is the usual place.
    """
    text = host.strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if text == "ollama.com":
        scheme, separator, rest = "https", "://", text
    elif not separator:
        scheme, rest = "http", text
    usual = {"http": "80", "https": "443"}.get(scheme, OLLAMA_PORT) if separator else OLLAMA_PORT
    place, _, path = rest.partition("/")
    name, port = _name_and_port(place)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        port = usual
    scheme = scheme if scheme in ("http", "https") else "http"
    return f"{scheme}://{_reachable(name)}:{port}/{path}".rstrip("/")


def _name_and_port(place: str) -> tuple[str, str]:
    if _address(place.strip("[]")) is not None:
        return place.strip("[]"), ""
    name, colon, port = place.rpartition(":")
    return (name.strip("[]"), port) if colon else (place, "")


def _reachable(name: str) -> str:
    address = _address(name)
    if address is None:
        return name if re.fullmatch(r"[\w.-]+", name) else "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{name}]" if address.version == 6 else name


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


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
