"""Hosts as data: what is built in, what the settings say, what cannot be meant; servers that detach; ports."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hosts.children import FOLDER, START, ask, hosting, is_dead, names, problem, tell
from live import eventually

from llm_jupyter.errors import ConfigurationError, HostError
from llm_jupyter.events import HostStopped
from llm_jupyter.hosts import HostSpec, builtin_specs, spec_from_settings
from llm_jupyter.settings import HostSettings


def programs(folder: Path, *names: str) -> dict[str, str]:
    """An environment whose path has only these programs."""
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_only_programs_that_are_there_are_built_in(tmp_path: Path) -> None:
    assert builtin_specs({"PATH": str(tmp_path)}) == {}
    specs = builtin_specs(programs(tmp_path, "ollama", "lms", "llama-server"))
    assert list(specs) == ["ollama", "lmstudio", "llama-server"]
    assert [spec.port for spec in specs.values()] == [11434, 1234, 8080]
    assert [spec.detaches for spec in specs.values()] == [False, True, False]
    assert specs["ollama"].command == (str(tmp_path / "ollama"), "serve")
    assert specs["ollama"].environment == {"OLLAMA_HOST": "127.0.0.1:{port}"}


@pytest.mark.parametrize(
    ("address", "port"),
    [("", 11434), ("127.0.0.1:9000", 9000), ("http://localhost:9001", 9001), ("localhost", 11434), (":::", 11434)],
)
def test_ollama_is_started_where_its_own_variable_says(tmp_path: Path, address: str, port: int) -> None:
    environment = {**programs(tmp_path, "ollama"), "OLLAMA_HOST": address}
    assert builtin_specs(environment)["ollama"].port == port


def table_of(*command: str, **fields: Any) -> HostSettings:
    return HostSettings.model_validate({"command": command, **fields})


def test_the_settings_become_a_spec_and_the_limit_for_all_is_below_a_hosts_own() -> None:
    def spec_of(table: HostSettings, name: str = "mine", home: str = "/home") -> HostSpec:
        return spec_from_settings(name, table, Path(home), memory_limit=7)

    spec = spec_of(table_of("serve", "{port}", environment={"A": "b"}, port=81, idle_unload=5.0))
    assert (spec.command, spec.environment, spec.port) == (("serve", "{port}"), {"A": "b"}, 81)
    assert (spec.memory_limit, spec.idle_unload, spec.detaches) == (7, 5.0, False)
    assert spec_of(table_of("x", memory_limit=3)).memory_limit == 3
    assert spec_of(table_of("x", port=1, stop_command=["y"])).detaches
    ports = [
        spec_of(table_of("x"), name, home).port for name, home in (("a", "/a"), ("a", "/a"), ("b", "/a"), ("a", "/b"))
    ]
    assert ports[0] == ports[1]
    assert len(set(ports)) == 3, "each has its own, where it is given none"
    assert all(20000 <= port < 30000 for port in ports)


def test_a_table_of_a_built_in_name_is_as_built_in_in_all_that_it_does_not_say(tmp_path: Path) -> None:
    def spec_of(name: str, *command: str, **fields: Any) -> HostSpec:
        return spec_from_settings(name, table_of(*command, **fields), tmp_path, environment={"PATH": str(tmp_path)})

    mine = spec_of("ollama", "/opt/ollama", "serve", port=5000, environment={"OLLAMA_MODELS": "/m"})
    assert (mine.ready, mine.ready_field, mine.port, mine.start_timeout) == ("/api/version", "version", 5000, 60.0)
    assert mine.environment == {"OLLAMA_HOST": "127.0.0.1:{port}", "OLLAMA_MODELS": "/m"}
    assert mine.key not in ("", spec_of("ollama", "ollama", "serve").key)
    said = spec_of("ollama", "o", ready="/", environment={"OLLAMA_HOST": "0.0.0.0:7"}, start_timeout=1)
    assert (said.ready, said.ready_field, said.port, said.start_timeout) == ("/", None, 11434, 1.0)
    assert said.environment == {"OLLAMA_HOST": "0.0.0.0:7"}
    studio = spec_of("lmstudio", "/opt/lms", "server", "start")
    assert (studio.ready, studio.stop_command, studio.detaches) == ("/v1/models", ("/opt/lms", "server", "stop"), True)
    assert spec_of("lmstudio", "sh", "-c", "lms").stop_command == ("lms", "server", "stop")
    assert spec_of("llama-server", "llama-server").start_timeout == 300.0


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ()},
        {"detaches": True, "stop_command": ("x",)},
        {"detaches": True, "port": 1},
        {"stoppable_by": "never"},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_it_is_started(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"\[hosts\.mine\]"):
        HostSpec(**{"name": "mine", "command": ("x",), **fields})


def test_hosts_are_the_same_if_they_are_run_in_the_same_way_and_secrets_are_no_part_of_that() -> None:
    def key(**fields: Any) -> str:
        return HostSpec(**{"name": "a/ü", "command": ("x",), **fields}).key

    assert key() == key()
    assert len({key(), key(command=("y",)), key(port=1), key(environment={"A": "1"}), key(ready="/")}) == 5
    assert key(environment={"A": "1"}) == key(environment={"A": "2"})
    assert key().startswith("a__-")


async def test_a_taken_port_is_told_with_its_holder_and_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with hosting(tmp_path, problem=problem(port=port)) as (hosts, events):
            with pytest.raises(HostError, match=rf"port {port} is taken by process {os.getpid()} \(") as caught:
                await hosts.start("problem")
            assert caught.value.next_step == "Stop that one, or set another port for [hosts.problem]."
            assert events == []


async def test_a_port_that_another_host_of_ours_has_is_told_too(tmp_path: Path) -> None:
    port = free_port()
    one, two = problem("one", port=port), problem("two", "slow", "0", port=port, ready="/nothing")
    async with hosting(tmp_path, one=one, two=two) as (hosts, _):
        running = await hosts.ensure(one)
        with pytest.raises(HostError, match=rf"port {port} is taken by the host one") as caught:
            await hosts.start("two")
        assert "%llm host stop one" in caught.value.next_step
        await hosts.stop("two")
        assert hosts.running(one) == running


# -- servers whose command returns

LAUNCH = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", *sys.argv[2:]], start_new_session=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
open(sys.argv[1], "w").write(str(child.pid))
"""
HALT = "import os, signal, sys; os.kill(int(open(sys.argv[1]).read()), signal.SIGKILL)"


