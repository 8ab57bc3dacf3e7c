"""The servers: does somebody listen, is it the right kind of server, does it take the key, does a token come."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from llm_jupyter.doctor.case import FAR, LOOK, Case
from llm_jupyter.doctor.elsewhere import Elsewhere
from llm_jupyter.doctor.findings import NONE, Finding, Remedy, error, note, ok, warning
from llm_jupyter.doctor.live import model_to_ask, one_token
from llm_jupyter.doctor.ports import Listener
from llm_jupyter.doctor.proxies import accepts, caught, without_proxy
from llm_jupyter.doctor.starting import how_to_start, how_to_start_elsewhere
from llm_jupyter.doctor.words import kind_name, one_of, shelf
from llm_jupyter.errors import AuthenticationError, LLMConnectionError, LLMError
from llm_jupyter.ports import port_of
from llm_jupyter.providers._http import HttpClient, is_loopback, without_secrets
from llm_jupyter.providers.base import LLMProvider
from llm_jupyter.selection import EMBEDDED, Recipe
from llm_jupyter.types import LLMModelInfo

SERVERS, KEYS = "server", "key"
FOUND_KEYS = {
    "openai": "OPENAI_API_KEY", "lmstudio": "LM_API_TOKEN", "llama-server": "LLAMA_API_KEY", "vllm": "VLLM_API_KEY"
}  # fmt: skip
"""The variables from which servers that nobody configured take their keys."""


OWN_PORTS = ("ollama", "lmstudio")
"""Kinds whose usual port is hardly anybody else's: who has taken it is worth a word. At 8080 or 8000 anything may listen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one provider showed: its models where it listed them, and what there is to say."""

    recipe: Recipe
    findings: tuple[Finding, ...] = ()
    models: tuple[LLMModelInfo, ...] | None = None
    absent: bool = False
    """Nothing runs at a place that nobody configured: no fault."""


