"""The walk: settings, data folder, package, embedded model, what is kept, providers, proxy, servers, keys, models, session.

Nothing is started, loaded, changed or sent to a remote place unasked. All servers are asked at once, so that any number of
dead ones takes no longer than one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from llm_jupyter.doctor.asking import Services, quiet_services
from llm_jupyter.doctor.case import Case, Face
from llm_jupyter.doctor.elsewhere import Elsewhere
from llm_jupyter.doctor.embedded import look_at_runtime, look_at_weights, weights_missing
from llm_jupyter.doctor.findings import Finding, Mark, Report, error, listed, note, ok
from llm_jupyter.doctor.hosts import look_at_hosts
from llm_jupyter.doctor.kept import look_at_store
from llm_jupyter.doctor.live import one_token
from llm_jupyter.doctor.machine import (
    look_at_folder,
    look_at_jupyter,
    look_at_package,
    look_at_settings_file,
    no_home,
)
from llm_jupyter.doctor.models import look_at_models
from llm_jupyter.doctor.ports import Listener, listeners
from llm_jupyter.doctor.proxies import caught, look_at_proxies
from llm_jupyter.doctor.recorded import look_at_cache, look_at_recordings
from llm_jupyter.doctor.servers import SERVERS, Seen, Visit, is_asked
from llm_jupyter.doctor.session import chosen, look_at_session
from llm_jupyter.errors import ConfigurationError, LLMError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.providers._weights import MODEL_ID
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.settings import LLMSettings, all_faults, home_folder, load_settings
from llm_jupyter.settings.environment import unknown_variables

SETTINGS, PROVIDERS = "settings", "providers"


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
    wrong: list[ConfigurationError] = []
    try:
        settings = load_settings(overrides, environment)
    except ConfigurationError as failure:
        wrong = all_faults(overrides, environment) or [failure]
        try:
            settings = LLMSettings(home=home_folder(environment))
        except ConfigurationError as homeless:
            yield no_home(Case(LLMSettings(home=Path()), environment, face), homeless)
            return
    case = Case(settings, environment, face, live, remote, notebook, trouble)
    for fault in wrong:
        yield _wrong(case, SETTINGS, fault)
    if not wrong:
        there = "" if settings.file.exists() else " (not there: what is built in holds)"
        yield ok(SETTINGS, "settings", f"{settings.file}{there}")
    for name in unknown_variables(environment, LLMSettings.model_fields):
        yield note(SETTINGS, "variable-unknown", f"the variable {name} names no setting: nothing goes by it")
    asking = asyncio.create_task(_in_motion(case))  # while the files are read
    for finding in await asyncio.to_thread(_at_rest, case):
        yield finding
    for finding in await asking:
        yield finding


def _wrong(case: Case, step: str, failure: LLMError) -> Finding:
    """Something in the settings cannot be used; what follows goes by the rest, or by what is built in."""
    return error(step, "settings-wrong", _said(failure), case.advice(failure))


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
    try:
        services = quiet_services(case)
    except LLMError as failure:
        return [_wrong(case, PROVIDERS, failure)]
    findings = [_wrong(case, PROVIDERS, services.trouble)] if services.trouble else []
    try:
        kept = asyncio.create_task(_kept(case, services.factory))  # while the servers are asked
        answers = [finding async for finding in _with(case, services)]
        return [*findings, *await kept, *answers]
    finally:
        await services.factory.aclose()


async def _kept(case: Case, factory: LLMFactory) -> list[Finding]:
    """What files tell of conversations and answers."""
    findings = await asyncio.to_thread(lambda: list(look_at_store(case, factory.store)))
    findings += [finding async for finding in look_at_cache(case, factory.cache.answers)]
    return findings + await asyncio.to_thread(lambda: list(look_at_recordings(case, factory.cache)))


async def _with(case: Case, services: Services) -> AsyncIterator[Finding]:
    factory, recipes = services.factory, services.recipes
    ports = await asyncio.to_thread(listeners)
    choosing = asyncio.create_task(chosen(case, factory, services.apart))
    servers = await _seen(case, services, ports)
    names = [recipe.name for recipe in recipes if recipe.enabled]
    yield ok(PROVIDERS, "providers", f"{listed(names) or 'none'}{'; local_only' if case.settings.local_only else ''}")
    findings = [finding async for finding in look_at_proxies(case, needed_for=_needs_proxy(case, servers))]
    for seen in servers:
        findings += seen.findings
    hosts = case.settings.hosts
    if absent := [seen.recipe.name for seen in servers if seen.absent and seen.recipe.name not in hosts]:
        findings.append(ok(SERVERS, "not-running", f"not running: {listed(absent)}"))
    findings += [finding async for finding in look_at_hosts(case, ports)]
    shown = {**await _embedded(factory), **{seen.recipe.name: seen for seen in servers}, **services.apart}
    findings += look_at_models(case, shown)
    if case.live:
        findings += [finding async for finding in _live_embedded(case, factory)]
    for finding in findings:
        yield finding
    has_errors = any(finding.mark is Mark.ERROR for finding in findings)
    yield look_at_session(case, await choosing, shown, has_errors=has_errors)


async def _seen(case: Case, services: Services, ports: dict[int, Listener]) -> list[Seen]:
    """What every provider but the embedded one shows; all are asked at once."""
    elsewhere = Elsewhere(case, services.recipes, ports)
    listed = [recipe for recipe in services.recipes if is_asked(recipe)]
    asked = [recipe for recipe in listed if recipe.name not in services.apart]
    visits = [Visit(case, one, ports, elsewhere).look(is_used=one.name == case.default_provider) for one in asked]
    shown = {seen.recipe.name: seen for seen in await asyncio.gather(*visits)} | services.apart
    return [shown[recipe.name] for recipe in listed]


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
