"""The hosts of the settings: is the program there, and is its port free or its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from http import HTTPStatus

from llm_jupyter.doctor.case import LOOK, Case
from llm_jupyter.doctor.findings import Finding, Remedy, error, note, ok
from llm_jupyter.doctor.ports import Listener, free_port
from llm_jupyter.errors import AuthenticationError, LLMError, ModelLoadingError
from llm_jupyter.foreign import is_foreign
from llm_jupyter.providers._http import HttpClient
from llm_jupyter.selection import EMBEDDED
from llm_jupyter.settings import HostSettings

STEP = "host"


async def look_at_hosts(case: Case, ports: dict[int, Listener]) -> AsyncIterator[Finding]:
    """What stands in the way of starting each of them. Nothing is started."""
    for name, spec in case.settings.hosts.items():
        if name == EMBEDDED:
            continue  # its command is ours; the table sets its limits
        program = spec.command[0] if spec.command else ""
        path = {**case.environment, **spec.environment}.get("PATH")
        if program and shutil.which(program, path=path) is None:
            what = f"{name}: there is no program {program!r}"
            words = f"Install it, or give its whole path as the first word of command in [hosts.{name}]"
            yield error(STEP, "program-missing", what, Remedy(words))
        elif spec.port is not None and await asyncio.to_thread(is_foreign, f"http://127.0.0.1:{spec.port}"):
            what = f"{name}: its port {spec.port} is taken by a process of another user"
            yield error(STEP, "port-taken", what, case.setting((f"hosts.{name}.port", str(free_port()))))
        elif spec.port is not None and spec.port in ports:
            yield await _at_port(case, name, spec, ports[spec.port])
        else:
            yield ok(STEP, "host", f"{name}: not running; {program} is there")


async def _at_port(case: Case, name: str, spec: HostSettings, listener: Listener) -> Finding:
    """Whether what listens at a host's port is that host."""
    client = HttpClient(f"http://127.0.0.1:{spec.port}", name=name)
    try:
        await client.send("GET", spec.ready, timeout=LOOK)
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