class Visit:
    """One look at one provider, which may be asked. Never raises; without `live` it takes little longer than `LOOK`."""

    def __init__(self, case: Case, recipe: Recipe, ports: dict[int, Listener], elsewhere: Elsewhere) -> None:
        self._case = case
        self._recipe = recipe
        self._url = recipe.base_url or ""
        self._within = LOOK if recipe.is_local else FAR
        self._ports = ports
        self._elsewhere = elsewhere
        self._settings = case.settings.providers.get(recipe.name)

    async def look(self, *, is_used: bool) -> Seen:
        """Ask the server for its models. `is_used` says that it is the one that is to answer."""
        try:
            provider = self._recipe.build()
        except LLMError as failure:
            what = f"{self._recipe.name}: {failure.what}"
            return self._seen(error("settings", "settings-wrong", what, self._case.advice(failure)))
        try:
            return await self._ask(provider, is_used=is_used)
        finally:
            await provider.disconnect()

    # -- one server

    async def _ask(self, provider: LLMProvider, *, is_used: bool) -> Seen:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._within):
                models = tuple(await provider.get_available_models())
                await self._key_is_taken(models)
        except TimeoutError:
            return self._silent()
        except AuthenticationError:
            return self._seen(self._key_refused())
        except LLMError as failure:
            return await self._useless(failure)
        took = (time.perf_counter() - started) * 1000
        place = f" at {without_secrets(self._url)}" if self._url else ""
        said = f"{self._recipe.name}{place}: {shelf(models)}, {took:.0f} ms"
        findings = [ok(SERVERS, "ready", said), *self._key_findings()]
        if self._case.live and is_used:
            findings.append(await self._live(provider, models))
        return Seen(self._recipe, tuple(findings), models)

    async def _live(self, provider: LLMProvider, models: tuple[LLMModelInfo, ...]) -> Finding:
        return await one_token(self._case, provider, model_to_ask(self._case, provider.name, models))

    async def _key_is_taken(self, models: tuple[LLMModelInfo, ...]) -> None:
        """Raise `AuthenticationError` where the list is open to all and the rest is not, as llama.cpp's server has it."""
        if self._recipe.kind not in ("openai-compatible", "llamacpp") or not models:
            return
        client = HttpClient(self._url, name=self._recipe.name, api_key=self._key())
        try:
            await client.send("GET", "//props")  # llama.cpp's; it loads nothing, and other servers have no such address
        except AuthenticationError:
            raise
        except LLMError:
            pass
        finally:
            await client.close()

    # -- keys

    def _key(self) -> str | None:
        environment = self._case.environment
        return self._settings.secret(environment) if self._settings else environment.get(self._variable or "")

    @property
    def _variable(self) -> str | None:
        return self._settings.api_key_env if self._settings else FOUND_KEYS.get(self._recipe.name)

    def _key_findings(self) -> list[Finding]:
        variable = self._variable
        if variable is None or self._settings is None:
            return []
        if variable in self._case.environment:
            return [ok(KEYS, "key", f"{self._recipe.name}: {variable} is set, and the server takes it")]
        what = f"{self._recipe.name}: {variable} is not set; the server answers without a key"
        return [warning(KEYS, "key-missing", what, self._ask_for(variable))]

    def _key_refused(self) -> Finding:
        name, variable, where = self._recipe.name, self._variable, without_secrets(self._url)
        service = self._settings.api_key_keyring if self._settings else None
        if variable is None and service is not None and self._settings is not None:
            problem = self._settings.secret_problem(self._case.environment)
            what = (
                f"{name}: {where} {f'asks for a key, and {problem}' if problem else 'refuses the key of the keyring'}"
            )
            remedy = Remedy("In a terminal", (f"keyring set {shlex.quote(service)} {shlex.quote(name)}",))
            return self._fault(KEYS, "key-missing" if problem else "key-refused", what, remedy)
        if variable is None:
            own = f"{name.upper().replace('-', '_')}_KEY"
            has_key = bool(self._settings and self._settings.api_key)
            what = f"{name}: {where} {'refuses the api_key of your settings' if has_key else 'asks for a key'}"
            changes: list[tuple[str, str | None]] = [(f"providers.{name}.api_key_env", own)]
            if has_key:
                changes.append((f"providers.{name}.api_key", None))
            change, ask = self._case.setting(*changes), self._ask_for(own)
            return self._fault(KEYS, "key-refused", what, replace(ask, commands=(*change.commands, *ask.commands)))
        if variable not in self._case.environment:
            what = f"{name}: {where} asks for a key, and {variable} is not set"
            return self._fault(KEYS, "key-missing", what, self._ask_for(variable))
        what = f"{name}: {where} refuses the key in {variable}"
        return self._fault(KEYS, "key-refused", what, self._ask_for(variable))

    def _ask_for(self, variable: str) -> Remedy:
        return Remedy(
            "; ".join(filter(None, ["Type the valid key after it (it is not shown)", self._case.before_start])),
            (self._case.secret(variable),),
        )

    # -- what stands in the way

    def _silent(self) -> Seen:
        """Nothing came in time."""
        where = without_secrets(self._url) if self._url else self._recipe.kind
        owner = self._ports.get(port_of(self._url)) if is_loopback(self._url) else None
        if self._is_host or (self._recipe.was_found and owner is None):
            return Seen(self._recipe, absent=True)
        what = f"{self._recipe.name}: {owner or 'a server'} at {where} says nothing within {self._within:g} s"
        start = how_to_start(self._case, self._recipe)
        words = f"End {f'process {owner.pid}' if owner and owner.pid else 'that server'} and start it again"
        remedy = Remedy(words, start.commands) if start.commands else self._without(f"{words}, or do without it")
        return self._seen(self._fault(SERVERS, "server-silent", what, remedy))

    async def _useless(self, failure: LLMError) -> Seen:
        """Nobody answers, or not what was expected."""
        recipe, case = self._recipe, self._case
        where = without_secrets(self._url)
        if self._is_host:
            return Seen(recipe, absent=True)  # the look at the hosts says what there is to say
        if not is_loopback(self._url):
            return self._seen(await self._far(failure))
        owner = self._ports.get(port_of(self._url))
        taken = owner is not None or await accepts(urlsplit(self._url).hostname or "", port_of(self._url))
        if not taken and case.host_of(recipe):
            return Seen(recipe, absent=True)
        if self._is_usual_place and not (taken and recipe.kind in OWN_PORTS):
            return await self._absent()
        here = "nothing listens there" if not taken else f"{owner or 'what listens there'} is no {kind_name(recipe)}"
        if taken and not isinstance(failure, LLMConnectionError) and (path := await self._elsewhere.path(recipe)):
            what = f"{recipe.name}: {where} is not where its API begins; that is {without_secrets(path)}"
            return self._seen(self._fault(SERVERS, "wrong-path", what, self._move(path)))
        if (real := await self._elsewhere.find(recipe)) is not None:
            what = f"{recipe.name}: {where}: {here}; {one_of(recipe)} answers at {real.url}{real.whose}"
            return self._seen(self._fault(SERVERS, "wrong-port", what, self._move(real.url)))
        if taken:
            what = f"{recipe.name}: port {port_of(self._url)} is taken: {owner or 'what listens there'} is no {kind_name(recipe)}"
            return self._seen(self._fault(SERVERS, "port-taken", what, self._other_port()))
        start = how_to_start(case, recipe)
        if not start.commands:
            start = self._without(start.words)
        return self._seen(self._fault(SERVERS, "no-server", f"{recipe.name}: nothing listens at {where}", start))

    async def _absent(self) -> Seen:
        """Nothing at a usual place. A server of that kind that runs elsewhere is worth a word."""
        if (
            self._recipe.kind not in OWN_PORTS
            or (real := await self._elsewhere.find(self._recipe, unknown=True)) is None
        ):
            return Seen(self._recipe, absent=True)
        name = self._recipe.name
        what = f"{one_of(self._recipe)} answers at {real.url}{real.whose}, where nobody looks for it"
        return self._seen(note(SERVERS, "elsewhere", what, self._case.setting(*self._place(name, real.url))))

    async def _far(self, failure: LLMError) -> Finding:
        """A server on another machine."""
        if not self._url:  # a provider that needs no server of its own
            remedy = self._without(self._case.advice(failure).words)
            return self._fault(SERVERS, "no-answer", f"{self._recipe.name}: {failure.what}", remedy)
        parts = urlsplit(self._url)
        host, variable = parts.hostname or "", caught(self._case.environment, self._url)
        what = f"{self._recipe.name}: {failure.what} [{without_secrets(self._url)}]"
        if variable is not None and await accepts(host, port_of(self._url)):
            what = f"{self._recipe.name}: {host} can be reached, but {variable} sends requests to a proxy that does not pass them on"
            return self._fault(SERVERS, "proxy-in-the-way", what, without_proxy(self._case, host))
        words = self._case.advice(failure).words or "Is the network there"
        return self._fault(SERVERS, "no-server", what, self._without(words))

    # -- remedies

    @property
    def _is_host(self) -> bool:
        """Whether it is there only because of a `[hosts.NAME]` table."""
        return self._settings is None and self._recipe.name in self._case.settings.hosts

    @property
    def _is_usual_place(self) -> bool:
        return self._recipe.was_found and not self._recipe.source.startswith("the environment")

    def _move(self, url: str) -> Remedy:
        """Look for the server where it is."""
        name = self._recipe.name
        if self._recipe.was_found and self._recipe.source.startswith("the environment"):
            variable = self._recipe.source.partition("(")[2].rstrip(")")
            if variable in ("OLLAMA_HOST", "OPENAI_BASE_URL"):
                return Remedy(self._case.before_start, (self._case.variable(variable, url),))
        return self._case.setting(*self._place(name, url))

    def _place(self, name: str, url: str) -> list[tuple[str, str | None]]:
        new = [] if self._settings else [(f"providers.{name}.kind", self._recipe.kind)]
        return [*new, (f"providers.{name}.base_url", url)]

    def _other_port(self) -> Remedy:
        """Let the server listen somewhere else, and look for it there."""
        start, url = how_to_start_elsewhere(self._case, self._recipe)
        if not url:
            return self._without(start.words)
        move = self._move(url)
        return Remedy(start.words, (*move.commands, *start.commands))

    def _without(self, words: str) -> Remedy:
        """Switch the provider off, so that the others answer."""
        name = self._recipe.name
        changes: list[tuple[str, str | None]] = []
        if self._settings is not None:
            changes.append((f"providers.{name}.enabled", "false"))
        if self._case.default_provider == name:
            changes.append(("default_model", None))
        if not changes:
            return Remedy(words) if words else NONE
        return self._case.setting(*changes, words=words.rstrip("."))

    def _fault(self, step: str, code: str, what: str, remedy: Remedy) -> Finding:
        """An error where somebody wants this server, a warning where it was only found."""
        make: Callable[..., Finding] = warning if self._recipe.was_found else error
        return make(step, code, what, remedy)

    def _seen(self, *findings: Finding) -> Seen:
        return Seen(self._recipe, findings)


def is_asked(recipe: Recipe) -> bool:
    """Whether a recipe is asked like a server; the embedded model has looks of its own."""
    return recipe.name != EMBEDDED