def detaching(tmp_path: Path, port: int, **fields: Any) -> HostSpec:
    """A server as LM Studio's: one command starts it and returns, another one stops it."""
    file = str(tmp_path / "pid")
    start = (sys.executable, "-S", "-c", LAUNCH, file, str(FOLDER / "problem_host.py"), "{port}")
    stop = (sys.executable, "-S", "-c", HALT, file)
    defaults = {"stop_command": stop, "start_timeout": START, "restart_delay": 0.02}
    return HostSpec("studio", start, port=port, detaches=True, **{**defaults, **fields})


def detached_pid(tmp_path: Path) -> int:
    return int((tmp_path / "pid").read_text())


async def test_a_server_that_detaches_is_stopped_by_its_own_command_when_the_last_holder_leaves(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (hosts, events):
        running = await hosts.ensure(detaching(tmp_path, free_port()))
        pid = detached_pid(tmp_path)
        assert ask(running.url, "health")
    assert is_dead(pid)
    assert names(events) == ["Started", "Ready", "Stopped"]


async def test_a_server_that_detaches_and_dies_is_noticed_and_started_again(tmp_path: Path) -> None:
    spec = detaching(tmp_path, free_port())
    async with hosting(tmp_path) as (hosts, events):
        await hosts.ensure(spec)
        first = detached_pid(tmp_path)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: names(events).count("Ready") == 2, within=20)
        stopped = next(event for event in events if isinstance(event, HostStopped))
        assert (stopped.expected, stopped.reason) == (False, "it answers no more")
        assert detached_pid(tmp_path) != first


async def test_a_server_that_detaches_and_was_there_before_is_adopted_and_its_stop_command_not_run(
    tmp_path: Path,
) -> None:
    port = free_port()
    spec = detaching(tmp_path, port)
    async with hosting(tmp_path / "a", studio=spec) as (others, _):
        await others.start("studio")
        async with hosting(tmp_path / "b", studio=spec) as (hosts, _):
            assert (await hosts.start("studio")).adopted
            with pytest.raises(HostError, match="was not started by llm_jupyter"):
                await hosts.stop("studio")
        assert not is_dead(detached_pid(tmp_path))
        assert ask(f"http://127.0.0.1:{port}", "health")


async def test_a_server_that_nobody_may_stop_lives_on(tmp_path: Path) -> None:
    port = free_port()
    spec = detaching(tmp_path, port, stoppable_by="never", stop_command=None)
    try:
        async with hosting(tmp_path, studio=spec) as (hosts, _):
            await hosts.start("studio")
            with pytest.raises(HostError, match="stopped by nobody"):
                await hosts.stop("studio")
        assert ask(f"http://127.0.0.1:{port}", "health")
    finally:
        tell(f"http://127.0.0.1:{port}", "exit/0")
