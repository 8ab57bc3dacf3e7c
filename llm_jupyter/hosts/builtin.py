"""Hosts that need no settings, and those of the settings."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from llm_jupyter.hosts.spec import HostSpec, OnMemory

OLLAMA_PORT, LMSTUDIO_PORT, LLAMA_SERVER_PORT = 11434, 1234, 8080

OWN_PORTS = range(20000, 30000)
"""Where hosts without a port in the settings listen: below the ports that systems give to whoever asks for any."""


class HostTable(Protocol):
    """One `[hosts.NAME]` table."""

    @property
    def command(self) -> Sequence[str]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def port(self) -> int | None: ...
    @property
    def ready(self) -> str: ...
    @property
    def memory_limit(self) -> int | None: ...
    @property
    def on_memory(self) -> OnMemory: ...
    @property
    def idle_unload(self) -> float | None: ...
    @property
    def stop_command(self) -> Sequence[str] | None: ...
    @property
    def start_timeout(self) -> float: ...


def builtin_specs(environment: Mapping[str, str] = os.environ) -> dict[str, HostSpec]:
    """Ollama, LM Studio and llama.cpp's own server, those whose programs are on the path."""
    path = environment.get("PATH")
    specs = []
    if (program := shutil.which("ollama", path=path)) is not None:
        port = _port_of(environment.get("OLLAMA_HOST", ""), OLLAMA_PORT)
        specs.append(
            HostSpec(
                "ollama",
                (program, "serve"),
                {"OLLAMA_HOST": "127.0.0.1:{port}"},
                port,
                "/api/version",
                "version",
            )
        )
    if (program := shutil.which("lms", path=path)) is not None:
        specs.append(
            HostSpec(
                "lmstudio",
                (program, "server", "start", "--port", "{port}"),
                port=LMSTUDIO_PORT,
                ready="/v1/models",
                ready_field="data",
                stop_command=(program, "server", "stop"),
                detaches=True,
            )
        )
    if (program := shutil.which("llama-server", path=path)) is not None:
        specs.append(
            HostSpec(
                "llama-server",
                (program, "--host", "127.0.0.1", "--port", "{port}"),
                port=LLAMA_SERVER_PORT,
                start_timeout=300.0,
            )
        )
    return {spec.name: spec for spec in specs}


def spec_from_settings(name: str, table: HostTable, home: Path, *, memory_limit: int | None = None) -> HostSpec:
    """The host of a `[hosts.NAME]` table. `memory_limit` in bytes is the one for all hosts; the table's own goes before it.

    Without a port it gets one of its own, the same in each kernel with that `home`, so that its models can be asked. A table
    with a `stop_command` is of a server whose command returns. Raises `ConfigurationError`.
    """
    return HostSpec(
        name,
        tuple(table.command),
        dict(table.environment),
        table.port or _own_port(home, name),
        table.ready,
        start_timeout=table.start_timeout,
        memory_limit=table.memory_limit if table.memory_limit is not None else memory_limit,
        on_memory=table.on_memory,
        idle_unload=table.idle_unload,
        stop_command=None if table.stop_command is None else tuple(table.stop_command),
        detaches=table.stop_command is not None,
    )


def _own_port(home: Path, name: str) -> int:
    digest = hashlib.sha256(f"{home.resolve()}\n{name}".encode()).digest()
    return OWN_PORTS[int.from_bytes(digest[:8]) % len(OWN_PORTS)]


def _port_of(address: str, usual: int) -> int:
    """The port of an address as `OLLAMA_HOST` has it, if that is on this machine; the usual one else."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return parts.port or usual
    except ValueError:
        return usual
