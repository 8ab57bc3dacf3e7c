"""Hosts that need no settings, and those of the settings."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from llm_jupyter.hosts.spec import HostSpec, OnMemory

OLLAMA_PORT, LMSTUDIO_PORT, LLAMA_SERVER_PORT = 11434, 1234, 8080

PROGRAMS = {"ollama": "ollama", "lmstudio": "lms", "llama-server": "llama-server"}
"""What is built in, with the program of each."""

OWN_PORTS = range(20000, 30000)
"""Where hosts without a port in the settings listen: below the ports that systems give to whoever asks for any."""


class HostTable(Protocol):
    """One `[hosts.NAME]` table; `model_fields_set` names what it says itself."""

    @property
    def model_fields_set(self) -> AbstractSet[str]: ...
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
    found = {name: shutil.which(program, path=environment.get("PATH")) for name, program in PROGRAMS.items()}
    return {name: _built_in(name, program, environment) for name, program in found.items() if program is not None}


def spec_from_settings(
    name: str,
    table: HostTable,
    home: Path,
    *,
    memory_limit: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> HostSpec:
    """The host of a `[hosts.NAME]` table. `memory_limit` in bytes is the one for all hosts; the table's own goes before it.

    What a table of a built-in name does not say is as it is built in. Any other without a port gets one of its own, the same
    in each kernel with that `home`, so that its models can be asked. A table with a `stop_command` is of a server whose
    command returns. Raises `ConfigurationError`.
    """
    command, said = tuple(table.command), table.model_fields_set
    if name in PROGRAMS:
        usual = _built_in(name, _program(name, command, environment), environment)
    else:
        usual = HostSpec(name, command, port=table.port or _own_port(home, name))
    if "ready" in said:
        usual = replace(usual, ready=table.ready, ready_field=None)
    if "stop_command" in said:
        stop = None if table.stop_command is None else tuple(table.stop_command)
        usual = replace(usual, stop_command=stop, detaches=stop is not None)
    return replace(
        usual,
        command=command,
        environment={**usual.environment, **table.environment},
        port=table.port or usual.port,
        start_timeout=table.start_timeout if "start_timeout" in said else usual.start_timeout,
        memory_limit=table.memory_limit if table.memory_limit is not None else memory_limit,
        on_memory=table.on_memory,
        idle_unload=table.idle_unload,
        key="",  # by what it is now
    )


def _built_in(name: str, program: str, environment: Mapping[str, str]) -> HostSpec:
    """How that program is run where the settings say nothing."""
    if name == "ollama":
        port = _port_of(environment.get("OLLAMA_HOST", ""), OLLAMA_PORT)
        listens = {"OLLAMA_HOST": "127.0.0.1:{port}"}
        return HostSpec(name, (program, "serve"), listens, port, "/api/version", "version")
    if name == "lmstudio":
        return HostSpec(
            name,
            (program, "server", "start", "--port", "{port}"),
            port=LMSTUDIO_PORT,
            ready="/v1/models",
            ready_field="data",
            stop_command=(program, "server", "stop"),
            detaches=True,
        )
    command = (program, "--host", "127.0.0.1", "--port", "{port}")
    return HostSpec(name, command, port=LLAMA_SERVER_PORT, start_timeout=300.0)


def _program(name: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The program of a built-in host where the settings give the command: that of the command, if it is one."""
    program = PROGRAMS[name]
    if command and Path(command[0]).stem == program:
        return command[0]
    return shutil.which(program, path=environment.get("PATH")) or program


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
