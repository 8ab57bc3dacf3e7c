"""The walk: settings, data folder, package, embedded model, what is kept, providers, proxy, servers, keys, models, session.

Nothing is started, loaded, changed or sent to a remote place unasked. All servers are asked at once, so that any number of
dead ones takes no longer than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from llm_jupyter.doctor.case import FAR, Case, Face
from llm_jupyter.doctor.elsewhere import Elsewhere
from llm_jupyter.doctor.embedded import look_at_runtime, look_at_weights, weights_missing
from llm_jupyter.doctor.findings import Finding, Mark, Remedy, Report, error, listed, note, ok
from llm_jupyter.doctor.hosts import look_at_hosts
from llm_jupyter.doctor.kept import look_at_store
from llm_jupyter.doctor.live import one_token
from llm_jupyter.doctor.machine import look_at_folder, look_at_jupyter, look_at_package, look_at_settings_file
from llm_jupyter.doctor.models import look_at_models
from llm_jupyter.doctor.ports import listeners
from llm_jupyter.doctor.proxies import caught, look_at_proxies
from llm_jupyter.doctor.recorded import look_at_cache, look_at_recordings
from llm_jupyter.doctor.servers import SERVERS, Seen, Visit, is_asked
from llm_jupyter.errors import ConfigurationError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.settings import LLMSettings, home_folder, load_settings

SETTINGS, PROVIDERS, SESSION = "settings", "providers", "session"


async def report(
    environment: Mapping[str, str] = os.environ,
    *,
    overrides: Mapping[str, object] | None = None,
    face: Face = "terminal",
    live: bool = False,
    remote: bool = False,
    notebook: Path | None = None,
    trouble: str = "",
) -> Report:
    """A whole examination. Never raises for what is wrong; that is what it finds. See `examine`."""
    looking = examine(
        environment, overrides=overrides, face=face, live=live, remote=remote, notebook=notebook, trouble=trouble
    )
    return Report(tuple([finding async for finding in looking]))


async def examine(
    environment: Mapping[str, str] = os.environ,
    *,
    overrides: Mapping[str, object] | None = None,
    face: Face = "terminal",
    live: bool = False,
    remote: bool = False,
    notebook: Path | None = None,
    trouble: str = "",
) -> AsyncIterator[Finding]:
    """Walk the steps, one finding after the other.

    `overrides` is what `%config` says, `face` where remedies will be typed. `live` asks the model that is to answer for one
    token, and may load it; `remote` asks remote providers too, which otherwise are asked only if they are to answer.
    `notebook` and `trouble` are what the kernel knows: see `Case`.
    """
    try:
        settings = load_settings(overrides, environment)
        broken = None
    except ConfigurationError as failure:
        settings, broken = LLMSettings(home=home_folder(environment)), failure
    case = Case(settings, environment, face, live, remote, notebook, trouble)
    if broken is not None:
        yield _unreadable(case, broken)
    else:
        there = "" if settings.file.exists() else " (not there: what is built in holds)"
        yield ok(SETTINGS, "settings", f"{settings.file}{there}")
    asking = asyncio.create_task(_in_motion(case))  # while the files are read
    for finding in await asyncio.to_thread(_at_rest, case):
        yield finding
    for finding in await asking:
        yield finding


def _unreadable(case: Case, failure: ConfigurationError) -> Finding:
    """The settings cannot be used; what follows goes by what is built in."""
    return error(SETTINGS, "settings-wrong", _said(failure), Remedy(failure.next_step.rstrip(".")))


def _said(failure: LLMError) -> str:
    return f"{failure.what} [{failure.where}]" if failure.where else failure.what


def _at_rest(case: Case) -> list[Finding]:
    """What files tell. It reads some hundred megabytes at most, and runs aside."""

    def looks() -> Iterator[Finding]:
        yield from look_at_settings_file(case)
        yield from look_at_folder(case)
        yield from look_at_package()
        yield from look_at_jupyter(case)
        yield from look_at_runtime(case)
        yield from look_at_weights(case)

    return list(looks())


async def _in_motion(case: Case) -> list[Finding]:
    """What only asking tells: from the factory to the session."""
    factory = LLMFactory(case.settings, environment=case.environment)
    findings = []
    try:
        try:
            factory.open()
        except LLMError as failure:
            findings.append(error(PROVIDERS, "settings-wrong", _said(failure), Remedy(failure.next_step.rstrip("."))))
        kept = asyncio.create_task(_kept(case, factory))  # while the servers are asked
        answers = [finding async for finding in _with(case, factory)]
        return [*findings, *await kept, *answers]
    finally:
        await factory.aclose()


async def _kept(case: Case, factory: LLMFactory) -> list[Finding]:
    """What files tell of conversations and answers."""
    findings = await asyncio.to_thread(lambda: list(look_at_store(case, factory.store)))
    findings += [finding async for finding in look_at_cache(case, factory.cache.answers)]
    return findings + await asyncio.to_thread(lambda: list(look_at_recordings(case, factory.cache)))


async def _with(case: Case, factory: LLMFactory) -> AsyncIterator[Finding]:
    recipes = factory.registry.recipes()
    ports = await asyncio.to_thread(listeners)
    asked = [recipe for recipe in recipes if is_asked(recipe)]
    elsewhere = Elsewhere(case, recipes, ports)
    used = (case.settings.default_model or "").partition("/")[0]
    visits = [Visit(case, recipe, ports, elsewhere).look(is_used=recipe.name == used) for recipe in asked]
    choosing = asyncio.create_task(_chosen(factory))
    servers = await asyncio.gather(*visits)
    names = [recipe.name for recipe in recipes if recipe.enabled]
    yield ok(PROVIDERS, "providers", f"{listed(names) or 'none'}{'; local_only' if case.settings.local_only else ''}")
    findings = [finding async for finding in look_at_proxies(case, needed_for=_needs_proxy(case, servers))]
    for seen in servers:
        findings += seen.findings
    hosts = case.settings.hosts
    if absent := [seen.recipe.name for seen in servers if seen.absent and seen.recipe.name not in hosts]:
        findings.append(ok(SERVERS, "not-running", f"not running: {listed(absent)}"))
    findings += [finding async for finding in look_at_hosts(case, ports)]
    findings += look_at_models(case, {**{seen.recipe.name: seen for seen in servers}, **await _embedded(factory)})
    if case.live:
        findings += [finding async for finding in _live_embedded(case, factory)]
    for finding in findings:
        yield finding
    yield _session(await choosing, any(finding.mark is Mark.ERROR for finding in findings))


async def _embedded(factory: LLMFactory) -> dict[str, Seen]:
    """The embedded provider and its models, which cost no request."""
    if EMBEDDED not in factory.registry:
        return {}
    recipe = factory.registry.recipe(EMBEDDED)
    try:
        return {EMBEDDED: Seen(recipe, models=tuple(await factory.providers.get(EMBEDDED).get_available_models()))}
    except LLMError:
        return {EMBEDDED: Seen(recipe)}


async def _live_embedded(case: Case, factory: LLMFactory) -> AsyncIterator[Finding]:
    """One token of the embedded model, where it is the one that is to answer."""
    try:
        choice = await factory.providers.choose(announce=False)
    except LLMError:
        return
    if choice.provider.name == EMBEDDED or not case.settings.default_model:
        yield await one_token(case, choice.provider, choice.model)


def _needs_proxy(case: Case, servers: list[Seen]) -> str:
    """What has to go through the proxy, in words; empty where nothing has to."""
    for seen in servers:
        was_asked = not seen.recipe.is_local and any(finding.code != "remote" for finding in seen.findings)
        if was_asked and caught(case.environment, seen.recipe.base_url or ""):
            return seen.recipe.name
    if weights_missing(case) and not any(seen.models for seen in servers):
        return f"the package index, from which {MODEL_ID} comes,"
    return ""


async def _chosen(factory: LLMFactory) -> str | LLMError:
    """Which model answers when none is named, in one sentence."""
    try:
        async with asyncio.timeout(FAR):
            choice = await factory.providers.choose(announce=False)
    except LLMError as failure:
        if host := _own_host(factory):
            return f"{factory.settings.default_model} answers when no model is named; its host {host} starts with the first question"
        return await _instead(factory, failure) or failure
    except TimeoutError:
        return LLMError("it takes long to tell which model answers")
    where = "local" if choice.is_local else "remote"
    return f"{choice.full_name} ({where}) answers when no model is named: {choice.reason}"


def _own_host(factory: LLMFactory) -> str:
    """The host that the first question to the default model starts; empty where there is none."""
    name = (factory.settings.default_model or "").partition("/")[0]
    host = factory.settings.hosts.get(name)
    return name if host is not None and host.autostart else ""


async def _instead(factory: LLMFactory, failure: LLMError) -> str:
    """Who of the models that are listed as fallback answers meanwhile, in one sentence; empty where nobody does."""
    for choice in await factory.providers.fallbacks():
        with contextlib.suppress(LLMError):
            verified = await factory.providers.verified(choice)
            return f"{verified.full_name} answers meanwhile, since it is listed as fallback: {failure.what}"
    return ""


def _session(chosen: str | LLMError, has_errors: bool) -> Finding:
    if isinstance(chosen, str):
        return ok(SESSION, "session", chosen)
    if has_errors:
        return note(SESSION, "no-answer", f"nothing answers before the errors above are mended: {chosen.what}")
    return error(SESSION, "no-answer", chosen.what, Remedy(chosen.next_step.rstrip(".")))
