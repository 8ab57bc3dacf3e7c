"""A model server of the settings that is started by the first question to it, and ends with the last who holds it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import psutil
import pytest
from live import place

from llm_jupyter.errors import LLMConnectionError
from llm_jupyter.events import ConnectionStateChanged, HostReady, HostRestarting, HostStarted, HostStopped
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings
from llm_jupyter.types import ProviderState

HEALTH_INTERVAL = 30.0
"""Seconds between two health checks: so long that nothing in these tests waits for one."""

SERVER = r"""
import http.server, json, sys
ANSWER = [{"delta": {"content": "from the host"}}, {"delta": {}, "finish_reason": "stop"}]
class Handler(http.server.BaseHTTPRequestHandler):
    def send(self, kind, body):
        self.send_response(200); self.send_header("Content-Type", kind); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        self.send("application/json", json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode())
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        events = [json.dumps({"choices": [dict(choice, index=0)], "model": "m"}) for choice in ANSWER] + ["[DONE]"]
        self.send("text/event-stream", "".join(f"data: {event}\n\n" for event in events).encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def factory(home: Path, *, autostart: bool) -> LLMFactory:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    host = {"command": [sys.executable, "-c", SERVER, "{port}"], "port": port, "autostart": autostart}
    connection = {"retries": 0, "health_interval": HEALTH_INTERVAL}
    values = {"hosts": {"mine": host}, "default_model": "mine/m", "connection": connection}
    return LLMFactory(load_settings(values, {"LLM_JUPYTER_HOME": str(home)}), environment={})


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
