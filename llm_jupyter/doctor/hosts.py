"""The hosts of the settings: is the program there, is the port free or its own, and how did it end last."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus

from llm_jupyter._supervisor.reasons import TOO_LARGE
from llm_jupyter.doctor.case import LOOK, Case
from llm_jupyter.doctor.findings import Finding, Remedy, error, listed, note, ok, warning
from llm_jupyter.doctor.ports import Listener, free_port
from llm_jupyter.errors import AuthenticationError, HostError, LLMError, ModelLoadingError
from llm_jupyter.foreign import is_foreign
from llm_jupyter.hosts import HostSpec, HostStatus, LLMHostManager, remedy, spec_from_settings
from llm_jupyter.providers._http import HttpClient
from llm_jupyter.selection import EMBEDDED

STEP = "host"


async def look_at_hosts(case: Case, ports: dict[int, Listener]) -> AsyncIterator[Finding]:
    """What stands in the way of starting each of them. Nothing is started."""
    home, tables = case.settings.home, case.settings.hosts
    specs = {
        name: spec_from_settings(name, table, home, environment=case.environment)
        for name, table in tables.items()
        if name != EMBEDDED  # its command is ours; the table sets its limits
    }
    hosts = LLMHostManager(home, specs=specs)
    for name, spec in specs.items():
        status = hosts.one(name)
        yield await _standing(case, spec, ports) or _at_rest(case, spec, status, hosts.log(name, 1))
        if status.state != "failed" and status.reason.startswith(TOO_LARGE):
            yield warning(STEP, "host-memory", f"{name}: it was put down: {status.reason}", _advice(case, spec, status))
    for finding in _shared_ports(case, specs):
        yield finding


async def _standing(case: Case, spec: HostSpec, ports: dict[int, Listener]) -> Finding | None:
    """What its program and its port show; `None` where nothing stands in the way and it does not run."""
    name, program = spec.name, spec.command[0]
    path = {**case.environment, **spec.environment}.get("PATH")
    if shutil.which(program, path=path) is None:
        what = f"{name}: there is no program {program!r}"
        words = f"Install it, or give its whole path as the first word of command in [hosts.{name}]"
        return error(STEP, "program-missing", what, Remedy(words))
    if await asyncio.to_thread(is_foreign, f"http://127.0.0.1:{spec.port}"):
        what = f"{name}: its port {spec.port} is taken by a process of another user"
        return error(STEP, "port-taken", what, case.setting((f"hosts.{name}.port", str(free_port()))))
    return await _at_port(case, spec, ports[spec.port]) if spec.port in ports else None


def _at_rest(case: Case, spec: HostSpec, status: HostStatus, last: list[str]) -> Finding:
    """How a host is at whose port nobody listens, as its supervisor has written that down."""
    name, reason = spec.name, f": {status.reason}" if status.reason else ""
    if status.state == "failed":
        words = f'; it last wrote "{last[0].strip()[-160:]}"' if last else ""
        return error(STEP, "host-failed", f"{name}: was given up{reason}{words}", _advice(case, spec, status))
    if status.state == "stopped":
        return ok(STEP, "host", f"{name}: not running; {spec.command[0]} is there")
    return note(STEP, "host-loading", f"{name}: is {status.state}{reason}")


def _advice(case: Case, spec: HostSpec, status: HostStatus) -> Remedy:
    return case.advice(HostError(status.reason, next_step=remedy(spec, status.reason)))


def _shared_ports(case: Case, specs: Mapping[str, HostSpec]) -> Iterator[Finding]:
    """Hosts that cannot run at one time."""
    for port in dict.fromkeys(spec.port for spec in specs.values()):
        names = [name for name, spec in specs.items() if spec.port == port]
        if len(names) > 1:
            what = f"{listed(names)} have the same port {port}: only one of them can run at a time"
            yield warning(STEP, "port-shared", what, case.setting((f"hosts.{names[-1]}.port", str(free_port()))))


async def _at_port(case: Case, spec: HostSpec, listener: Listener) -> Finding:
    """Whether what listens at a host's port is that host."""
    name = spec.name
    client = HttpClient(f"http://127.0.0.1:{spec.port}", name=name)
    try:
        await client.send("GET", spec.ready or "/", timeout=LOOK)
    except AuthenticationError:
        return ok(STEP, "host", f"{name}: {listener} listens at port {spec.port}, and asks for a key")
    except LLMError as failure:
        if isinstance(failure, ModelLoadingError) or getattr(failure, "status", None) == HTTPStatus.SERVICE_UNAVAILABLE:
            return note(STEP, "host-loading", f"{name}: {listener} listens at port {spec.port}, and is not ready yet")
        what = f"{name}: its port {spec.port} is taken: {listener} does not answer at {spec.ready}"
        return error(STEP, "port-taken", what, case.setting((f"hosts.{name}.port", str(free_port()))))
    finally:
        await client.close()
    return ok(STEP, "host", f"{name}: {listener} answers at port {spec.port}")
