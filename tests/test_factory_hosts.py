"""A model server of the settings that is started by the first question to it, and ends with the last who holds it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from live import place
from routes import free_port
from servers.paced import ModelServer

from llm_jupyter.errors import LLMConnectionError, LLMError, StreamTruncatedError
from llm_jupyter.events import (
    ConnectionStateChanged,
    HostReady,
    HostRestarting,
    HostStarted,
    HostStopped,
    ProviderLost,
)
from llm_jupyter.factory import LLMFactory
from llm_jupyter.overview import views
from llm_jupyter.processes import adopt_others
from llm_jupyter.settings import load_settings
from llm_jupyter.types import ProviderState

HEALTH_INTERVAL = 30.0
"""Seconds between two health checks: so long that nothing in these tests waits for one."""

SERVER = Path(__file__).parent / "servers" / "hosted.py"


def host(port: int | None = None, *, pieces: int = 1, pause: float = 0.0, **fields: Any) -> dict[str, Any]:
    """The table of a host that answers in so many pieces, so many seconds apart."""
    table = {"command": [sys.executable, "-S", str(SERVER), "{port}", str(pieces), str(pause)], **fields}
    return table if port is None else {**table, "port": port}


def made(home: Path, hosts: dict[str, Any], environment: dict[str, str] | None = None, **values: Any) -> LLMFactory:
    connection = {"retries": 0, "health_interval": HEALTH_INTERVAL}
    settings = {"hosts": hosts, "default_model": "mine/m", "connection": connection, **values}
    return LLMFactory(load_settings(settings, {"LLM_JUPYTER_HOME": str(home)}), environment=environment or {})


def factory(home: Path, *, autostart: bool) -> LLMFactory:
    return made(home, {"mine": host(free_port(), autostart=autostart)})


def test_a_question_starts_the_host_it_needs_and_the_last_to_leave_ends_it(tmp_path: Path) -> None:
    with factory(tmp_path, autostart=True) as llm:
        assert llm.events.history(HostStarted) == []
        assert llm.chat("hi").text == "from the host"
        (ready,) = llm.events.history(HostReady)
        assert ready.host == "mine"
        assert ready.pid is not None
        assert psutil.pid_exists(ready.pid)
        assert llm.chat("again").text == "from the host"
        assert len(llm.events.history(HostStarted)) == 1
    assert not psutil.pid_exists(ready.pid)


def test_naming_a_model_starts_the_host_it_needs(tmp_path: Path) -> None:
    with factory(tmp_path, autostart=True) as llm:
        llm.use("mine/m")
        assert [event.host for event in llm.events.history(HostReady)] == ["mine"]
        assert llm.chat("hi").text == "from the host"


def test_a_host_that_is_killed_is_back_for_the_next_question(tmp_path: Path) -> None:
    with factory(tmp_path, autostart=True) as llm:
        llm.chat("hi")
        (ready,) = llm.events.history(HostReady)
        psutil.Process(ready.pid).kill()
        with llm.events.listen(HostRestarting, HostReady) as feed:
            while not any(isinstance(event, HostReady) for event in feed.take()):
                assert feed.wait(10), "it was not started again"
        assert llm.chat("hi").text == "from the host"


def test_a_provider_hears_at_once_of_the_host_that_serves_it(tmp_path: Path) -> None:
    with factory(tmp_path, autostart=False) as llm:

        def becomes(*states: ProviderState) -> None:
            """Wait for the changes of its connection, far less than until its next health check."""
            came: list[ProviderState] = []
            while len(came) < len(states):
                assert feed.wait(HEALTH_INTERVAL / 2), came
                came += [event.new for event in feed.take()]
            assert came == list(states)

        with llm.events.listen(ConnectionStateChanged) as feed:
            llm.portal.run(llm.hosts.start("mine"))
            assert llm.chat("hi").text == "from the host"
            becomes(ProviderState.CONNECTED)
            llm.portal.run(llm.hosts.stop("mine"))
            becomes(ProviderState.FAILED)
            llm.portal.run(llm.hosts.start("mine"))
            becomes(ProviderState.CONNECTED)
            (*_, ready) = llm.events.history(HostReady)
            psutil.Process(ready.pid).kill()
            becomes(ProviderState.FAILED, ProviderState.CONNECTED)
            llm.portal.run(llm.providers.disconnect("mine"))
            becomes(ProviderState.DISCONNECTED)
            llm.portal.run(llm.hosts.stop("mine"))
            llm.portal.run(asyncio.sleep(0))
            assert feed.take() == [], "a person's word counts"


def test_a_host_that_starts_only_when_told_is_not_started_by_a_question(tmp_path: Path) -> None:
    with factory(tmp_path, autostart=False) as llm:
        with pytest.raises(LLMConnectionError):
            llm.chat("hi")
        assert llm.events.history(HostStarted) == []
        llm.portal.run(llm.hosts.start("mine"))
        assert llm.chat("hi").text == "from the host"


def test_what_starts_a_host_again_is_said_once_it_is_stopped(tmp_path: Path) -> None:
    with factory(tmp_path, autostart=False) as llm:
        llm.portal.run(llm.hosts.start("mine"))
        llm.portal.run(llm.hosts.stop("mine"))
        for ask in (lambda: llm.chat("hi"), lambda: llm.use("mine/m")):
            with pytest.raises(LLMConnectionError, match="%llm host start mine starts it") as caught:
                ask()
            assert 1 <= len(caught.value.lines()) <= 2


def test_a_host_is_used_for_as_long_as_its_answer_takes_and_idle_after(tmp_path: Path) -> None:
    slow = host(free_port(), pieces=7, pause=0.4, idle_unload=1)
    with made(tmp_path, {"mine": slow}) as llm:
        llm.portal.run(llm.hosts.start("mine"))
        with llm.events.listen(HostStopped) as feed:
            assert llm.chat("hi").text == "from the host" * 7
            assert feed.take() == []
            assert feed.wait(15), "it was not put down"
            (stopped,) = feed.take()
        assert stopped.reason == "idle for 1 s"


def test_a_host_at_rest_is_no_failure_and_its_question_goes_to_nobody_else(tmp_path: Path) -> None:
    with (
        ModelServer() as other,
        made(
            tmp_path,
            {"mine": host(free_port(), autostart=True)},
            fallback=["other/m"],
            providers={"other": {"kind": "openai-compatible", "base_url": other.base_url}},
        ) as llm,
    ):
        for end in ("it never ran", "stopped"):
            if end == "stopped":
                with llm.events.listen(ConnectionStateChanged) as feed:
                    llm.portal.run(llm.hosts.stop("mine"))
                    assert feed.wait(5)
            shelves = llm.portal.run(llm.offers())  # a look at a server that is not there
            assert llm.providers.status("mine").state is ProviderState.DISCONNECTED
            (view,) = [view for view in views(llm, shelves)[0] if view.recipe.name == "mine"]
            assert (view.state, view.reason) == ("disconnected", "starts at the first question")
            assert llm.chat("hi").text == "from the host"
        assert llm.events.history(ProviderLost) == []
        assert other.chats == []


def test_a_host_without_a_port_has_a_provider_all_the_same(tmp_path: Path) -> None:
    with made(tmp_path, {"mine": host(autostart=True)}) as llm:
        assert llm.chat("hi").text == "from the host"
        assert llm.hosts.one("mine").url == llm.registry.recipe("mine").base_url.removesuffix("/v1")


def test_a_host_and_the_server_at_its_port_are_one_thing(tmp_path: Path) -> None:
    port = free_port()
    local = {"local": {"kind": "openai-compatible", "base_url": f"http://127.0.0.1:{port}/v1"}}
    hosts = {"mine": host(port, autostart=True), "same": host(port, pieces=2)}
    with made(tmp_path, hosts, {"LLAMA_ARG_PORT": str(port)}, providers=local, default_model="local/m") as llm:
        assert llm.chat("hi").text == "from the host", "the provider that speaks at its port starts it"
        shelves = llm.portal.run(llm.offers())
        assert [shelf.recipe.name for shelf in shelves if shelf.models and shelf.recipe.name != "embedded"] == ["local"]
        assert "llama-server" not in [shelf.recipe.name for shelf in shelves]
        llm.portal.run(adopt_others(llm))
        running = [status for status in llm.hosts.status() if status.state == "running"]
        assert [(status.name, status.ours, status.holders) for status in running] == [("mine", True, 1)]


def test_a_host_of_a_servers_name_is_spoken_to_as_that_server_unless_a_provider_says_otherwise(tmp_path: Path) -> None:
    names = ["ollama", "lmstudio", "llama-server", "vllm", "openai"]
    hosts = {name: host(port) for port, name in enumerate(names, 20001)}
    mine = {"lmstudio": {"kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}}
    with made(tmp_path, hosts, {"OPENAI_API_KEY": "k"}, providers=mine) as llm:
        recipes = [llm.registry.recipe(name) for name in names]
    assert [(recipe.kind, recipe.base_url) for recipe in recipes] == [
        ("ollama", "http://127.0.0.1:20001"),
        ("openai-compatible", "http://127.0.0.1:9/v1"),
        ("llamacpp", "http://127.0.0.1:20003/v1"),
        ("openai-compatible", "http://127.0.0.1:20004/v1"),
        ("openai-compatible", "http://127.0.0.1:20005/v1"),
    ]


def test_an_answer_that_is_lost_with_its_host_tells_why_that_ended_and_what_to_change(tmp_path: Path) -> None:
    """Another kernel stops it, and restarts it; it is beyond its memory; it dies."""
    port = free_port()
    table = host(port, pieces=200, pause=0.05, autostart=True)
    own = {**table, "memory_limit": 1, "on_memory": "stop"}

    def lost(llm: LLMFactory, act: Callable[[], object]) -> LLMError:
        def read() -> None:
            for number, _ in enumerate(llm.stream("hi")):
                if number == 0:
                    act()

        with pytest.raises((StreamTruncatedError, LLMConnectionError)) as caught:
            read()
        assert len(caught.value.lines()) <= 2
        return caught.value

    with made(tmp_path, {"mine": table}) as llm, made(tmp_path, {"mine": table}) as other:
        error = lost(llm, lambda: other.portal.run(other.hosts.stop("mine")))
        assert error.what.endswith(": the host mine was put down (stopped on request)")
        assert error.next_step == "Ask again."
        assert llm.hosts.one("mine").reason == other.hosts.one("mine").reason == "stopped on request"
        error = lost(llm, lambda: other.portal.run(other.hosts.restart("mine")))
        assert error.what.endswith("the host mine was put down (restarted on request)")
        error = lost(llm, lambda: psutil.Process(llm.hosts.one("mine").pid).kill())
        assert "the host mine died (killed by SIGKILL" in error.what
        assert error.next_step == "Type: %llm host logs mine"
    with made(tmp_path, {"mine": own}) as llm:
        error = lost(llm, lambda: None)
        assert error.what.endswith("the host mine was put down (it took more memory than it may)")
        assert error.next_step.startswith("memory_limit in [hosts.mine]")
        assert "mine" in error.where


@pytest.mark.live
def test_the_embedded_model_is_put_down_when_idle_and_started_by_the_next_question(
    tmp_path: Path, weights: Path
) -> None:
    place(weights, tmp_path)
    settings = load_settings({"hosts": {"embedded": {"idle_unload": 1}}}, {"LLM_JUPYTER_HOME": str(tmp_path)})
    with LLMFactory(settings, environment={}) as llm:
        assert llm.chat("hi", max_tokens=2).text
        with llm.events.listen(HostStopped) as feed:
            assert feed.wait(15), "it was not put down"
            (stopped,) = feed.take()
        assert stopped.expected
        assert not psutil.pid_exists(stopped.pid)
        assert llm.chat("hi", max_tokens=2).text
        assert [event.pid == stopped.pid for event in llm.events.history(HostReady)] == [True, False]


def test_what_happens_is_written_down_as_json_lines_where_that_is_wanted(tmp_path: Path) -> None:
    settings = load_settings({"event_log": True}, {"LLM_JUPYTER_HOME": str(tmp_path)})
    with LLMFactory(settings, environment={}):
        pass
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["FactoryOpened", "FactoryClosed"]
    assert [line["sequence"] for line in lines] == sorted(line["sequence"] for line in lines)
