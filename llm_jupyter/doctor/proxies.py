"""Proxy variables: what they catch that they should not, and whether the proxy is there at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # documented, and not in the stubs

from llm_jupyter.doctor.case import LOOK, Case
from llm_jupyter.doctor.findings import Finding, Remedy, error, listed, ok, warning
from llm_jupyter.ports import port_of
from llm_jupyter.providers._http import is_loopback, without_secrets

STEP = "proxy"
NAMES = ("http_proxy", "https_proxy", "all_proxy")
HERE = ("127.0.0.1", "localhost", "::1")


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that are set, as they are written, with their values."""
    return {name: value for name, value in sorted(environment.items()) if name.lower() in NAMES and value}


def passes_by(environment: Mapping[str, str], host: str) -> bool:
    """Whether `NO_PROXY` keeps requests to a host from the proxy."""
    return bool(proxy_bypass_environment(host, {"no": _exceptions(environment)}))


def caught(environment: Mapping[str, str], url: str) -> str | None:
    """The variable whose proxy a request of ours to that URL goes through, if one does."""
    parts = urlsplit(url)
    if is_loopback(url) or passes_by(environment, parts.netloc.rpartition("@")[2]):
        return None
    wanted = (f"{parts.scheme}_proxy",)
    return next((name for name in proxies(environment) if name.lower() in wanted), None)


def without_proxy(case: Case, *hosts: str) -> Remedy:
    """How to keep requests to these hosts, and to this machine, from the proxy."""
    known = [name.strip() for name in _exceptions(case.environment).split(",") if name.strip()]
    names = list(dict.fromkeys([*known, *hosts, *HERE]))
    commands = [case.variable("NO_PROXY", ",".join(names))]
    if "no_proxy" in case.environment:  # the one in small letters goes before
        commands.append(case.variable("no_proxy", ",".join(names)))
    return Remedy(case.before_start, tuple(commands))


async def look_at_proxies(case: Case, *, needed_for: str) -> AsyncIterator[Finding]:
    """What the variables do here. `needed_for` says what has to go through the proxy, empty where nothing has to."""
    found = proxies(case.environment)
    if not found:
        yield ok(STEP, "no-proxy", "no proxy variable is set")
        return
    dead = [name for name, is_dead in zip(found, await _all_dead(case, found, needed_for), strict=True) if is_dead]
    if dead:
        places = listed(sorted({without_secrets(_as_url(found[name])) for name in dead}))
        what = f"{listed(dead)} name{'s' if len(dead) == 1 else ''} {places}, where nothing answers"
        remedy = Remedy(case.before_start, tuple(case.variable(name, None) for name in dead))
        yield (error if needed_for else warning)(
            STEP, "proxy-dead", what + (f": {needed_for} cannot be reached" if needed_for else ""), remedy
        )
    if all(passes_by(case.environment, host) for host in HERE[:2]):
        if not dead:
            yield ok(STEP, "proxy", f"{listed(list(found))} set; NO_PROXY keeps this machine's servers from it")
        return
    what = (
        f"{listed(list(found))} set, and NO_PROXY does not name 127.0.0.1 and localhost: our requests to this machine "
        "go past the proxy all the same, those of other programs may not"
    )
    yield warning(STEP, "proxy-covers-this-machine", what, without_proxy(case))


async def _all_dead(case: Case, found: Mapping[str, str], needed_for: str) -> list[bool]:
    return list(await asyncio.gather(*(_is_dead(case, value, needed_for) for value in found.values())))


async def _is_dead(case: Case, value: str, needed_for: str) -> bool:
    """Whether nobody accepts a connection there. A proxy elsewhere is tried only where something has to go through it."""
    url = _as_url(value)
    try:
        host, port = urlsplit(url).hostname or "", port_of(url)
    except ValueError:
        return True
    return bool(is_loopback(url) or needed_for or case.remote) and not await accepts(host, port)


async def accepts(host: str, port: int, within: float = LOOK / 2) -> bool:
    """Whether somebody accepts a TCP connection there within so many seconds."""
    try:
        async with asyncio.timeout(within):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _exceptions(environment: Mapping[str, str]) -> str:
    return environment.get("no_proxy") or environment.get("NO_PROXY") or ""


def _as_url(value: str) -> str:
    return value if "://" in value else f"http://{value}"
